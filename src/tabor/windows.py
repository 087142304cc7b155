"""Rectangles of an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Window:
    """The rows top … bottom−1 and the columns left … right−1."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        """In pixels."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """In pixels."""
        return self.right - self.left

    @property
    def area(self) -> int:
        """In pixels."""
        return self.height * self.width

    def inset(self, height: int, width: int) -> int:
        """Returns how far it is from the nearest corner of an image of that size, rows and columns together."""
        return min(self.top, height - self.bottom) + min(self.left, width - self.right)

    def mask(self, height: int, width: int) -> Tensor:
        """Returns ones inside and zeros outside, float32, shape (1, H, W)."""
        mask = torch.zeros(1, height, width)
        mask[:, self.top : self.bottom, self.left : self.right] = 1
        return mask

    def fits(self, height: int, width: int) -> bool:
        """Whether it lies in an image of that size and has an inside."""
        return 0 <= self.top < self.bottom <= height and 0 <= self.left < self.right <= width

    def altered(self, by: Tensor, height: int, width: int) -> Window:
        """Returns the window moved and stretched, inside an image of that size; at least one pixel of it stays.

        Args:
            by: how far down and right, in its own height and width, and how much higher and wider, in powers of 2;
                shape (4,).
            height, width: of the image.
        """
        down, right, higher, wider = by.tolist()
        top, bottom = _edge(self.top, self.bottom, down, higher, height)
        left, right_ = _edge(self.left, self.right, right, wider, width)
        return Window(top, left, bottom, right_)

    def inner(self) -> list[Window]:
        """Returns the windows that lack one row or column at an edge, and have an inside."""
        top, left, bottom, right = self.top, self.left, self.bottom, self.right
        rows = [Window(top + 1, left, bottom, right), Window(top, left, bottom - 1, right)] if self.height > 1 else []
        columns = [Window(top, left + 1, bottom, right), Window(top, left, bottom, right - 1)] if self.width > 1 else []
        return rows + columns

    def overlap(self, other: Window) -> float:
        """Returns the shared area over that of both together (the Jaccard index), in [0, 1]."""
        rows = min(self.bottom, other.bottom) - max(self.top, other.top)
        columns = min(self.right, other.right) - max(self.left, other.left)
        shared = max(rows, 0) * max(columns, 0)
        return shared / (self.area + other.area - shared)


def sliding(height: int, width: int, shapes: Sequence[tuple[float, float]]) -> list[Window]:
    """Returns squares that cover an image of that size.

    Args:
        height, width: of the image.
        shapes: edges of the squares and the steps between them, as shares of the image's shorter edge.
    """
    windows = []
    for edge_share, step_share in shapes:
        edge, step = (max(1, round(share * min(height, width))) for share in (edge_share, step_share))
        windows += [
            Window(top, left, top + edge, left + edge)
            for top in _places(height - edge, step)
            for left in _places(width - edge, step)
        ]
    return list(dict.fromkeys(windows))  # in small images two shapes may be one


def _edge(start: int, end: int, moved: float, stretched: float, room: int) -> tuple[int, int]:
    length = end - start
    middle, half = (start + end) / 2 + moved * length, length * 2**stretched / 2
    start = min(max(round(middle - half), 0), room - 1)
    return start, min(max(round(middle + half), start + 1), room)


def _places(room: int, step: int) -> list[int]:
    return sorted({*range(0, room + 1, step), room})
