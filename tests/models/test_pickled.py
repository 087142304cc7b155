"""Pickled networks: opened only where code is trusted, in a process with limits, and handed back as data."""

from __future__ import annotations

import argparse
import copy
import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torchvision import models

from tabor.errors import ModelError
from tabor.models import load_model, pickled
from tabor.models.build import Architecture, initialise
from tabor.models.content import Kind
from tabor.models.parts import Given
from tabor.models.pickled import Answer, Order
from tabor.models.safetensors_file import read_record, read_weights, write_model
from tabor.models.unpickle import convert

from ..hostile.makers import Canary, Script

TINY = Architecture(name="tabor:digits4", num_classes=3, channels=1, size=(12, 12))


def retrained(network: nn.Module, layer: str) -> nn.Module:
    """The network with a new layer for 7 classes, as TrojAI's were made."""
    parent, _, name = layer.rpartition(".")
    old = network.get_submodule(layer)
    setattr(network.get_submodule(parent), name, nn.Linear(int(old.in_features), 7))  # type: ignore[arg-type]
    return network


NETWORKS: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "resnet": ("torchvision:resnet18", lambda: retrained(models.resnet18(), "fc")),
    "mobilenet": ("torchvision:mobilenet_v2", lambda: retrained(models.mobilenet_v2(), "classifier.1")),
    "without the heads of training": (
        "torchvision:googlenet",
        lambda: models.googlenet(num_classes=7, aux_logits=False, init_weights=False),
    ),
    "timm": ("timm:resnet10t", lambda: timm.create_model("resnet10t", num_classes=7)),
    "timm, its own size": (
        "timm:vit_tiny_patch16_224",
        lambda: retrained(timm.create_model("vit_tiny_patch16_224", img_size=64), "head"),
    ),
    "in parallel": ("torchvision:squeezenet1_1", lambda: nn.DataParallel(models.squeezenet1_1(num_classes=7))),
    "half precision": ("torchvision:squeezenet1_1", lambda: models.squeezenet1_1(num_classes=7).half()),
}


