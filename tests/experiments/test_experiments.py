"""The paper's experiments at the scale of CI, and how their outcome is judged and written."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import cast

import pytest
import torch
from PIL import Image

from tabor.attacks.badnet import Backdoor
from tabor.cli import main
from tabor.errors import SettingError
from tabor.experiments import EXPERIMENTS, SCALES, Report, Setting, Workshop, workshop, write
from tabor.experiments.figure9 import TABLE_2
from tabor.experiments.outcome import Outcome
from tabor.experiments.report import Shown
from tabor.experiments.table1a import PRINTED, sizes_shapes_places
from tabor.experiments.workshop import Plant
from tabor.fidelity import Correctness
from tabor.models.build import Architecture, build
from tabor.result import ClassFinding, ClassStatus, ScanResult, Verdict
from tabor.trigger import Trigger
from tabor.zoo.plans import VictimPlan, plan_zoo


def trigger(columns: int) -> Trigger:
    """White in the first columns of 4×4 pixels."""
    mask = torch.zeros(1, 4, 4)
    mask[..., :columns] = 1
    return Trigger(mask, torch.ones(1, 4, 4))


def result(*targets: int) -> ScanResult:
    """Of a scan that restored two columns for each of three classes."""
    classes = tuple(
        ClassFinding(
            index=k,
            name=str(k),
            status=ClassStatus.CONVERGED,
            score=0.0,
            anomaly_index=float(k),
            flagged=k in targets,
            sparsity=0.5,
            smoothness=0.1,
            steps=5,
            mask_l1=8.0,
            attack_success=1.0,
            crop_accuracy=1.0,
            explanation_accuracy=1.0,
        )
        for k in range(3)
    )
    return ScanResult(
        verdict=Verdict.BACKDOORED if targets else Verdict.CLEAN,
        reason="made up",
        score=0.5,
        p_value=None,
        calibration="none",
        targets=targets,
        threshold=2.0,
        patch_threshold=None,
        method="tabor",
        preset="fast",
        settings={},
        seed=0,
        device="cpu",
        model={"source": "memory", "sha256": None, "architecture": "x", "num_classes": 3},
        data={"source": "memory", "images": 1, "classes_present": 3},
        clean_accuracy=1.0,
        timing={"seconds": 2.4, "image_passes": 1, "images_per_second": 1.0, "peak_memory_bytes": 1},
        warnings=(),
        classes=classes,
        triggers={k: trigger(2) for k in range(3)},
        patches={},
        tabor_version="0",
    )


PLANTED = [Backdoor(trigger(1), 0, "narrow"), Backdoor(trigger(2), 2, "wide")]


@pytest.mark.parametrize(
    ("targets", "works", "right", "symbol"),
    [
        pytest.param((0, 2), (), True, Correctness.SUCCESS, id="both"),
        pytest.param((2,), (), False, Correctness.SUCCESS, id="one"),
        pytest.param((0, 1, 2), (), False, Correctness.SUCCESS_WITH_ERRORS, id="one too many"),
        pytest.param((), (), False, Correctness.FAILURE, id="none"),
        pytest.param((2,), (False, True), True, Correctness.SUCCESS, id="the other was unlearned"),
        pytest.param((0, 2), (False, True), False, Correctness.SUCCESS_WITH_ERRORS, id="an unlearned one reported"),
        pytest.param((), (False, False), True, Correctness.SUCCESS, id="both were unlearned"),
    ],
)
def test_an_outcome_is_right_where_all_that_works_is_reported_and_no_more(
    targets: tuple[int, ...], works: tuple[bool, ...], right: bool, symbol: Correctness
) -> None:
    outcome = Outcome(PLANTED, result(*targets), works)
    assert (outcome.right, outcome.symbol) == (right, symbol)
    assert outcome.figures()["reported"] == list(targets)


def test_what_was_restored_is_held_against_each_trigger() -> None:
    """Two columns against one: precision a half, recall 1.  Against two: exact."""
    outcome = Outcome(PLANTED, result(0, 2))
    assert [p["f1"] for p in outcome.figures()["planted"]] == pytest.approx([2 / 3, 1.0])
    assert outcome.cells() == ["0, 2", "●", "0: 0.67, 2: 1.00", "2"]


def report(*wrong: str) -> Report:
    return Report(
        title="Figure 0: nothing",
        paper="it does.",
        columns=["a", "b"],
        rows=[["1", "2"]],
        figures=[{"a": 1}],
        pictures=[[Shown("one", trigger(1)), Shown("two", trigger(2))], [Shown("three", trigger(3))]],
        wrong=wrong,
        stand_ins=["toys stand in", "dolls too", "toys stand in"],
    )


def test_a_report_is_written(tmp_path: Path) -> None:
    paths = write(report("it fell over"), "figure0", "tabor reproduce figure0", "cpu", tmp_path)
    values, page = json.loads(paths[0].read_text()), paths[1].read_text()
    assert (values["rows"], values["wrong"]) == ([{"a": 1}], ["it fell over"])
    assert {"command", "machine", "date", "torch"} <= set(values)
    assert "| a | b |\n| --- | --- |\n| 1 | 2 |" in page
    assert "Toys stand in; dolls too. The paper: it does." in page
    assert "**Not as it must be**: it fell over." in page
    assert "tabor reproduce figure0" in page
    width, height = Image.open(paths[2]).size
    assert width > 300
    assert height > 300


def test_a_page_says_that_all_came_out(tmp_path: Path) -> None:
    page = write(report(), "figure0", "", "cpu", tmp_path)[1].read_text()
    assert "Everything came out as it must." in page


def test_table_2_has_64_combinations_in_our_units() -> None:
    assert 2 ** len(TABLE_2) == 64
    assert TABLE_2[1] == pytest.approx((2.55e-2, 2.55e-4))
    assert TABLE_2[3] == pytest.approx((6.5025e-2, 6.5025e-4))
    assert 64 % SCALES["ci"].combinations == 0


class Table1aWorkshop:
    """Knows the outcome of every scan; models are named by what was planted, and nothing is trained."""

    setting = SCALES["ci"].gtsrb
    logo = "logo"

    def __init__(self, missed: Sequence[str] = ()) -> None:
        self.missed = missed
        self.victims: list[str] = []

    def base(self, arch: str) -> Path:
        assert arch == self.setting.arch
        return Path("clean")

    def victim(self, plants: Sequence[Plant]) -> Path:
        self.victims += [plant.name for plant in plants]
        return Path(plants[0].name)

    def planted(self, model: Path) -> list[Backdoor]:
        return [] if model.name == "clean" else [Backdoor(trigger(2), 2, model.name)]

    def scan(self, model: Path, method: str) -> ScanResult:
        found = model.name != "clean" and model.name not in self.missed and method == "tabor"
        return result(2) if found else result()


def test_table_1a_scans_each_place_and_the_base() -> None:
    shop = Table1aWorkshop()
    report = sizes_shapes_places(cast(Workshop, shop))
    assert report.wrong == []
    names = {"square-6-top-left-7", "square-6-bottom-right-7", "logo-6-top-right-7", "logo-6-bottom-left-7"}
    assert set(shop.victims) == names
    assert [row[0] for row in report.rows] == [
        "clean",
        "square 6×6 top-left",
        "square 6×6 bottom-right",
        "logo 6×6 top-right",
        "logo 6×6 bottom-left",
    ]
    assert all(len(row) == len(report.columns) for row in report.rows)
    assert list(report.rows[1]) == [
        *("square 6×6 top-left", "2", "●", "2: 1.00", "2", "–", "○", "2: 1.00", "2", "● 0.597", "● 0.518")
    ]
    # As in Appendix Table 5: for each place a row of true triggers and one for each method.
    assert len(report.pictures) == 3 * 4
    assert all(len(row) == 1 for row in report.pictures)


def test_table_1a_says_what_was_missed() -> None:
    shop = Table1aWorkshop(missed=["square-6-top-left-7"])
    assert sizes_shapes_places(cast(Workshop, shop)).wrong == ["square 6×6 top-left: TABOR reports []"]


def test_what_is_printed_covers_the_zoo() -> None:
    """Every victim of the zoo has its row, and the means over the printed ones are the paper's."""
    plans = [plan for plan in plan_zoo("gtsrb-table1a", 0) if isinstance(plan, VictimPlan)]
    assert {(p.picture, p.position, p.size) for p in plans} == {
        (*place, size) for place, printed in PRINTED.items() for size in printed
    }
    rows = [row for printed in PRINTED.values() for row in printed.values() if row.tabor != "–"]
    assert len(rows) == 19
    assert mean(float(row.tabor.split()[1]) for row in rows) == pytest.approx(0.635, abs=5e-4)
    assert mean(float(row.neural_cleanse.split()[1]) for row in rows) == pytest.approx(0.435, abs=5e-4)
    assert sum(not row.neural_cleanse.startswith("○") for row in rows) == 6


