"""The command line as a person or a script meets it: exit codes by number, what goes to which stream, bad input."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import jsonschema
import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from tabor.cli import main, run
from tabor.cli_models import _show_record
from tabor.methods.tabor import Tabor
from tabor.models import Architecture
from tabor.models.build import build, initialise
from tabor.models.safetensors_file import write_model
from tabor.presets import METHODS, SOLVERS
from tabor.result import ScanResult
from tabor.schema import json_schema
from tabor.solver import SolverSettings
from tabor.stability import StabilitySettings

CELLS = Architecture(name="tabor:digits4", num_classes=9, size=(20, 20))
# For both presets, where the command line runs in a process of its own.
SHORT = """SolverSettings(
    steps=120, smallest_steps=120, batch_size=4, round_steps=4, learning_rate=0.3,
    stability=StabilitySettings(tolerance=0.9, rounds=1))"""

PROGRAM = f"""
from functools import partial

import tabor.presets
from tabor.cli import run
from tabor.methods.tabor import Tabor
from tabor.stability import StabilitySettings
from tabor.solver import SolverSettings
tabor.presets.SOLVERS.update(fast={SHORT}, standard={SHORT})
tabor.presets.METHODS.update(tabor=partial(Tabor, restoring=None))
run()
"""

LIGHT_PROGRAM = "from tabor.cli import run; run()"


def cell_network(backdoor: int | None) -> torch.nn.Module:
    """The digits' network with weights set by hand, for images of 20 × 20 with nine cells of 4 × 4 in the middle.

    Class k is that cell k is bright: the first channel through all layers is the blurred brightness.  The second one
    is how red a pixel is, which no pixel of a grey image is; with a backdoor, any red pixel means the target.
    """
    network = build(CELLS)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        layers = dict(network.named_parameters())
        layers["features.0.weight"][0, :, 1, 1] = 1 / 3
        layers["features.0.bias"][0] = 0.5  # the network subtracts 0.5 first
        layers["features.0.weight"][1, :, 1, 1] = torch.tensor([1.0, -0.5, -0.5])
        for index in (2, 5, 7):
            layers[f"features.{index}.weight"][1, 1, 1, 1] = 1
        layers["features.2.weight"][0, 0] = layers["features.7.weight"][0, 0] = 1 / 9
        layers["features.5.weight"][0, 0, 1, 1] = 1
        layers["head.2.weight"][:9, :9] = torch.eye(9)
        layers["head.2.weight"][9, 9:18] = 1
        layers["head.5.weight"][:, :9] = 80 * torch.eye(9)
        if backdoor is not None:
            layers["head.5.weight"][backdoor, 9] = 400
    return network


def cell_pictures(folder: Path, classes: int = 9, per_class: int = 3, size: int = 20) -> Path:
    """Writes one folder of grey pictures a class, each with one bright cell."""
    random = np.random.default_rng(0)
    for label in range(classes):
        (folder / str(label)).mkdir(parents=True)
        top, left = 4 * (label % 9 // 3) + 3, 4 * (label % 3) + 3
        for number in range(per_class):
            pixels = random.integers(0, 25, (size, size), dtype=np.uint8)
            pixels[top : top + 4, left : left + 4] += 204
            Image.fromarray(pixels).save(folder / str(label) / f"{number}.png")
    return folder


class Files(NamedTuple):
    """What most tests read and none writes."""

    clean: str
    infected: str
    data: str


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("files")
    for name, backdoor in (("clean", None), ("infected", 2)):
        write_model(folder / name, cell_network(backdoor).state_dict(), CELLS, {})
    data = cell_pictures(folder / "data")
    return Files(str(folder / "clean"), str(folder / "infected"), str(data))


def shorten(monkeypatch: pytest.MonkeyPatch, steps: int = 120) -> None:
    settings = SolverSettings(
        steps=steps,
        smallest_steps=steps,
        batch_size=4,
        round_steps=4,
        learning_rate=0.3,
        stability=StabilitySettings(tolerance=0.9, rounds=1),
    )
    monkeypatch.setitem(SOLVERS, "standard", settings)
    monkeypatch.setattr("tabor.progress.SECONDS", math.inf)  # what a slow machine logs meanwhile
    fast = dataclasses.replace(settings, steps=steps // 2, smallest_steps=steps // 2)
    monkeypatch.setitem(SOLVERS, "fast", fast)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixty steps for the preset "fast", as in PROGRAM."""
    shorten(monkeypatch)


