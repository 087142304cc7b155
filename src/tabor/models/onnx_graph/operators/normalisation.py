"""Normalisations, as they are when a network is used."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tabor.models.onnx_graph.node import Node, Operator
from tabor.models.onnx_graph.operators.shapes import axis_of


def _batch(node: Node, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    if node.integer("training_mode", 0) or not node.integer("spatial", 1):
        raise node.refuse("a training mode, or statistics for each pixel")
    # A file may keep one tensor as statistics here and as weights there: no gradient flows to it from here.
    return F.batch_norm(x, mean.detach(), variance.detach(), scale, bias, eps=node.number("epsilon", 1e-5))


def _layer(node: Node, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    axis = axis_of(node, x, node.integer("axis", -1))
    normal = F.layer_norm(x, x.shape[axis:], eps=node.number("epsilon", 1e-5)) * scale
    return normal if bias is None else normal + bias


def _root_mean_square(node: Node, x: Tensor, scale: Tensor) -> Tensor:
    axis = axis_of(node, x, node.integer("axis", -1))
    return F.rms_norm(x, x.shape[axis:], eps=node.number("epsilon", 1e-5)) * scale


def _instance(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return F.instance_norm(x, weight=scale, bias=bias, eps=node.number("epsilon", 1e-5))


def _group(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    groups = node.integer("num_groups", 1)
    if node.opset < 21 and len(scale) == groups:  # then one number a group, later one a channel
        scale, bias = (values.repeat_interleave(x.shape[1] // groups) for values in (scale, bias))
    return F.group_norm(x, groups, scale, bias, eps=node.number("epsilon", 1e-5))


def _norm(node: Node, x: Tensor) -> Tensor:
    axis, order = axis_of(node, x, node.integer("axis", -1)), node.integer("p", 2)
    return x / torch.linalg.vector_norm(x, order, axis, keepdim=True)


def _across_channels(node: Node, x: Tensor) -> Tensor:
    """Local response normalisation: the window of an even size reaches one channel further up."""
    size = node.integer("size", 1)
    if not 1 <= size <= x.shape[1]:
        raise node.refuse(f"a window of {size} channels of {x.shape[1]}")
    squares = F.pad(x.square().flatten(2).unsqueeze(1), (0, 0, (size - 1) // 2, size // 2))
    around = F.avg_pool2d(squares, (size, 1), 1).squeeze(1).reshape(x.shape)
    return x / (node.number("bias", 1.0) + node.number("alpha", 1e-4) * around) ** node.number("beta", 0.75)


def _dropout(node: Node, x: Tensor, *ignored: Tensor | None) -> Tensor:
    return x


NORMALISATION: dict[str, Operator] = {
    "BatchNormalization": Operator(_batch),
    "Dropout": Operator(_dropout),
    "GroupNormalization": Operator(_group),
    "InstanceNormalization": Operator(_instance),
    "LayerNormalization": Operator(_layer),
    "LpNormalization": Operator(_norm),
    "LRN": Operator(_across_channels),
    "RMSNormalization": Operator(_root_mean_square),
}
