"""Neurons: which ones Trojan Attack tries, what lies behind them, and what they answer.  [§2.1]"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tabor.errors import ModelError

GREY = 0.5


@dataclass(frozen=True)
class Neuron:
    """A neuron, and what lies behind it.

    Attributes:
        layer: name of the layer whose output it is; of a convolution, a channel.
        unit: its number there.
        behind: names of the modules with weights that work on that output, in order.
    """

    layer: str
    unit: int
    behind: tuple[str, ...]


def best_connected(model: nn.Module, image_shape: tuple[int, int, int], count: int) -> list[Neuron]:
    """Returns the neurons of the last convolution with the largest sums of absolute incoming weights, largest first.

    Liu et al. take the neuron that is most strongly connected to the layer before it, the easiest to excite, in the
    first dense layer of VGG-Face.  In smaller networks a neuron there sees the whole image, and a trigger in a corner
    hardly moves it.  A model without convolutions has them in the last layer but one.

    Args:
        model: takes images (N, C, H, W).
        image_shape: (C, H, W).
        count: how many at most.

    Raises:
        ModelError: the model does not end with a linear layer behind another one, or behind a convolution.
    """
    order = _in_order(model, image_shape)
    layers = [name for name, module in order if isinstance(module, nn.Linear | nn.Conv2d)]
    if len(layers) < 2 or not isinstance(model.get_submodule(layers[-1]), nn.Linear):
        raise ModelError("a Trojan Attack needs a model that ends with a linear layer, and another layer before it")
    convolutions = [name for name, module in order if isinstance(module, nn.Conv2d)]
    layer = convolutions[-1] if convolutions else layers[-2]
    weight = model.get_submodule(layer).get_parameter("weight")
    names = [name for name, _ in order]
    behind = tuple(names[names.index(layer) + 1 :])
    units = weight.detach().flatten(1).abs().sum(1).argsort(descending=True, stable=True)
    return [Neuron(layer, unit, behind) for unit in units[:count].tolist()]


@torch.no_grad()
def _in_order(model: nn.Module, image_shape: tuple[int, int, int]) -> list[tuple[str, nn.Module]]:
    """The modules with weights of their own, by name, as they come to work."""
    order: list[tuple[str, nn.Module]] = []
    own = [(name, module) for name, module in model.named_modules() if list(module.parameters(recurse=False))]
    hooks = [
        module.register_forward_pre_hook(lambda module, _, name=name: order.append((name, module)))
        for name, module in own
    ]
    try:
        model(torch.full((1, *image_shape), GREY))
    finally:
        for hook in hooks:
            hook.remove()
    return order


@contextmanager
def outputs_of(model: nn.Module, layer: str) -> Iterator[list[Tensor]]:
    """Keeps what the layer of that name returns while the block runs: copies, as an activation may work in place."""
    kept: list[Tensor] = []
    hook = model.get_submodule(layer).register_forward_hook(lambda _, __, output: kept.append(output.clone()))
    try:
        yield kept
    finally:
        hook.remove()


@torch.no_grad()
def strongest_answers(model: nn.Module, layer: str, parts: Sequence[Tensor]) -> Tensor:
    """Returns what each neuron of a layer answers to each image, of a channel where it is strongest, (N, neurons).

    Args:
        model: takes images (N, C, H, W).
        layer: its name.
        parts: the images, as many at once.
    """
    found = []
    with outputs_of(model, layer) as outputs:
        for part in parts:
            model(part)
            output = outputs.pop()
            found.append(output.reshape(*output.shape[:2], -1).amax(2))
    return torch.cat(found)
