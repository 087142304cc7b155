"""Drawings of a few plain shapes: what a printed trigger may be, and hardly a picture of anything else.

Free colours, however coarse, make any class, as there are thousands of them.  A drawing is a few dozen numbers: natural
classes get from it what it has of their looks, and little more.  But a network that was taught a logo answers to what
is merely like it.  Not in the paper; measured in docs/results/large.md.
"""

from __future__ import annotations

import torch
from torch import Tensor

SHAPES = 9
"""Of a drawing, painted one over the other; the first is its ground, and its outline."""

OWN = 8
"""Numbers of a shape besides its two colours: see `random_drawings`."""

PAINTED, SHADED = 0.6, 0.4
"""Shares of a random drawing's shapes that are painted, and of these that shade from one colour to the other."""

CROSSED = 0.2
"""Share of children that have shapes of two parents."""

CHANGES, STEP = 4.0, 0.15
"""Numbers of a child that are changed, on average: half of them are drawn anew, the others moved by so much."""


def random_drawings(count: int, channels: int, generator: torch.Generator) -> Tensor:
    """Returns drawings, shape (count, SHAPES, OWN + 2·channels), evenly distributed in [0, 1].

    The numbers of a shape are its kind, the place of its centre across and down, its half axes across and down, its
    turn, whether it is painted, whether and how it shades, and its two colours.
    """
    return torch.rand(count, SHAPES, OWN + 2 * channels, generator=generator)


def children(parents: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Returns so many drawings, each like one of its parents (N, SHAPES, P) or like two of them, and a little else.

    And which of the N each has its ground of, int64.
    """
    mother, father = torch.randint(len(parents), (2, count), generator=generator)
    own, other = parents[mother], parents[father]
    first = torch.randint(1, SHAPES, (count, 1, 1), generator=generator)
    crossed = torch.rand(count, 1, 1, generator=generator) < CROSSED
    child = torch.where(crossed & (torch.arange(SHAPES)[:, None] >= first), other, own)
    changed = torch.rand(child.shape, generator=generator) < CHANGES / child[0].numel()
    moved = (child + STEP * torch.randn(child.shape, generator=generator)).clamp(0, 1)
    anew = torch.rand(child.shape, generator=generator)
    drawn = torch.where(torch.rand(child.shape, generator=generator) < 0.5, anew, moved)
    return torch.where(changed, drawn, child), mother


def draw(drawings: Tensor, grid: int) -> tuple[Tensor, Tensor]:
    """Returns what drawings (N, SHAPES, P) cover, (N, 1, grid, grid) of 0 and 1, and their colours, (N, C, grid, grid).

    Half of them are round and half cover all.
    """
    line = torch.linspace(-1, 1, grid)
    y, x = line[:, None], line[None, :]
    numbers = drawings[..., None, None]
    painted, shading = numbers[:, :, 6], numbers[:, :, 7, None]
    inside = _inside(numbers, x, y) & (painted < PAINTED)
    first, second = (3 * numbers[:, :, OWN:] - 1).clamp(0, 1).chunk(2, 2)  # most of them as bright or dark as can be
    along = torch.where(shading < SHADED / 2, x, y)
    colours = torch.lerp(first, second, torch.where(shading < SHADED, (along + 1) / 2, torch.zeros(())))
    picture = colours[:, 0].expand(-1, -1, grid, grid)
    for shape in range(1, drawings.shape[1]):
        picture = torch.where(inside[:, shape, None], colours[:, shape], picture)
    outline = (x**2 + y**2 <= 1) | (numbers[:, 0, 0] < 0.5)
    return outline[:, None].float(), picture


def _inside(numbers: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Which places lie inside each shape: an ellipse, a rectangle, a triangle, a ring or a star."""
    kind, across, down, wide, high, turn = numbers[:, :, :6].unbind(2)
    wide, high = 0.1 + 0.9 * wide, 0.1 + 0.9 * high
    x, y = x - (1.6 * across - 0.8), y - (1.6 * down - 0.8)
    cos, sin = (torch.pi * turn).cos(), (torch.pi * turn).sin()
    u, v = x * cos + y * sin, y * cos - x * sin
    square = (u / wide) ** 2 + (v / high) ** 2
    ray = 0.6 + 0.4 * (5 * torch.atan2(v, u)).cos()
    kinds = (
        square < 1,
        (u.abs() < wide) & (v.abs() < high),
        (v.abs() < high) & (v < high - 2 * high * u.abs() / wide),
        (square < 1) & (square > 0.4),
        (u**2 + v**2).sqrt() < wide * ray,
    )
    return torch.stack(kinds).gather(0, (len(kinds) * kind).long().clamp(max=len(kinds) - 1).expand_as(square)[None])[0]
