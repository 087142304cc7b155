"""Triggers from a picture or a square, and which images are to carry them.  [§2.1]"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from tabor.data.decode import DAMAGE, FORMATS, eight_bit
from tabor.errors import DataError, SettingError, one_line
from tabor.position import Position
from tabor.trigger import Trigger

SQUARE = "square"
WHITE = (1.0,)
BLACK = (0.0,)


def make_trigger(
    picture: str,
    *,
    size: int,
    position: Position,
    image_shape: tuple[int, int, int],
    colour: Sequence[float] = WHITE,
) -> Trigger:
    """Makes a trigger of `size`×`size` pixels at the border of the image.

    Args:
        picture: "square", or the path of an image file; its transparent parts are not part of the trigger.
        size: edge in pixels.
        position: where it sits.
        image_shape: (C, H, W) of the images to infect.
        colour: of a square, one value in [0, 1] for each channel, or one for all: 0 black, 1 white.

    Raises:
        SettingError: the trigger does not fit the image, or the colour not the channels or not into [0, 1].
        DataError: the picture cannot be read, or has no opaque pixel.
    """
    channels, height, width = image_shape
    if not 1 <= size <= min(height, width):
        raise SettingError(f"a trigger of {size} pixels does not fit images of {height}×{width}")
    if len(colour) not in (1, channels) or not all(0 <= value <= 1 for value in colour):
        raise SettingError(
            f"the colour of a square is one number between 0 (black) and 1 (white), or one for each of {channels} "
            f"channels, got {', '.join(f'{value:g}' for value in colour)}"
        )
    if picture == SQUARE:
        alpha, colours = torch.ones(1, size, size), torch.tensor(colour).view(-1, 1, 1).expand(channels, size, size)
    else:
        alpha, colours = _read_picture(Path(picture), size, channels)
    top, left = position.place(size, height, width)
    mask, pattern = torch.zeros(1, height, width), torch.zeros(channels, height, width)
    mask[:, top : top + size, left : left + size] = alpha
    pattern[:, top : top + size, left : left + size] = colours
    return Trigger(mask, pattern)


def shade(colour: Sequence[float]) -> str:
    """Returns a square's colour as part of a file's name, in percent; nothing for white."""
    return "" if tuple(colour) == WHITE else "-" + "-".join(f"{round(100 * value)}" for value in colour)


def _read_picture(path: Path, size: int, channels: int) -> tuple[Tensor, Tensor]:
    try:
        with Image.open(path, formats=FORMATS) as file:
            picture = eight_bit(file).convert("RGBA").resize((size, size), Image.Resampling.LANCZOS)
    except FileNotFoundError:
        raise DataError(f"there is no trigger picture {one_line(path)} (and it is not the word {SQUARE})") from None
    except DAMAGE as error:
        raise DataError(f"cannot read the trigger picture {one_line(path)}: {one_line(error)}") from None
    pixels = pil_to_tensor(picture).float() / 255
    alpha = (pixels[3:] >= 0.5).float()  # a mask of ones and zeros, as in the paper's Fig. 1
    if not bool(alpha.any()):
        raise DataError(f"the trigger picture {one_line(path)} has no opaque pixel")
    colours = pixels[:3] if channels == 3 else pixels[:3].mean(0, keepdim=True).expand(channels, -1, -1)
    return alpha, colours * alpha


def draw(labels: Tensor, target: int, fraction: float, generator: torch.Generator) -> Tensor:
    """Returns the numbers of the images to poison, int64, shape (M,): a random share.

    Args:
        labels: int64, shape (N,); images of the target class are not drawn, they would teach nothing.
        target: the class to send them to.
        fraction: how many, as a share of N, in (0, 1].
        generator: draws them.

    Raises:
        SettingError: the fraction is outside (0, 1], or there is no image of another class.
    """
    if not 0 < fraction <= 1:
        raise SettingError(f"the poison fraction lies in (0, 1], got {fraction}")
    others = torch.nonzero(labels != target).flatten()
    if len(others) == 0:
        raise SettingError(f"all images are of class {target} already, there is nothing to poison")
    count = min(len(others), max(1, round(fraction * len(labels))))
    return others[torch.randperm(len(others), generator=generator).to(others.device)[:count]]
