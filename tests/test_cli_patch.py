"""`tabor patch` as a person meets it: exit codes by number, what goes to which stream, what is written."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from tabor.cli import main
from tabor.models import load_model
from tabor.models.build import Architecture, initialise
from tabor.models.safetensors_file import write_model
from tabor.repair import patching
from tabor.result import ScanResult
from tabor.trigger import Trigger

pytestmark = pytest.mark.slow
Capture = pytest.CaptureFixture[str]

DIGITS = ["--data", "digits", "--seed", "0"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An infected model of the digits, and the run of its scan."""
    folder = tmp_path_factory.mktemp("patch")
    clean, infected = str(folder / "clean.safetensors"), str(folder / "infected.safetensors")
    architecture = ["--arch", "tabor:digits4", "--epochs", "25"]
    assert main(["train", *DIGITS, *architecture, "--out", clean]) == 0
    trigger = ["--trigger-size", "6", "--target", "7", "--epochs", "20", "--fraction", "0.3"]
    assert main(["infect", "badnet", clean, *DIGITS, *trigger, "--out", infected]) == 0
    assert main(["scan", infected, *DIGITS, "--preset", "fast", "--out", str(folder / "run")]) == 1
    assert ScanResult.load(folder / "run").targets == (7,)
    return folder


def command(folder: Path, *more: str, model: str = "infected.safetensors", out: Path) -> list[str]:
    return ["patch", str(folder / model), "--run", str(folder / "run"), *DIGITS, "--out", str(out), *more]


def test_0_patched(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "patched.safetensors"
    before = (folder / "infected.safetensors").read_bytes()
    assert main(command(folder, "--json", out=out)) == 0
    told, err = capsys.readouterr()
    outcome = json.loads(told)
    assert err == ""
    assert outcome["file"] == str(out)
    (planted,) = outcome["planted"]
    assert planted["attack_success"]["before"] > 0.9
    assert planted["attack_success"]["after"] < 0.05
    assert outcome["clean_accuracy"]["after"] >= outcome["clean_accuracy"]["before"] - 0.02
    assert load_model(out).record["patched"]["rescans"] == []
    assert (folder / "infected.safetensors").read_bytes() == before


def test_0_a_table_for_people(folder: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert main(command(folder, out=tmp_path / "new")) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert any(line.split()[:2] == ["before", "after"] for line in lines)
    assert any(line.strip().startswith("clean accuracy") for line in lines)
    assert any("class 7, planted: square 6×6 bottom-right" in line for line in lines)
    assert lines[-1].startswith(f"wrote {tmp_path / 'new'}, measured on 256 images")


def test_0_nothing_is_found_any_more(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(command(folder, "--rescan", out=tmp_path / "new")) == 0
    out, err = capsys.readouterr()
    assert "Scanned again: no class of 10 stands out" in out
    assert err.startswith("unlearned ")
    (rescan,) = load_model(tmp_path / "new").record["patched"]["rescans"]
    assert rescan["verdict"] == "clean"


def test_1_it_is_still_found(folder: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    found = ScanResult.load(folder / "run")
    monkeypatch.setattr("tabor.scanning.scan", lambda *_, **__: found)
    assert main(command(folder, "--rescan", out=tmp_path / "new")) == 1
    out, err = capsys.readouterr()
    assert f"Scanned again: {found.reason}"[:60] in out
    assert err.count("unlearned ") == 3


def test_1_a_trigger_still_works(
    folder: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patching, "unlearn", lambda *_: None)
    assert main(command(folder, out=tmp_path / "new")) == 1
    assert "A restored trigger still works." in capsys.readouterr().out


def _clean_run(folder: Path, tmp_path: Path) -> list[str]:
    nothing = dataclasses.replace(ScanResult.load(folder / "run"), targets=(), patches={})
    nothing.save(tmp_path / "nothing")
    return ["patch", str(folder / "infected.safetensors"), "--run", str(tmp_path / "nothing"), *DIGITS]


def _other_sizes(folder: Path, tmp_path: Path) -> list[str]:
    result = ScanResult.load(folder / "run")
    smaller = {k: Trigger(t.mask[:, :9], t.pattern[:, :9]) for k, t in result.triggers.items()}
    dataclasses.replace(result, triggers=smaller, patches={}).save(tmp_path / "smaller")
    return [*command(folder, out=tmp_path / "new")[:-2], "--run", str(tmp_path / "smaller")]


def test_2_it_cannot_be_done(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    write_model(
        tmp_path / "other",
        initialise(Architecture(name="tabor:digits4", num_classes=10, channels=1, size=(32, 32)), 0).state_dict(),
        Architecture(name="tabor:digits4", num_classes=10, channels=1, size=(32, 32)),
        {},
    )
    infected, new = folder / "infected.safetensors", tmp_path / "new"
    run = ["--run", str(folder / "run")]
    attempts = {
        "exists already": command(folder, out=infected),
        "flagged no class": [*_clean_run(folder, tmp_path), "--out", str(new)],
        "the run is of another model": ["patch", str(tmp_path / "other"), *run, *DIGITS, "--out", str(new)],
        "holds no finished run": ["patch", str(infected), "--run", str(tmp_path), *DIGITS, "--out", str(new)],
        "there is no model file": command(folder, model="missing", out=new),
        "images of different sizes": [*_other_sizes(folder, tmp_path), "--out", str(new)],
        "cannot write": command(folder, out=infected / "new"),
    }
    before = infected.read_bytes()
    for message, arguments in attempts.items():
        assert main(arguments) == 2, message
        out, err = capsys.readouterr()
        assert out == ""
        assert message in err
        assert err.count("\n") == 1
    assert infected.read_bytes() == before
    assert not new.exists()
