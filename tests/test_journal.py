"""An interrupted scan goes on where it stopped, and comes to the same result as one in one go."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import tabor
from tabor.access import Classifier
from tabor.class_finding import ClassStatus
from tabor.data import ImageSet
from tabor.errors import SettingError, TaborError
from tabor.evidence import Evidence
from tabor.examining import FIRST_LOOK_SHARE, SEARCH_SHARE, _looked_at
from tabor.journal import JOURNAL_FILE, PARTIAL_FOLDER, Journal, fingerprint
from tabor.methods.tabor import Lambdas, Tabor
from tabor.models import load_model
from tabor.models.build import Architecture, initialise
from tabor.models.pixels import prepared
from tabor.models.safetensors_file import write_model
from tabor.patches import RestoreSettings
from tabor.result import ScanResult
from tabor.solver import Candidate, Progress, SolverSettings
from tabor.suspects import CLOSER_SHARE, SURVEY_SHARE
from tabor.trigger import Trigger
from tabor.windows import Window

from .scanned import comparable

FINGERPRINT = {"model": "abc", "seed": 0, "settings": {"steps": 3}}


def candidate(target: int) -> Candidate:
    generator = torch.Generator().manual_seed(target)
    trigger = Trigger(torch.rand(1, 3, 4, generator=generator), torch.rand(2, 3, 4, generator=generator))
    return Candidate(target, ClassStatus.CONVERGED, trigger, steps=10 + target)


def same(one: Candidate, other: Candidate) -> bool:
    plain = (one.target, one.status, one.steps) == (other.target, other.status, other.steps)
    masks, patterns = (one.trigger.mask, other.trigger.mask), (one.trigger.pattern, other.trigger.pattern)
    return plain and torch.equal(*masks) and torch.equal(*patterns)


@pytest.fixture
def two_done(tmp_path: Path) -> Path:
    """A run that was interrupted after classes 4 and 7."""
    journal = Journal(tmp_path, FINGERPRINT)
    assert journal.finished == {}
    for target in (4, 7):
        journal.add(candidate(target))
    return tmp_path


def test_what_was_added_is_read_again(two_done: Path) -> None:
    finished = Journal(two_done, FINGERPRINT).finished
    assert list(finished) == [4, 7]
    assert all(same(finished[target], candidate(target)) for target in (4, 7))


def test_one_line_for_each_finished_class(two_done: Path) -> None:
    lines = [json.loads(line) for line in (two_done / JOURNAL_FILE).read_text().splitlines()]
    assert lines == [
        {"scan": FINGERPRINT},
        {"class": 4, "status": "converged", "steps": 14},
        {"class": 7, "status": "converged", "steps": 17},
    ]


@pytest.mark.parametrize(
    "changes",
    [{"seed": 1}, {"model": "other"}, {"settings": {"steps": 4}}, {"images": "new"}],
    ids=["seed", "model", "settings", "one more field"],
)
def test_another_scan_begins_anew(changes: dict[str, Any], two_done: Path) -> None:
    assert Journal(two_done, FINGERPRINT | changes).finished == {}
    assert not (two_done / PARTIAL_FOLDER).exists()
    assert Journal(two_done, FINGERPRINT).finished == {}, "the first scan's classes must not come back"


def cut_line(folder: Path) -> None:
    path = folder / JOURNAL_FILE
    path.write_bytes(path.read_bytes()[:-12])


def add_line(line: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        cut_line(folder)
        lines = (folder / JOURNAL_FILE).read_text().splitlines()
        (folder / JOURNAL_FILE).write_text("\n".join([*lines[:-1], line]) + "\n")

    return damage


def lose_trigger(folder: Path) -> None:
    (folder / PARTIAL_FOLDER / "class-7.safetensors").unlink()


def cut_trigger(folder: Path) -> None:
    path = folder / PARTIAL_FOLDER / "class-7.safetensors"
    path.write_bytes(path.read_bytes()[:-5])


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(cut_line, id="last line cut off"),
        pytest.param(lose_trigger, id="trigger gone"),
        pytest.param(cut_trigger, id="trigger cut off"),
        pytest.param(add_line("7"), id="a number"),
        pytest.param(add_line("[]"), id="a list"),
        pytest.param(add_line('{"class": 7}'), id="half the fields"),
        pytest.param(add_line('{"class": 7, "status": "fine", "steps": 3}'), id="unknown status"),
        pytest.param(add_line('{"class": 1e999, "status": "converged", "steps": 3}'), id="an endless class"),
        pytest.param(add_line("[" * 100_000), id="brackets"),
        pytest.param(add_line('{"class": null, "status": "converged", "steps": 3}'), id="no class"),
    ],
)
def test_damage_costs_that_class_only(damage: Callable[[Path], None], two_done: Path) -> None:
    damage(two_done)
    journal = Journal(two_done, FINGERPRINT)
    assert list(journal.finished) == [4]
    assert same(journal.finished[4], candidate(4))


@pytest.mark.parametrize("damage", [cut_line, lose_trigger])
def test_a_class_searched_again_is_kept_by_the_next_interruption(
    damage: Callable[[Path], None], two_done: Path
) -> None:
    damage(two_done)
    journal = Journal(two_done, FINGERPRINT)
    journal.add(candidate(7))
    assert sorted(Journal(two_done, FINGERPRINT).finished) == [4, 7]


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"not json\n", b"\n\n"], ids=["empty", "binary", "text", "lines"]
)
def test_a_ruined_journal_begins_anew(content: bytes, two_done: Path) -> None:
    (two_done / JOURNAL_FILE).write_bytes(content)
    assert Journal(two_done, FINGERPRINT).finished == {}
    assert not (two_done / PARTIAL_FOLDER).exists()


@pytest.mark.parametrize(("answer", "goes_on"), [(2.001, True), (2.1, False), (None, False)])
def test_answers_that_differ_in_their_last_digits_are_one_models(
    answer: float | None, goes_on: bool, tmp_path: Path
) -> None:
    first, again = (FINGERPRINT | {"model": {"answers": [[2.0, value], [-9.0, 0.0]]}} for value in (2.0, answer))
    Journal(tmp_path, first).add(candidate(3))
    assert list(Journal(tmp_path, again).finished) == ([3] if goes_on else [])
    assert list(Journal(tmp_path, first if goes_on else again).finished) == ([3] if goes_on else [])


def test_closing_leaves_the_journal_alone(two_done: Path) -> None:
    Journal(two_done, FINGERPRINT).close()
    assert [path.name for path in two_done.iterdir()] == [JOURNAL_FILE]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TaborError, match="cannot write"):
        Journal(tmp_path / "file", FINGERPRINT)
    journal = Journal(tmp_path / "run", FINGERPRINT)
    (tmp_path / "run" / JOURNAL_FILE).unlink()
    (tmp_path / "run" / JOURNAL_FILE).mkdir()
    with pytest.raises(TaborError, match=r"cannot write .*journal.jsonl"):
        journal.add(candidate(1))


# Whole scans, of nine classes in groups of two.


class Interrupted(Exception):  # noqa: N818 (it is none of the code's errors)
    """Somebody pressed a key."""


def after(classes: int) -> Callable[[Progress], None]:
    def stop(progress: Progress) -> None:
        if progress.finished >= classes:
            raise Interrupted

    return stop


@pytest.fixture
def in_pairs(quick: SolverSettings) -> SolverSettings:
    return dataclasses.replace(quick, steps=12, smallest_steps=12, group_images=2 * quick.batch_size)


@pytest.fixture
def run(
    cell_model: Callable[..., nn.Module], cell_images: Callable[..., ImageSet], in_pairs: SolverSettings
) -> Callable[..., ScanResult]:
    def scan(**options: Any) -> ScanResult:
        model = options.pop("model", None) or cell_model(backdoor=2)
        images = options.pop("images", None) or cell_images(per_class=4)
        smallest_only = Tabor(restoring=None)  # whose passes are easily counted
        fixed = {"solver": in_pairs, "device": "cpu", "precision": "exact", "method": smallest_only}
        return tabor.scan(model, images, **{**fixed, **options})

    return scan


def alike(one: ScanResult, other: ScanResult) -> bool:
    """Whether two results agree up to the rounding that other neighbours in a batch bring."""
    numbers = [[f.mask_l1 for f in result.classes] for result in (one, other)]
    states = [[(f.index, f.status, f.flagged) for f in result.classes] for result in (one, other)]
    return one.verdict is other.verdict and states[0] == states[1] and numbers[0] == pytest.approx(numbers[1], rel=1e-3)


def same_triggers(one: ScanResult, other: ScanResult) -> bool:
    return one.triggers.keys() == other.triggers.keys() and all(
        torch.equal(one.triggers[k].mask, other.triggers[k].mask)
        and torch.equal(one.triggers[k].pattern, other.triggers[k].pattern)
        for k in one.triggers
    )


def passes(result: ScanResult) -> int:
    return int(result.timing["image_passes"])


def searched(run: Callable[..., ScanResult], classes: list[int]) -> int:
    """Image passes of searching these classes alone: without the clean accuracy and the confirmation."""
    images, confirming, others = 36, 18, 16
    telling = 16 + 2  # what the outputs are, and that there are gradients
    return passes(run(classes=classes)) - images - telling - len(classes) * (others + confirming + 1)


def test_a_scan_goes_on_after_an_interruption(
    run: Callable[..., ScanResult], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, folder = run(out=tmp_path / "whole"), tmp_path / "run"
    with pytest.raises(Interrupted):
        run(out=folder, on_progress=after(4))
    assert sorted(path.name for path in folder.iterdir()) == [JOURNAL_FILE, PARTIAL_FOLDER]
    assert len(list((folder / PARTIAL_FOLDER).iterdir())) == 4
    assert caplog.messages == []
    resumed = run(out=folder)
    going_on = f"{folder}: going on with the scan that was interrupted there, which has searched 4 classes"
    assert caplog.messages == [going_on]
    assert comparable(resumed) == comparable(whole)
    assert same_triggers(resumed, whole)
    assert passes(whole) - passes(resumed) == searched(run, [0, 1, 2, 3]) > 0
    assert not (folder / PARTIAL_FOLDER).exists()
    assert comparable(ScanResult.load(folder)) == comparable(whole)
    lines = [json.loads(line) for line in (folder / JOURNAL_FILE).read_text().splitlines()]
    assert [line["class"] for line in lines[1:]] == list(range(9))


def test_two_interruptions_with_a_line_cut_off_between(run: Callable[..., ScanResult], tmp_path: Path) -> None:
    whole, folder = run(out=tmp_path / "whole"), tmp_path / "run"
    with pytest.raises(Interrupted):
        run(out=folder, on_progress=after(4))
    cut_line(folder)
    with pytest.raises(Interrupted):
        run(out=folder, on_progress=after(2))  # of those that were left
    resumed = run(out=folder)
    assert alike(resumed, whole)
    # The first run left 0, 1 and 2, the second searched 3 and 4 again.
    assert passes(whole) - passes(resumed) == searched(run, [0, 1, 2, 3, 4])


def test_a_lost_trigger_costs_its_class_only(run: Callable[..., ScanResult], tmp_path: Path) -> None:
    whole, folder = run(out=tmp_path / "whole"), tmp_path / "run"
    with pytest.raises(Interrupted):
        run(out=folder, on_progress=after(4))
    (folder / PARTIAL_FOLDER / "class-1.safetensors").unlink()
    resumed = run(out=folder)
    assert alike(resumed, whole)
    assert passes(whole) - passes(resumed) == searched(run, [0, 2, 3])


def test_a_trigger_of_other_images_is_none(run: Callable[..., ScanResult], tmp_path: Path) -> None:
    whole, folder = run(out=tmp_path / "whole"), tmp_path / "run"
    with pytest.raises(Interrupted):
        run(out=folder, on_progress=after(4))
    candidate(1).trigger.save(folder / PARTIAL_FOLDER / "class-1.safetensors")
    resumed = run(out=folder)
    assert alike(resumed, whole)
    assert passes(whole) - passes(resumed) == searched(run, [0, 2, 3])


@pytest.mark.parametrize("colours", [0.5, [0.5, 0.5]], ids=["one channel", "two channels"])
@pytest.mark.parametrize("window", [(0, 0, 2, 2), (0, 0, 10**9, 10**9), (3, 0, 2, 2), (-1, 0, 2, 2)])
def test_a_patch_of_other_images_is_none(window: tuple[int, ...], colours: Any, two_done: Path) -> None:
    measured = {"window": window, "colours": [[[c]] for c in ([colours] if isinstance(colours, float) else colours)]}
    add_line(patch_line(**measured))(two_done)
    found = _looked_at(Journal(two_done, FINGERPRINT), torch.device("cpu"), (1, 20, 20))
    assert (0 in found) == (window == (0, 0, 2, 2) and colours == 0.5)


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / PARTIAL_FOLDER).symlink_to(tmp_path)
    with pytest.raises(TaborError, match="is a link"):
        Journal(tmp_path / "run", FINGERPRINT)


def test_less_free_memory_is_no_other_scan(run: Callable[..., ScanResult], tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(out=tmp_path, on_progress=after(4))
    first = (tmp_path / JOURNAL_FILE).read_text().splitlines()
    with pytest.raises(Interrupted):
        run(out=tmp_path, memory=1e-6, on_progress=after(1))  # an image at a time
    assert (tmp_path / JOURNAL_FILE).read_text().splitlines()[: len(first)] == first


def test_what_another_scan_found_is_gone_before_this_one_ends(
    run: Callable[..., ScanResult], cell_model: Callable[..., nn.Module], tmp_path: Path
) -> None:
    run(out=tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "figures").mkdir()
    with pytest.raises(Interrupted):
        run(model=cell_model(backdoor=3), out=tmp_path, on_progress=after(2))
    with pytest.raises(TaborError, match="holds no finished run"):
        ScanResult.load(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert not (tmp_path / "figures").exists()


FEW = RestoreSettings(first=2, kept=1, drawn=4, promising=1, unranked=1, spreads=(0.2,), steps=2, first_steps=1)


def after_share(share: float) -> Callable[[Progress], None]:
    def stop(progress: Progress) -> None:
        if progress.share >= share:
            raise Interrupted

    return stop


def measured(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / JOURNAL_FILE).read_text().splitlines()]
    return [line for line in lines if "patch" in line]


def test_classes_that_were_looked_at_closely_are_not_looked_at_again(
    run: Callable[..., ScanResult], tmp_path: Path
) -> None:
    whole = run(method=Tabor(restoring=FEW))
    looked_at = sum(finding.patch is not None for finding in whole.classes)
    assert looked_at > 2
    resumed = {}
    for name, done in (("searched", 0.0), ("looked at two", 2 / looked_at)):
        share = SEARCH_SHARE + (FIRST_LOOK_SHARE - SEARCH_SHARE) * (SURVEY_SHARE + (CLOSER_SHARE - SURVEY_SHARE) * done)
        with pytest.raises(Interrupted):
            run(method=Tabor(restoring=FEW), out=tmp_path / name, on_progress=after_share(share - 1e-6))
        assert len(measured(tmp_path / name)) == looked_at * done
        resumed[name] = run(method=Tabor(restoring=FEW), out=tmp_path / name)
        assert comparable(resumed[name]) == comparable(whole)
        assert len(measured(tmp_path / name)) == looked_at
    assert passes(resumed["looked at two"]) < passes(resumed["searched"]) < passes(whole)


@pytest.fixture
def earlier(run: Callable[..., ScanResult], tmp_path: Path) -> Path:
    """A whole scan with patches."""
    run(method=Tabor(restoring=FEW), out=tmp_path / "earlier")
    return tmp_path / "earlier"


OTHER_WEIGHTS = Tabor(restoring=FEW, lambdas=Lambdas(mask_size=0.02))


def test_patches_of_another_scan_are_not_sought_again(
    run: Callable[..., ScanResult], earlier: Path, tmp_path: Path
) -> None:
    alone = run(method=OTHER_WEIGHTS)
    beside = run(method=OTHER_WEIGHTS, out=tmp_path / "run", like=earlier)
    assert comparable(beside) == comparable(alone)
    assert passes(beside) < passes(alone)
    looked_at = {finding.index for finding in beside.classes if finding.patch is not None}
    assert {line["patch"] for line in measured(tmp_path / "run")} >= looked_at, "the next scan finds them all here"


@pytest.mark.parametrize("other", ["seed", "model", "images", "search for patches", "no scan", "damaged"])
def test_patches_that_would_come_out_otherwise_are_not_taken_over(
    other: str,
    run: Callable[..., ScanResult],
    earlier: Path,
    cell_model: Callable[..., nn.Module],
    cell_images: Callable[..., ImageSet],
    tmp_path: Path,
) -> None:
    options: dict[str, dict[str, Any]] = {
        "seed": {"seed": 1},
        "model": {"model": cell_model(backdoor=3)},
        "images": {"images": cell_images(per_class=3)},
        "search for patches": {"method": Tabor(restoring=dataclasses.replace(FEW, price=3.0))},
    }
    if other == "no scan":
        earlier = tmp_path / "nowhere"
    if other == "damaged":
        (earlier / JOURNAL_FILE).write_text('{"scan": {"settings": 7}}\n' + patch_line() + "\n")
    changed = {"method": OTHER_WEIGHTS, **options.get(other, {})}
    alone, beside = run(**changed, out=tmp_path / "alone"), run(**changed, out=tmp_path / "run", like=earlier)
    assert comparable(beside) == comparable(alone)
    assert passes(beside) == passes(alone)


def header(**changes: Any) -> dict[str, Any]:
    settings = {"tabor": {"restoring": {"grid": 3}}, "precision": "float32"}
    plain = {"model": "abc", "engine": "cpu", "images": "xyz", "seed": 0, "version": "1", "settings": settings}
    return {**plain, **changes}


@pytest.mark.parametrize(
    ("changes", "taken"),
    [
        pytest.param({"classes": [1]}, True, id="other classes"),
        pytest.param({"version": "2"}, False, id="another version"),
        pytest.param({"engine": "cuda"}, False, id="another device"),
        pytest.param({"settings": {"tabor": {"restoring": {"grid": 3}}, "precision": "bfloat16"}}, False, id="rounded"),
        pytest.param({"settings": {"tabor": {"restoring": {"grid": 2}}, "precision": "float32"}}, False, id="coarser"),
        pytest.param({"settings": {"mine": {}, "precision": "float32"}}, False, id="a method that does not say"),
    ],
)
def test_what_another_journal_measured_is_taken_over_where_all_agrees(
    changes: dict[str, Any], taken: bool, tmp_path: Path
) -> None:
    Journal(tmp_path / "other", header(**changes))
    with (tmp_path / "other" / JOURNAL_FILE).open("a") as stream:
        stream.write(patch_line() + "\n")
    mine = header() if "mine" not in changes.get("settings", {}) else header(**changes)
    journal = Journal(tmp_path / "mine", mine, tmp_path / "other")
    assert (0 in journal.suspects(torch.device("cpu"))) is taken


def test_what_a_run_measured_itself_comes_before_what_it_takes_over(tmp_path: Path) -> None:
    for name, index in (("other", 1), ("mine", 2)):
        Journal(tmp_path / name, header()).add(candidate(4))
        with (tmp_path / name / JOURNAL_FILE).open("a") as stream:
            stream.write(patch_line(index=index) + "\n")
    journal = Journal(tmp_path / "mine", header(), tmp_path / "other")
    assert journal.suspects(torch.device("cpu"))[0].index == 2


def test_what_is_taken_over_needs_a_folder(run: Callable[..., ScanResult], earlier: Path) -> None:
    with pytest.raises(SettingError, match="out"):
        run(like=earlier)


def patch_line(**changes: Any) -> str:
    evidence = {field.name: 1 for field in dataclasses.fields(Evidence)}
    good = {
        "window": [0, 0, 2, 2],
        "colours": [[[0.5]]],
        "outline": None,
        "worth": 1.0,
        "evidence": evidence,
        "object_visible": True,
        "index": 9,
        "likeness": 0.25,
    }
    return json.dumps({"patch": 0, "measured": good | changes})


def test_a_whole_patch_is_read(two_done: Path) -> None:
    add_line(patch_line())(two_done)
    (suspect,) = Journal(two_done, FINGERPRINT).suspects(torch.device("cpu")).values()
    assert (suspect.patch.window, suspect.index, suspect.likeness) == (Window(0, 0, 2, 2), 9, 0.25)


def test_a_class_is_looked_at_again_of_which_an_earlier_version_measured_less(two_done: Path) -> None:
    line = json.loads(patch_line())
    del line["measured"]["likeness"]
    add_line(json.dumps(line))(two_done)
    assert Journal(two_done, FINGERPRINT).suspects(torch.device("cpu")) == {}


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param('{"patch": 0}', id="nothing measured"),
        pytest.param('{"patch": [], "measured": {}}', id="no class"),
        pytest.param('{"patch": 0, "measured": 7}', id="a number"),
        pytest.param('{"patch": 0, "measured": {"window": [1, 2], "colours": [], "worth": 1}}', id="half a window"),
        pytest.param(patch_line(colours=[0.5]), id="flat colours"),
        pytest.param(patch_line(colours=[[[9.0]]]), id="no such colour"),
        pytest.param(patch_line(index="9"), id="an index in words"),
        pytest.param(patch_line(likeness=float("nan")), id="a likeness that is no number"),
        pytest.param(patch_line(worth=float("nan")), id="a worth that is no number"),
        pytest.param(patch_line(index=10**400), id="an endless index"),
        pytest.param(patch_line(window=[0, 0, 2.5, 2]), id="half a pixel"),
        pytest.param(patch_line(colours=[[[]]]), id="no colours"),
        pytest.param(patch_line(evidence=[7]), id="evidence without names"),
        pytest.param(patch_line(outline=[[[1.5]]]), id="more than covered"),
        pytest.param(patch_line(outline=[[[0.5, 0.5]]]), id="an outline of other colours"),
        pytest.param(patch_line(outline="round"), id="an outline in words"),
    ],
)
def test_a_damaged_patch_is_none(damage: str, two_done: Path) -> None:
    add_line(damage)(two_done)
    journal = Journal(two_done, FINGERPRINT)
    assert sorted(journal.finished) == [4]  # `add_line` has cut the last class off
    assert journal.suspects(torch.device("cpu")) == {}


def test_what_is_replaced_is_said_before_the_work(
    run: Callable[..., ScanResult], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(out=tmp_path)
    caplog.clear()
    with pytest.raises(Interrupted):
        run(out=tmp_path, seed=3, classes=[1, 2, 3], on_progress=after(0))
    assert caplog.messages == [f"{tmp_path}: what another scan left there is replaced; it differs in classes, seed"]


def test_a_finished_scan_is_searched_again(
    run: Callable[..., ScanResult], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = run(out=tmp_path)
    assert caplog.messages == []
    second = run(out=tmp_path)
    assert caplog.messages == [f"{tmp_path}: the scan there was whole already and is made again; tabor report shows it"]
    assert comparable(first) == comparable(second)
    assert passes(first) == passes(second)


@pytest.mark.parametrize("other", ["solver", "method", "seed", "model", "images", "classes"])
def test_another_scan_in_the_same_folder_starts_afresh(
    other: str,
    run: Callable[..., ScanResult],
    in_pairs: SolverSettings,
    cell_model: Callable[..., nn.Module],
    cell_images: Callable[..., ImageSet],
    tmp_path: Path,
) -> None:
    options: dict[str, Any] = {
        "solver": dataclasses.replace(in_pairs, learning_rate=0.2),
        "method": "neural-cleanse",
        "seed": 1,
        "model": cell_model(backdoor=3),
        "images": cell_images(per_class=3),
        "classes": [1, 2, 3],
    }
    with pytest.raises(Interrupted):
        run(out=tmp_path / "run", on_progress=after(4))
    changed, whole = (run(out=tmp_path / name, **{other: options[other]}) for name in ("run", "whole"))
    assert comparable(changed) == comparable(whole)
    assert same_triggers(changed, whole)
    assert passes(changed) == passes(whole)


@pytest.mark.parametrize("loaded", [True, False], ids=["from a file", "in memory"])
def test_another_normalisation_is_another_model(loaded: bool, quick: SolverSettings, tmp_path: Path) -> None:
    architecture = Architecture(name="tabor:digits4", num_classes=3, channels=1, size=(12, 12))
    network, path = initialise(architecture, seed=0), tmp_path / "model.safetensors"
    write_model(path, network.state_dict(), architecture, {})
    images = ImageSet(torch.rand(12, 1, 12, 12, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3, ())

    def scan(mean: float, out: Path, on_progress: Callable[[Progress], None] | None = None) -> ScanResult:
        normalised = dataclasses.replace(architecture, mean=(mean,), std=(0.1,))
        model = load_model(path, mean=(mean,), std=(0.1,)) if loaded else prepared(network, normalised)
        one_by_one = dataclasses.replace(quick, steps=4, group_images=1)
        how: dict[str, Any] = {"method": Tabor(restoring=None), "solver": one_by_one, "device": "cpu"}
        return tabor.scan(model, images, **how, out=out, on_progress=on_progress)

    with pytest.raises(Interrupted):
        scan(0.0, tmp_path / "run", after(2))
    other, whole = scan(0.9, tmp_path / "run"), scan(0.9, tmp_path / "whole")
    assert passes(other) == passes(whole), "classes searched under the old normalisation were taken over"
    assert comparable(other) == comparable(whole)


def test_interruption_by_the_journal_itself(
    run: Callable[..., ScanResult], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The process dies between a class's trigger and its line."""

    def dies_at_a_class(value: dict[str, Any], **options: Any) -> str:
        if "class" in value:
            raise Interrupted
        return json.dumps(value, **options)

    with monkeypatch.context() as patch:
        patch.setattr("tabor.journal.json", SimpleNamespace(dumps=dies_at_a_class, loads=json.loads))
        with pytest.raises(Interrupted):
            run(out=tmp_path)
    assert [path.name for path in (tmp_path / PARTIAL_FOLDER).iterdir()] == ["class-0.safetensors"]
    assert comparable(run(out=tmp_path)) == comparable(run())


