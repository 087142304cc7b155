"""What a Hugging Face folder says about its preprocessing, as fields of an `Architecture`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tabor.errors import ModelError, one_line
from tabor.models.folder import PREPROCESSOR, file_in
from tabor.models.untrusted_json import is_number, read_object

WHITE = 255


def preprocessing(folder: Path, channels: int, image_size: object) -> dict[str, Any]:
    """Returns size, mean, std, bgr and value_range; without the file, of images that are taken as they are.

    Args:
        folder: the folder, whose image processor is read from its JSON; transformers' own is not run.
        channels: channels of the images.
        image_size: what counts where the processor does not say it.

    Raises:
        ModelError: the processor has code of its own, its settings make no sense, or nobody says the size.
    """
    path = file_in(folder, PREPROCESSOR)
    said = read_object(path) if path.exists() else {}
    if said.get("auto_map"):
        raise ModelError(f"{one_line(path)} has auto_map: preprocessing by code of its own, which is never run")
    mean, std = _normalisation(said, channels, path)
    low, high = _value_range(said, path)
    return {
        "size": _size(said, image_size, path),
        "mean": mean,
        "std": std,
        "bgr": said.get("do_flip_channel_order") is True,
        "value_range": (low, high),
    }


def _normalisation(
    said: Mapping[str, Any], channels: int, path: Path
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    normalised = said.get("do_normalize", "image_mean" in said) is True
    twice = said.get("include_top") is True  # EfficientNet's processor divides by the deviation once more
    if not normalised and not twice:
        return None, None
    mean = per_channel(said.get("image_mean"), channels, path) if normalised else (0.0,) * channels
    deviation = per_channel(said.get("image_std"), channels, path)
    return mean, tuple(value ** (normalised + twice) for value in deviation)


def per_channel(values: object, channels: int, path: Path) -> tuple[float, ...]:
    """Returns one number a channel: grey images have one even where a file repeats it for three.

    Raises:
        ModelError: these are no numbers.
    """
    numbers = values if isinstance(values, list) else [values]
    if not numbers or not all(is_number(number) for number in numbers):
        raise ModelError(f"{one_line(path)} normalises without saying by which numbers; correct it")
    same = len(set(numbers)) == 1
    return tuple(numbers[:1] * channels if same else numbers)


def _value_range(said: Mapping[str, Any], path: Path) -> tuple[float, float]:
    factor = said.get("rescale_factor", 1 / WHITE) if said.get("do_rescale", True) else 1
    if not is_number(factor) or factor <= 0:
        raise ModelError(f"{one_line(path)} rescales by what is no positive number: {one_line(factor, 80)}")
    high = 1.0 if math.isclose(factor * WHITE, 1, rel_tol=1e-6) else float(factor * WHITE)
    return (-1.0, high - 1) if said.get("rescale_offset") is True else (0.0, high)


def _size(said: Mapping[str, Any], image_size: object, path: Path) -> tuple[int, int]:
    """What comes out of resizing and cropping; a shortest edge means a square, which networks are trained on."""
    if said.get("do_center_crop") and said.get("crop_size") is not None:
        return height_width(said["crop_size"], path)
    if said.get("do_resize", True) and said.get("size") is not None:
        return height_width(said["size"], path)
    if image_size is not None:
        return height_width(image_size, path)
    raise ModelError(f"{one_line(path)} does not say which size images have; give --size")


def height_width(size: object, path: Path) -> tuple[int, int]:
    """Returns (H, W) from any of the ways in which sizes are written.

    Raises:
        ModelError: it is none of them.
    """
    if isinstance(size, dict):
        square = size.get("shortest_edge")
        size = [size.get("height", square), size.get("width", square)]
    pair = [size, size] if type(size) is int else size
    if not isinstance(pair, list | tuple) or len(pair) != 2 or any(type(n) is not int for n in pair):
        raise ModelError(f"{one_line(path)} has a size that makes no sense ({one_line(size, 80)}); correct it")
    return pair[0], pair[1]
