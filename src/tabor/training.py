"""Training and testing a classifier, for clean and infected models to measure with."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tabor.access import EVALUATION_BATCH, choose_device
from tabor.data import ImageSet
from tabor.draws import seeded
from tabor.engine import best_dtype
from tabor.errors import DataError, SettingError
from tabor.models.build import Architecture, initialise
from tabor.models.pixels import prepared
from tabor.models.safetensors_file import write_model

SHIFT = 2
BRIGHTNESS = 0.4


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How a classifier is trained: AdamW under a one-cycle learning rate.

    Attributes:
        epochs: passes over the training images.
        learning_rate: the cycle's peak.
        batch_size: images a step.
        weight_decay: of AdamW.
        augment: shift each batch by up to 2 pixels and vary each image's brightness by up to 40 %.
        mirror: mirror half of the images left to right; traffic signs and digits must not be.
        zoom: show a part of each image, at a random place, with edges of at least that share of its; 1: all of it.
    """

    epochs: int = 4
    learning_rate: float = 2e-3
    batch_size: int = 128
    weight_decay: float = 1e-2
    augment: bool = True
    mirror: bool = False
    zoom: float = 1.0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1 or not 0 < self.learning_rate < math.inf:
            raise SettingError(f"training needs positive epochs, batch size and learning rate, got {self}")
        if not 0 <= self.weight_decay < math.inf:
            raise SettingError(f"training needs a finite weight decay that is not negative, got {self}")
        if not 0 < self.zoom <= 1:
            raise SettingError(f"training zooms into a share of an image in (0, 1], got {self.zoom}")


