"""`tabor trojai` as the harness calls it: one model of its layouts in, a file with one probability out."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn
from torchvision import models

from tabor.cli import main
from tabor.models.build import initialise
from tabor.models.safetensors_file import write_model
from tabor.presets import SOLVERS
from tabor.solver import SolverSettings
from tabor.trojai import infer
from tabor.trojai.metaparameters import DEFAULTS_FILE, SCHEMA_FILE, shipped

from ..hostile.makers import Canary
from ..test_cli import CELLS, cell_network, shorten

SHORTEST = SolverSettings(steps=4, smallest_steps=4, batch_size=2, round_steps=4)

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixty steps for the preset "fast"."""
    shorten(monkeypatch)


@dataclasses.dataclass
class Room:
    """The folders of one run."""

    folder: Path

    @property
    def result(self) -> Path:
        return self.folder / "result.txt"

    @property
    def model(self) -> Path:
        return self.folder / "model.pt"

    def words(self, *more: str, settings: dict[str, object] | None = None) -> list[str]:
        """The arguments as the harness of rounds 11 and later gives them, without the word `infer`."""
        for name, text in (
            ("m.json", json.dumps({"preset": "fast", "crop_size": 20} | (settings or {}))),
            ("s.json", shipped(SCHEMA_FILE)),
        ):
            (self.folder / name).write_text(text)
        (self.folder / "scratch").mkdir(exist_ok=True)
        given = {
            "model_filepath": self.model,
            "result_filepath": self.result,
            "scratch_dirpath": self.folder / "scratch",
            "examples_dirpath": self.folder / "clean-example-data",
            "metaparameters_filepath": self.folder / "m.json",
            "schema_filepath": self.folder / "s.json",
            "learned_parameters_dirpath": self.folder / "learned",
        }
        return ["trojai", *more, *(word for name, path in given.items() for word in (f"--{name}", str(path)))]

    def probability(self) -> float:
        """What the result file says, and that it says nothing else."""
        text = self.result.read_text(encoding="ascii")
        (line,) = text.splitlines()
        assert text == f"{line}\n"
        assert 0.01 <= float(line) <= 0.99
        return float(line)


@pytest.fixture
def room(tmp_path: Path) -> Room:
    """A folder with examples of the nine cells, 24 × 24, three a class, in the layout of the early rounds."""
    random = np.random.default_rng(0)
    folder = tmp_path / "clean-example-data"
    folder.mkdir()
    for label in range(9):
        top, left = 4 * (label // 3) + 3 + 2, 4 * (label % 3) + 3 + 2
        for number in range(3):
            pixels = random.integers(0, 25, (24, 24), dtype=np.uint8)
            pixels[top : top + 4, left : left + 4] += 204
            Image.fromarray(pixels).save(folder / f"class_{label}_example_{number}.png")
    return Room(tmp_path)


@pytest.fixture
def late_room(tmp_path: Path) -> Room:
    """Eight examples, 32 × 32, of eight of eleven classes, in the layout of the late rounds."""
    random = np.random.default_rng(0)
    folder = tmp_path / "clean-example-data"
    folder.mkdir()
    for number, label in enumerate((0, 1, 2, 3, 5, 7, 8, 10)):
        Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{1088 + number}.jpg")
        (folder / f"{1088 + number}.json").write_text(str(label))
    return Room(tmp_path)


@pytest.mark.slow
def test_an_infected_model_is_more_likely_infected(room: Room, capsys: Capture) -> None:
    write_model(room.model, cell_network(2).state_dict(), CELLS, {})
    quick: dict[str, object] = {"preset": "fast"}
    assert main(room.words("infer", settings=quick)) == 1
    infected = room.probability()
    out, err = capsys.readouterr()
    assert out == ""
    assert f"wrote {room.result}: {infected:.2f}, " in err
    write_model(room.model, cell_network(None).state_dict(), CELLS, {})
    assert main(room.words(settings=quick)) == 0
    assert room.probability() < 0.5 < infected


def trojai_resnet() -> nn.Module:
    """As the late rounds made them: a constructor of torchvision with a new last layer."""
    network = models.resnet18()
    network.fc = nn.Linear(network.fc.in_features, 11)
    return network


@pytest.mark.slow
@pytest.mark.parametrize("family", ["torchvision", "timm"])
def test_pickled_models_with_classes_that_have_no_image(
    family: str, late_room: Room, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SOLVERS, "fast", SHORTEST)
    torch.manual_seed(0)
    network = trojai_resnet() if family == "torchvision" else timm.create_model("resnet10t", num_classes=11)
    torch.save(network, late_room.model)
    words = late_room.words(
        *(["infer"] if family == "timm" else []), settings={"crop_size": 0, "method": "neural-cleanse"}
    )
    assert main([*words, "--trust-code", "--round_training_dataset_dirpath", "nowhere"]) in (0, 1, 3)
    late_room.probability()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"--trust-code: unpickling {late_room.model}, which calls {family}.models.")
    assert "only 8 of 11 classes have an image" in err
    assert list((late_room.folder / "scratch").iterdir()) == []


