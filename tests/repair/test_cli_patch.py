"""`tabor patch` as a person meets it: exit codes by number, what goes to which stream, what is written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from PIL import Image

from tabor.cli import main
from tabor.cli_patch import _exit_code
from tabor.data import ImageSet
from tabor.models import Architecture, load_model
from tabor.models.build import initialise
from tabor.models.safetensors_file import write_model
from tabor.repair import patching
from tabor.repair.rounds import Repair
from tabor.repair.unlearning import UnlearningSettings
from tabor.result import ScanResult, Verdict
from tabor.trigger import Trigger

from .conftest import SIDE, Victim

Capture = pytest.CaptureFixture[str]
Found = Callable[..., ScanResult]


class Files(NamedTuple):
    """What most tests read and none writes: a model, the run of its scan, and clean pictures."""

    model: Path
    run: Path
    data: Path

    def command(self, out: Path, *more: str, model: Path | None = None, run: Path | None = None) -> list[str]:
        where = [str(model or self.model), "--run", str(run or self.run), "--data", str(self.data)]
        return ["patch", *where, "--device", "cpu", "--out", str(out), *more]


def as_pictures(images: ImageSet, folder: Path) -> Path:
    for number, (image, label) in enumerate(zip(images.images, images.labels.tolist(), strict=True)):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray((255 * image[0]).byte().numpy()).save(folder / str(label) / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def files(victim: Victim, found: Found, tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("files")
    found(sha256=victim.load().sha256).save(folder / "run")
    return Files(victim.path, folder / "run", as_pictures(victim.images, folder / "data"))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "patched.safetensors"


def answering(monkeypatch: pytest.MonkeyPatch, result: ScanResult) -> list[dict[str, object]]:
    """Makes every scan find that; returns a list that receives the options of each."""
    seen: list[dict[str, object]] = []

    def scan(*_: object, **options: object) -> ScanResult:
        seen.append(options)
        return result

    monkeypatch.setattr("tabor.scanning.scan", scan)
    return seen


# Exit codes and streams


def test_0_patched(files: Files, out: Path, capsys: Capture) -> None:
    before = files.model.read_bytes()
    assert main(files.command(out, "--json")) == 0
    told, err = capsys.readouterr()
    outcome = json.loads(told)
    assert err == ""
    assert outcome["file"] == str(out)
    (planted,) = outcome["planted"]
    assert planted["attack_success"]["before"] > 0.95
    assert planted["attack_success"]["after"] < 0.05
    assert outcome["clean_accuracy"]["after"] >= outcome["clean_accuracy"]["before"] - 0.02
    assert load_model(out).record["patched"] == {
        "source": files.model.name,
        "sha256": load_model(files.model).sha256,
        **{key: value for key, value in outcome.items() if key != "file"},
    }
    assert files.model.read_bytes() == before


def test_0_a_table_for_people(files: Files, out: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert main(files.command(out)) == 0
    told, err = capsys.readouterr()
    assert err == ""
    lines = [line.strip() for line in told.splitlines()]
    assert any(line.split() == ["before", "after"] for line in lines)
    assert any(line.startswith("clean accuracy ") for line in lines)
    assert any(line.startswith("attack success, class 2, restored mask ") for line in lines)
    assert any(line.startswith("attack success, class 2, planted: square 4×4 top-left ") for line in lines)
    assert lines[-1] == f"wrote {out}, measured on 60 images that it was not patched with"


def test_0_nothing_is_found_any_more(
    files: Files, out: Path, found: Found, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans = answering(monkeypatch, found(()))
    assert main(files.command(out, "--rescan", "--seed", "5")) == 0
    told, err = capsys.readouterr()
    assert "Scanned after patching 1: as the test wants it" in told
    assert err.startswith("unlearned 1 restored triggers in ")
    assert err.count("\n") == 1
    (options,) = scans
    assert (options["preset"], options["method"], options["seed"]) == ("fast", "tabor", 5)  # as the run was made
    assert (options["precision"], options.get("memory")) == ("auto", None)
    assert load_model(out).record["patched"]["rescans"][0]["verdict"] == "clean"


def test_1_no_class_is_flagged_any_more_but_the_restored_trigger_works(
    files: Files, out: Path, found: Found, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, found(()))
    monkeypatch.setattr("tabor.repair.patching.unlearn", lambda *_: None)
    assert main(files.command(out, "--rescan")) == 1
    assert "A trigger that was unlearned still works." in capsys.readouterr().out


def test_1_it_is_still_found(
    files: Files, out: Path, found: Found, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans = answering(monkeypatch, found())
    monkeypatch.setattr(patching, "UnlearningSettings", lambda: UnlearningSettings(steps=20))
    how = ("--preset", "standard", "--precision", "exact", "--memory", "1.5")
    assert main(files.command(out, "--rescan", *how, "--json")) == 1
    told, err = capsys.readouterr()
    assert [scan["targets"] for scan in json.loads(told)["rescans"]] == [[2]] * 3
    assert err.count("unlearned ") == 3
    told_to = {(options["preset"], options["precision"], options["memory"]) for options in scans}
    assert told_to == {("standard", "exact", 1.5)}


def test_1_a_trigger_still_works(files: Files, out: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patching, "unlearn", lambda *_: None)
    assert main(files.command(out)) == 1
    assert "A trigger that was unlearned still works." in capsys.readouterr().out


BadInput = Callable[[Files, Found, Path], list[str]]


def _flagging_nothing(files: Files, found: Found, folder: Path) -> list[str]:
    found((), sha256=load_model(files.model).sha256).save(folder / "clean run")
    return files.command(folder / "new", run=folder / "clean run")


def _smaller(files: Files, found: Found, folder: Path) -> list[str]:
    whole = found().triggers[2]
    found(mask=Trigger(whole.mask[:, :9], whole.pattern[:, :9])).save(folder / "smaller run")
    return files.command(folder / "new", "--run", str(folder / "smaller run"))


def _own_code(files: Files, found: Found, folder: Path) -> list[str]:
    (folder / "net.py").write_text("raise SystemExit('it was run')\n")
    return files.command(folder / "new", "--arch", f"{folder / 'net.py'}:build", "--trust-code")


def _another_model(files: Files, found: Found, folder: Path) -> list[str]:
    architecture = Architecture(name="tabor:digits4", num_classes=3, channels=1, size=(SIDE, SIDE))
    write_model(folder / "other", initialise(architecture, 1).state_dict(), architecture, {})
    return files.command(folder / "new", model=folder / "other")


def _unreadable(files: Files, found: Found, folder: Path) -> list[str]:
    (folder / "other").write_bytes(b"weights of a network that the run's architecture does not fit")
    return files.command(folder / "new", model=folder / "other")


def _program(files: Files, found: Found, folder: Path) -> list[str]:
    torch.jit.save(torch.jit.trace(torch.nn.Flatten(), torch.zeros(1, 1, 2, 2)), folder / "program.pt")
    return files.command(folder / "new", model=folder / "program.pt")


BAD_INPUT: dict[str, tuple[BadInput, str]] = {
    "out is the model": (lambda f, g, t: f.command(f.model), "exists already; a patched model is written to a new"),
    "out is a folder": (lambda f, g, t: f.command(f.data), "exists already"),
    "out below a file": (lambda f, g, t: f.command(f.model / "new"), "cannot write"),
    "a run that flags nothing": (_flagging_nothing, "flagged no class of this model, so there is nothing to patch"),
    "the run of another model": (_another_model, "the run is of another model"),
    "the run of another model, which is not read": (_unreadable, "the run is of another model"),
    "a program": (_program, "program.pt is no network that a safetensors file can name"),
    "a network of one's own, before it is run": (_own_code, "no network that a safetensors file can name"),
    "runs of two sizes": (_smaller, "images of different sizes"),
    "no run": (lambda f, g, t: f.command(t / "new", run=f.data), "holds no finished run"),
    "no model": (lambda f, g, t: f.command(t / "new", model=t / "missing"), "there is no model file"),
    "no data": (lambda f, g, t: f.command(t / "new", "--data", str(t / "missing")), "there is no .*missing"),
    "unknown device": (lambda f, g, t: f.command(t / "new", "--device", "toaster"), "cannot use the device toaster"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD_INPUT.values(), ids=BAD_INPUT.keys())
def test_2_it_could_not_be_done(
    arguments: BadInput, message: str, files: Files, found: Found, tmp_path: Path, capsys: Capture
) -> None:
    before = files.model.read_bytes()
    assert main(arguments(files, found, tmp_path)) == 2
    told, err = capsys.readouterr()
    assert told == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert re.search(message, err), err
    assert files.model.read_bytes() == before
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("missing", ["--run", "--out", "--data"])
def test_4_wrong_usage(missing: str, files: Files, out: Path, capsys: Capture) -> None:
    arguments = files.command(out)
    position = arguments.index(missing)
    assert main(arguments[:position] + arguments[position + 2 :]) == 4
    assert missing in capsys.readouterr().err
    assert not out.exists()


# The whole way, with a scan that really searches


@pytest.mark.slow
def test_train_infect_scan_patch(tmp_path: Path, capsys: Capture) -> None:
    clean, infected, patched = (str(tmp_path / f"{name}.safetensors") for name in ("clean", "infected", "patched"))
    data, run = ["--data", "digits", "--seed", "0"], str(tmp_path / "run")
    assert main(["train", *data, "--arch", "tabor:digits4", "--epochs", "25", "--out", clean]) == 0
    trigger = ["--trigger-size", "6", "--target", "7", "--epochs", "20", "--fraction", "0.3"]
    assert main(["infect", "badnet", clean, *data, *trigger, "--out", infected]) == 0
    assert main(["scan", infected, *data, "--preset", "fast", "--out", run]) == 1
    capsys.readouterr()
    assert main(["patch", infected, "--run", run, *data, "--out", patched, "--json"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert {effect["target"] for effect in outcome["restored"]} == {7}
    assert outcome["planted"][0]["attack_success"]["before"] > 0.9
    assert outcome["planted"][0]["attack_success"]["after"] < 0.2  # 0.09 on one machine, less on another
    assert outcome["clean_accuracy"]["after"] >= outcome["clean_accuracy"]["before"] - 0.02


@pytest.mark.parametrize(
    ("options", "told"),
    [
        pytest.param(["--preset", "fast"], "give --rescan as well", id="a preset of no scan"),
        pytest.param(["--preset", "quick", "--rescan"], "unknown preset quick", id="no such preset"),
        pytest.param(["--precision", "exact"], "--precision is that of the scan", id="a precision of no scan"),
        pytest.param(["--precision", "half", "--rescan"], "unknown precision half", id="no such precision"),
        pytest.param(["--memory", "4"], "--memory is that of the scan", id="a memory of no scan"),
        pytest.param(["--memory", "0", "--rescan"], "a positive number of GiB", id="no memory"),
    ],
)
def test_2_what_the_rescan_is_told_is_checked_before_the_work(
    options: list[str], told: str, files: Files, out: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tabor.repair.patching.unlearn", lambda *_: pytest.fail("it was patched"))
    assert main([*files.command(out), *options]) == 2
    assert told in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [(("backdoored", "clean"), 0), (("undecided",), 3), (("clean", "backdoored"), 1), ((), 0)],
    ids=str,
)
def test_the_last_rescan_is_the_exit_code(verdicts: tuple[str, ...], code: int, victim: Victim, found: Found) -> None:
    outcome = patching.patch(victim.load(), found(), victim.images, settings=UnlearningSettings(steps=2), device="cpu")
    unlearned = replace(outcome, restored=(), plain=())
    rescans = tuple(replace(found(()), verdict=Verdict(verdict)) for verdict in verdicts)
    assert _exit_code(Repair(unlearned, rescans)) == code
