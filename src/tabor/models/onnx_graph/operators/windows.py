"""What convolutions and poolings have in common: a window that moves over an image, and the border around it."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from tabor.models.onnx_graph.node import Node


@dataclass(frozen=True)
class Window:
    """A window's extents, one number an axis of the image.

    Attributes:
        kernel, stride, dilation: in pixels.
        before, after: the border in pixels.
    """

    kernel: list[int]
    stride: list[int]
    dilation: list[int]
    before: list[int]
    after: list[int]

    def even(self) -> bool:
        """Returns whether the border is as wide on both sides."""
        return self.before == self.after

    def bordered(self, x: Tensor, value: float) -> Tensor:
        """Returns the image with its border."""
        sides = [side for pair in zip(reversed(self.before), reversed(self.after), strict=True) for side in pair]
        return F.pad(x, sides, value=value) if any(sides) else x


def window(node: Node, x: Tensor, kernel: list[int]) -> Window:
    """Returns the window of a node over an image (N, C, ...).

    Raises:
        ModelError: its settings do not fit the image, or are of no known kind.
    """
    axes = x.ndim - 2
    stride, dilation = node.integers("strides") or [1] * axes, node.integers("dilations") or [1] * axes
    if not 1 <= axes <= 3 or any(len(extents) != axes or min(extents) < 1 for extents in (kernel, stride, dilation)):
        raise node.refuse(f"a window that does not fit {axes} axes")
    before, after = _border(node, x, kernel, stride, dilation)
    return Window(kernel, stride, dilation, before, after)


def _border(
    node: Node, x: Tensor, kernel: list[int], stride: list[int], dilation: list[int]
) -> tuple[list[int], list[int]]:
    axes, kind = len(kernel), node.text("auto_pad", "NOTSET")
    if kind == "VALID":
        return [0] * axes, [0] * axes
    if kind == "NOTSET":
        pads = node.integers("pads") or [0] * 2 * axes
        if len(pads) != 2 * axes or min(pads) < 0:
            raise node.refuse(f"a border {pads}")
        return pads[:axes], pads[axes:]
    if kind not in ("SAME_UPPER", "SAME_LOWER"):
        raise node.refuse(f"a border of kind {kind}")
    totals = [
        max(0, (-(-size // step) - 1) * step + (width - 1) * spread + 1 - size)
        for size, width, step, spread in zip(x.shape[2:], kernel, stride, dilation, strict=True)
    ]
    smaller, larger = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return (smaller, larger) if kind == "SAME_UPPER" else (larger, smaller)
