from __future__ import annotations

import torch
from torch import Tensor

from tabor.shifts import shifted


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def dot(row: int, column: int) -> Tensor:
    values = torch.zeros(1, 8, 8)
    values[:, row, column] = 1
    return values


def test_shifts_reach_as_far_as_asked_and_no_farther() -> None:
    values = dot(4, 3).expand(400, 1, 8, 8)
    moved = shifted(values, 2, generator(), "constant")
    assert torch.equal(moved.sum((1, 2, 3)), torch.ones(400))
    places = {(int(row), int(column)) for _, _, row, column in torch.nonzero(moved)}
    assert places == {(row, column) for row in range(2, 7) for column in range(1, 6)}


def test_what_is_shifted_out_is_lost() -> None:
    moved = shifted(dot(0, 0).expand(200, 1, 8, 8), 1, generator(), "constant")
    assert {int(count) for count in moved.sum((1, 2, 3))} == {0, 1}


def test_what_comes_in_is_the_edge_once_more() -> None:
    values = torch.rand(50, 3, 5, 7, generator=generator(1))
    moved = shifted(values, 2, generator(), "replicate")
    top, left = torch.randint(5, (2, 50), generator=generator())
    for k, (down, right) in enumerate(zip((top - 2).tolist(), (left - 2).tolist(), strict=True)):
        for row in range(5):
            for column in range(7):
                source = values[k, :, min(max(row + down, 0), 4), min(max(column + right, 0), 6)]
                assert torch.equal(moved[k, :, row, column], source)


def test_nothing_moves_by_no_pixel() -> None:
    values = torch.rand(3, 1, 4, 4, generator=generator(1))
    assert torch.equal(shifted(values, 0, generator(), "replicate"), values)
