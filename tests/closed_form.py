"""Models whose answers can be worked out by hand, and images to go with them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tabor.access import Classifier
from tabor.data.images import ImageSet

SIDE = 8
CPU = torch.device("cpu")


class Linear(nn.Module):
    """logits = weight · pixels + bias."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.weight.T + self.bias


def patch(side: int = SIDE) -> Tensor:
    """1 on the last 2×2 pixels, shape (1, side, side)."""
    mask = torch.zeros(1, side, side)
    mask[:, -2:, -2:] = 1
    return mask


def doorway(side: int = SIDE) -> Linear:
    """Logits (2, −9, 10·mean brightness of the last 2×2 pixels): class 1 out of reach, class 2 behind the patch."""
    weight = torch.zeros(3, side * side)
    weight[2] = 10 * patch(side).flatten() / 4
    return Linear(weight, torch.tensor([2.0, -9.0, 0.0]))


def dark_images(count: int = 12, side: int = SIDE) -> ImageSet:
    """Grey noise in [0, 0.1]: class 0 to `doorway`, and so labelled."""
    images = 0.1 * torch.rand(count, 1, side, side, generator=torch.Generator().manual_seed(3))
    return ImageSet(images, torch.zeros(count, dtype=torch.int64), ("plain", "unreachable", "trigger"))


def rows(classes: int = 5) -> Linear:
    """Logit k = (10 + 5k)·mean brightness of row k: the later a class, the easier to reach."""
    weight = torch.zeros(classes, SIDE, SIDE)
    for k in range(classes):
        weight[k, k] = (10 + 5 * k) / SIDE
    return Linear(weight.flatten(1), torch.zeros(classes))


def row_images(classes: int = 5, per_class: int = 4) -> ImageSet:
    """Noise in [0, 0.3] with row k bright for class k: what `rows` classifies rightly."""
    labels = torch.arange(classes).repeat(per_class)
    images = 0.3 * torch.rand(len(labels), 1, SIDE, SIDE, generator=torch.Generator().manual_seed(5))
    images[torch.arange(len(labels)), 0, labels] += 0.6
    return ImageSet(images, labels, tuple(f"row {k}" for k in range(classes)))


def classifier(model: nn.Module, channels: int = 1, side: int = SIDE) -> Classifier:
    return Classifier(model, CPU, (channels, side, side))
