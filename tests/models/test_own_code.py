"""A user's own Python file: run only where code is trusted, left without a trace, and its faults told in one line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from tabor.cli import main
from tabor.errors import ModelError
from tabor.models import load_model

HEAD = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes=4, channels=3, size=(8, 8), wide=1.0):
        super().__init__()
        self.scale = torch.linspace(0, 1, 3)[1].item()  # has no value without memory
        self.body = nn.Linear(channels * size[0] * size[1], num_classes)
    def forward(self, images):
        return self.body(images.flatten(1)) * self.scale
"""

FUNCTIONS = {
    "takes all": "def build(num_classes, channels, size): return Net(num_classes, channels, size)",
    "takes them by keyword": "def build(*, size, num_classes): return Net(num_classes, 3, size)",
    "takes what comes": "def build(**settings): return Net(**settings)",
    "takes the classes": "def build(num_classes=9): return Net(num_classes)",
    "takes nothing": "def build(): return Net()",
    "takes something else": "def build(wide=2.0): return Net(wide=wide)",
    "is a class": "build = Net",
}


def written(folder: Path, source: str, classes: int = 4) -> tuple[Path, str]:
    """A file of weights, and the name of a function in a Python file."""
    torch.manual_seed(0)
    layer = nn.Linear(3 * 8 * 8, classes)
    weights = folder / "weights.safetensors"
    safetensors.torch.save_file({f"body.{name}": value for name, value in layer.state_dict().items()}, weights)
    (folder / "net.py").write_text(source)
    return weights, f"{folder / 'net.py'}:build"


def wanted(weights: Path, images: Tensor) -> Tensor:
    tensors = safetensors.torch.load_file(weights)
    return (images.flatten(1) @ tensors["body.weight"].T + tensors["body.bias"]) * 0.5


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_function_builds_the_network(function: str, tmp_path: Path) -> None:
    weights, arch = written(tmp_path, HEAD + FUNCTIONS[function])
    told: list[str] = []
    model = load_model(weights, arch=arch, size=(8, 8), trust_code=True, on_code=told.append)
    assert told == [f"--trust-code: running {tmp_path / 'net.py'}"]
    assert (model.architecture.name, model.architecture.num_classes) == ("net.py:build", 4)
    images = torch.rand(5, 3, 8, 8)
    assert torch.allclose(model(images), wanted(weights, images), atol=1e-5)


def test_a_checkpoint_is_filled_in_as_well(tmp_path: Path) -> None:
    weights, arch = written(tmp_path, HEAD + FUNCTIONS["takes all"])
    torch.save({"state_dict": safetensors.torch.load_file(weights)}, tmp_path / "model.pt")
    model = load_model(tmp_path / "model.pt", arch=arch, size=(8, 8), trust_code=True)
    assert model.architecture.num_classes == 4


def test_no_trace_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)  # whatever PYTHONDONTWRITEBYTECODE says
    (tmp_path / "neighbour_of_net.py").write_text("import sys; sys.path.append('/nowhere'); CLASSES = 4")
    source = HEAD + "from neighbour_of_net import CLASSES\ndef build(): return Net(CLASSES)"
    weights, arch = written(tmp_path, source)
    path = list(sys.path)
    load_model(weights, arch=arch, size=(8, 8), trust_code=True)
    assert (sys.path, sys.dont_write_bytecode) == (path, False)
    assert {file.name for file in tmp_path.iterdir()} == {"weights.safetensors", "net.py", "neighbour_of_net.py"}


def test_nothing_runs_without_trust(tmp_path: Path) -> None:
    weights, arch = written(tmp_path, f"import pathlib; pathlib.Path({str(tmp_path / 'dead')!r}).touch()\n" + HEAD)
    for torchscript in (False, True):
        with pytest.raises(ModelError, match=r"--arch .*net\.py:build would run that Python file; .*--trust-code"):
            load_model(weights, arch=arch, size=(8, 8), allow_torchscript=torchscript)
    assert not (tmp_path / "dead").exists()
    with pytest.raises(ModelError, match=r"net\.py has no function build"):
        load_model(weights, arch=arch, size=(8, 8), trust_code=True)
    assert (tmp_path / "dead").exists()


FAULTS = {
    "at once": ("x = 1\ny = nothing\n", r"net\.py:build failed at line 2 of net\.py: NameError: name 'nothing'"),
    "syntax": ("def build(:\n", r"failed at line 1 of net\.py: SyntaxError"),
    "tries to end the process": ("import sys\nsys.exit(3)\n", r"failed at line 2 of net\.py: SystemExit: 3"),
    "no such module": ("import no_such_module_here\n", r"line 1 of net\.py: ModuleNotFoundError"),
    "in the function": ("def build():\n    a = 1\n    return a / 0\n", r"line 3 of net\.py: ZeroDivisionError"),
    "deep in a library": ("import json\ndef build():\n    return json.loads('{')\n", r"line 3 of net\.py: JSONDecode"),
    "wants more": ("def build(depth): pass\n", r"failed: TypeError: build\(\) missing 1 required"),
    "no function": ("build = 3\n", r"net\.py has no function build"),
    "no network": ("def build(): return 3\n", r"returned no torch\.nn\.Module but a int"),
    "control characters": ("raise ValueError('\\x1b[2J')\n", r"ValueError: \\x1b\[2J"),
    "other weights": (HEAD + "def build(): return Net(channels=2)", r"weights do not fit net\.py:build: 1 of another"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_told_in_one_line(fault: str, tmp_path: Path) -> None:
    source, message = FAULTS[fault]
    weights, arch = written(tmp_path, source)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(weights, arch=arch, size=(8, 8), trust_code=True)
    assert str(caught.value).isprintable()


def test_other_faults(tmp_path: Path) -> None:
    weights, arch = written(tmp_path, HEAD + FUNCTIONS["takes nothing"])
    with pytest.raises(ModelError, match="builds a network of 4 classes, not 5"):
        load_model(weights, arch=arch, size=(8, 8), num_classes=5, trust_code=True)
    with pytest.raises(ModelError, match="there is no Python file"):
        load_model(weights, arch=f"{tmp_path / 'no.py'}:build", trust_code=True)


def test_the_command_line_says_in_red_what_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, arch = written(tmp_path, HEAD.replace("channels=3", "channels=1") + "def build(): raise ValueError")
    command = ["scan", str(weights), "--data", "digits", "--size", "8", "--images", "20", "--arch", arch]
    assert main(command) == 2
    assert "--trust-code" in capsys.readouterr().err
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert main([*command, "--trust-code"]) == 2
    red, error = capsys.readouterr().err.splitlines()
    assert red == f"\x1b[1;31m--trust-code: running {tmp_path / 'net.py'}\x1b[0m"
    assert "ValueError" in error