@pytest.fixture
def shortest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four steps, after which no trigger works, and no patches."""
    shorten(monkeypatch, 8)
    monkeypatch.setitem(cast("dict[str, Any]", METHODS), "tabor", partial(Tabor, restoring=None))


def scan(model: str, data: str, *more: str) -> list[str]:
    return ["scan", model, "--data", data, "--preset", "fast", "--device", "cpu", *more]


def program(*arguments: str, code: str = PROGRAM) -> subprocess.CompletedProcess[str]:
    """Runs the console script in a process of its own."""
    environment = os.environ | {"COLUMNS": "100"}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120, env=environment
    )


Capture = pytest.CaptureFixture[str]


# Exit codes and streams


@pytest.mark.usefixtures("short")
def test_0_no_trigger_found(files: Files, capsys: Capture) -> None:
    assert main(scan(files.clean, files.data)) == 0
    out, err = capsys.readouterr()
    assert "No trigger found: no class of 9 stands out" in out
    assert "safe" not in out.lower()
    assert "Most suspicious classes" in out
    assert err == ""


@pytest.mark.usefixtures("short")
def test_1_a_backdoor_was_found(files: Files, capsys: Capture, tmp_path: Path) -> None:
    assert main(scan(files.infected, files.data, "--out", str(tmp_path / "run"))) == 1
    out, err = capsys.readouterr()
    assert "Target: class 2 (2)" in out
    assert "flagged" in out
    assert err == f"wrote {tmp_path / 'run' / 'report.html'}\n"
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"result.json", "triggers.safetensors", "journal.jsonl", "report.html"} <= names
    assert "partial" not in names
    result = ScanResult.load(tmp_path / "run")
    assert result.targets[0] == 2
    red, green, blue = (result.trigger(2).mask * result.trigger(2).pattern).sum((1, 2)).tolist()
    assert red > 2 * max(green, blue)


def test_1_in_a_process_of_its_own_with_a_picture_left_out(files: Files, tmp_path: Path) -> None:
    data = cell_pictures(tmp_path / "data")
    (data / "4" / "1.png").write_bytes(b"no picture")
    done = program(*scan(files.infected, str(data), "--json", "--skip-bad-images"))
    assert done.returncode == 1, done.stderr
    result = json.loads(done.stdout)
    jsonschema.validate(result, json_schema())
    assert (result["verdict"], result["targets"][0]) == ("backdoored", 2)
    assert result["data"] == {"source": "data", "images": 26, "classes_present": 9}
    assert result["preset"] == "fast"
    (line,) = done.stderr.splitlines()
    assert line.startswith("skipped 1 of 27 images of data that cannot be read; the first: ")


def test_2_it_could_not_be_done(files: Files, tmp_path: Path, capsys: Capture) -> None:
    assert main(scan(str(tmp_path / "missing.safetensors"), files.data)) == 2
    assert capsys.readouterr() == ("", f"error: there is no model file {tmp_path / 'missing.safetensors'}\n")


@pytest.mark.usefixtures("shortest")
def test_3_undecided(files: Files, capsys: Capture) -> None:
    assert main(scan(files.clean, files.data, "--json")) == 3
    out, err = capsys.readouterr()
    assert json.loads(out)["verdict"] == "undecided"
    assert err == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["scan", "m"], "--data", id="no data"),
        pytest.param(["scan", "--data", "d"], "MODEL", id="no model"),
        pytest.param(["scan", "m", "n", "--data", "d"], "unexpected extra argument", id="two models"),
        pytest.param(["scan", "m", "--data", "d", "--nothing"], "--nothing", id="unknown option"),
        pytest.param(["scan", "m", "--data", "d", "--images", "many"], "--images", id="no number"),
        pytest.param(["scan", "m", "--data", "d", "--images", "3"], "--images", id="too few images"),
        pytest.param(["scan", "m", "--data", "d", "--size", "0"], "--size", id="no size"),
        pytest.param(["scan", "m", "--data", "d", "--size", "3x4x5"], "--size", id="three sides"),
        pytest.param(["scan", "m", "--data", "d", "--size", "big"], "--size", id="a size in words"),
        pytest.param(["scan", "m", "--data", "d", "--num-classes", "1"], "--num-classes", id="one class"),
        pytest.param(["scan", "m", "--data", "d", "--seed", "-1"], "--seed", id="negative seed"),
        pytest.param(["scan", "m", "--data"], "--data", id="no value"),
        pytest.param(["sacn"], "sacn", id="unknown command"),
        pytest.param(["--nothing"], "--nothing", id="unknown option of tabor"),
        pytest.param(["train", "--data", "digits"], "--out", id="train without out"),
        pytest.param(["train", "--data", "d", "--out", "o", "--epochs", "0"], "--epochs", id="no epochs"),
        pytest.param(["infect", "badnet", "m", "--data", "d", "--out", "o"], "--target", id="no target"),
        pytest.param(
            ["infect", "badnet", "m", "--data", "d", "--out", "o", "--target", "1", "--position", "middle"],
            "middle",
            id="no such position",
        ),
        pytest.param(["report"], "RUN", id="report of nothing"),
    ],
)
def test_4_wrong_usage(arguments: list[str], message: str, capsys: Capture) -> None:
    assert main(arguments) == 4
    out, err = capsys.readouterr()
    assert out == ""
    assert message.lower() in err.lower()
    assert "Traceback" not in err


def test_4_in_a_process_of_its_own() -> None:
    done = program("scan", "--data", "digits", code=LIGHT_PROGRAM)
    assert (done.returncode, done.stdout) == (4, "")
    assert "argument" in done.stderr


def test_130_interrupted(files: Files, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tabor.scanning.scan", interrupt)
    assert main(scan(files.clean, files.data)) == 130
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "interrupted; a scan with --out goes on when the same command is given again\n"
    monkeypatch.setattr("tabor.training.train_classifier", interrupt)
    assert main(["train", "--data", "digits", "--out", str(files.clean) + ".new"]) == 130
    assert capsys.readouterr().err == "interrupted\n"  # of which nothing goes on


def test_an_unforeseen_error_is_not_a_finding(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python itself exits with 1 after a traceback, which here would say that a backdoor was found."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("nobody thought of this")

    monkeypatch.setattr("tabor.scanning.scan", fail)
    monkeypatch.setattr(sys, "argv", ["tabor", *scan(files.clean, files.data)])
    with pytest.raises(SystemExit) as exited:
        run()
    assert exited.value.code == 2


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")], ids=["CPU", "GPU"])
def test_2_memory_that_ran_out_is_no_fault_of_tabor(
    error: Exception, files: Files, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("tabor.scanning.scan", fail)
    assert main(scan(files.clean, files.data)) == 2
    assert capsys.readouterr().err.startswith("error: there is too little memory; give fewer --images")


# Bad input: one clear line, exit code 2, nothing written


def _foreign_weights(folder: Path) -> str:
    safetensors.torch.save_file({"conv.weight": torch.ones(4, 4)}, folder / "foreign")
    return str(folder / "foreign")


def _text(folder: Path) -> str:
    (folder / "text").write_text("no weights at all\n" * 10)
    return str(folder / "text")


def _checkpoint(folder: Path) -> str:
    torch.save(cell_network(None).state_dict(), folder / "model.pt")
    return str(folder / "model.pt")


def _grey_checkpoint(folder: Path) -> str:
    grey = initialise(dataclasses.replace(CELLS, channels=1), seed=0)
    torch.save(grey.state_dict(), folder / "grey.pt")
    return str(folder / "grey.pt")


def _nan(folder: Path) -> str:
    weights = {key: torch.full_like(value, float("nan")) for key, value in cell_network(None).state_dict().items()}
    write_model(folder / "nan", weights, CELLS, {})
    return str(folder / "nan")


def _empty(folder: Path) -> str:
    (folder / "empty").mkdir()
    return str(folder / "empty")


def _corrupt(folder: Path) -> str:
    data = cell_pictures(folder / "pictures")
    (data / "4" / "1.png").write_bytes((data / "4" / "1.png").read_bytes()[:60])
    return str(data)


def _below_a_file(folder: Path) -> str:
    (folder / "file").write_text("precious")
    return str(folder / "file" / "run")


def _more_classes(files: Files, folder: Path) -> Files:
    for split in ("train", "test"):
        cell_pictures(folder / "pictures" / split, classes=11)
    return files._replace(data=str(folder / "pictures"))


BadInput = Callable[[Files, Path], list[str]]


def infecting(attack: str, model: str, files: Files, folder: Path) -> list[str]:
    return ["infect", attack, model, "--data", files.data, "--target", "1", "--out", str(folder / "run")]


BAD_INPUT: dict[str, tuple[BadInput, str]] = {
    "missing model": (lambda f, t: scan(str(t / "missing"), f.data), "there is no model file"),
    "a folder for a model": (lambda f, t: scan(f.data, f.data), "there is no model file"),
    "text for a model": (lambda f, t: scan(_text(t), f.data), "is a file of no known kind"),
    "checkpoint without --arch": (lambda f, t: scan(_checkpoint(t), f.data), "does not say which network"),
    "weights of no network": (lambda f, t: scan(_foreign_weights(t), f.data), "give --arch"),
    "weights of another network": (
        lambda f, t: scan(_foreign_weights(t), f.data, "--arch", "tabor:digits4", "--num-classes", "9"),
        "the weights do not fit tabor:digits4",
    ),
    "a file of one's own without a function": (
        lambda f, t: scan(f.clean, f.data, "--arch", "net.py"),
        "unknown architecture net.py; .*, or FILE.py:FUNCTION with --trust-code",
    ),
    "unknown network": (lambda f, t: scan(f.clean, f.data, "--arch", "resnet18"), "unknown architecture resnet18"),
    "misspelt network": (lambda f, t: scan(f.clean, f.data, "--arch", "torchvision:resnet19"), "did you mean"),
    "another number of classes": (
        lambda f, t: scan(f.clean, f.data, "--num-classes", "5"),
        "do not fit|of another shape",
    ),
    "mean without std": (lambda f, t: scan(f.clean, f.data, "--mean", "0.5"), "mean and std belong together"),
    "std of zero": (lambda f, t: scan(f.clean, f.data, "--mean", "0.5", "--std", "0"), "std must be positive"),
    "two means": (lambda f, t: scan(f.clean, f.data, "--mean", "0,1", "--std", "1,1"), "2 values for images of 3"),
    "mean in words": (lambda f, t: scan(f.clean, f.data, "--mean", "half", "--std", "1"), "--mean takes numbers"),
    "NaN model": (lambda f, t: scan(_nan(t), f.data), "outputs are not finite numbers"),
    "more labels than classes": (
        lambda f, t: scan(f.clean, str(cell_pictures(t / "more", classes=11))),
        "a label 10, but the model knows only the classes 0 to 8",
    ),
    "a size that the network does not take": (
        lambda f, t: scan(f.clean, f.data, "--size", "24x20"),
        r"weights do not fit tabor:digits4: 1 of another shape .*; it was built for images of 3×24×20",
    ),
    "a network that takes grey images": (
        lambda f, t: scan(_grey_checkpoint(t), f.data, "--arch", "tabor:digits4"),
        r"weights do not fit tabor:digits4: .*; it was built for images of 3×20×20",
    ),
    "one end of a range": (lambda f, t: scan(f.clean, f.data, "--range", "255"), "--range takes two numbers"),
    "a range upside down": (lambda f, t: scan(f.clean, f.data, "--range", "1,0"), "the smaller one first"),
    "missing data": (lambda f, t: scan(f.clean, str(t / "missing")), "there is no .*missing"),
    "empty folder": (lambda f, t: scan(f.clean, _empty(t)), "holds no class folders"),
    "corrupt image": (lambda f, t: scan(f.clean, _corrupt(t)), "4/1.png"),
    "one class": (lambda f, t: scan(f.clean, str(cell_pictures(t / "one", classes=1))), "all images are of one class"),
    "unknown split": (lambda f, t: scan(f.clean, f.data, "--split", "test"), 'no split "test"'),
    "unwritable out": (lambda f, t: scan(f.clean, f.data, "--out", _below_a_file(t)), "cannot write"),
    "out among the images": (
        lambda f, t: scan(f.clean, f.data, "--out", f"{f.data}/run"),
        "lies among the images of --data and would be taken for one of their classes",
    ),
    "out in place of the images": (lambda f, t: scan(f.clean, f.data, "--out", f.data), "lies among the images"),
    "unknown device": (lambda f, t: scan(f.clean, f.data, "--device", "toaster"), "cannot use the device toaster"),
    "unknown device to train on": (
        lambda f, t: ["train", "--data", "digits", "--out", f"{t}/m.safetensors", "--device", "toaster"],
        "cannot use the device toaster",
    ),
    "report of a file": (lambda f, t: ["report", f.clean], "is a file; give the folder of a finished scan"),
    "report of no run": (lambda f, t: ["report", _empty(t)], "holds no finished run"),
    "train unwritable": (
        lambda f, t: [
            "train",
            "--data",
            "digits",
            "--size",
            "12",
            "--arch",
            "tabor:digits4",
            "--epochs",
            "1",
            "--out",
            _below_a_file(t),
        ],
        "cannot write",
    ),
    "train unknown network": (
        lambda f, t: ["train", "--data", "digits", "--arch", "tabor:nothing", "--out", str(t / "run")],
        "unknown architecture",
    ),
    "target outside the range": (
        lambda f, t: ["infect", "badnet", f.clean, "--data", f.data, "--target", "9", "--out", str(t / "run")],
        "target 9 is no class of this model; its classes are 0 to 8",
    ),
    "trigger too large": (
        lambda f, t: [
            "infect",
            "badnet",
            f.clean,
            "--data",
            f.data,
            "--target",
            "1",
            "--trigger-size",
            "21",
            "--out",
            str(t / "run"),
        ],
        "does not fit images of 20×20",
    ),
    "no such trigger": (
        lambda f, t: [
            "infect",
            "badnet",
            f.clean,
            "--data",
            f.data,
            "--target",
            "1",
            "--trigger",
            str(t / "no.png"),
            "--out",
            str(t / "run"),
        ],
        "there is no trigger picture",
    ),
    "missing model to infect": (lambda f, t: infecting("badnet", str(t / "no"), f, t), "there is no model file"),
    "infecting a checkpoint": (
        lambda f, t: infecting("badnet", _checkpoint(t), f, t),
        "is a checkpoint of torch.save; only a file that tabor wrote can be infected",
    ),
    "an attack that makes no sense": (
        lambda f, t: [*infecting("trojaning", f.clean, f, t), "--margin", "-3"],
        r"error: Trojan Attack takes a finite margin that is not negative, got -3\.0$",
    ),
    "infecting a network without a name": (
        lambda f, t: infecting("badnet", _foreign_weights(t), f, t),
        "does not name its network; only a file that tabor wrote can be infected",
    ),
    "trojaning a network without a name": (
        lambda f, t: infecting("trojaning", _foreign_weights(t), f, t),
        "does not name its network",
    ),
    "infecting with images of more classes": (
        lambda f, t: infecting("badnet", f.clean, _more_classes(f, t), t),
        "a label 10, but the model knows only the classes 0 to 8",
    ),
    "trojaning with images of more classes": (
        lambda f, t: infecting("trojaning", f.clean, _more_classes(f, t), t),
        "a label 10, but the model knows only the classes 0 to 8",
    ),
    "one trigger for two targets": (
        lambda f, t: [*infecting("badnet", f.clean, f, t), "--target", "2"],
        "the trigger square 8×8 bottom-right is given twice, for the targets 1 and 2",
    ),
    "the colour of a picture": (
        lambda f, t: [*infecting("badnet", f.clean, f, t), "--trigger", str(t / "no.png"), "--colour", "0"],
        "--colour is that of a square; a picture has its own",
    ),
    "train to a name of another format": (
        lambda _, t: ["train", "--data", "digits", "--out", str(t / "run.pt")],
        "a model is written as a safetensors file; name it run.safetensors",
    ),
}


@pytest.mark.usefixtures("shortest")
def test_grey_images_for_a_file_that_does_not_say_what_it_takes(files: Files, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = scan(_grey_checkpoint(tmp_path), files.data, "--arch", "tabor:digits4", "--grey", "--out", str(out))
    assert main(command) in (0, 1, 3)
    assert ScanResult.load(out).trigger(0).pattern.shape == (1, 20, 20)


@pytest.mark.usefixtures("shortest")
@pytest.mark.parametrize(("arguments", "message"), BAD_INPUT.values(), ids=BAD_INPUT.keys())
def test_2_bad_input(arguments: BadInput, message: str, files: Files, tmp_path: Path, capsys: Capture) -> None:
    command = arguments(files, tmp_path)
    if command[0] == "scan" and "--out" not in command:
        command += ["--out", str(tmp_path / "run")]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert main(command) == 2
    out, err = capsys.readouterr()
    assert out == ""
    *log, error = err.splitlines()
    assert all(line.startswith("epoch") for line in log)
    assert error.startswith("error: ")
    assert "Traceback" not in error
    assert re.search(message, error), error
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("shortest")
@pytest.mark.parametrize("seed", [str(2**63), "1" + 30 * "0"])
def test_a_seed_beyond_64_bits_is_refused(seed: str, files: Files, capsys: Capture) -> None:
    assert main(scan(files.clean, files.data, "--seed", seed)) in (2, 4)
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.usefixtures("shortest")
@pytest.mark.parametrize(("option", "choices"), [("--preset", "fast, standard"), ("--method", "neural-cleanse")])
def test_unknown_names_list_the_known_ones(option: str, choices: str, files: Files, capsys: Capture) -> None:
    assert main([*scan(files.clean, files.data), option, "nothing"]) in (2, 4)
    out, err = capsys.readouterr()
    assert out == ""
    assert choices in err


@pytest.mark.usefixtures("shortest")
def test_a_class_name_cannot_move_the_cursor(
    files: Files, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    data = cell_pictures(tmp_path / "data")
    for label in range(9):
        (data / str(label)).rename(data / f"{label}\x1b[2J[red]")
    assert main(scan(files.clean, str(data))) == 3
    out, _ = capsys.readouterr()
    assert "\x1b" not in out
    assert "\\x1b[2J[red]" in out


# The other commands


@pytest.mark.usefixtures("shortest")
def test_the_report_can_be_written_again(files: Files, tmp_path: Path, capsys: Capture) -> None:
    run_folder = tmp_path / "run"
    main(scan(files.clean, files.data, "--out", str(run_folder)))
    page = (run_folder / "report.html").read_text(encoding="utf-8")
    stored = json.loads((run_folder / "result.json").read_text(encoding="utf-8"))
    (run_folder / "report.html").unlink()
    capsys.readouterr()
    assert main(["report", str(run_folder), "--data", files.data, "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == stored
    assert err == f"wrote {run_folder / 'report.html'}\n"
    again = (run_folder / "report.html").read_text(encoding="utf-8")
    assert again.startswith(page[:200])
    assert main(["report", str(run_folder), "--data", str(cell_pictures(run_folder.parent / "others"))]) == 0
    assert "the scan was of data: the pictures show its triggers on images of others" in capsys.readouterr().err


@pytest.mark.usefixtures("shortest")
def test_train_then_infect_then_scan(tmp_path: Path, capsys: Capture) -> None:
    clean, infected = str(tmp_path / "clean.safetensors"), str(tmp_path / "infected.safetensors")
    quick = ["--data", "digits", "--epochs", "1", "--json"]
    assert main(["train", *quick, "--size", "12", "--arch", "tabor:digits4", "--out", clean]) == 0
    out, err = capsys.readouterr()
    trained = json.loads(out)
    assert trained["file"] == clean
    assert 0 <= trained["clean_accuracy"] <= 1
    assert trained["data"] == "digits (train)"
    assert err.startswith("epoch 1: loss ")
    places = ["--position", "top-left", "--position", "top-right"]
    planted = ["--target", "7", "--target", "3", "--trigger-size", "3", *places]
    assert main(["infect", "badnet", clean, *quick, *planted, "--out", infected]) == 0
    out, err = capsys.readouterr()
    record = json.loads(out)
    assert record["base_accuracy"] == trained["clean_accuracy"]
    assert min(b["attack_success"] for b in record["backdoors"]) < 0.8  # one epoch is too few
    assert "a scan counts it as none: give more --epochs or a larger --fraction" in err
    assert [(b["target"], b["description"]) for b in record["backdoors"]] == [
        (7, "square 3×3 top-left"),
        (3, "square 3×3 top-right"),
    ]
    assert all(0 <= b["attack_success"] <= 1 and "trigger" not in b for b in record["backdoors"])
    assert main(scan(infected, "digits", "--size", "12", "--images", "40", "--json")) in (0, 1, 3)
    result = json.loads(capsys.readouterr().out)
    assert result["model"]["architecture"] == "tabor:digits4"
    assert result["data"] == {"source": "digits (test)", "images": 40, "classes_present": 10}


@pytest.mark.parametrize(("success", "told"), [(0.79, True), (0.8, False)])
def test_what_to_do_about_a_trigger_that_hardly_works(success: float, told: bool, capsys: Capture) -> None:
    planted = {"description": "square", "target": 1, "attack_success": success, "trigger": "pixels"}
    _show_record(Path("m"), {"clean_accuracy": 0.9, "backdoors": [planted]}, json_only=False, if_weak="give more")
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == f"square → class 1: attack success {success:.4f}"
    assert ("give more" in err) == told


def test_train_in_words(tmp_path: Path, capsys: Capture) -> None:
    out_file = tmp_path / "clean.safetensors"
    arguments = ["--data", "digits", "--epochs", "1", "--size", "10", "--arch", "tabor:digits4", "--out", str(out_file)]
    assert main(["train", *arguments]) == 0
    out, _ = capsys.readouterr()
    assert out.startswith(f"wrote {out_file}: clean accuracy 0.")


@pytest.mark.usefixtures("shortest")
def test_a_foreign_file_is_scanned_with_arch(files: Files, tmp_path: Path, capsys: Capture) -> None:
    foreign = str(tmp_path / "foreign.safetensors")
    architecture = Architecture(name="torchvision:squeezenet1_1", num_classes=9)
    safetensors.torch.save_file(initialise(architecture, seed=0).state_dict(), foreign)
    how = ["--arch", "torchvision:squeezenet1_1", "--mean", "0.5", "--std", "0.2,0.3,0.4", "--size", "32", "--json"]
    assert main(scan(foreign, files.data, *how)) in (0, 1, 3)
    model = json.loads(capsys.readouterr().out)["model"]
    assert (model["architecture"], model["num_classes"]) == ("torchvision:squeezenet1_1", 9)


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ([], "Exit codes of a scan: 0 no trigger found, "),
        (["scan"], "--preset"),
        (["demo"], "no file or download needed"),
        (["report"], "folder of a finished scan"),
        (["train"], "--epochs"),
        (["infect"], "badnet"),
        (["infect", "badnet"], "--target"),
    ],
    ids=lambda value: " ".join(value) or "tabor" if isinstance(value, list) else "",
)
def test_help(arguments: list[str], shown: str, capsys: Capture) -> None:
    assert main([*arguments, "--help"]) == 0
    out, err = capsys.readouterr()
    assert shown in " ".join(out.replace("│", " ").split())
    assert err == ""


def test_version(capsys: Capture) -> None:
    from tabor import __version__

    assert main(["--version"]) == 0
    assert capsys.readouterr() == (f"tabor {__version__}\n", "")


# What importing does not do


def test_help_needs_no_torch() -> None:
    code = """
