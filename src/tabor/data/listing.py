"""What a source of images holds, known before any image is decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Encoded: TypeAlias = Path | bytes | None  # an image file, its bytes, or None where the source has only a gap


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The labels of a source's images, and how to get at the images.

    Attributes:
        labels: int64 class indices, shape (N,).
        class_names: the name of each class index, printable; empty where the source names none.
        source: the name of the source for the report: its last path component and the split.
        read: yields the name and the encoded image at each of the given positions (int64, ascending).
    """

    labels: Tensor
    class_names: tuple[str, ...]
    source: str
    read: Callable[[NDArray[np.int64]], Iterator[tuple[str, Encoded]]]