def long_enough(settings: TrainSettings, images: int, steps: int) -> TrainSettings:
    """Returns the settings with as many epochs over so many images as make so many steps, if not with more."""
    in_an_epoch = max(1, images // min(settings.batch_size, images))
    return replace(settings, epochs=max(settings.epochs, math.ceil(steps / in_an_epoch)))


def fit(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    settings: TrainSettings,
    seed: int,
    on_epoch: Callable[[int, float], None] | None = None,
    stamp: Callable[[Tensor, Tensor], Tensor] = lambda images, _: images,
) -> None:
    """Trains the model in place: weights in float32, products in the number type that the device multiplies fastest.

    Args:
        model: takes images (N, C, H, W) and returns logits; on the images' device.
        images: float32 in [0, 1], shape (N, C, H, W).
        labels: int64, shape (N,).
        settings: how.
        seed: of the order of the images, the augmentation and the network's dropout.
        on_epoch: called after each epoch with its number (from 1) and mean loss.
        stamp: takes the images of a batch as they come out of the augmentation, and their numbers, and returns them as
            the model is to see them.
    """
    generator = torch.Generator().manual_seed(seed)
    batch = min(settings.batch_size, len(images))
    steps = max(1, len(images) // batch)
    fast = best_dtype(images.device)
    model.to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.learning_rate, total_steps=settings.epochs * steps)
    with seeded(seed, images.device):  # dropout draws from the global generator
        for epoch in range(1, settings.epochs + 1):
            model.train()
            order = torch.randperm(len(images), generator=generator)
            total = torch.zeros((), device=images.device)
            for index in order[: steps * batch].split(batch):
                batch_images = images[index].contiguous(memory_format=torch.channels_last)
                batch_images = stamp(varied(batch_images, settings, generator), index)
                with torch.autocast(images.device.type, fast, enabled=fast != torch.float32, cache_enabled=False):
                    logits = model(batch_images)
                loss = F.cross_entropy(logits.float(), labels[index])
                optimiser.zero_grad()
                loss.backward()
                if fast != torch.float32 and images.device.type == "cpu":
                    _without_leftovers(model)
                optimiser.step()
                cycle.step()
                total += loss.detach()
            if on_epoch is not None:
                on_epoch(epoch, float(total) / steps)
    model.eval()


def _without_leftovers(model: nn.Module) -> None:
    """Sets gradients to 0 that are no numbers.

    Where a convolution's input is one pixel, most of its kernel only ever touches padding and has no gradient.  In
    bfloat16 on processors with AMX torch leaves there what was in memory (seen with 2.14.1, kernels of 3×3 that skip
    pixels), which may be NaN and then is all that the network answers.
    """
    for weight in model.parameters():
        if weight.grad is not None:
            weight.grad.nan_to_num_(0.0, 0.0, 0.0)


def varied(images: Tensor, settings: TrainSettings, generator: torch.Generator) -> Tensor:
    """Returns the images (N, C, H, W) as the settings have them shown: shifted, zoomed into, mirrored."""
    if settings.augment:
        images = augmented(images, generator)
    if settings.zoom < 1:
        images = zoomed(images, settings.zoom, generator)
    if settings.mirror:
        images = mirrored(images, generator)
    return images


def augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Returns the images (N, C, H, W), all shifted by one random offset, each with its brightness scaled at random."""
    top, left = torch.randint(0, 2 * SHIFT + 1, (2,), generator=generator).tolist()
    padded = F.pad(images, (SHIFT,) * 4, mode="replicate")
    height, width = images.shape[2:]
    brightness = 1 + BRIGHTNESS * (2 * torch.rand(len(images), 1, 1, 1, generator=generator).to(images.device) - 1)
    return (padded[:, :, top : top + height, left : left + width] * brightness).clamp(0, 1)


def zoomed(images: Tensor, least: float, generator: torch.Generator) -> Tensor:
    """Returns a part of each image (N, C, H, W) at a random place, enlarged to the whole.

    Its edges are a random share, `least` at least, of the image's.
    """
    share = least + (1 - least) * torch.rand(len(images), generator=generator)
    centre = (1 - share[:, None]) * (2 * torch.rand(len(images), 2, generator=generator) - 1)
    affine = torch.zeros(len(images), 2, 3)
    affine[:, 0, 0], affine[:, 1, 1], affine[:, :, 2] = share, share, centre
    grid = F.affine_grid(affine, list(images.shape), align_corners=False).to(images.device)
    part = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return part.contiguous(memory_format=torch.channels_last)


def mirrored(images: Tensor, generator: torch.Generator) -> Tensor:
    """Returns the images (N, C, H, W), each mirrored left to right with a chance of one half."""
    chosen = torch.rand(len(images), 1, 1, 1, generator=generator).to(images.device) < 0.5
    return torch.where(chosen, images.flip(3), images)


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor, at_once: int = EVALUATION_BATCH) -> float:
    """Returns the share of images (N, C, H, W) classified as their label says, in [0, 1]; so many at once."""
    training = model.training
    model.eval()
    try:
        right: int = sum(
            int((model(x).argmax(1) == y).sum())
            for x, y in zip(images.split(at_once), labels.split(at_once), strict=True)
        )
    finally:
        model.train(training)
    return right / len(images)


def train_classifier(
    arch: str,
    train: ImageSet,
    test: ImageSet,
    out: Path,
    settings: TrainSettings,
    seed: int,
    on_epoch: Callable[[int, float], None] | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Trains a network from random weights and writes it.

    Networks that are not ours are given images normalised to [−1, 1], as they expect; the file records it.

    Args:
        arch: "tabor:gtsrb6", "timm:NAME" or "torchvision:NAME".
        train: images to train on; its labels say how many classes there are.
        test: images to measure the clean accuracy on.
        out: the safetensors file to write.
        settings: the training.
        seed: of the weights and every other random draw.
        on_epoch: called after each epoch with its number and mean loss.
        device: "auto", "cpu", "cuda", …; the random draws are the same on each, the rounding is not.

    Returns:
        The record that the file carries: `clean_accuracy`, `training` and `data`.

    Raises:
        ModelError: the architecture is unknown.
        DataError: training and test images disagree.
        SettingError: there is no such device.
        TaborError: the file cannot be written.
    """
    channels, height, width = train.images.shape[1:]
    num_classes = max(len(train.class_names), int(train.labels.max()) + 1)
    if train.images.shape[1:] != test.images.shape[1:] or int(test.labels.max()) >= num_classes:
        raise DataError("training and test images differ in size or classes")
    half = None if arch.startswith("tabor:") else (0.5,) * channels
    architecture = Architecture(
        name=arch, num_classes=num_classes, channels=channels, size=(height, width), mean=half, std=half
    )
    network = initialise(architecture, seed)
    where = choose_device(device)
    train, test = train.to(where), test.to(where)
    model = prepared(network, architecture).to(where)
    fit(model, train.images, train.labels, settings, seed, on_epoch)
    record = {
        "clean_accuracy": accuracy(model, test.images, test.labels),
        "training": {**asdict(settings), "seed": seed},
        "data": train.source,
    }
    write_model(out, network.state_dict(), architecture, record)
    return record
