"""Operators that work on each number by itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from tabor.models.onnx_graph.node import Node, Numbers, Operator
from tabor.models.onnx_graph.types import result_type


def _plain(function: Callable[..., Tensor]) -> Operator:
    """An operator without settings."""
    return Operator(lambda node, *inputs: function(*inputs))


def _over_all(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    """An operator that takes any number of inputs, two at a time."""
    return Operator(lambda node, *inputs: reduce(function, inputs))


def _divide(node: Node, x: Tensor, y: Tensor) -> Tensor:
    return x / y if x.is_floating_point() or y.is_floating_point() else torch.div(x, y, rounding_mode="trunc")


def _modulo(node: Node, x: Tensor, y: Tensor) -> Tensor:
    return torch.fmod(x, y) if node.integer("fmod", 0) else torch.remainder(x, y)


def _power(node: Node, x: Tensor, y: Tensor) -> Tensor:
    return torch.pow(x, y).to(x.dtype)


def _cast(node: Node, x: Tensor) -> Tensor:
    wanted = result_type(node, [])
    if wanted == torch.bool:
        return x != 0
    return x.to(wanted if wanted == torch.float64 else torch.float32 if wanted.is_floating_point else torch.int64)


def _clip(node: Node, x: Tensor, low: Numbers | None = None, high: Numbers | None = None) -> Tensor:
    if node.opset < 11:
        return x.clamp(node.number("min", -torch.inf), node.number("max", torch.inf))
    if not low and not high:
        return x
    return x.clamp(low[0] if low else None, high[0] if high else None)


def _hard_sigmoid(node: Node, x: Tensor) -> Tensor:
    return (node.number("alpha", 0.2) * x + node.number("beta", 0.5)).clamp(0, 1)


def _gelu(node: Node, x: Tensor) -> Tensor:
    return F.gelu(x, approximate=node.text("approximate", "none"))


def _parametric_relu(node: Node, x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x < 0, slope * x, x)


def _selu(node: Node, x: Tensor) -> Tensor:
    alpha, gamma = node.number("alpha", 1.6732632423543772), node.number("gamma", 1.0507009873554805)
    return gamma * F.elu(x, alpha)


def _swish(node: Node, x: Tensor) -> Tensor:
    return x * torch.sigmoid(node.number("alpha", 1.0) * x)


def _thresholded_relu(node: Node, x: Tensor) -> Tensor:
    return torch.where(x > node.number("alpha", 1.0), x, torch.zeros_like(x))


ELEMENTWISE: dict[str, Operator] = {
    "Abs": _plain(torch.abs),
    "Add": _plain(torch.add),
    "And": _plain(torch.logical_and),
    "Cast": Operator(_cast),
    "Ceil": _plain(torch.ceil),
    "Celu": Operator(lambda node, x: F.celu(x, node.number("alpha", 1.0))),
    "Clip": Operator(_clip, numbers=(1, 2)),
    "Cos": _plain(torch.cos),
    "Div": Operator(_divide),
    "Elu": Operator(lambda node, x: F.elu(x, node.number("alpha", 1.0))),
    "Equal": _plain(torch.eq),
    "Erf": _plain(torch.erf),
    "Exp": _plain(torch.exp),
    "Floor": _plain(torch.floor),
    "Gelu": Operator(_gelu),
    "Greater": _plain(torch.gt),
    "GreaterOrEqual": _plain(torch.ge),
    "HardSigmoid": Operator(_hard_sigmoid),
    "HardSwish": _plain(F.hardswish),
    "Identity": _plain(lambda x: x),
    "LeakyRelu": Operator(lambda node, x: F.leaky_relu(x, node.number("alpha", 0.01))),
    "Less": _plain(torch.lt),
    "LessOrEqual": _plain(torch.le),
    "Log": _plain(torch.log),
    "Max": _over_all(torch.maximum),
    "Mean": Operator(lambda node, *inputs: reduce(torch.add, inputs) / len(inputs)),
    "Min": _over_all(torch.minimum),
    "Mish": _plain(F.mish),
    "Mod": Operator(_modulo),
    "Mul": _plain(torch.mul),
    "Neg": _plain(torch.neg),
    "Not": _plain(torch.logical_not),
    "Or": _plain(torch.logical_or),
    "Pow": Operator(_power),
    "PRelu": Operator(_parametric_relu),
    "Reciprocal": _plain(torch.reciprocal),
    "Relu": _plain(torch.relu),
    "Round": _plain(torch.round),
    "Selu": Operator(_selu),
    "Sigmoid": _plain(torch.sigmoid),
    "Sign": _plain(torch.sign),
    "Sin": _plain(torch.sin),
    "Softplus": _plain(F.softplus),
    "Softsign": _plain(F.softsign),
    "Sqrt": _plain(torch.sqrt),
    "Sub": _plain(torch.sub),
    "Sum": _over_all(torch.add),
    "Swish": Operator(_swish),
    "Tanh": _plain(torch.tanh),
    "ThresholdedRelu": Operator(_thresholded_relu),
    "Where": _plain(torch.where),
}
