"""Rectangles, and the law of extremes that patches and indices are held against."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import CensoredData, gumbel_r

from tabor.calibration import Null, fit_null
from tabor.errors import SettingError
from tabor.patches import RestoreSettings
from tabor.windows import Window, sliding

LAW = Null(location=1.5, scale=0.4, planted=8.0, source="made up")


def test_an_altered_window_is_moved_and_stretched() -> None:
    window = Window(10, 10, 14, 18)
    same = torch.zeros(4)
    assert window.altered(same, 32, 32) == window
    assert window.altered(torch.tensor([0.5, -0.25, 0.0, 0.0]), 32, 32) == Window(12, 8, 16, 16)
    assert window.altered(torch.tensor([0.0, 0.0, 1.0, -1.0]), 32, 32) == Window(8, 12, 16, 16)


@given(st.lists(st.floats(-20, 20), min_size=4, max_size=4), st.integers(0, 6), st.integers(0, 4))
def test_an_altered_window_stays_in_the_image(by: list[float], top: int, left: int) -> None:
    assert Window(top, left, top + 3, left + 2).altered(torch.tensor(by), 9, 7).fits(9, 7)


def test_a_mask_is_ones_inside() -> None:
    window = Window(1, 2, 4, 4)
    mask = window.mask(6, 5)
    assert float(mask.sum()) == window.area == 6
    assert float(mask[:, 1:4, 2:4].min()) == 1


@given(st.lists(st.integers(0, 6), min_size=8, max_size=8))
def test_the_overlap_is_that_of_the_masks(edges: list[int]) -> None:
    first, second = (Window(e[0], e[1], e[0] + 1 + e[2], e[1] + 1 + e[3]) for e in (edges[:4], edges[4:]))
    a, b = first.mask(14, 14), second.mask(14, 14)
    assert first.overlap(second) == pytest.approx(float((a * b).sum() / torch.maximum(a, b).sum()))


@pytest.mark.parametrize(("height", "width"), [(32, 32), (7, 30), (224, 224)])
def test_sliding_windows_cover_the_image(height: int, width: int) -> None:
    windows = sliding(height, width, [(0.25, 0.125)])
    assert all(window.fits(height, width) for window in windows)
    assert float(torch.stack([w.mask(height, width) for w in windows]).amax(0).min()) == 1


def test_no_window_is_there_twice_where_an_image_is_small() -> None:
    windows = sliding(8, 8, RestoreSettings().shapes)
    assert len(windows) == len(set(windows))


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.5])
def test_the_threshold_has_the_chance_asked_for(rate: float) -> None:
    assert LAW.p_value(LAW.threshold(rate)) == pytest.approx(rate)


def test_a_value_that_few_models_have_is_rarer_still() -> None:
    rare = replace(LAW, share=0.1)
    assert rare.p_value(2.5) == pytest.approx(0.1 * LAW.p_value(2.5))
    assert rare.threshold(0.01) == pytest.approx(LAW.threshold(0.1))
    assert rare.threshold(0.2) == 0.0
    assert rare.probability(2.5) == LAW.probability(2.5)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1])
def test_a_share_is_positive_and_at_most_1(share: float) -> None:
    with pytest.raises(SettingError, match="a null distribution needs"):
        replace(LAW, share=share)


def test_the_probability_grows_and_is_never_certain() -> None:
    chances = [LAW.probability(value) for value in (-5.0, 0.0, 1.5, 2.5, 3.5, 5.0, 100.0)]
    assert chances == sorted(chances)
    assert min(chances) >= 0.01
    assert max(chances) == pytest.approx(0.99)


def test_the_fit_finds_the_law() -> None:
    uniform = torch.rand(4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = [1.5 - 0.4 * math.log(-math.log(u)) for u in uniform.tolist()]
    law = fit_null(drawn, 8.0, "drawn")
    assert (law.location, law.scale) == pytest.approx((1.5, 0.4), abs=0.03)


@pytest.mark.parametrize("values", [[1.0, 2.0, 3.0], [0.5, 1.0, 2.0, 4.0]])
def test_the_middle_value_counts_as_it_is(values: list[float]) -> None:
    lower, upper = values[: len(values) // 2], values[len(values) // 2 :]
    expected = gumbel_r.fit(CensoredData(uncensored=upper, left=[upper[0]] * len(lower)))
    law = fit_null(values, 8.0, "")
    assert (law.location, law.scale) == pytest.approx(expected)


@pytest.mark.parametrize("largest", [[], [1.0, 2.0], [1.0, 1.0, 1.0]])
def test_too_few_models_to_fit(largest: list[float]) -> None:
    with pytest.raises(SettingError, match="at least 3 clean models"):
        fit_null(largest, 8.0, "none")


@pytest.mark.parametrize("count", [400, 401])
def test_how_low_the_lower_half_lies_does_not_widen_the_law(count: int) -> None:
    uniform = torch.rand(count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = sorted(1.5 - 0.4 * math.log(-math.log(u)) for u in uniform.tolist())
    far = [value - 10 for value in drawn[: count // 2]] + drawn[count // 2 :]
    plain, other = fit_null(drawn, 8.0, ""), fit_null(far, 8.0, "")
    assert (other.location, other.scale) == pytest.approx((plain.location, plain.scale), rel=1e-3)


@pytest.mark.parametrize(
    ("window", "inset"),
    [
        pytest.param(Window(0, 0, 3, 3), 0, id="in a corner"),
        pytest.param(Window(7, 9, 10, 12), 0, id="in the opposite one"),
        pytest.param(Window(0, 4, 3, 8), 4, id="at an edge"),
        pytest.param(Window(2, 8, 4, 11), 3, id="near a corner"),
    ],
)
def test_how_far_a_window_is_from_the_nearest_corner(window: Window, inset: int) -> None:
    assert window.inset(10, 12) == inset
