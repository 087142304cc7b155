"""Operators along axes: sums, means, extremes, softmax."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from tabor.models.onnx_graph.node import Node, Operator
from tabor.models.onnx_graph.operators.shapes import axis_of

_Reduction = Callable[[Tensor, list[int], bool], Tensor]


def _reduction(reduce: _Reduction) -> Operator:
    def compute(node: Node, x: Tensor, axes: list[int] | None = None) -> Tensor:
        chosen = axes or node.integers("axes") or []
        if not chosen and node.integer("noop_with_empty_axes", 0):
            return x
        places = [axis_of(node, x, axis) for axis in chosen] or list(range(x.ndim))
        return reduce(x, places, bool(node.integer("keepdims", 1)))

    return Operator(compute, numbers=(1,))


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def _extreme(choose: Callable[..., Tensor]) -> Operator:
    """The place of the largest or smallest number; of several the first."""

    def compute(node: Node, x: Tensor) -> Tensor:
        if node.integer("select_last_index", 0):
            raise node.refuse("select_last_index")
        axis = axis_of(node, x, node.integer("axis", 0))
        return choose(x, dim=axis, keepdim=bool(node.integer("keepdims", 1)))

    return Operator(compute)


def _along(function: Callable[[Tensor, int], Tensor]) -> Operator:
    """Softmax and its like: up to version 12 over all axes from the given one on, then over that one alone."""

    def compute(node: Node, x: Tensor) -> Tensor:
        if node.opset >= 13:
            return function(x, axis_of(node, x, node.integer("axis", -1)))
        axis = axis_of(node, x, node.integer("axis", 1))
        return function(x.reshape(math.prod(x.shape[:axis]), -1), 1).reshape(x.shape)

    return Operator(compute)


def _running_sum(node: Node, x: Tensor, axis: list[int]) -> Tensor:
    if node.integer("exclusive", 0) or node.integer("reverse", 0):
        raise node.refuse("an exclusive or reversed order")
    return x.cumsum(axis_of(node, x, axis[0]))


def _hard(x: Tensor, axis: int) -> Tensor:
    return torch.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1.0)


REDUCTIONS: dict[str, Operator] = {
    "ArgMax": _extreme(torch.argmax),
    "ArgMin": _extreme(torch.argmin),
    "CumSum": Operator(_running_sum, numbers=(1,)),
    "Hardmax": _along(_hard),
    "LogSoftmax": _along(torch.log_softmax),
    "ReduceL1": _reduction(lambda x, axes, keep: x.abs().sum(axes, keep)),
    "ReduceL2": _reduction(lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keep)),
    "ReduceLogSumExp": _reduction(torch.logsumexp),
    "ReduceMax": _reduction(torch.amax),
    "ReduceMean": _reduction(torch.mean),
    "ReduceMin": _reduction(torch.amin),
    "ReduceProd": _reduction(_product),
    "ReduceSum": _reduction(torch.sum),
    "ReduceSumSquare": _reduction(lambda x, axes, keep: x.square().sum(axes, keep)),
    "Softmax": _along(torch.softmax),
}
