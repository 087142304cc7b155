"""A program as a network: an interpreter of a list of steps, each an operator that is on our list.

No code is made of a file's text, as torch.fx would: a step is a function of PyTorch's and plain arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

from tabor.errors import one_line
from tabor.models.exported_graph.archive import ProgramError

BATCH, DEVICE = "<batch>", "<device>"
"""What a step can refer to beside the values of the program, whose names are identifiers."""

DEEPEST_NAME = 32
"""Modules within modules."""


@dataclass(frozen=True)
class Reference:
    """The value of that name."""

    name: str


@dataclass(frozen=True)
class Images:
    """The number of images of the batch that is run, so many times."""

    times: int


@dataclass(frozen=True)
class Step:
    """One call.

    Attributes:
        call: what is called.
        positional: arguments without a name; they may hold `Reference`s and `Images`.
        named: arguments by their names.
        results: what the result is called, or its parts.
        several: whether the result has parts.
        last: the values that no later step needs.
        name: what the file calls the operator.
    """

    call: Callable[..., Any]
    positional: tuple[Any, ...]
    named: Mapping[str, Any]
    results: tuple[str, ...]
    several: bool
    last: tuple[str, ...]
    name: str


class Program(nn.Module):
    """Takes images (N, C, H, W), runs the steps on them, returns the answer (N, classes).

    Args:
        parameters: by their dotted names.
        buffers: and constants, likewise.
        fetched: what the steps call each of them, and its dotted name.
        image: what the steps call the images.
        answer: what they call the answer.
        steps: in the order in which they run.

    Raises:
        ProgramError: a tensor has a name that none can have.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        fetched: Mapping[str, str],
        image: str,
        answer: str,
        steps: Sequence[Step],
    ) -> None:
        super().__init__()
        self.weights = nn.Module()
        for name, tensor in parameters.items():
            owner, leaf = _place(self.weights, name)
            owner.register_parameter(leaf, nn.Parameter(tensor, tensor.is_floating_point()))
        for name, tensor in buffers.items():
            owner, leaf = _place(self.weights, name)
            owner.register_buffer(leaf, tensor)
        self._fetched = {value: attrgetter(name) for value, name in fetched.items()}
        self.image, self._answer, self._steps = image, answer, tuple(steps)

    def forward(self, images: Tensor) -> Any:
        """Returns the answer to the images."""
        return self.run(images, lambda step, given, result: None)

    def run(self, images: Tensor, see: Callable[[Step, Sequence[Any], Any], None]) -> Any:
        """Returns the answer to the images; `see` is shown each step, what it was given, and its result."""
        values = {value: get(self.weights) for value, get in self._fetched.items()}
        values |= {self.image: images, DEVICE: images.device, BATCH: len(images)}
        for step in self._steps:
            positional = [_given(argument, values) for argument in step.positional]
            named = {name: _given(argument, values) for name, argument in step.named.items()}
            result = step.call(*positional, **named)
            see(step, [*positional, *named.values()], result)
            if step.several:
                values |= zip(step.results, result, strict=True)
            elif step.results:
                values[step.results[0]] = result
            for name in step.last:
                del values[name]
        return values[self._answer]


def _given(argument: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(argument, Reference):
        return values[argument.name]
    if isinstance(argument, Images):
        return argument.times * values[BATCH]
    return [_given(item, values) for item in argument] if isinstance(argument, list) else argument


def _place(root: nn.Module, name: str) -> tuple[nn.Module, str]:
    """Makes the modules that a dotted name goes through; returns the last one, and the name that is free in it."""
    *folders, leaf = name.split(".")
    if len(folders) >= DEEPEST_NAME or not all(part.isidentifier() or part.isdecimal() for part in (*folders, leaf)):
        raise ProgramError(f"has a tensor with a name that no module gives: {one_line(name, 80)}")
    owner = root
    for folder in folders:
        if folder not in owner._modules:
            _check_free(owner, folder)
            owner.add_module(folder, nn.Module())
        owner = owner.get_submodule(folder)
    _check_free(owner, leaf)
    return owner, leaf


def _check_free(owner: nn.Module, name: str) -> None:
    if hasattr(owner, name):  # a module's own, such as `forward`, or one that the file gave before
        raise ProgramError(f"has a tensor with a name that is taken: {one_line(name, 80)}")


class OneByOne(nn.Module):
    """Shows a program each image by itself, all of them at once by `torch.vmap`.

    Else a program that counts its images could answer to few of them, as in use, otherwise than to as many as a scan
    sends.
    """

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program

    def forward(self, images: Tensor) -> Tensor:
        """Returns the answer to the images."""
        answers: Tensor = torch.vmap(lambda image: self.program(image[None])[0])(images)
        return answers


class Chunked(nn.Module):
    """Runs a program that takes a fixed number of images on any number: a chunk at a time, the last one filled up."""

    def __init__(self, program: nn.Module, batch: int) -> None:
        super().__init__()
        self.program = program
        self.batch = batch

    def forward(self, images: Tensor) -> Tensor:
        """Returns the answer to the images."""
        missing = -len(images) % self.batch
        filled = torch.cat([images, images[-1:].expand(missing, *images.shape[1:])]) if missing else images
        answers = [self.program(chunk) for chunk in filled.split(self.batch)]
        return torch.cat(answers)[: len(images)]
