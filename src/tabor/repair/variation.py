"""A restored trigger is near the true one, not it: its place, its colours and its shape varied at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tabor.errors import SettingError
from tabor.trigger import Trigger, stamp

COARSE = 4
"""Colours along an edge of the image, between which other colours shade."""


@dataclass(frozen=True, kw_only=True)
class VariationSettings:
    """How far a stamped trigger is from the restored one, drawn anew for each image.

    Attributes:
        shift: farthest move up, down, left and right, as a share of the image's shorter edge.
        fading: largest share of the image that shines through.
        noise: largest standard deviation of what is added to the colours.
        missing: largest share of the pixels that are left out.
        recoloured: share of the triggers whose colours are replaced by others: a place that says nothing in any colour
            does not say it in the true ones.
    """

    shift: float = 1 / 16
    fading: float = 0.5
    noise: float = 0.2
    missing: float = 0.5
    recoloured: float = 0.25

    def __post_init__(self) -> None:
        shares = (self.shift, self.fading, self.noise, self.missing, self.recoloured)
        if not all(0 <= share <= 1 for share in shares):
            raise SettingError(f"how triggers vary is told in shares between 0 and 1, got {self}")


def stamp_varied(
    images: Tensor, triggers: Sequence[Trigger], settings: VariationSettings, generator: torch.Generator
) -> Tensor:
    """Returns each image with one of the triggers, drawn at random and varied, on it.

    Args:
        images: float32 in [0, 1], shape (N, C, H, W).
        triggers: at least one, of the images' size and on their device.
        settings: how far they vary.
        generator: of the CPU; draws everything.
    """
    count, shape = len(images), (len(images), 1, 1, 1)
    drawn = torch.randint(len(triggers), (count,), generator=generator).tolist()
    both = torch.stack([torch.cat([triggers[k].mask, triggers[k].pattern]) for k in drawn])
    moved = shifted(both, round(settings.shift * min(images.shape[2:])), generator)
    masks, patterns = moved[:, :1], moved[:, 1:]

    def share(largest: float) -> Tensor:
        return (largest * torch.rand(shape, generator=generator)).to(images.device)

    def noise(size: Sequence[int]) -> Tensor:
        return torch.rand(size, generator=generator).to(images.device)

    masks = masks * (1 - share(settings.fading)) * (noise(masks.shape) >= share(settings.missing))
    patterns = patterns + share(settings.noise) * torch.randn(patterns.shape, generator=generator).to(images.device)
    others = F.interpolate(noise((count, images.shape[1], COARSE, COARSE)), images.shape[2:], mode="bilinear")
    patterns = torch.where(noise(shape) < settings.recoloured, others, patterns)
    return stamp(images, masks, patterns.clamp(0, 1))


def shifted(values: Tensor, furthest: int, generator: torch.Generator) -> Tensor:
    """Returns each of the (N, C, H, W) moved by up to so many pixels along both edges; what comes in is 0."""
    height, width = values.shape[2:]
    padded = F.pad(values, (furthest,) * 4)
    top, left = torch.randint(2 * furthest + 1, (2, len(values), 1), generator=generator)
    rows, columns = top + torch.arange(height), left + torch.arange(width)
    each = torch.arange(len(values))[:, None, None]
    return padded[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
