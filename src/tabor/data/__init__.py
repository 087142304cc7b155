"""Clean images: `load_images` reads them, `ImageSet` is what every stage takes."""

from tabor.data.images import ImageSet, as_image_set
from tabor.data.load import load_images

__all__ = ["ImageSet", "as_image_set", "load_images"]
