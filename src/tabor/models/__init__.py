"""Image classifiers from files: `load_model` returns one that takes images in [0, 1]."""

from tabor.models.build import Architecture
from tabor.models.load import LoadedModel, find_architecture, load_model

__all__ = ["Architecture", "LoadedModel", "find_architecture", "load_model"]
