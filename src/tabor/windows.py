"""Rectangles of an image, and the steps from one to its neighbours."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

EDGE_STEPS = (-6, -4, -3, -2, -1, 1, 2, 3)
"""How far one edge moves: further inwards than outwards, as the best first window is rather too large."""

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
    def area(self) -> int:
        """In pixels."""
        return (self.bottom - self.top) * (self.right - self.left)

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


@dataclass(frozen=True, order=True)
class Move:
    """A step to another window; what is in the window moves with it by (down, right) pixels."""

    window: Window
    down: int = 0
    right: int = 0

    def carry(self, pattern: Tensor, old: Window) -> Tensor:
        """Returns the old window's pattern (C, H, W) moved along, its border drawn out to where nothing was."""
        height, width = pattern.shape[1:]
        rows = (torch.arange(height) - self.down).clamp(old.top, old.bottom - 1)
        columns = (torch.arange(width) - self.right).clamp(old.left, old.right - 1)
        return pattern[:, rows][:, :, columns]


def moves(window: Window, height: int, width: int, unit: int = 1) -> list[Move]:
    """Returns the neighbours of a window in an image of that size: one edge moved, several, or all.

    Args:
        window: where to start.
        height, width: of the image.
        unit: length of a step in pixels; larger for larger images.
    """
    edges = [unit * step * torch.eye(4, dtype=torch.int64)[edge] for step in EDGE_STEPS for edge in range(4)]
    several = [
        unit * sign * torch.tensor(moved)
        for sign in (-1, 1)
        for moved in itertools.product((0, 1), repeat=4)
        if sum(moved) > 1
    ]
    grown = [Move(window.grown(*step.tolist())) for step in (*edges, *several)]
    axes = ((1, 0), (0, 1), (1, 1), (1, -1))
    lengths = [unit * step for step in SHIFTS]
    shifted = [Move(window.shifted(s * y, s * x), s * y, s * x) for s in lengths for y, x in axes]
    return sorted({move for move in (*grown, *shifted) if move.window.fits(height, width)})


def heaviest(mask: Tensor, size: int) -> Window:
    """Returns the square of that many pixels, or as many as fit, that holds most of a mask (1, H, W)."""
    height, width = min(size, mask.shape[1]), min(size, mask.shape[2])
    sums = F.avg_pool2d(mask[None], (height, width), 1)[0, 0]
    top, left = divmod(int(sums.argmax()), sums.shape[1])
    return Window(top, left, top + height, left + width)


def grid(height: int, width: int, shares: Sequence[float]) -> list[Window]:
    """Returns squares at the corners, the middles of the edges and the middle of an image of that size.

    Args:
        height, width: of the image.
        shares: edges of the squares as shares of the image's shorter edge.
    """
    edges = sorted({max(1, round(share * min(height, width))) for share in shares})
    return [
        Window(top, left, top + edge, left + edge)
        for edge in edges
        for top in _places(height - edge)
        for left in _places(width - edge)
    ]


def _places(room: int) -> list[int]:
    return sorted({0, room // 2, room})
