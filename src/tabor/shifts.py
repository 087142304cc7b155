"""Images and triggers moved by a few pixels, each by its own."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def shifted(
    values: Tensor, furthest: int, generator: torch.Generator, edge: Literal["constant", "replicate"]
) -> Tensor:
    """Returns each of the (N, C, H, W) moved by up to so many pixels along both edges.

    Args:
        values: to move.
        furthest: pixels.
        generator: of the CPU; draws the moves, evenly among all.
        edge: what comes in: "constant", zeros, or "replicate", the pixels at the edge once more.
    """
    height, width = values.shape[2:]
    padded = F.pad(values, (furthest,) * 4, edge)
    top, left = torch.randint(2 * furthest + 1, (2, len(values), 1), generator=generator)
    rows, columns = top + torch.arange(height), left + torch.arange(width)
    each = torch.arange(len(values))[:, None, None]
    return padded[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