def order(path: Path, folder: Path, **changes: Any) -> Order:
    usual: dict[str, Any] = {"memory": 2**40, "channels": 3, "size": (64, 64), "name_wanted": True}
    return Order(path=str(path), folder=str(folder), **(usual | changes))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_constructor_is_found(name: str, tmp_path: Path) -> None:
    arch, make = NETWORKS[name]
    torch.manual_seed(0)
    network = make().eval()
    torch.save({"model": network} if name == "resnet" else network, tmp_path / "model.pt")
    assert convert(order(tmp_path / "model.pt", tmp_path)).doubt == ""
    loaded = load_model(tmp_path / "model.safetensors")
    assert (loaded.architecture.name, loaded.architecture.num_classes) == (arch, 7)
    images = torch.rand(3, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(loaded(images), network.float()(images), atol=1e-4)


def test_of_several_networks_none_is_taken(tmp_path: Path) -> None:
    ones, others = (models.squeezenet1_1(num_classes=7) for _ in range(2))
    for beside in ({"ema": others}, {"state_dict": others.state_dict()}):
        torch.save({"model": ones, **beside}, tmp_path / "model.pt")
        with pytest.raises(ModelError, match=f"differ: .*{next(iter(beside))}"):
            convert(order(tmp_path / "model.pt", tmp_path, name_wanted=False))
    torch.save({"model": ones, "ema": copy.deepcopy(ones)}, tmp_path / "model.pt")
    assert "SqueezeNet" in convert(order(tmp_path / "model.pt", tmp_path, name_wanted=False)).holds


def changed(**to: object) -> nn.Module:
    """SqueezeNet with a first layer of another kind."""
    network = models.squeezenet1_1(num_classes=7)
    for name, value in to.items():
        setattr(network.features[0], name, value)
    return network


UNKNOWN: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "another function": (lambda: changed(stride=(1, 1)), "SqueezeNet", "squeezenet1_1 has such weights but other answ"),
    "other weights": (
        lambda: changed(bias=None),
        "SqueezeNet",
        "no constructor of torchvision builds one with such weights for images of 64×64",
    ),
    "of neither library": (lambda: nn.Sequential(nn.Linear(3, 3)), "Sequential", "no network of torchvision or timm"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_no_name_is_better_than_a_wrong_one(name: str, tmp_path: Path) -> None:
    make, holds, reason = UNKNOWN[name]
    network = make()
    torch.save(network, tmp_path / "model.pt")
    answer = convert(order(tmp_path / "model.pt", tmp_path))
    assert answer.error == ""
    assert holds in answer.holds
    assert reason in answer.reason
    assert read_record(tmp_path / "model.safetensors") == {}
    assert read_weights(tmp_path / "model.safetensors").keys() == network.state_dict().keys()


class Cannot(nn.Module):
    """Stands in for a layer pickled by a version of a library whose attributes are gone."""

    def forward(self, images: Tensor) -> Tensor:
        """Fails."""
        raise AttributeError("'Conv2d' object has no attribute 'padding_mode'")


def test_a_network_that_cannot_run_is_taken_by_its_weights_with_a_doubt(tmp_path: Path) -> None:
    network = models.squeezenet1_1(num_classes=7)
    network.features[1] = Cannot()
    torch.save(network, tmp_path / "model.pt")
    answer = convert(order(tmp_path / "model.pt", tmp_path))
    assert "only the weights' names and shapes fit" in answer.doubt
    assert load_model(tmp_path / "model.safetensors").architecture.name == "torchvision:squeezenet1_1"


def test_weights_beside_other_things(tmp_path: Path) -> None:
    torch.save({"state_dict": {"w": torch.ones(2)}, "args": argparse.Namespace(lr=1)}, tmp_path / "model.pt")
    assert convert(order(tmp_path / "model.pt", tmp_path)) == Answer()
    assert read_weights(tmp_path / "model.safetensors").keys() == {"w"}


# What the process that is asked for sees of it


def standing_in(monkeypatch: pytest.MonkeyPatch, answer: object, ended: int | None = 0) -> None:
    """Has the process say something, and leave a file of weights."""

    def run(module: str, text: str, folder: Path) -> int | None:
        given = json.loads(text)
        convert(Order(**(given | {"size": tuple(given["size"])})))
        if answer is not None:
            (folder / pickled.ANSWER_FILE).write_text(answer if isinstance(answer, str) else json.dumps(answer))
        return ended

    monkeypatch.setattr(pickled, "_run", run)


@pytest.fixture
def squeezenet(tmp_path: Path) -> Path:
    torch.save(models.squeezenet1_1(num_classes=7), tmp_path / "model.pt")
    return tmp_path / "model.pt"


SAID = {"error": "", "holds": "x.Y", "reason": "it is odd", "doubt": ""}


def test_a_doubt_is_logged(squeezenet: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    standing_in(monkeypatch, SAID | {"doubt": "nobody knows\x1b[2J"})
    with caplog.at_level(logging.WARNING, logger="tabor"):  # libraries change the level of all
        assert load_model(squeezenet, size=(64, 64), trust_code=True).architecture.num_classes == 7
    (record,) = caplog.records
    assert r"model.pt holds a network taken for a torchvision:squeezenet1_1, but nobody knows\x1b[2J" in record.message


@pytest.mark.parametrize(
    ("answer", "ended", "message"),
    [
        pytest.param(SAID | {"error": "it\nbroke"}, 0, r"cannot be unpickled: it\\nbroke", id="it tells an error"),
        pytest.param(None, None, "did not end within 300 seconds", id="too late"),
        pytest.param(None, -9, r"broke off by signal 9 \(Killed\)", id="killed"),
        pytest.param(None, 3, "broke off with exit code 3", id="gone"),
        pytest.param("{", 0, "broke off", id="no JSON"),
        pytest.param("[" * 9000, 0, "broke off", id="deep JSON"),
        pytest.param([1], 0, "broke off", id="a list"),
        pytest.param({"error": ""}, 0, "broke off", id="half an answer"),
        pytest.param(SAID | {"reason": "x" * 20_000}, 0, "broke off", id="an endless answer"),
    ],
)
def test_what_the_process_says_is_not_trusted(
    answer: object, ended: int | None, message: str, squeezenet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    standing_in(monkeypatch, answer, ended)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(squeezenet, size=(64, 64), trust_code=True)
    assert str(caught.value).isprintable()


def test_an_answer_that_lies_elsewhere_is_none(
    squeezenet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "said.json").write_text(json.dumps(SAID))

    def run(module: str, text: str, folder: Path) -> int:
        (folder / pickled.ANSWER_FILE).symlink_to(tmp_path / "said.json")
        return 0

    monkeypatch.setattr(pickled, "_run", run)
    with pytest.raises(ModelError, match="broke off with exit code 0"):
        load_model(squeezenet, size=(64, 64), trust_code=True)


def test_a_network_without_a_name_needs_arch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(nn.Sequential(nn.Flatten(), nn.Linear(3 * 16, 5)), tmp_path / "model.pt")
    (tmp_path / "net.py").write_text(
        "from torch import nn\nbuild = lambda: nn.Sequential(nn.Flatten(), nn.Linear(48, 5))"
    )
    standing_in(monkeypatch, SAID)
    with pytest.raises(ModelError, match=r"holds a x\.Y, and it is odd; .*--arch FILE\.py:FUNCTION"):
        load_model(tmp_path / "model.pt", size=(4, 4), trust_code=True)
    model = load_model(tmp_path / "model.pt", arch=f"{tmp_path / 'net.py'}:build", size=(4, 4), trust_code=True)
    assert model.architecture.num_classes == 5


@pytest.mark.parametrize("arch", [None, TINY.name])
def test_nothing_is_believed_of_what_the_pickle_may_have_written_but_its_architecture(
    arch: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = initialise(TINY, 0).state_dict()
    torch.save(weights | {"args": argparse.Namespace(lr=1)}, path := tmp_path / "model.pt")

    def run(module: str, text: str, folder: Path) -> int:
        write_model(folder / pickled.MODEL_FILE, weights, TINY, {"clean_accuracy": 1.0, "backdoors": []})
        (folder / pickled.ANSWER_FILE).write_text(json.dumps(SAID))
        return 0

    monkeypatch.setattr(pickled, "_run", run)
    _, record = pickled.read_pickled(path, Kind.CHECKPOINT, Given(arch=arch))
    assert list(record) == (["architecture"] if arch is None else [])


def test_it_is_refused_without_trust(tmp_path: Path) -> None:
    torch.save(Script(), tmp_path / "model.pt")
    for arch in (None, "torchvision:resnet18"):
        with pytest.raises(ModelError, match=r"would call .*Script.*, so it is not opened; .*--trust-code"):
            load_model(tmp_path / "model.pt", arch=arch, allow_torchscript=True)


def test_a_folder_that_cannot_be_written(squeezenet: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot write into .*missing"):
        load_model(squeezenet, trust_code=True, scratch=tmp_path / "missing")


# With the process


def test_from_end_to_end(squeezenet: Path, tmp_path: Path) -> None:
    told: list[str] = []
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    model = load_model(squeezenet, size=(64, 64), trust_code=True, on_code=told.append, scratch=scratch)
    assert model.architecture.name == "torchvision:squeezenet1_1"
    assert model.source == "model.pt"
    (line,) = told
    assert line.startswith(f"--trust-code: unpickling {squeezenet}, which calls torchvision.models.squeezenet.")
    assert list(scratch.iterdir()) == []


def test_what_the_process_leaves_in_the_temporary_folder_goes_with_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "leaving.py").write_text("import tempfile\ntempfile.mkstemp(prefix='left')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (folder := tmp_path / "folder").mkdir()
    assert pickled._run("leaving", "", folder) == 0
    assert [file.name.startswith("left") for file in folder.iterdir()] == [True]


def test_a_folder_of_strangers_is_no_place_for_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"w": torch.ones(2), "args": argparse.Namespace(lr=1)}, tmp_path / "model.pt")
    for name in ("torch", "json", "tabor"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'dead')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError):
        load_model(tmp_path / "model.pt", arch="tabor:digits4", trust_code=True)
    assert not (tmp_path / "dead").exists()


class Calls:
    """Unpickling it calls something."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(Calls(bytearray, 6 * 2**30), r"takes more than 4,\d{3},\d{3},\d{3} bytes of memory", id="memory"),
        pytest.param(Calls(os._exit, 7), "broke off with exit code 7", id="ends the process"),
    ],
)
def test_accidents_stay_in_the_process(content: object, message: str, tmp_path: Path) -> None:
    torch.save({"first": Canary(tmp_path / "began"), "then": content}, tmp_path / "model.pt")
    with pytest.raises(ModelError, match=message):
        load_model(tmp_path / "model.pt", trust_code=True)
    assert (tmp_path / "began").exists()


@pytest.mark.slow
def test_an_endless_pickle_is_ended_with_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickled, "SECONDS", 20.0)
    child = f"sleep 30; touch {tmp_path / 'survived'}"
    endless = Calls(os.system, f"(echo $$ > {tmp_path / 'pid'}; {child}) & {child}")
    torch.save({"first": Canary(tmp_path / "began"), "then": endless}, tmp_path / "model.pt")
    with pytest.raises(ModelError, match="did not end within 20 seconds"):
        load_model(tmp_path / "model.pt", trust_code=True)
    assert (tmp_path / "began").exists()
    time.sleep(0.5)
    assert _is_over((tmp_path / "pid").read_text().strip())


def _is_over(process: str) -> bool:
    """Whether a process has ended, be it that nobody has asked yet how."""
    try:
        return Path("/proc", process, "stat").read_text().rpartition(")")[2].split()[0] in ("Z", "X")
    except FileNotFoundError:
        return True
