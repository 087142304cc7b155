"""Clean images: `load_images` reads them, `ImageSet` is what every stage takes."""

from tabor.data.images import ImageSet
from tabor.data.load import load_images

__all__ = ["ImageSet", "load_images"]
