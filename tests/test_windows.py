"""Rectangles, their neighbours, and the law of extremes that patches and indices are held against."""

from __future__ import annotations

import math

import pytest
import torch

from tabor.calibration import Null, fit_null
from tabor.errors import SettingError
from tabor.windows import Move, Window, grid, heaviest, moves

LAW = Null(location=1.5, scale=0.4, classes=43, planted=8.0, source="made up")


def test_every_neighbour_lies_in_the_image_and_differs() -> None:
    start = Window(0, 3, 4, 9)
    near = moves(start, 12, 10)
    assert near
    assert len(set(near)) == len(near)
    assert all(move.window.fits(12, 10) for move in near)
    assert start not in {move.window for move in near}


def test_a_mask_is_ones_inside() -> None:
    window = Window(1, 2, 4, 4)
    mask = window.mask(6, 5)
    assert float(mask.sum()) == window.area == 6
    assert float(mask[:, 1:4, 2:4].min()) == 1


def test_colours_move_with_the_window_and_are_drawn_out_at_its_border() -> None:
    pattern = torch.arange(16.0).view(1, 4, 4)
    moved = Move(Window(1, 1, 3, 3), down=1, right=1).carry(pattern, Window(0, 0, 2, 2))
    assert torch.equal(moved[0, 1:3, 1:3], pattern[0, 0:2, 0:2])
    grown = Move(Window(0, 0, 3, 3)).carry(pattern, Window(0, 0, 2, 2))
    assert torch.equal(grown[0, 2, :2], pattern[0, 1, :2])


def test_the_heaviest_square_holds_the_mass() -> None:
    mask = torch.zeros(1, 8, 9)
    mask[:, 5:7, 4:6] = 1
    assert heaviest(mask, 2) == Window(5, 4, 7, 6)
    assert heaviest(mask, 20) == Window(0, 0, 8, 9)


def test_a_grid_has_the_corners() -> None:
    windows = grid(8, 8, [0.25])
    assert len(windows) == 9
    assert {Window(0, 0, 2, 2), Window(6, 6, 8, 8), Window(3, 3, 5, 5)} <= set(windows)


@pytest.mark.parametrize("classes", [2, 10, 43, 1000])
def test_the_threshold_has_the_chance_asked_for(classes: int) -> None:
    assert LAW.p_value(LAW.threshold(0.01, classes), classes) == pytest.approx(0.01)


def test_the_largest_of_more_classes_is_larger() -> None:
    # One minus the chance that none of n values exceeds it, each with the chance of one of 43.
    one = 1 - (1 - LAW.p_value(2.5, 43)) ** (1 / 43)
    assert LAW.p_value(2.5, 200) == pytest.approx(1 - (1 - one) ** 200)


def test_the_probability_grows_and_is_never_certain() -> None:
    chances = [LAW.probability(value, 43) for value in (-5.0, 0.0, 1.5, 2.5, 3.5, 5.0, 100.0)]
    assert chances == sorted(chances)
    assert min(chances) >= 0.01
    assert max(chances) == pytest.approx(0.99)


def test_the_fit_finds_the_law() -> None:
    uniform = torch.rand(4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = [1.5 - 0.4 * math.log(-math.log(u)) for u in uniform.tolist()]
    law = fit_null(drawn, 43, 8.0, "drawn")
    assert (law.location, law.scale) == pytest.approx((1.5, 0.4), abs=0.03)


@pytest.mark.parametrize("largest", [[], [1.0, 2.0], [1.0, 1.0, 1.0]])
def test_too_few_models_to_fit(largest: list[float]) -> None:
    with pytest.raises(SettingError, match="at least 3 clean models"):
        fit_null(largest, 43, 8.0, "none")
