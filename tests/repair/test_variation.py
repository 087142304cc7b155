"""How restored triggers are varied: place, extent, colours."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tabor.backdoor import Backdoor
from tabor.data import ImageSet
from tabor.errors import SettingError
from tabor.repair.variation import VariationSettings, also_plain, grown, hardened, stamp_varied
from tabor.trigger import Trigger

EXACT = VariationSettings(shift=0, growth=0, colour_step=0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def dot(row: int, column: int, value: float = 0.5, side: int = 8) -> Trigger:
    mask = torch.zeros(1, side, side)
    mask[:, row, column] = 1
    return Trigger(mask, value * mask)


class Sum(nn.Module):
    """In closed form: logit 1 is the sum of the upper half of the image, logit 2 that of the lower half."""

    def forward(self, images: Tensor) -> Tensor:
        upper, lower = images.sum(1).chunk(2, dim=1)
        return torch.stack([torch.zeros(len(images)), upper.sum((1, 2)), lower.sum((1, 2))], 1)


def test_without_variation_every_image_has_a_trigger_as_it_is() -> None:
    backdoors = [Backdoor(dot(1, 1, 0.25), 1), Backdoor(dot(6, 6, 0.75), 2)]
    images = torch.full((40, 1, 8, 8), 0.1)
    stamped = stamp_varied(Sum(), images, backdoors, EXACT, generator())
    first, second = (b.trigger.stamp(images[:1])[0] for b in backdoors)
    are_first = [torch.equal(image, first) for image in stamped]
    are_second = [torch.equal(image, second) for image in stamped]
    assert all(a or b for a, b in zip(are_first, are_second, strict=True))
    assert 8 < sum(are_first) < 32
    assert torch.equal(images, torch.full((40, 1, 8, 8), 0.1))


def test_shifts_are_a_share_of_the_shorter_edge() -> None:
    mask = torch.zeros(1, 8, 32)
    mask[:, 4, 16] = 1
    settings = VariationSettings(shift=1 / 8, growth=0, colour_step=0)
    stamped = stamp_varied(Sum(), torch.zeros(200, 1, 8, 32), [Backdoor(Trigger(mask, mask), 1)], settings, generator())
    places = {(int(row), int(column)) for _, _, row, column in torch.nonzero(stamped)}
    assert places == {(row, column) for row in (3, 4, 5) for column in (15, 16, 17)}


def test_growing_keeps_the_colours_and_continues_them() -> None:
    mask, pattern = torch.zeros(1, 1, 8, 8), torch.zeros(1, 3, 8, 8)
    mask[..., 2:4, 2:4] = 1
    pattern[:, 0, 2:4, 2:4] = 0.5
    larger, colours = grown(mask, pattern, 1).split([1, 3], dim=1)
    expected = torch.zeros(8, 8)
    expected[1:5, 1:5] = 1
    assert torch.equal(larger[0, 0], expected)
    assert torch.allclose(colours[0, 0], 0.5 * expected)
    assert float(colours[:, 1:].abs().sum()) == 0


def test_a_pixel_that_the_mask_shows_in_part_keeps_its_colour() -> None:
    mask, pattern = torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)
    mask[..., 2:4, 2:4] = 0.3
    pattern[..., 2:4, 2], pattern[..., 2:4, 3] = 0.2, 0.8
    _, colours = grown(mask, pattern, 1).split([1, 1], dim=1)
    assert torch.equal(colours[..., 2:4, 2:4], pattern[..., 2:4, 2:4])


def test_colours_move_towards_each_images_own_target_and_stay_colours() -> None:
    images = torch.full((2, 1, 4, 4), 0.5)
    masks = torch.zeros(2, 1, 4, 4)
    masks[:, :, 0] = 1
    patterns = torch.full((2, 1, 4, 4), 0.9)
    harder = hardened(Sum(), images, masks, patterns, torch.tensor([1, 2]), 0.3)
    assert torch.allclose(harder[0, 0, 0], torch.ones(4))
    assert torch.allclose(harder[1, 0, 0], torch.full((4,), 0.6))
    assert torch.equal(harder[:, :, 1:], patterns[:, :, 1:])  # what no mask shows has no gradient
    assert not harder.requires_grad


class Peak(nn.Module):
    """Says 1 the more surely the nearer the mean pixel is to 0.8, and 0 otherwise."""

    def forward(self, images: Tensor) -> Tensor:
        near = -50 * (images.mean((1, 2, 3)) - 0.8) ** 2
        return torch.stack([torch.full_like(near, -0.5), near], 1)


def test_colours_that_are_the_strongest_stay_as_they_are() -> None:
    images, masks = torch.zeros(3, 1, 4, 4), torch.ones(3, 1, 4, 4)
    patterns = torch.tensor([0.75, 0.5, 0.81])[:, None, None, None].expand(3, 1, 4, 4)
    harder = hardened(Peak(), images, masks, patterns, torch.ones(3, dtype=torch.int64), 0.3)
    assert torch.equal(harder[0], patterns[0])  # 1.05 is farther from 0.8
    assert torch.allclose(harder[1], torch.full((1, 4, 4), 0.8))
    assert torch.equal(harder[2], patterns[2])


def test_half_of_the_triggers_grow() -> None:
    settings = VariationSettings(shift=0, growth=1 / 8, colour_step=0)
    stamped = stamp_varied(Sum(), torch.zeros(200, 1, 8, 8), [Backdoor(dot(4, 4), 1)], settings, generator())
    sizes = (stamped > 0).sum((1, 2, 3)).tolist()
    assert set(sizes) == {1, 9}
    assert 60 < sizes.count(9) < 140


def test_the_same_seed_varies_alike() -> None:
    images, backdoors = torch.rand(6, 1, 8, 8, generator=generator(5)), [Backdoor(dot(4, 4), 1)]
    first, again, other = (
        stamp_varied(Sum(), images, backdoors, VariationSettings(shift=0.25), generator(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("changes", [{"shift": -0.1}, {"growth": 1.1}, {"colour_step": float("nan")}], ids=str)
def test_refused_settings(changes: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match="shares between 0 and 1"):
        VariationSettings(**changes)


def test_plain_colours_that_work_as_well_are_found() -> None:
    """A dark trigger restored in the upper half, of a model that answers to what is bright there and what is dark."""

    class Extremes(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            far = (images[:, 0, 1, 1] - 0.5).abs() > 0.4
            return torch.stack([torch.full((len(images),), 0.5), far.float()], 1)

    half = dot(1, 1, 0.03)
    half.mask[:, 7, 7] = 0.5
    restored = Backdoor(half, 1, "half")
    images = ImageSet(torch.full((6, 1, 8, 8), 0.5), torch.zeros(6, dtype=torch.int64), ())
    found = also_plain(Extremes(), [restored], images)
    assert [float(b.trigger.pattern.max()) for b in found] == [0.0, 1.0]
    assert [b.description for b in found] == ["half, all black", "half, all white"]
    assert all(torch.equal(b.trigger.mask, restored.trigger.mask) and b.target == 1 for b in found)
    corners = [float(b.trigger.stamp(images.images)[0, 0, 7, 7]) for b in found]
    assert corners == [0.25, 0.75], "half of the grey image and half of black or white"


@pytest.mark.parametrize(("lit", "found"), [(2, []), (3, [1.0])])
def test_a_plain_colour_that_works_on_half_of_the_images_is_taken(lit: int, found: list[float]) -> None:
    class Both(nn.Module):
        """Says 1 where both the first and the last pixel are white."""

        def forward(self, images: Tensor) -> Tensor:
            white = (images[:, 0, 0, 0] == 1) & (images[:, 0, 7, 7] == 1)
            return torch.stack([torch.full((len(images),), 0.5), white.float()], 1)

    images = ImageSet(torch.zeros(6, 1, 8, 8), torch.zeros(6, dtype=torch.int64), ())
    images.images[:lit, :, 0, 0] = 1
    assert [float(b.trigger.pattern.max()) for b in also_plain(Both(), [Backdoor(dot(7, 7), 1)], images)] == found
