"""A TorchScript program: code, by PyTorch's own word, so it is read only where the caller allows it."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from tabor.errors import ModelError, one_line
from tabor.models.build import Architecture
from tabor.models.checkpoint import refusal
from tabor.models.content import Kind
from tabor.models.outputs import probe
from tabor.models.parts import Given, Parts


class Program(nn.Module):
    """A program as a module like any other: a script module itself refuses `requires_grad_`."""

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program

    def forward(self, images: Tensor) -> Tensor:
        """Returns the program's answer to images (N, C, H, W)."""
        answer: Tensor = self.program(images)
        return answer


def read_torchscript(path: Path, given: Given) -> Parts:
    """Returns the program, frozen; the caller says which images it takes, and a trial run how many classes it has.

    Raises:
        ModelError: the caller does not allow it, the file is damaged, or the program does not answer as a classifier.
    """
    if not given.trust.torchscript:
        raise ModelError(refusal(path, Kind.TORCHSCRIPT))
    if given.arch is not None:
        raise ModelError(f"{one_line(path)} is a TorchScript program, which is its own network; leave out --arch")
    given.trust.tell(f"--allow-torchscript: running the program in {one_line(path)}")
    program = _loaded(path)
    # A copy of parameters that want gradients would be no leaves any more, and could not be frozen.
    network = Program(program).float().eval().requires_grad_(False)
    architecture = Architecture(**{"name": "torchscript", "num_classes": 2, **given.changes()})
    classes = probe(network, architecture.image_shape).shape[1]
    if given.num_classes not in (None, classes):
        raise ModelError(f"the program in {one_line(path)} answers with {classes} classes, not {given.num_classes}")
    return Parts(network, dataclasses.replace(architecture, num_classes=classes))


def _loaded(path: Path) -> nn.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TorchScript is deprecated, which its users know
            program: nn.Module = torch.jit.load(path, map_location="cpu")
    except Exception as error:  # noqa: BLE001 (a damaged file may break the reader anywhere)
        raise ModelError(f"{one_line(path)} is {Kind.TORCHSCRIPT.value}, damaged ({one_line(error, 120)})") from None
    return program
