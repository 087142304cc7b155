"""From an architecture's name to an untrained network that takes images in [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tabor.draws import seeded
from tabor.errors import ModelError, dimensions, one_line
from tabor.models.architectures import ARCHITECTURES

LARGEST_IMAGE = 1024
"""Channels, and pixels a side, beyond which an architecture makes no sense."""

LARGEST_VALUES = 4 * LARGEST_IMAGE**2
"""Of an image: red, green, blue and a fourth channel at that size, or many channels of a smaller one."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """All that is needed to build a network without its weights.

    Attributes:
        name: "tabor:gtsrb6", "timm:NAME" or "torchvision:NAME".
        num_classes: number of logits, at least 2.
        channels: channels of the images.
        size: (H, W) of the images in pixels.
        mean, std: normalisation that the network was trained with, tuples of one number or of one a channel, in units
            of `value_range` and in the network's own order of channels; None: none.
        bgr: whether the network takes its channels as blue, green, red.
        value_range: what the network calls black and white, before the normalisation.
    """

    name: str
    num_classes: int
    channels: int = 3
    size: tuple[int, int] = (32, 32)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    bgr: bool = False
    value_range: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        self._check_counts()
        for name in ("mean", "std"):
            values = getattr(self, name)
            if isinstance(values, tuple) and len(values) == 1:  # one for every channel
                object.__setattr__(self, name, values * self.channels)
        if (self.mean is None) != (self.std is None):
            raise ModelError("mean and std belong together; give both or neither")
        for values in (self.mean, self.std):
            if values is not None:
                _check_normalisation(values, self.channels)
        if self.std is not None and min(self.std) <= 0:
            raise ModelError(f"std must be positive, got {self.std}")
        self._check_pixels()

    def _check_pixels(self) -> None:
        ends = self.value_range
        if not isinstance(self.bgr, bool) or not isinstance(ends, tuple) or len(ends) != 2:
            raise ModelError("an architecture has a yes or no to BGR, and a range of two numbers")
        if not all(isinstance(end, int | float) and math.isfinite(end) for end in ends) or ends[0] >= ends[1]:
            raise ModelError(f"a range has two finite numbers, the smaller one first, got {one_line(ends, 80)}")
        if self.bgr and self.channels != 3:
            raise ModelError(f"BGR needs 3 channels, the images have {self.channels}")

    def _check_counts(self) -> None:
        counts = (self.num_classes, self.channels, *self.size) if isinstance(self.size, tuple) else ()
        if not isinstance(self.name, str) or len(counts) != 4 or any(type(n) is not int for n in counts):
            raise ModelError("an architecture has a name, whole numbers of classes and channels, and a size (H, W)")
        if self.num_classes < 2:
            raise ModelError(f"a classifier has at least 2 classes, got num_classes {self.num_classes}")
        if min(counts) < 1:
            raise ModelError(f"images need at least one channel and one pixel, got {counts[1:]}")
        if max(counts[1:]) > LARGEST_IMAGE or math.prod(counts[1:]) > LARGEST_VALUES:
            raise ModelError(
                f"images of more than {LARGEST_IMAGE} channels or pixels a side, or of more than {LARGEST_VALUES:,} "
                f"values, make no sense"
            )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images."""
        return (self.channels, *self.size)


def _check_normalisation(values: tuple[float, ...], channels: int) -> None:
    if not isinstance(values, tuple):
        raise ModelError(f"normalisation takes a tuple of numbers, one or one a channel, got {one_line(values)}")
    if len(values) != channels:
        raise ModelError(f"normalisation has {len(values)} values for images of {channels} channels")
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
        raise ModelError("normalisation takes finite numbers")


def build(architecture: Architecture, arguments: Mapping[str, Any] | None = None) -> nn.Module:
    """Returns the network, which takes images as it was trained with.

    Args:
        architecture: which network.
        arguments: what else one of timm's is built with; never anything that was not checked.

    Raises:
        ModelError: the name is unknown, or the network cannot be built so.
    """
    family, _, name = architecture.name.partition(":")
    if family == "tabor" and name in ARCHITECTURES:
        return ARCHITECTURES[name](architecture.num_classes, architecture.channels, architecture.size)
    if family == "timm" and name:
        return _timm(name, architecture, arguments or {})
    if family == "torchvision" and name:
        return _torchvision(name, architecture)
    ours = ", ".join(f"tabor:{key}" for key in ARCHITECTURES)
    own = ", or FILE.py:FUNCTION with --trust-code" if family.endswith(".py") else ""
    raise ModelError(
        f"unknown architecture {one_line(architecture.name)}; use {ours}, timm:NAME or torchvision:NAME{own}"
    )


def import_family(name: str | None) -> None:
    """Imports the library that a network of that name comes from, which takes seconds; an unknown name is let pass."""
    if name is not None and name.startswith("timm:"):
        import timm  # noqa: F401
    elif name is not None and name.startswith("torchvision:"):
        import torchvision  # noqa: F401


def _timm(name: str, architecture: Architecture, arguments: Mapping[str, Any]) -> nn.Module:
    import timm

    if name not in timm.list_models():
        raise ModelError(f"timm has no model {one_line(name)}{_close_to(name, timm.list_models())}")
    # Transformers and the like are made for images of one size; the others do not take one.
    known = timm.get_pretrained_cfg(name, allow_unregistered=True)
    sized = {"img_size": architecture.size} if known is not None and known.fixed_input_size else {}
    try:
        network: nn.Module = timm.create_model(
            name,
            pretrained=False,
            num_classes=architecture.num_classes,
            in_chans=architecture.channels,
            **(dict(arguments) | sized),
        )
    except Exception as error:  # noqa: BLE001 (some assert, some divide by zero: each network has its own limits)
        reason = one_line(error) or type(error).__name__
        size = dimensions(architecture.size)
        raise ModelError(f"timm cannot build {one_line(name)} so, for images of {size}: {reason}") from None
    return network


def _torchvision(name: str, architecture: Architecture) -> nn.Module:
    from torchvision import models

    if name not in models.list_models(module=models):
        raise ModelError(
            f"torchvision has no classifier {one_line(name)}{_close_to(name, models.list_models(module=models))}"
        )
    if architecture.channels != 3:
        raise ModelError(f"torchvision's networks take 3 channels, the images have {architecture.channels}")
    settings = _torchvision_settings(name, architecture.size)
    try:
        network: nn.Module = models.get_model(name, weights=None, num_classes=architecture.num_classes, **settings)
    except (ValueError, AssertionError) as error:
        raise ModelError(f"torchvision cannot build {one_line(name)} so: {one_line(error)}") from None
    return network


def _torchvision_settings(name: str, size: tuple[int, int]) -> dict[str, Any]:
    """What some of torchvision's networks have to be told."""
    if name.startswith("vit_"):
        if size[0] != size[1]:
            raise ModelError(f"torchvision's {one_line(name)} takes square images, not {size[0]}×{size[1]}")
        return {"image_size": size[0]}
    return {"init_weights": True} if name in ("inception_v3", "googlenet") else {}  # silent, they warn


def _close_to(name: str, known: list[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, known, n=3)
    return f"; did you mean {', '.join(close)}?" if close else ""


def initialise(architecture: Architecture, seed: int) -> nn.Module:
    """Returns what `build` does, with random weights drawn from the seed; the global generators stay as they were."""
    with seeded(seed, torch.device("cpu")):
        return build(architecture)
