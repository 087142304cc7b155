"""Image classifiers from files: `load_model` returns one that takes images in [0, 1]."""

from tabor.models.build import Architecture
from tabor.models.load import LoadedModel, knows_its_images, load_model

__all__ = ["Architecture", "LoadedModel", "knows_its_images", "load_model"]
