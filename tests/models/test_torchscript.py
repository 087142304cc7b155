"""TorchScript programs: refused by default, and usable like any other network where the caller allows them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tabor.access import Classifier, choose_device
from tabor.cli import main
from tabor.errors import ModelError
from tabor.models import Architecture, load_model
from tabor.models.build import initialise

from ..hostile.makers import archive

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # TorchScript is deprecated, which its users know

Written = Callable[[nn.Module], torch.jit.ScriptModule]
WRITTEN: dict[str, Written] = {
    "scripted": lambda network: torch.jit.script(network),
    "traced": lambda network: torch.jit.trace(network, torch.rand(1, 1, 12, 12)),
    "frozen": lambda network: torch.jit.freeze(torch.jit.script(network)),
    "half precision": lambda network: torch.jit.script(network.to(torch.bfloat16)),
}


@pytest.fixture
def network(tiny: Architecture) -> nn.Module:
    return initialise(tiny, seed=0).eval()


def write(path: Path, network: nn.Module, written: Written = WRITTEN["scripted"]) -> Path:
    torch.jit.save(written(network), path)
    return path


@pytest.mark.parametrize("how", WRITTEN)
def test_a_program_does_what_a_scan_needs(
    how: str, network: nn.Module, tiny: Architecture, images: Tensor, tmp_path: Path
) -> None:
    path = write(tmp_path / "model.pt", network, WRITTEN[how])
    network = network.float()
    told: list[str] = []
    loaded = load_model(path, channels=1, size=tiny.size, allow_torchscript=True, on_code=told.append)
    assert told == [f"--allow-torchscript: running the program in {path}"]
    assert (loaded.architecture.name, loaded.architecture.num_classes) == ("torchscript", 3)
    assert torch.allclose(loaded(images), network(images), atol=1e-5)
    before = [parameter.data_ptr() for parameter in loaded.parameters()]
    classifier = Classifier(loaded, choose_device("cpu"), tiny.image_shape)
    assert [parameter.data_ptr() for parameter in loaded.parameters()] == before
    for number in (1, 2, 5, 300, 2):
        batch = torch.rand(number, 1, 12, 12, generator=torch.Generator().manual_seed(number)).requires_grad_()
        logits = classifier.logits(batch)
        (gradient,) = torch.autograd.grad(logits.sum(), batch)
        wanted = batch.detach().requires_grad_()
        (true,) = torch.autograd.grad(network(wanted).sum(), wanted)
        assert torch.allclose(logits, network(batch), atol=1e-5)
        other = ((gradient - true).abs() > 1e-5).flatten(1).any(1)
        assert other.float().mean() <= 0.01  # rounding may turn a ReLU, or another pixel may be the largest of a pool


def test_it_is_refused_unless_allowed(network: nn.Module, tmp_path: Path) -> None:
    path = write(tmp_path / "model.pt", network)
    for trust_code in (False, True):
        with pytest.raises(ModelError, match=r"TorchScript program which can run code.*--allow-torchscript"):
            load_model(path, channels=1, size=(12, 12), trust_code=trust_code)


class Pair(nn.Module):
    """No classifier: it returns two things."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns its input twice."""
        return images, images


def test_what_is_wrong_is_said(network: nn.Module, tmp_path: Path) -> None:
    path = write(tmp_path / "model.pt", network)
    with pytest.raises(ModelError, match="answers with 3 classes, not 4"):
        load_model(path, channels=1, size=(12, 12), num_classes=4, allow_torchscript=True)
    with pytest.raises(ModelError, match="its own network; leave out --arch"):
        load_model(path, arch="tabor:digits4", allow_torchscript=True)
    with pytest.raises(ModelError, match=r"fails on images of 3×32×32 .*--size") as caught:
        load_model(path, allow_torchscript=True)
    assert str(caught.value).isprintable()
    pair = write(tmp_path / "pair.pt", Pair())
    with pytest.raises(ModelError, match="returned tuple"):
        load_model(pair, allow_torchscript=True)


def test_a_damaged_program(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(archive({"m/constants.pkl": b"", "m/data.pkl": b"", "m/code/x.py": b"nothing"}))
    with pytest.raises(ModelError, match="TorchScript program, damaged") as caught:
        load_model(path, channels=1, size=(12, 12), allow_torchscript=True)
    assert str(caught.value).isprintable()


def test_the_command_line_says_in_red_what_runs(
    network: nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "model.pt", network)
    command = ["scan", str(path), "--data", "digits", "--size", "12", "--images", "20"]
    assert main(command) == 2
    assert "--allow-torchscript" in capsys.readouterr().err
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert main([*command, "--allow-torchscript"]) == 2  # ten classes of digits, three of the model's
    red, *_ = capsys.readouterr().err.splitlines()
    assert red == f"\x1b[1;31m--allow-torchscript: running the program in {path}\x1b[0m"
