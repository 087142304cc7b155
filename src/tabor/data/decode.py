"""From an encoded image, which may come from a stranger, to pixels."""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from tabor.data.listing import Encoded
from tabor.errors import DataError, one_line

# Named so that Pillow never tries its other readers, some of which run programs (PostScript).
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")

# What Pillow's readers were seen to raise on damaged files; they have no common base class.
DAMAGE = (
    *(OSError, SyntaxError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, EOFError),
    *(RuntimeError, MemoryError, struct.error, zlib.error),
    *(Image.DecompressionBombError, Image.DecompressionBombWarning),
)


LARGEST_SIDE = 1024
"""Pixels of an image that is kept as it is: few networks take more, and hundreds of them fill the memory."""


MOST_SCANS, MOST_SCANNED = 100, 10**9
"""Passes over the pixels of a JPEG image, and pixels times passes; a progressive one makes about ten.

An empty pass takes some bytes in a file, and as long as any other. In a TIFF file, libtiff stops after 100.
"""

_SEGMENT = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
"""How a part of a JPEG image begins; the codes left out are those that only stand within its pixels."""


def check_side(pixels: NDArray[np.uint8], name: str, way_out: str) -> None:
    """Refuses an image (H, W, C) that is too large to be kept as it is, and tells the way out.

    Raises:
        DataError: it is.
    """
    height, width = pixels.shape[:2]
    if max(height, width) > LARGEST_SIDE:
        raise DataError(
            f"{one_line(name, 160)} is {height}x{width} pixels (heightxwidth), more than the {LARGEST_SIDE} a side "
            f"that are kept as they are; {way_out}"
        )


def decode(encoded: Encoded, name: str, size: tuple[int, int] | None, *, grey: bool) -> NDArray[np.uint8]:
    """Decodes one image.

    Args:
        encoded: an image file or its bytes; of an animation the first frame counts, transparency is dropped.
        name: what to call the image in an error.
        size: (height, width) to resize to, bilinear with antialiasing; None leaves it as it is.
        grey: whether to return one channel instead of red, green and blue.

    Returns:
        uint8 pixels, shape (H, W, C).

    Raises:
        DataError: the image is missing, damaged, in no known format, far larger than any photograph, or made to take
            for ever.
    """
    if encoded is None:
        raise _bad(name, "no bytes are stored")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            stream = io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded
            with Image.open(stream, formats=FORMATS) as image:
                _check_scans(image)
                picture = eight_bit(image).convert("L" if grey else "RGB")
    except UnidentifiedImageError:  # Pillow's own message holds a memory address
        raise _bad(name, f"not one of {', '.join(FORMATS)}") from None
    except DAMAGE as error:
        raise _bad(name, one_line(error, 120)) from None
    if size is not None and picture.size != (size[1], size[0]):
        picture = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    pixels = np.asarray(picture, dtype=np.uint8)
    return pixels[:, :, None] if grey else pixels


def _check_scans(image: Image.Image) -> None:
    if isinstance(image, JpegImageFile) and image.fp is not None:  # those of several pictures too
        image.fp.seek(0)
        scans, pixels = _scans(image.fp.read()), image.width * image.height
        if scans > min(MOST_SCANS, MOST_SCANNED // pixels):
            raise ValueError(f"{image.width}x{image.height} pixels in {scans} scans or more: a decompression bomb")


def _scans(content: bytes) -> int:
    """Counts a JPEG image's scans as libjpeg meets them, not what looks like one in a thumbnail or behind the end."""
    scans, place = 0, 0
    while scans <= MOST_SCANS and (found := _SEGMENT.search(content, place)):
        code, place = found[0][1], found.end()
        if code == 0xD9:  # the end
            break
        scans += code == 0xDA
        place += int.from_bytes(content[place : place + 2])
    return scans


def eight_bit(image: Image.Image) -> Image.Image:
    """Scales 16-bit grey to 8 bits, which Pillow's `convert` would clip to white instead.

    Raises:
        ValueError: its pixels have 32 bits, of which nobody says what is white.
    """
    if image.mode in ("I", "F"):
        raise ValueError(f"its 32-bit pixels (mode {image.mode}) have no known range")
    if not image.mode.startswith("I;16"):
        return image
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))


def _bad(name: str, reason: str) -> DataError:
    return DataError(
        f"{one_line(name, 160)} is not a readable image ({reason}); "
        f"remove it, or go on without it: --skip-bad-images (skip_bad=True)"
    )
