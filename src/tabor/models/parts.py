"""What a reader of one file format is told, and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from tabor.models.build import Architecture


def nobody(what: str) -> None:
    """Tells nobody."""


@dataclass(frozen=True, kw_only=True)
class Trust:
    """Which code of others the caller lets run.

    Attributes:
        torchscript: programs in TorchScript files.
        code: a Python file that builds the network, and pickles that call what they name.
        tell: called with what is about to run, in words, before it runs.
        scratch: folder for files made on the way; None: the system's.
    """

    torchscript: bool = False
    code: bool = False
    tell: Callable[[str], None] = nobody
    scratch: Path | None = None


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
        trust: which code of others may run.
        rehearsed: whether a process of its own has read this very file before (`isolation.rehearsed`), so that what was
            judged there need not be judged again.
    """

    arch: str | None = None
    num_classes: int | None = None
    channels: int | None = None
    size: tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    bgr: bool | None = None
    value_range: tuple[float, float] | None = None
    trust: Trust = field(default_factory=Trust)
    rehearsed: bool = False

    def changes(self) -> dict[str, Any]:
        """Returns what is said, by the names of `Architecture`'s fields."""
        said = {name: value for name, value in vars(self).items() if value is not None}
        for about_the_file in ("arch", "trust", "rehearsed"):
            said.pop(about_the_file, None)
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
