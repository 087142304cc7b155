"""Operators with weights: convolutions and products of matrices."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tabor.models.onnx_graph.node import Node, Operator
from tabor.models.onnx_graph.operators.windows import window

_CONVOLUTIONS = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}
_TRANSPOSED = {3: F.conv_transpose1d, 4: F.conv_transpose2d, 5: F.conv_transpose3d}


def _convolution(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    over, groups = window(node, x, list(weight.shape[2:])), node.integer("group", 1)
    border: list[int] | int = over.before
    if not over.even():
        x, border = over.bordered(x, 0.0), 0
    answer: Tensor = _CONVOLUTIONS[x.ndim](x, weight, bias, over.stride, border, over.dilation, groups)
    return answer


def _transposed(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    over, groups = window(node, x, list(weight.shape[2:])), node.integer("group", 1)
    if not over.even() or node.text("auto_pad", "NOTSET") != "NOTSET" or "output_shape" in node.attributes:
        raise node.refuse("an uneven border or an output_shape")
    beyond = node.integers("output_padding") or [0] * len(over.kernel)
    convolve = _TRANSPOSED[x.ndim]
    answer: Tensor = convolve(x, weight, bias, over.stride, over.before, beyond, groups, over.dilation)
    return answer


def _general_product(node: Node, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    product = (a.t() if node.integer("transA", 0) else a) @ (b.t() if node.integer("transB", 0) else b)
    alpha, beta = node.number("alpha", 1.0), node.number("beta", 1.0)
    if alpha != 1:
        product = alpha * product
    if c is None or beta == 0:
        return product
    return product + (c if beta == 1 else beta * c)


def _einsum(node: Node, a: Tensor, b: Tensor) -> Tensor:
    return torch.einsum(node.text("equation", ""), a, b)


def _attention(node: Node, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax(query · key) · value, one head at a time; heads as an axis, or side by side as the node says."""
    if node.number("softcap", 0.0) or node.integer("is_causal", 0):
        raise node.refuse("a cap or a causal mask")
    folded = query.ndim == 3
    if folded:
        heads = node.integer("q_num_heads", 1), node.integer("kv_num_heads", 1), node.integer("kv_num_heads", 1)
        query, key, value = (
            x.unflatten(2, (count, -1)).transpose(1, 2) for x, count in zip((query, key, value), heads, strict=True)
        )
    scores = query @ key.transpose(2, 3) * node.number("scale", query.shape[3] ** -0.5)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    answer = scores.softmax(3) @ value
    return answer.transpose(1, 2).flatten(2) if folded else answer


LAYERS: dict[str, Operator] = {
    "Attention": Operator(_attention),
    "Conv": Operator(_convolution),
    "ConvTranspose": Operator(_transposed),
    "Einsum": Operator(_einsum),
    "Gemm": Operator(_general_product),
    "MatMul": Operator(lambda node, a, b: a @ b),
}
