"""Whether labelled images serve to measure a classifier with."""

from __future__ import annotations

import torch

from tabor.data.images import ImageSet
from tabor.errors import DataError


def check_labels(images: ImageSet, num_classes: int) -> None:
    """Finds out whether labelled images and a classifier of so many classes belong together.

    Raises:
        DataError: there is a higher label, or only one.
    """
    highest = int(images.labels.max())
    if highest >= num_classes:
        raise DataError(
            f"the images have a label {highest}, but the model knows only the classes 0 to {num_classes - 1}: "
            f"these images and this model do not belong together"
        )
    if len(torch.unique(images.labels)) < 2:
        raise DataError("all images are of one class; images of at least 2 classes are needed")


def check_halves(halves: tuple[ImageSet, ImageSet]) -> None:
    """Finds out whether something can be measured on either half of the images.

    Raises:
        DataError: one is all of one class.
    """
    if any(len(torch.unique(half.labels)) < 2 for half in halves):
        raise DataError("one half of the images is all of one class; give more images of others")
