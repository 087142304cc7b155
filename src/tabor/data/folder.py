"""Images in a folder of class folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tabor.data.listing import Encoded, Listing
from tabor.errors import DataError, one_line

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"},
)


def list_folder(folder: Path, split: str | None) -> Listing:
    """Lists the images of a folder of class folders.

    The class index is the place of the class folder among its sorted siblings, in numeric order if all their
    names are integers, else in alphabetic order. An empty class folder keeps its place. Folders whose name
    begins with a dot, and folders within class folders, are not looked into.

    Args:
        folder: the folder; with `split`, the folder that holds one folder for each split.
        split: the subfolder to use.

    Raises:
        DataError: there is no such split, no class folder or no image, or a folder cannot be read.
    """
    source = one_line(folder.resolve().name or folder)
    if split is not None:
        folder, source = _split_folder(folder, split), f"{source} ({one_line(split)})"
    classes = _numerically_if_integers(_entries(folder, folders=True))
    if not classes:
        raise DataError(_no_classes(folder))
    files = [_images(folder / name) for name in classes]
    if not any(files):
        raise DataError(_no_images(folder, classes))
    paths = [file for of_class in files for file in of_class]
    labels = [index for index, of_class in enumerate(files) for _ in of_class]

    def read(positions: NDArray[np.int64]) -> Iterator[tuple[str, Encoded]]:
        for position in positions:
            path = paths[position]
            yield f"{path.parent.name}/{path.name}", path

    return Listing(
        labels=torch.tensor(labels),
        class_names=tuple(one_line(name) for name in classes),
        source=source,
        read=read,
    )


def _entries(folder: Path, *, folders: bool) -> list[str]:
    """The sorted names of the files, or of the folders not hidden, in a folder; links count as what they lead to."""
    try:
        with os.scandir(folder) as entries:
            if folders:
                return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
            return sorted(e.name for e in entries if e.is_file())
    except OSError as error:
        raise DataError(f"cannot read the folder {one_line(folder)}: {one_line(error.strerror)}") from None


def _images(folder: Path) -> list[Path]:
    names = _entries(folder, folders=False)
    return [folder / name for name in names if Path(name).suffix.lower() in SUFFIXES]


def _numerically_if_integers(names: list[str]) -> list[str]:
    return sorted(names, key=int) if all(name.isascii() and name.isdigit() for name in names) else names


def _split_folder(folder: Path, split: str) -> Path:
    present = _entries(folder, folders=True)
    if split not in present:  # also keeps a split such as "../.." inside the folder
        names = one_line(", ".join(present)) or "none"
        raise DataError(
            f'{one_line(folder)} has no split "{one_line(split)}"; folders present: {names}; '
            f"expected {one_line(folder)}/{one_line(split)}/CLASS/"
        )
    return folder / split


def _no_classes(folder: Path) -> str:
    if _images(folder):
        return (
            f"{one_line(folder)} holds images directly but no class folders, so their classes are unknown; "
            f"put them into one folder per class"
        )
    return f"{one_line(folder)} holds no class folders, parquet files or images; expected one folder per class"


def _no_images(folder: Path, classes: list[str]) -> str:
    nested = [name for name in classes if _entries(folder / name, folders=True)]
    hint = f"; if these are splits, choose one with --split: {', '.join(nested)}" if nested else ""
    suffixes = " ".join(sorted(suffix[1:] for suffix in SUFFIXES))
    return f"{one_line(folder)} has {len(classes)} class folders but no image ({suffixes}){one_line(hint)}"
