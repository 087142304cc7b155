"""Rectangles of an image: which to begin with, and which lie near one."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

EDGE_STEPS = (-6, -4, -3, -2, -1, 1, 2, 3)
"""How far one edge moves: further inwards than outwards, as the best first window is rather too large."""

CORNER_STEPS = (-4, -3, -2, -1, 1, 2, 3, 4)
"""How far the two edges at a corner move together, which keeps a square a square."""

SHIFTS = (-3, -2, -1, 1, 2, 3)
"""How far a whole window moves, along an axis or a diagonal."""


@dataclass(frozen=True, order=True)
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

    def mask(self, height: int, width: int) -> Tensor:
        """Returns ones inside and zeros outside, float32, shape (1, H, W)."""
        mask = torch.zeros(1, height, width)
        mask[:, self.top : self.bottom, self.left : self.right] = 1
        return mask

    def fits(self, height: int, width: int) -> bool:
        """Whether it lies in an image of that size and has an inside."""
        return 0 <= self.top < self.bottom <= height and 0 <= self.left < self.right <= width

    def grown(self, top: int, left: int, bottom: int, right: int) -> Window:
        """Returns the window with each edge moved outwards by so many pixels."""
        return Window(self.top - top, self.left - left, self.bottom + bottom, self.right + right)

    def shifted(self, down: int, right: int) -> Window:
        """Returns the window moved by so many pixels."""
        return Window(self.top + down, self.left + right, self.bottom + down, self.right + right)

    def overlap(self, other: Window) -> float:
        """Returns the shared area over that of both together (the Jaccard index), in [0, 1]."""
        rows = min(self.bottom, other.bottom) - max(self.top, other.top)
        columns = min(self.right, other.right) - max(self.left, other.left)
        shared = max(rows, 0) * max(columns, 0)
        return shared / (self.area + other.area - shared)


def neighbours(window: Window, height: int, width: int, unit: int = 1) -> list[Window]:
    """Returns the windows near one in an image of that size: one edge moved, two at a corner, several, or all.

    Args:
        window: where to start.
        height, width: of the image.
        unit: length of a step in pixels; larger for larger images.
    """
    edges = [[step * (k == edge) for k in range(4)] for step in EDGE_STEPS for edge in range(4)]
    corners = [[s * a, s * b, s * (1 - a), s * (1 - b)] for s in CORNER_STEPS for a in (0, 1) for b in (0, 1)]
    several = [[sign * k for k in moved] for sign in (-1, 1) for moved in itertools.product((0, 1), repeat=4)]
    grown = [window.grown(*(unit * step for step in steps)) for steps in (*edges, *corners, *several)]
    axes = ((1, 0), (0, 1), (1, 1), (1, -1))
    shifted = [window.shifted(unit * s * y, unit * s * x) for s in SHIFTS for y, x in axes]
    return sorted({near for near in (*grown, *shifted) if near.fits(height, width)} - {window})


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
    return windows


def _places(room: int, step: int) -> list[int]:
    return sorted({*range(0, room + 1, step), room})
