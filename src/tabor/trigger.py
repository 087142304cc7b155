"""A trigger: where it is (the mask M) and how it looks (the pattern Δ).  Paper Fig. 1 and Eq. 1.

The four operations are pure functions that broadcast, so the search (many classes at once), the attacks, the
quality measure and the report all share them.  `Trigger` is one mask with one pattern.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from tabor.errors import TaborError, one_line
from tabor.files import check_plain, replacing

LARGEST_FILE = 2**28
"""Bytes of a trigger's file: more than one for images of 4,000×4,000 pixels takes."""


def stamp(images: Tensor, mask: Tensor, pattern: Tensor) -> Tensor:
    """x⊙(1−M) + Δ⊙M: the images with the trigger on them (Eq. 1)."""
    return images * (1 - mask) + pattern * mask


def crop(images: Tensor, mask: Tensor) -> Tensor:
    """x⊙(1−M): the images with the trigger's place blacked out (Eq. 4)."""
    return images * (1 - mask)


def cover(images: Tensor, mask: Tensor, grey: float) -> Tensor:
    """x⊙(1−M) + g·M: the images with the trigger's place in a grey; 0 is Eq. 4's black, 1 is white."""
    return images * (1 - mask) + grey * mask


def isolate(mask: Tensor, pattern: Tensor) -> Tensor:
    """M⊙Δ: the trigger alone on black (Eq. 7)."""
    return mask * pattern


@dataclass(frozen=True, eq=False)
class Trigger:
    """One trigger in pixel space, before any normalisation.

    Attributes:
        mask: float32 in [0, 1], shape (1, H, W); 1 where the trigger covers the image.
        pattern: float32 in [0, 1], shape (C, H, W); the trigger's colours.

    Raises:
        TaborError: the shapes do not belong together, or a value is outside [0, 1] or not a number.
    """

    mask: Tensor
    pattern: Tensor

    def __post_init__(self) -> None:
        if self.mask.ndim != 3 or self.pattern.ndim != 3 or self.mask.shape[0] != 1:
            raise TaborError(
                f"a trigger needs a mask of shape (1, H, W) and a pattern of shape (C, H, W), "
                f"got {tuple(self.mask.shape)} and {tuple(self.pattern.shape)}"
            )
        if self.mask.shape[1:] != self.pattern.shape[1:]:
            raise TaborError(
                f"the mask is {tuple(self.mask.shape[1:])} pixels and the pattern {tuple(self.pattern.shape[1:])}; "
                f"they must be of one size"
            )
        for name, values in (("mask", self.mask), ("pattern", self.pattern)):
            if not bool(((values >= 0) & (values <= 1)).all()):
                raise TaborError(f"the trigger's {name} has values outside [0, 1]")

    def stamp(self, images: Tensor) -> Tensor:
        """Returns the images (N, C, H, W) with the trigger on them (Eq. 1)."""
        return stamp(images, self.mask, self.pattern)

    def crop(self, images: Tensor) -> Tensor:
        """Returns the images (N, C, H, W) with the trigger's place blacked out (Eq. 4)."""
        return crop(images, self.mask)

    def isolate(self) -> Tensor:
        """Returns the trigger alone on black, (C, H, W) (Eq. 7)."""
        return isolate(self.mask, self.pattern)

    def binarise(self, threshold: float = 0.5) -> Trigger:
        """Returns the trigger whose mask is 1 above the threshold and 0 elsewhere."""
        return Trigger((self.mask > threshold).to(self.mask.dtype), self.pattern)

    def to(self, device: torch.device | str) -> Trigger:
        """Returns the trigger on another device."""
        return Trigger(self.mask.to(device), self.pattern.to(device))

    def save(self, path: str | Path) -> None:
        """Writes the trigger as a safetensors file with the tensors `mask` and `pattern`."""
        with replacing(Path(path)) as temporary:
            safetensors.torch.save_file(
                {"mask": self.mask.clone().contiguous(), "pattern": self.pattern.clone().contiguous()}, temporary
            )

    @staticmethod
    def load(path: str | Path) -> Trigger:
        """Reads what `save` wrote.

        Raises:
            TaborError: there is no such file, or it holds no trigger.
        """
        try:
            check_plain(Path(path), LARGEST_FILE)
            tensors = safetensors.torch.load_file(path)
            return Trigger(tensors["mask"].float(), tensors["pattern"].float())
        except FileNotFoundError:
            raise TaborError(f"there is no file {one_line(path)}") from None
        except (KeyError, OSError, safetensors.SafetensorError) as error:
            raise TaborError(f"{one_line(path)} is no trigger file: {one_line(error)}") from None