def test_every_class_is_searched_with_few_images(late_room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOLVERS, "fast", SHORTEST)
    architecture = dataclasses.replace(CELLS, num_classes=11)
    write_model(late_room.model, initialise(architecture, seed=0).state_dict(), architecture, {})
    late_room.words()
    found = infer(
        late_room.model,
        late_room.result,
        late_room.folder / "clean-example-data",
        metaparameters=late_room.folder / "m.json",
    )
    assert ([finding.index for finding in found.classes], found.data["classes_present"]) == (list(range(11)), 8)
    assert found.verdict == "undecided"
    assert late_room.probability() == found.score >= 0.5


OLD_FORMS: dict[str, Callable[[Room], list[str]]] = {
    "round 1": lambda room: room.words()[:9],
    "rounds 9 and 10": lambda room: [*room.words(), "--features_filepath", "features.csv"],
    "round 11": lambda room: [*room.words(), "--source_dataset_dirpath", "data"],
    "round 12": lambda room: [*room.words("infer"), "--scale_parameters_filepath", "scale.npy"],
    "configuration set": lambda room: [*room.words(), "--configure_models_dirpath", "x", "--automatic_configuration"],
}


@pytest.mark.parametrize("form", OLD_FORMS)
def test_what_older_harnesses_say_is_understood(form: str, room: Room, capsys: Capture) -> None:
    room.model.write_bytes(b"no model at all")
    assert main(OLD_FORMS[form](room)) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert "no known kind" in error or "smaller than the crop" in error  # the defaults crop to 224
    assert not room.result.exists()


# What goes wrong


def test_a_hostile_model_is_not_opened_without_trust(room: Room, capsys: Capture) -> None:
    dead = room.folder / "dead"
    torch.save({"w": Canary(dead)}, room.model)
    room.result.write_text("0.75\n")  # of another model
    assert main(room.words("infer")) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "would call" in err
    assert "--trust-code" in err
    assert len(err.splitlines()) == 1
    assert not dead.exists()
    assert not room.result.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"preset": "slow"}, "not one of", id="metaparameters"),
        pytest.param({"crop_size": 300}, "smaller than the crop", id="images"),
        pytest.param({"crop_size": 24}, "do not fit", id="another size"),
    ],
)
def test_no_result_of_a_scan_that_cannot_be_done(
    change: dict[str, object], message: str, room: Room, capsys: Capture
) -> None:
    write_model(room.model, cell_network(2).state_dict(), CELLS, {})
    room.result.write_text("0.75\n")
    words = room.words(settings=change)
    assert main(words) == 2
    assert message in capsys.readouterr().err
    assert not room.result.exists()


def test_a_result_that_cannot_be_written(room: Room, capsys: Capture) -> None:
    room.result.mkdir()
    assert main(room.words()) == 2
    assert "cannot write" in capsys.readouterr().err


@pytest.mark.parametrize(
    "drop", ["model_filepath", "result_filepath", "examples_dirpath"], ids=lambda name: name.partition("_")[0]
)
def test_wrong_usage(drop: str, room: Room, capsys: Capture) -> None:
    words = room.words()
    place = words.index(f"--{drop}")
    assert main(words[:place] + words[place + 2 :]) == 4
    assert f"give --{drop}" in capsys.readouterr().err
    assert main([*words, "--no_such_option"]) == 4


# Configuration


def test_there_is_nothing_to_configure(tmp_path: Path, capsys: Capture) -> None:
    words = ["--scratch_dirpath", str(tmp_path), "--configure_models_dirpath", str(tmp_path)]
    words += ["--learned_parameters_dirpath", str(tmp_path / "learned"), "--automatic_configuration"]
    files = [str(tmp_path / "m.json"), str(tmp_path / "s.json")]
    words += ["--metaparameters_filepath", files[0], "--schema_filepath", files[1]]
    assert main(["trojai", "configure", *words]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"there is nothing to learn; wrote {files[0]}; wrote {files[1]}\n"
    assert Path(files[0]).read_text() == shipped(DEFAULTS_FILE)
    Path(files[0]).write_text('{"seed": 3}')
    assert main(["trojai", *words, "--configure_mode"]) == 0
    assert capsys.readouterr().err == "there is nothing to learn\n"
    assert Path(files[0]).read_text() == '{"seed": 3}'
    Path(files[0]).write_text('{"seed": -3}')
    assert main(["trojai", "configure", *words]) == 2
    assert "minimum" in capsys.readouterr().err


def test_a_file_that_is_no_result_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As where two arguments were swapped."""
    model = tmp_path / "model.pt"
    model.write_bytes(bytes(1000))
    command = ["trojai", "--model_filepath", str(tmp_path / "r.txt"), "--result_filepath", str(model)]
    assert main([*command, "--examples_dirpath", str(tmp_path)]) == 2
    assert "is no result of tabor trojai and is left alone" in " ".join(capsys.readouterr().err.split())
    assert model.stat().st_size == 1000
