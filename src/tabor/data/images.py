"""A set of labelled clean images in memory."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tabor.errors import DataError

WHOLE = {torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images, before any normalisation.

    Attributes:
        images: in [0, 1], shape (N, C, H, W); float32, which other floating-point numbers become.
        labels: class indices, shape (N,); int64, which other whole numbers become.
        class_names: the name of each class index, as the data has them; may be fewer than the model has.
        source: where they came from, for the report.

    Raises:
        DataError: the shapes do not belong together, there is no image, or a value is outside [0, 1].
    """

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    source: str = "memory"

    def __post_init__(self) -> None:
        for name, values in (("images", self.images), ("labels", self.labels)):
            if not isinstance(values, Tensor):
                raise DataError(f"{name} must be a tensor, got {type(values).__name__}; torch.as_tensor makes one")
        if self.images.ndim != 4 or not self.images.is_floating_point():
            raise DataError(
                f"images must be a float tensor of shape (N, C, H, W), "
                f"got {self.images.dtype} {tuple(self.images.shape)}"
            )
        if len(self.images) == 0:
            raise DataError("there is no image; give at least a few for each class")
        if self.labels.shape != (len(self.images),) or self.labels.dtype not in WHOLE:
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
        object.__setattr__(self, "images", self.images.float())
        object.__setattr__(self, "labels", self.labels.long())

    def __len__(self) -> int:
        """The number of images."""
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of each image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def select(self, index: Tensor) -> ImageSet:
        """Returns the images at the given positions (int64, shape (n,))."""
        return ImageSet(self.images[index], self.labels[index], self.class_names, self.source)

    def to(self, device: torch.device) -> ImageSet:
        """Returns the images on another device."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def class_name(self, index: int) -> str:
        """Returns a class's name, or its index as text where the data does not name it."""
        return self.class_names[index] if index < len(self.class_names) else str(index)

    def balanced(self, limit: int, seed: int) -> ImageSet:
        """Returns at most `limit` images, as evenly over the classes present as their numbers allow.

        The images of each class, and the classes, are shuffled by the seed; images are dealt in rounds, one a class,
        until the limit.
        """
        return self.select(balanced_order(self.labels, seed)[:limit])

    def halves(self, seed: int) -> tuple[ImageSet, ImageSet]:
        """Splits into two class-balanced halves that share no image, each in a balanced order.

        Raises:
            DataError: there are fewer than two images.
        """
        if len(self) < 2:
            raise DataError("one image cannot be split into images to search with and images to confirm with")
        by_class, rounds = _shuffled_classes(self.labels, seed)
        # Sides alternate along the classes laid end to end, so they differ by at most one image of each class
        # and by at most one image in all, even where the classes have one image each.
        first = torch.arange(len(self)) % 2 == 0
        order = torch.argsort(rounds, stable=True)
        return self.select(by_class[order][first[order]]), self.select(by_class[order][~first[order]])


def balanced_order(labels: Tensor, seed: int) -> Tensor:
    """Returns all positions, dealt from the shuffled classes in rounds, one a class.

    Any prefix of them is as balanced over the classes as their numbers allow.

    Args:
        labels: int64 class indices, shape (N,).
        seed: of the shuffle.
    """
    by_class, rounds = _shuffled_classes(labels, seed)
    return by_class[torch.argsort(rounds, stable=True)]


def _shuffled_classes(labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Positions of all images, class after class in an order drawn by the seed, and the place within the class.

    Each class is shuffled.  In the order of their numbers, a part of the classes would always be the same ones.
    """
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(labels), generator=generator)
    # Not bincount, whose memory grows with the largest label, which a stranger's file chooses.
    present, numbers = torch.unique(labels.cpu(), return_inverse=True)
    places = torch.randperm(len(present), generator=generator)[numbers]
    by_class = shuffled[torch.argsort(places[shuffled], stable=True)]
    _, counts = torch.unique_consecutive(places[by_class], return_counts=True)
    starts = torch.cumsum(counts, 0) - counts
    return by_class, torch.arange(len(labels)) - torch.repeat_interleave(starts, counts)


def as_image_set(images: ImageSet | tuple[Tensor, Tensor]) -> ImageSet:
    """Returns images with their labels as a set of them.

    Args:
        images: a set already, or (images, labels) tensors; see `ImageSet`.

    Raises:
        DataError: it is something else, or the tensors do not fit.
    """
    if isinstance(images, ImageSet):
        return images
    if not isinstance(images, tuple | list) or len(images) != 2:
        raise DataError(f"images are an ImageSet, or a pair of tensors (images, labels), got {type(images).__name__}")
    return ImageSet(*images, class_names=())
