"""Operators that make shapes, or lay numbers out in others."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tabor.models.onnx_graph.node import Node, Numbers, Operator


def axis_of(node: Node, x: Tensor, axis: int) -> int:
    """Returns the axis counted from the front.

    Raises:
        ModelError: there is no such axis.
    """
    if not -x.ndim <= axis < max(x.ndim, 1):
        raise node.refuse(f"an axis {axis} for {x.ndim} axes")
    return axis % max(x.ndim, 1)


def _constant(node: Node) -> Tensor:
    for name in ("value", "value_float", "value_int", "value_floats", "value_ints"):
        if name in node.attributes:
            value = node.attributes[name]
            if isinstance(value, Tensor):
                return value
            if not isinstance(value, str):
                return torch.tensor(value)
    raise node.refuse("no value of numbers")


def _filled(node: Node, shape: list[int]) -> Tensor:
    value = node.attributes.get("value")
    if value is None:
        return torch.zeros(shape)
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise node.refuse("a value that is not one number")
    return torch.full(shape, value.item(), dtype=value.dtype)


def _shape(node: Node, x: Tensor) -> Tensor:
    return torch.tensor(list(x.shape)[node.integer("start", 0) : node.integer("end", x.ndim)], dtype=torch.int64)


def _range(node: Node, start: Numbers, limit: Numbers, step: Numbers) -> Tensor:
    exact = torch.float64 if isinstance(start[0], float) else torch.int64
    return torch.arange(start[0], limit[0], step[0], dtype=exact)


def _reshape(node: Node, x: Tensor, shape: list[int]) -> Tensor:
    if not node.integer("allowzero", 0):
        if any(size == 0 and place >= x.ndim for place, size in enumerate(shape)):
            raise node.refuse("a shape that takes over an axis that is not there")
        shape = [x.shape[place] if size == 0 else size for place, size in enumerate(shape)]
    return x.reshape(shape)


def _flatten(node: Node, x: Tensor) -> Tensor:
    axis = node.integer("axis", 1)
    if not -x.ndim <= axis <= x.ndim:
        raise node.refuse(f"an axis {axis} for {x.ndim} axes")
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def _squeeze(node: Node, x: Tensor, axes: list[int] | None = None) -> Tensor:
    chosen = axes or node.integers("axes")
    if not chosen:
        return x.squeeze()
    places = [axis_of(node, x, axis) for axis in chosen]
    if any(x.shape[place] != 1 for place in places):
        raise node.refuse("an axis to take away that is longer than 1")
    return x.squeeze(places)


def _unsqueeze(node: Node, x: Tensor, axes: list[int] | None = None) -> Tensor:
    chosen = axes or node.integers("axes") or []
    total = x.ndim + len(chosen)
    for place in sorted(axis + total if axis < 0 else axis for axis in chosen):
        x = x.unsqueeze(place)
    return x


def _transpose(node: Node, x: Tensor) -> Tensor:
    return x.permute(node.integers("perm") or list(reversed(range(x.ndim))))


def _expand(node: Node, x: Tensor, shape: list[int]) -> Tensor:
    return x.expand(torch.broadcast_shapes(x.shape, shape))


def _space_to_depth(node: Node, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    b = node.integer("blocksize", 1)
    blocks = x.reshape(n, c, h // b, b, w // b, b).permute(0, 3, 5, 1, 2, 4)
    return blocks.reshape(n, c * b * b, h // b, w // b)


def _depth_to_space(node: Node, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    b = node.integer("blocksize", 1)
    if node.text("mode", "DCR") == "CRD":
        blocks = x.reshape(n, c // b**2, b, b, h, w).permute(0, 1, 4, 2, 5, 3)
    else:
        blocks = x.reshape(n, b, b, c // b**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return blocks.reshape(n, c // b**2, h * b, w * b)


SHAPES: dict[str, Operator] = {
    "Constant": Operator(_constant),
    "ConstantOfShape": Operator(_filled, numbers=(0,)),
    "DepthToSpace": Operator(_depth_to_space),
    "Expand": Operator(_expand, numbers=(1,)),
    "Flatten": Operator(_flatten),
    "Range": Operator(_range, numbers=(0, 1, 2)),
    "Reshape": Operator(_reshape, numbers=(1,)),
    "Shape": Operator(_shape, shape_only=True),
    "Size": Operator(lambda node, x: torch.tensor(x.numel()), shape_only=True),
    "SpaceToDepth": Operator(_space_to_depth),
    "Squeeze": Operator(_squeeze, numbers=(1,)),
    "Tile": Operator(lambda node, x, repeats: x.repeat(repeats), numbers=(1,)),
    "Transpose": Operator(_transpose),
    "Unsqueeze": Operator(_unsqueeze, numbers=(1,)),
}
