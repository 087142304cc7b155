"""What a reader of one file format is told, and what it returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from tabor.models.build import Architecture


@dataclass(frozen=True, kw_only=True)
class Given:
    """What the caller says about a model; it overrides what the file says.  None: not said.

    Attributes:
        arch: "tabor:gtsrb6", "timm:NAME", "torchvision:NAME", or "FILE.py:FUNCTION" where code is trusted.
        num_classes: number of logits.
        channels: channels of the images.
        size: (H, W) of the images in pixels.
        mean, std: per-channel normalisation that the network was trained with.
        bgr: whether the network takes its channels as blue, green, red.
        value_range: what the network calls black and white, before the normalisation, for example (0, 255).
    """

    arch: str | None = None
    num_classes: int | None = None
    channels: int | None = None
    size: tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    bgr: bool | None = None
    value_range: tuple[float, float] | None = None

    def changes(self) -> dict[str, Any]:
        """Returns what is said, by the names of `Architecture`'s fields."""
        said = {name: value for name, value in vars(self).items() if value is not None}
        said.pop("arch", None)
        return said


@dataclass(frozen=True)
class Parts:
    """A classifier as a reader found it.

    Attributes:
        network: takes float32 images (N, C, H, W) as it was trained with, returns (N, num_classes) of any kind.
        architecture: what it is, and how images in [0, 1] become what the network takes.
        record: what the file says about itself; never trusted for a verdict.
    """

    network: nn.Module
    architecture: Architecture
    record: Mapping[str, Any] = field(default_factory=dict)