def test_a_missing_data_set_is_named(tmp_path: Path) -> None:
    cpu = SCALES["cpu"]
    shop = Workshop(scale=cpu, setting=cpu.gtsrb, work=tmp_path)
    with pytest.raises(SettingError, match="the scale cpu needs the data set gtsrb: give the folder that holds it"):
        _ = shop.train
    (tmp_path / "gtsrb").mkdir()
    shop = dataclasses.replace(shop, data=tmp_path)
    assert shop.source == str(tmp_path / "gtsrb")
    with pytest.raises(SettingError, match=f"the data set lfw: .* with --data; there is no {tmp_path}/lfw"):
        shop.at(cpu.faces)


def test_each_setting_has_files_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All settings of CI have one network and one seed."""
    monkeypatch.setattr(workshop, "train_classifier", lambda *_, **__: None)
    ci = SCALES["ci"]
    shop = Workshop(scale=ci, setting=ci.gtsrb, work=tmp_path)
    paths = [shop.at(setting).base(setting.arch) for setting in ci.settings]
    folders = [tmp_path / "ci", tmp_path / "ci" / "imagenet", tmp_path / "ci" / "faces"]
    assert paths == [folder / "digits4-0.safetensors" for folder in folders]


@pytest.mark.parametrize(
    "setting",
    [pytest.param(s, id=f"{name}-{s.name}") for name, scale in SCALES.items() for s in scale.settings],
)
def test_the_networks_of_a_setting_exist_and_its_triggers_fit(setting: Setting) -> None:
    edge = setting.edge or 32
    channels = 1 if setting.data == "digits" else 3
    for name in {setting.arch, setting.deep}:
        with torch.device("meta"):
            network = build(Architecture(name=name, num_classes=10, channels=channels, size=(edge, edge)))
            assert network.eval()(torch.zeros(2, channels, edge, edge)).shape == (2, 10)
    assert min([setting.size, *setting.sizes.values()]) >= 1
    assert max([setting.size, *setting.sizes.values()]) < edge / 2
    assert not setting.infection.mirror
    assert not setting.infection.augment  # the trigger must stay where it is


@pytest.mark.parametrize(("name", "scale"), [("figure0", "ci"), ("figure7", "huge")])
def test_unknown_names(name: str, scale: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", name, "--scale", scale]) == 2
    assert "unknown" in capsys.readouterr().err


def test_the_help_names_every_experiment(capsys: pytest.CaptureFixture[str]) -> None:
    main(["reproduce", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert all(name in told for name in EXPERIMENTS)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["figure7", "figure8"])
def test_at_the_scale_of_ci(
    name: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = ["reproduce", name, "--work", str(tmp_path / "work"), "--out", str(tmp_path / "results")]
    assert main(command) == 0, capsys.readouterr().err
    first = (tmp_path / "results" / f"{name}.json").read_text()
    for function in ("train_classifier", "infect_classifier", "scan", "patch"):
        monkeypatch.delattr(workshop, function)  # all is there already
    assert main(command) == 0
    assert (tmp_path / "results" / f"{name}.json").read_text() == first
