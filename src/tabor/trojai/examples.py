"""The example images of a TrojAI model: a folder of pictures whose class stands in the name or in a file beside it."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tabor.data import ImageSet
from tabor.data.decode import check_side, decode
from tabor.data.folder import SUFFIXES
from tabor.data.images import balanced_order
from tabor.errors import DataError, one_line

NAMED = re.compile(r"class_(\d{1,9})_example_\d+")
"""Rounds 1 to 4; the network sees the middle of the picture."""

NAMED_CROP = 224

LONGEST_LABEL = 100
"""Bytes of the file that holds a class index (rounds 10 and later) and nothing else."""


@dataclass(frozen=True)
class Example:
    """A picture, its class, and whether its name is of the early rounds."""

    path: Path
    label: int
    named: bool


def load_examples(folder: Path, per_class: int, crop_size: int, seed: int) -> ImageSet:
    """Returns the labelled images in a folder, float32 in [0, 1], shape (N, 3, H, W).

    A picture that cannot be read is left out, with one warning for all.

    Args:
        folder: holds `class_2_example_35.png`, or `1088.jpg` beside `1088.json`, which is the bare class index.
        per_class: at most so many of each class, drawn by the seed.
        crop_size: edge to which pictures are cropped around their centre; 0: 224 for the first form, else none.
        seed: of the draw.

    Raises:
        DataError: there is no such folder or no labelled picture in it that can be read, or they differ in size.
    """
    examples = _drawn(_listed(folder), per_class, seed)
    pixels: list[NDArray[np.uint8]] = []
    labels, unread = [], []
    for example in examples:
        edge = crop_size or (NAMED_CROP if example.named else None)
        try:
            picture = _cropped(decode(example.path, example.path.name, None, grey=False), edge, example.path)
        except DataError as error:
            unread.append(str(error))
            continue
        check_side(picture, example.path.name, "set crop_size")
        pixels.append(picture)
        labels.append(example.label)
    if not pixels:
        raise DataError(f"{one_line(folder)} holds no image that can be read; the first: {unread[0]}")
    if unread:
        told = "skipped %d of %d images of %s; the first: %s"
        logging.getLogger("tabor").warning(told, len(unread), len(examples), one_line(folder.name), unread[0])
    if sizes := {picture.shape[:2] for picture in pixels} - {pixels[0].shape[:2]}:
        raise DataError(f"the images differ in size: {pixels[0].shape[:2]} and {sizes.pop()}; set crop_size")
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()
    return ImageSet(images.float().div_(255), torch.tensor(labels), (), one_line(folder.name))


def _listed(folder: Path) -> list[Example]:
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix.lower() in SUFFIXES)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read the folder {one_line(folder)}: {one_line(error, 120)}") from None
    examples = [example for path in files if (example := _labelled(path)) is not None]
    if not examples:
        raise DataError(
            f"{one_line(folder)} holds no labelled image; expected class_2_example_35.png, or 1088.jpg and 1088.json"
        )
    return examples


def _labelled(path: Path) -> Example | None:
    """The example, or None where nothing says its class."""
    if name := NAMED.fullmatch(path.stem):
        return Example(path, int(name[1]), named=True)
    beside = path.with_suffix(".json")
    try:
        if not beside.is_file() or beside.stat().st_size > LONGEST_LABEL:
            return None
        label = json.loads(beside.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return Example(path, label, named=False) if type(label) is int and 0 <= label < 10**9 else None


def _drawn(examples: list[Example], per_class: int, seed: int) -> list[Example]:
    seen: Counter[int] = Counter()
    drawn = []
    for place in balanced_order(torch.tensor([example.label for example in examples]), seed).tolist():
        seen[examples[place].label] += 1
        if seen[examples[place].label] <= per_class:
            drawn.append(examples[place])
    return drawn


def _cropped(pixels: NDArray[np.uint8], edge: int | None, path: Path) -> NDArray[np.uint8]:
    """The square in the middle of pixels (H, W, C)."""
    height, width = pixels.shape[:2]
    if edge is None:
        return pixels
    if min(height, width) < edge:
        raise DataError(f"{one_line(path.name, 120)} is {height}×{width}, smaller than the crop of {edge}×{edge}")
    top, left = (height - edge) // 2, (width - edge) // 2
    return pixels[top : top + edge, left : left + edge]
