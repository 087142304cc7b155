"""A set of labelled clean images in memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tabor.errors import DataError


@dataclass(frozen=True)
class ImageSet:
    """Labelled images, before any normalisation.

    Attributes:
        images: float32 in [0, 1], shape (N, C, H, W).
        labels: int64 class indices, shape (N,).
        class_names: the name of each class index, as the data has them; may be fewer than the model's classes.
        source: where they came from, for the report.

    Raises:
        DataError: the shapes do not belong together, there is no image, or a value is outside [0, 1].
    """

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    source: str = "memory"

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or not self.images.is_floating_point():
            raise DataError(
                f"images must be a float tensor of shape (N, C, H, W), got {self.images.dtype} {tuple(self.images.shape)}"
            )
        if len(self.images) == 0:
            raise DataError("there is no image; give at least a few for each class")
        if self.labels.shape != (len(self.images),) or self.labels.dtype != torch.int64:
            raise DataError(
                f"labels must be an int64 tensor of shape ({len(self.images)},), "
                f"got {self.labels.dtype} {tuple(self.labels.shape)}"
            )
        low, high = float(self.images.min()), float(self.images.max())
        if not (low >= 0 and high <= 1):  # also refuses NaN
            raise DataError(
                f"images must lie in [0, 1] before normalisation, got [{low:g}, {high:g}]; "
                f"normalisation belongs to the model (load_model's mean and std)"
            )
        if int(self.labels.min()) < 0:
            raise DataError(f"labels must not be negative, got {int(self.labels.min())}")

    def __len__(self) -> int:
        """The number of images."""
        return len(self.images)

    def select(self, index: Tensor) -> ImageSet:
        """Returns the images at the given positions (int64, shape (n,))."""
        return ImageSet(self.images[index], self.labels[index], self.class_names, self.source)

    def class_name(self, index: int) -> str:
        """Returns a class's name, or its index as text where the data does not name it."""
        return self.class_names[index] if index < len(self.class_names) else str(index)

    def balanced(self, limit: int, seed: int) -> ImageSet:
        """Returns at most `limit` images, as evenly over the classes present as their numbers allow.

        The images of each class are shuffled by the seed and dealt in rounds, one a class, until the limit.
        """
        return self.select(_dealt(self.labels, seed)[0][:limit])

    def halves(self, seed: int) -> tuple[ImageSet, ImageSet]:
        """Splits into two class-balanced halves that share no image.

        Raises:
            DataError: there are fewer than two images.
        """
        if len(self) < 2:
            raise DataError("one image cannot be split into images to search with and images to confirm with")
        order, rounds = _dealt(self.labels, seed)
        # The class index joins the parity so that classes with one image each spread over both halves.
        first = (rounds + self.labels[order]) % 2 == 0
        return self.select(order[first]), self.select(order[~first])


def _dealt(labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Positions of all images, dealt from the shuffled classes in rounds, and the round of each.

    Any prefix of the positions is as balanced over the classes as their numbers allow.
    """
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(labels), generator=generator)
    by_class = shuffled[torch.argsort(labels[shuffled], stable=True)]
    sorted_labels = labels[by_class]
    counts = torch.bincount(sorted_labels)
    starts = torch.cumsum(counts, 0) - counts
    rounds = torch.arange(len(labels)) - starts[sorted_labels]
    order = torch.argsort(rounds, stable=True)
    return by_class[order], rounds[order]
