"""The paper's experiments at the scale of CI, and how their outcome is judged and written."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from tabor.backdoor import Backdoor
from tabor.cli import main
from tabor.experiments import EXPERIMENTS, Report, workshop, write
from tabor.experiments.figure9 import TABLE_2, _with_lambdas, all_weights, evenly
from tabor.experiments.outcome import Outcome
from tabor.experiments.report import Shown
from tabor.fidelity import Correctness
from tabor.result import Verdict

from .made_up import Shop, result, trigger

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


def test_an_undecided_scan_has_not_told_that_a_clean_model_is_clean() -> None:
    undecided = replace(result(), verdict=Verdict.UNDECIDED)
    assert (Outcome([], result()).right, Outcome([], result()).symbol) == (True, Correctness.SUCCESS)
    assert (Outcome([], undecided).right, Outcome([], undecided).symbol) == (False, Correctness.FAILURE)


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


def test_table_2_has_64_combinations_and_is_searched_with_in_our_units() -> None:
    assert 2 ** len(TABLE_2) == 64
    first, last = (_with_lambdas([values[k] for values in TABLE_2]).lambdas for k in (0, 1))
    assert dataclasses.astuple(first) == pytest.approx((1e-3, 2.55e-2, 1e-5, 6.5025e-2, 1e-4, 1e-2))
    assert dataclasses.astuple(last) == pytest.approx((1e-5, 2.55e-4, 1e-7, 6.5025e-4, 1e-6, 1e-4))


@pytest.mark.parametrize(("most", "chosen"), [(64, [0, 1, 2, 3, 4]), (5, [0, 1, 2, 3, 4]), (3, [0, 2, 4]), (2, [0, 3])])
def test_evenly(most: int, chosen: list[int]) -> None:
    assert evenly(range(5), most) == chosen


@pytest.mark.parametrize(("name", "scale"), [("figure0", "ci"), ("figure7", "huge")])
def test_unknown_names(name: str, scale: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", name, "--scale", scale]) == 2
    assert "unknown" in capsys.readouterr().err


def test_where_nothing_can_be_written_is_told_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").touch()
    work = tmp_path / "work"
    assert main(["reproduce", "figure7", "--work", str(work), "--out", str(tmp_path / "out")]) == 2
    assert "cannot write" in capsys.readouterr().err
    assert not work.exists()


def test_the_help_names_every_experiment(capsys: pytest.CaptureFixture[str]) -> None:
    main(["reproduce", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert all(name in told for name in EXPERIMENTS)


@pytest.mark.slow
@pytest.mark.timeout(1200)  # on a slow or busy machine each takes more than the usual limit
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


def test_each_scan_under_other_weights_takes_the_patches_over_from_the_one_before() -> None:
    shop = Shop()
    told = all_weights(shop)  # type: ignore[arg-type]
    first, second, *theirs = shop.scans
    assert first == ("tabor-0-of-2", None)
    assert second == ("tabor-1-of-2", "tabor-0-of-2")
    assert [like for _, like in theirs] == [None] * 2
    assert told.wrong == []
    assert all(len(row) == len(told.columns) for row in told.rows)
    assert "s" not in told.columns, "the seconds of scans that took patches over tell nothing"


def test_weights_under_which_nothing_is_found_are_counted() -> None:
    shop = Shop("gtsrb/square-6-bottom-right-7")
    assert all_weights(shop).wrong == ["0 of TABOR's 2 verdicts are right"]  # type: ignore[arg-type]