def test_other_labels_make_another_scan() -> None:
    torch.manual_seed(0)
    model, images = nn.Sequential(nn.Flatten(), nn.Linear(48, 3)), torch.rand(12, 3, 4, 4)
    classifier = Classifier(model, torch.device("cpu"), (3, 4, 4))
    labels = torch.arange(12) % 3
    one, other = (
        fingerprint(model, classifier, ImageSet(images, of, ()), [0, 1, 2], {}, 0) for of in (labels, labels.flip(0))
    )
    assert one["images"] != other["images"]
    assert {key for key in one if one[key] != other[key]} == {"images"}


def test_a_module_with_state_that_is_no_tensor_has_a_run(quick: SolverSettings, tmp_path: Path) -> None:
    class Stateful(nn.Sequential):
        def get_extra_state(self) -> dict[str, int]:
            return {"version": 3}

        def set_extra_state(self, state: object) -> None:
            pass

    torch.manual_seed(0)
    model = Stateful(nn.Flatten(), nn.Linear(48, 3))
    images = torch.rand(12, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3
    result = tabor.scan(model, images, solver=quick, out=tmp_path, device="cpu")
    assert ScanResult.load(tmp_path).verdict is result.verdict


@pytest.mark.parametrize(
    "state",
    [
        pytest.param(torch.eye(3).to_sparse(), id="sparse"),
        pytest.param(torch.ones(2, dtype=torch.complex64).conj(), id="conjugate"),
        pytest.param(torch.ones(2, dtype=torch.complex64).conj().imag, id="negative"),
    ],
)
def test_a_module_with_tensors_that_are_not_plain_has_a_run(
    state: torch.Tensor, quick: SolverSettings, tmp_path: Path
) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    model.register_buffer("state", state)
    images = torch.rand(12, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3
    result = tabor.scan(model, images, solver=quick, out=tmp_path, device="cpu")
    assert ScanResult.load(tmp_path).verdict is result.verdict
