"""What a network's outputs are: logits, log-probabilities or probabilities; told once, where the model is loaded."""

from __future__ import annotations

from enum import StrEnum

import torch
from torch import Tensor, nn

from tabor.errors import ModelError, dimensions, one_line

PROBES = 2
"""Images; few, because a record may claim large ones, which fill the memory in a network's first layers."""

TELLING = 16
"""Real images whose answers tell what the outputs of a model are that was not loaded from a file."""

CLOSE = 1e-3
"""How near to 1 the sums of probabilities must be: they may have been computed in half precision."""

SMALLEST = 1e-30
"""Stands for a probability that float32 rounded to 0, so that its logarithm stays finite."""


class Output(StrEnum):
    """What the numbers are, one a class."""

    LOGITS = "logits"
    LOG_PROBABILITIES = "log-probabilities"
    PROBABILITIES = "probabilities"


class Logarithm(nn.Module):
    """A network that returns probabilities, made to return log-probabilities, which are logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Returns log-probabilities (N, num_classes)."""
        answer: Tensor = self.network(images)
        return answer.float().clamp_min(SMALLEST).log()


def recognise(model: nn.Module, image_shape: tuple[int, int, int]) -> Output:
    """Returns what the outputs are, from the answers to random images of shape (C, H, W).

    Raises:
        ModelError: the model fails on them, or does not return (N, classes) of finite numbers.
    """
    return told_by(probe(model, image_shape))


def told_by(answers: Tensor) -> Output:
    """Returns what the outputs are, from the answers to some images, (N, classes).

    Raises:
        ModelError: they are not finite numbers.
    """
    answers = answers.double()
    if not bool(torch.isfinite(answers).all()):
        raise ModelError("the model's outputs are not finite numbers (NaN or infinity), so nothing can be measured")
    if bool((answers >= 0).all()) and _sum_to_one(answers):
        return Output.PROBABILITIES
    if _sum_to_one(answers.exp()):
        return Output.LOG_PROBABILITIES
    return Output.LOGITS


@torch.no_grad()
def probe(model: nn.Module, image_shape: tuple[int, int, int]) -> Tensor:
    """Returns the answers (N, classes) to a few random images of shape (C, H, W).

    Raises:
        ModelError: the model fails on them, or does not return (N, classes).
    """
    probes = torch.rand(PROBES, *image_shape, generator=torch.Generator().manual_seed(0))
    try:
        answers = model(probes)
    except Exception as error:  # noqa: BLE001 (a stranger's forward may raise anything)
        raise ModelError(
            f"the model fails on images of {dimensions(image_shape)} (channels×height×width): {one_line(error)}; "
            f"give the size it was trained on with --size"
        ) from None
    if not isinstance(answers, Tensor) or answers.ndim != 2 or len(answers) != PROBES:
        got = tuple(answers.shape) if isinstance(answers, Tensor) else type(answers).__name__
        raise ModelError(f"a classifier returns (N, classes), for {PROBES} images this model returned {got}")
    return answers


def as_logits(model: nn.Module, output: Output) -> nn.Module:
    """Returns a model that returns logits; log-probabilities are logits already."""
    return Logarithm(model) if output is Output.PROBABILITIES else model


def _sum_to_one(answers: Tensor) -> bool:
    return bool(((answers.sum(1) - 1).abs() <= CLOSE).all())
