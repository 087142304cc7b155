"""What a patch looks like on an image."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tabor.errors import SettingError
from tabor.patches import Patch, RestoreSettings, paint, plain_colours
from tabor.windows import Window


@pytest.mark.parametrize(("channels", "count"), [(1, 3), (3, 9), (5, 3)])
def test_plain_colours(channels: int, count: int) -> None:
    colours = plain_colours(channels)
    assert colours.shape == (count, channels)
    assert len(torch.unique(colours, dim=0)) == count


def test_one_colour_fills_the_window_and_nothing_else() -> None:
    windows = [Window(0, 1, 3, 4), Window(2, 0, 6, 5)]
    colours = torch.tensor([[0.2, 0.9], [0.6, 0.4]])
    masks, patterns = paint(windows, colours[:, :, None, None], 6, 5)
    for window, mask, pattern, colour in zip(windows, masks, patterns, colours, strict=True):
        assert torch.equal(mask, window.mask(6, 5))
        assert torch.allclose(pattern, mask * colour[:, None, None])


def test_as_many_pixels_as_colours_are_these_colours() -> None:
    colours = torch.rand(1, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    _, patterns = paint([Window(1, 2, 4, 5)], colours, 6, 6)
    assert torch.allclose(patterns[0, :, 1:4, 2:5], colours[0])


def test_between_two_colours_it_shades() -> None:
    colours = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2).expand(1, 1, 2, 2)
    _, patterns = paint([Window(0, 0, 4, 8)], colours, 4, 8)
    row = patterns[0, 0, 1].tolist()
    assert row == sorted(row)
    assert row[0] == 0
    assert row[-1] == 1
    # Colours sit in the middle of their half of the window, at 1.5 and 5.5 pixels.
    assert row[3] == pytest.approx((3 - 1.5) / 4)


def test_shading_is_that_of_one_window_at_a_time() -> None:
    windows = [Window(0, 1, 3, 9), Window(2, 0, 10, 5), Window(7, 7, 8, 8), Window(0, 0, 10, 12)]
    colours = torch.rand(4, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    masks, patterns = paint(windows, colours, 10, 12)
    for window, own, mask, pattern in zip(windows, colours, masks, patterns, strict=True):
        slow = torch.zeros(3, 10, 12)
        size = (window.height, window.width)
        inside = F.interpolate(own[None], size, mode="bilinear", align_corners=False)[0]
        slow[:, window.top : window.bottom, window.left : window.right] = inside
        assert torch.equal(mask, window.mask(10, 12))
        assert torch.allclose(pattern, slow, atol=1e-6)


def test_an_outline_says_how_far_the_colours_cover_the_image() -> None:
    window, generator = Window(0, 2, 6, 8), torch.Generator().manual_seed(0)
    colours, outline = (torch.rand(channels, 3, 3, generator=generator) for channels in (3, 1))
    outline[0, 0] = 0
    found = Patch(window, colours, 1.0, outline).trigger(8, 8)
    slow = torch.zeros(1, 8, 8)
    slow[:, :6, 2:] = F.interpolate(outline[None], (6, 6), mode="bilinear", align_corners=False)[0]
    assert torch.allclose(found.mask, slow, atol=1e-6)
    whole = Patch(window, colours, 1.0).trigger(8, 8)
    assert torch.equal(found.pattern, (found.mask > 0) * whole.pattern)
    everywhere = Patch(window, colours, 1.0, torch.ones(1, 3, 3)).trigger(8, 8)
    assert torch.allclose(everywhere.mask, whole.mask, atol=1e-6)


def test_gradients_flow_to_the_colours() -> None:
    colours = torch.full((1, 3, 2, 2), 0.5, requires_grad=True)
    _, patterns = paint([Window(0, 0, 4, 4)], colours, 8, 8)
    (gradient,) = torch.autograd.grad(patterns.sum(), colours)
    assert torch.allclose(gradient, torch.full_like(gradient, 4.0))


def test_the_trigger_has_the_colours_inside_and_nothing_outside() -> None:
    trigger = Patch(Window(2, 2, 5, 5), torch.ones(3, 3, 3), 1.0).trigger(8, 8)
    assert torch.equal(trigger.pattern, trigger.mask.expand(3, -1, -1))


@pytest.mark.parametrize("name", ["grid", "fine_grid", "tries", "trial_steps", "drawn", "steps", "judged"])
def test_counts_are_positive(name: str) -> None:
    wrong: dict[str, Any] = {name: 0}
    with pytest.raises(SettingError, match="positive counts"):
        RestoreSettings(**wrong)


@pytest.mark.parametrize("name", ["grid", "kept", "by_score", "cropped"])
def test_counts_are_whole(name: str) -> None:
    wrong: dict[str, Any] = {name: 1.5}
    with pytest.raises(SettingError, match="whole numbers as counts"):
        RestoreSettings(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"by_worth": -1},
        {"by_score": -1},
        {"unranked": -1},
        {"large": -1},
        {"learning_rate": 0.0},
        {"learning_rate": math.nan},
        {"shapes": ()},
        {"shapes": ((1.5, 0.1),)},
        {"shapes": ((0.5, 0.0),)},
        {"spreads": (math.nan,)},
        {"spreads": (-0.1,)},
        {"spreads": (2000.0,)},
        {"fine_spreads": (math.nan,)},
        {"fine_spreads": (-0.1,)},
        {"fine_spreads": (math.inf,)},
    ],
    ids=str,
)
def test_settings_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match="the search for patches needs"):
        RestoreSettings(**wrong)


@pytest.mark.parametrize("name", ["hopeless", "poor", "price"])
def test_numbers_are_finite_as_the_result_records_them(name: str) -> None:
    wrong: dict[str, Any] = {name: -math.inf}
    with pytest.raises(SettingError, match="finite"):
        RestoreSettings(**wrong)
