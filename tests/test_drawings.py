"""Drawings: each pixel against what the shapes say of it, and that children are like their parents."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tabor.drawings import OWN, SHAPES, children, draw, random_drawings


def drawn(count: int, channels: int = 3, seed: int = 0) -> Tensor:
    return random_drawings(count, channels, torch.Generator().manual_seed(seed))


def is_inside(shape: list[float], x: float, y: float) -> bool:
    kind, across, down, wide, high, turn = shape[:6]
    wide, high = 0.1 + 0.9 * wide, 0.1 + 0.9 * high
    x, y = x - (-0.8 + 1.6 * across), y - (-0.8 + 1.6 * down)
    angle = math.pi * turn
    u, v = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    far = math.hypot(u / wide, v / high) ** 2
    match int(5 * kind):
        case 0:
            return far < 1
        case 1:
            return abs(u) < wide and abs(v) < high
        case 2:
            return abs(v) < high and abs(u) < wide * (high - v) / (2 * high)
        case 3:
            return 0.4 < far < 1
    return math.hypot(u, v) < wide * (0.6 + 0.4 * math.cos(5 * math.atan2(v, u)))


def colour(shape: list[float], x: float, y: float, channels: int) -> list[float]:
    first, second = ([min(max(3 * c - 1, 0), 1) for c in shape[OWN + k : OWN + k + channels]] for k in (0, channels))
    along = ((x if shape[7] < 0.2 else y) + 1) / 2 if shape[7] < 0.4 else 0.0
    return [a + along * (b - a) for a, b in zip(first, second, strict=True)]


@pytest.mark.parametrize("channels", [1, 3])
def test_shapes_are_painted_one_over_the_other_on_their_ground(channels: int) -> None:
    drawings = drawn(12, channels)
    outlines, pictures = draw(drawings, 9)
    assert outlines.shape == (12, 1, 9, 9)
    assert pictures.shape == (12, channels, 9, 9)
    line = torch.linspace(-1, 1, 9).tolist()
    for drawing, outline, picture in zip(drawings.tolist(), outlines, pictures, strict=True):
        for row, y in enumerate(line):
            for column, x in enumerate(line):
                top = drawing[0]
                for shape in drawing[1:]:
                    if shape[6] < 0.6 and is_inside(shape, x, y):
                        top = shape
                assert picture[:, row, column].tolist() == pytest.approx(colour(top, x, y, channels), abs=1e-5)
                covers = drawing[0][0] < 0.5 or math.hypot(x, y) <= 1 + 1e-6
                assert bool(outline[0, row, column]) is covers


def test_a_drawing_lies_in_range_also_at_its_ends() -> None:
    ends = torch.cat([torch.zeros(1, SHAPES, OWN + 6), torch.ones(1, SHAPES, OWN + 6)])
    outlines, pictures = draw(ends, 16)
    assert outlines.unique().tolist() == [0, 1]
    assert 0 <= float(pictures.min()) <= float(pictures.max()) <= 1


def test_children_are_like_one_parent_or_two_and_a_little_else() -> None:
    parents = drawn(3)
    found, mothers = children(parents, 400, torch.Generator().manual_seed(1))
    assert found.shape == (400, SHAPES, OWN + 6)
    assert set(mothers.tolist()) == {0, 1, 2}
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    assert float((found == parents[mothers]).float().mean()) > 0.9
    of_any = (found[:, None] == parents).any(1).float().sum((1, 2))
    numbers = found[0].numel()
    assert float(numbers - of_any.mean()) == pytest.approx(4, abs=0.5)
    crossed = ((found == parents[mothers]).float().mean((1, 2)) < 0.9).float().mean()
    assert 0.05 < float(crossed) < 0.2  # where both parents are one, nobody sees it


def test_the_same_draws_give_the_same_children() -> None:
    first, second = (children(drawn(4), 8, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
