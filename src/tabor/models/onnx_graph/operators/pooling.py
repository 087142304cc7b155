"""Poolings."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tabor.models.onnx_graph.node import Node, Operator
from tabor.models.onnx_graph.operators.windows import Window, window

_MAX = {3: F.max_pool1d, 4: F.max_pool2d, 5: F.max_pool3d}
_AVERAGE = {3: F.avg_pool1d, 4: F.avg_pool2d, 5: F.avg_pool3d}


def _window(node: Node, x: Tensor) -> Window:
    kernel = node.integers("kernel_shape")
    if kernel is None:
        raise node.refuse("no kernel_shape")
    return window(node, x, kernel)


def _native(over: Window) -> bool:
    """PyTorch takes a border that is even and no wider than half the window."""
    return over.even() and all(2 * side <= width for side, width in zip(over.before, over.kernel, strict=True))


def _max_pool(node: Node, x: Tensor) -> Tensor:
    over, ceil = _window(node, x), bool(node.integer("ceil_mode", 0))
    border: list[int] | int = over.before
    if not _native(over):
        x, border = over.bordered(x, -torch.inf), 0
    pooled: Tensor = _MAX[x.ndim](x, over.kernel, over.stride, border, over.dilation, ceil_mode=ceil)
    return pooled


def _average_pool(node: Node, x: Tensor) -> Tensor:
    over, ceil = _window(node, x), bool(node.integer("ceil_mode", 0))
    if max(over.dilation) > 1:
        raise node.refuse("dilations")
    whole, pool = bool(node.integer("count_include_pad", 0)), _AVERAGE[x.ndim]
    if _native(over):
        pooled: Tensor = pool(x, over.kernel, over.stride, over.before, ceil, whole)
        return pooled
    sums = pool(over.bordered(x, 0.0), over.kernel, over.stride, 0, ceil)
    if whole:
        return sums
    share: Tensor = pool(over.bordered(torch.ones_like(x), 0.0), over.kernel, over.stride, 0, ceil)
    return sums / share


def _over_the_image(x: Tensor) -> list[int]:
    return list(range(2, x.ndim))


POOLING: dict[str, Operator] = {
    "AveragePool": Operator(_average_pool),
    "GlobalAveragePool": Operator(lambda node, x: x.mean(_over_the_image(x), keepdim=True)),
    "GlobalMaxPool": Operator(lambda node, x: x.amax(_over_the_image(x), keepdim=True)),
    "MaxPool": Operator(_max_pool),
}
