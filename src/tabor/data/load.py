"""`load_images`: clean images from any source that Tabor reads."""

from __future__ import annotations

import logging
import operator
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tabor.data.decode import check_side, decode
from tabor.data.folder import list_folder
from tabor.data.images import ImageSet, balanced_order
from tabor.data.listing import Listing
from tabor.draws import checked_seed
from tabor.errors import DataError, SettingError, one_line

# The libraries behind the digits and parquet files take half a second to import, so they wait for their use.


def load_images(
    source: str | Path,
    *,
    size: int | tuple[int, int] | None = None,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    skip_bad: bool = False,
    grey: bool = False,
) -> ImageSet:
    """Loads labelled images as float32 in [0, 1], shape (N, C, H, W).

    Args:
        source: a folder with one folder per class, a folder of Hugging Face style parquet files, one parquet
            file, or "digits" for scikit-learn's (a folder of that name is "./digits"). See `list_folder`,
            `list_parquet` and `digits` for how each numbers its classes.
        size: (height, width), or one number for a square, to resize to; None: their own, which must agree.
        split: the part of the data to use; None: the whole folder, of the digits the test split, and of parquet files
            that or else the validation split, else the only one.
        limit: at most so many images, balanced over the classes as `ImageSet.balanced` does.
        seed: of the draw that `limit` makes.
        skip_bad: whether to leave out, with one warning in the log, images that cannot be read.
        grey: whether to load one channel instead of three; digits always have one.

    Raises:
        DataError: the source is missing, empty or unreadable, an image is damaged, or the sizes differ.
        SettingError: `size` or `limit` is less than 1, `size` neither a number nor a pair, or the seed is none.
    """
    height_width, seed = _height_width(size), checked_seed(seed)
    if limit is not None and limit < 1:
        raise SettingError(f"limit must be at least 1 image, got {limit}")
    if source == "digits":
        from tabor.data.digits import digits

        images = digits(height_width, split)
        return images if limit is None else images.balanced(limit, seed)
    listing = _listing(Path(source), split)
    if len(listing.labels) == 0:
        raise DataError(f"{listing.source} holds no image")
    chosen = torch.arange(len(listing.labels)) if limit is None else balanced_order(listing.labels, seed)[:limit]
    pictures = _pictures(listing, chosen.numpy(), height_width, skip_bad=skip_bad, grey=grey)
    places, pixels = _stack(pictures, len(chosen), resized=height_width is not None)
    return ImageSet(
        images=torch.from_numpy(pixels).float().div_(255),
        labels=listing.labels[chosen[torch.from_numpy(places)]],
        class_names=listing.class_names,
        source=listing.source,
    )


def _height_width(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    if size is None:
        return None
    try:
        height, width = (operator.index(side) for side in ((size, size) if isinstance(size, int) else size))
    except (TypeError, ValueError):
        wanted = "one whole number of pixels or a pair (height, width)"
        raise SettingError(f"size is {wanted}, got {one_line(repr(size), 40)}") from None
    if min(height, width) < 1:
        raise SettingError(f"size must be at least 1 pixel in height and width, got {size}")
    return height, width


def _listing(path: Path, split: str | None) -> Listing:
    if not os.path.exists(path):  # unlike Path.exists, also False where the name or its folder is unusable
        raise DataError(
            f"there is no {one_line(path)}; expected a folder of class folders, a folder of parquet files, "
            f'a .parquet file, or "digits"'
        )
    from tabor.data.parquet import list_parquet, parquet_files

    is_folder = path.is_dir()
    if not is_folder and not (path.suffix == ".parquet" and path.is_file()):  # a pipe is neither
        raise DataError(
            f"{one_line(path)} is one file; expected a folder of class folders, a folder of parquet files, "
            f"or a .parquet file"
        )
    return list_folder(path, split) if is_folder and not parquet_files(path) else list_parquet(path, split)


def _pictures(
    listing: Listing,
    chosen: NDArray[np.int64],
    size: tuple[int, int] | None,
    *,
    skip_bad: bool,
    grey: bool,
) -> Iterator[tuple[int, str, NDArray[np.uint8]]]:
    """Yields each chosen image that can be read: its place in `chosen`, its name and its pixels (H, W, C).

    They come in the order of the source, which reads a file only once.
    """
    places = np.argsort(chosen)
    skipped: list[str] = []
    for place, (name, encoded) in zip(places.tolist(), listing.read(chosen[places]), strict=True):
        try:
            pixels = decode(encoded, name, size, grey=grey)
        except DataError as error:
            if not skip_bad:
                raise
            skipped.append(str(error))
        else:
            yield place, name, pixels
    if len(skipped) == len(chosen):
        raise DataError(f"none of the {len(chosen)} images can be read; the first: {skipped[0]}")
    if skipped:
        counts = f"skipped {len(skipped)} of {len(chosen)} images of {listing.source}"
        logging.getLogger("tabor").warning("%s that cannot be read; the first: %s", counts, skipped[0])


def _stack(
    pictures: Iterator[tuple[int, str, NDArray[np.uint8]]], count: int, *, resized: bool
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Returns the places of the pictures, ascending, and their pixels, shape (n, C, H, W), in that order."""
    place, first_name, first = next(pictures)
    if not resized:
        check_side(first, first_name, "give the size that the model takes: --size HxW (size=)")
    height, width, channels = first.shape
    pixels = np.empty((count, channels, height, width), np.uint8)
    filled = np.zeros(count, np.bool_)
    pixels[place], filled[place] = first.transpose(2, 0, 1), True
    for place, name, picture in pictures:
        if picture.shape != first.shape:
            raise DataError(
                f"images differ in size: {one_line(first_name, 120)} is {height}x{width}, "
                f"{one_line(name, 120)} is {picture.shape[0]}x{picture.shape[1]} (heightxwidth); "
                f"give one size for all: --size {height} (size={height})"
            )
        pixels[place], filled[place] = picture.transpose(2, 0, 1), True
    return np.flatnonzero(filled), pixels if filled.all() else pixels[filled]