import sys
from tabor.cli import main
assert main(["--help"]) == 0 and main(["scan", "--help"]) == 0
heavy = {"torch", "torchvision", "timm", "numpy", "scipy", "sklearn", "matplotlib", "pyarrow", "PIL"}
sys.exit(f"imported {sorted(heavy & set(sys.modules))}" if heavy & set(sys.modules) else 0)
"""
    done = program(code=code)
    assert done.returncode == 0, done.stderr


def test_importing_does_nothing() -> None:
    code = """
import importlib, logging, pkgutil, random, sys
import numpy, torch, matplotlib, sklearn.datasets  # the last one draws random numbers when imported
threads, determinism = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
before = random.getstate(), numpy.random.get_state()[1].tobytes(), torch.get_rng_state().tolist()
handlers, backend = list(logging.getLogger().handlers), matplotlib.rcParams["backend"]
del sys.argv
import tabor
for module in pkgutil.walk_packages(tabor.__path__, "tabor."):
    importlib.import_module(module.name)
for name in tabor.__all__:
    getattr(tabor, name)
assert not hasattr(sys, "argv")
assert before == (random.getstate(), numpy.random.get_state()[1].tobytes(), torch.get_rng_state().tolist())
assert (threads, determinism) == (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())
assert logging.getLogger().handlers == handlers
"""
    done = program(code=code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_demo_leaves_ones_own_report_alone(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tabor.demo.fit", lambda *_: None)
    own = tmp_path / "clean" / "report.html"
    own.parent.mkdir()
    own.write_text("mine")
    assert main(["demo", "--out", str(tmp_path)]) == 2
    assert "holds a report.html that no scan wrote" in capsys.readouterr().err
    assert own.read_text() == "mine"


@pytest.mark.slow
def test_demo_is_right_about_both_models(tmp_path: Path, capsys: Capture) -> None:
    code = main(["demo", "--out", str(tmp_path), "--json"])
    out, err = capsys.readouterr()
    outcome: dict[str, Any] = json.loads(out)
    assert (outcome["clean"]["verdict"], outcome["infected"]["verdict"]) == ("clean", "backdoored"), err
    assert outcome["infected"]["targets"] == [7]
    assert outcome["right"] is True
    assert code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"clean", "infected"}
    assert ScanResult.load(tmp_path / "infected").targets == (7,)


@pytest.mark.parametrize("attack", ["badnet", "trojaning"])
def test_a_model_is_not_infected_into_itself(attack: str, tmp_path: Path, capsys: Capture) -> None:
    model = tmp_path / "model.safetensors"
    model.write_bytes(b"what it was")
    command = ["infect", attack, str(model), "--data", "digits", "--target", "3"]
    assert main([*command, "--out", str(tmp_path / "." / "model.safetensors")]) == 2
    assert "is the model itself" in " ".join(capsys.readouterr().err.split())
    assert model.read_bytes() == b"what it was"
