"""Unlearning: the model learns that a stamped image still shows what it shows.  [§5.3.2, after Neural Cleanse]

Neural Cleanse stamps the restored trigger on some images, keeps their true labels, and trains the model a little more.
With a few hundred images alone that costs points of accuracy, and the true trigger, which is not quite the restored
one, may survive.  So the triggers are varied (`tabor.repair.variation`), and on images without a trigger the model is
held to what it answered before, which needs no label and so can be asked of any number of altered images.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tabor.access import EVALUATION_BATCH
from tabor.backdoor import Backdoor, attack_success
from tabor.data import ImageSet
from tabor.errors import ModelError, SettingError
from tabor.repair.variation import VariationSettings, stamp_varied
from tabor.training import augmented

LARGEST_MIX = 0.5
"""Share of another image that is mixed into an image on which the model is held to its answer."""


@dataclass(frozen=True, kw_only=True)
class UnlearningSettings:
    """How a trigger is unlearned: AdamW without weight decay, its rate falling to 0 along a cosine, cycle after cycle.

    Attributes:
        steps: optimiser steps of a cycle for each target.
        least_cycles, cycles: the fewest of them and the most; between, the first after which no trigger works on the
            images is the last.  After one the accuracy may still be a point lower; the second brings it back.
        gone: attack success of a trigger up to which it does not work any more, in [0, 1].
        batch_size: clean images a step.
        learning_rate: of the first step.
        stamped: share of the batch that is stamped, with true labels, in (0, 1].
        faithfulness: weight of the old answers to images without a trigger, beside 1 for the stamped images.
        variation: how far the stamped triggers are from the restored ones.
    """

    steps: int = 60
    least_cycles: int = 2
    cycles: int = 3
    gone: float = 0.01
    batch_size: int = 64
    learning_rate: float = 1e-3
    stamped: float = 0.5
    faithfulness: float = 5.0
    variation: VariationSettings = field(default_factory=VariationSettings)

    def __post_init__(self) -> None:
        if min(self.steps, self.least_cycles, self.batch_size) < 1 or not 0 < self.learning_rate < math.inf:
            raise SettingError(f"unlearning needs positive steps, cycles, batch size and learning rate, got {self}")
        if self.least_cycles > self.cycles:
            raise SettingError(f"least_cycles may not exceed cycles; give both, got {self}")
        if not 0 < self.stamped <= 1 or not 0 <= self.gone <= 1 or not 0 <= self.faithfulness < math.inf:
            raise SettingError(
                f"stamped lies in (0, 1], gone in [0, 1], and faithfulness is finite and not negative, got {self}"
            )


def unlearn(
    model: nn.Module,
    backdoors: Sequence[Backdoor],
    images: ImageSet,
    settings: UnlearningSettings,
    seed: int,
    at_once: int = EVALUATION_BATCH,
) -> None:
    """Makes the model see in stamped images what they show, in place; it ends in evaluation mode.

    The model stays in evaluation mode throughout: what a batch normalisation knows of the training data, a few hundred
    images do not tell better, and nothing is dropped at random.

    Args:
        model: takes images (N, C, H, W) in [0, 1] and returns logits; float32.
        backdoors: the triggers to stamp and their targets, at least one, on the images' device.
        images: clean images with their true labels, on the model's device.
        settings: how.
        seed: of every random draw.
        at_once: how many images go through the model at once: what that takes of memory, and last digits, hang on it.

    Raises:
        ModelError: the model has no weights that could learn.
        SettingError: all images are of the target's own class.
    """
    flags = [weight.requires_grad for weight in model.parameters()]
    before = copy.deepcopy(model).eval().requires_grad_(False)
    model.eval().requires_grad_(False)
    weights = [weight.requires_grad_() for weight in model.parameters() if weight.is_floating_point()]
    if not weights:
        raise ModelError("the model has no weights that could learn, so nothing can be unlearned")
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(weights, lr=settings.learning_rate, weight_decay=0.0)
    steps = settings.steps * len({backdoor.target for backdoor in backdoors})
    falling = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimiser, steps)
    try:
        for cycle in range(1, settings.cycles + 1):
            for _ in range(steps):
                drawn = torch.randperm(len(images), generator=generator)[: settings.batch_size]
                batch, labels = images.images[drawn], images.labels[drawn]
                stamped = stamp_share(model, batch, backdoors, settings, generator, at_once)
                clean = altered(batch, generator)
                optimiser.zero_grad()
                _add_gradients(model, before, stamped, labels, clean, settings.faithfulness, at_once)
                optimiser.step()
                falling.step()
            if cycle >= settings.least_cycles and _success(model, images, backdoors, at_once) <= settings.gone:
                break
    finally:
        for weight, flag in zip(model.parameters(), flags, strict=True):
            weight.requires_grad_(flag)


def _add_gradients(
    model: nn.Module,
    before: nn.Module,
    stamped: Tensor,
    labels: Tensor,
    clean: Tensor,
    faithfulness: float,
    at_once: int,
) -> None:
    """Adds up the gradients of the loss, so many images at a time: in evaluation mode no image's depend on the others.

    The loss is the mean cross-entropy of the stamped images, and the weighted distance from the answers to clean ones.
    """
    shown = torch.cat([stamped, clean])
    for start in range(0, len(shown), at_once):
        part = shown[start : start + at_once]
        taught = max(0, min(len(part), len(stamped) - start))
        held = part[taught:]
        answers = model(part)
        loss = F.cross_entropy(answers[:taught], labels[start : start + taught], reduction="sum") / len(stamped)
        if len(held):
            share = faithfulness * len(held) / len(clean)
            loss = loss + share * unfaithfulness(answers[taught:], before(held))
        loss.backward()


def _success(model: nn.Module, images: ImageSet, backdoors: Sequence[Backdoor], at_once: int) -> float:
    return max(attack_success(model, images.images, images.labels, backdoor, at_once) for backdoor in backdoors)


def stamp_share(
    model: nn.Module,
    images: Tensor,
    backdoors: Sequence[Backdoor],
    settings: UnlearningSettings,
    generator: torch.Generator,
    at_once: int = EVALUATION_BATCH,
) -> Tensor:
    """Returns the first images, as many as the settings' share of them and at least one, each with a trigger on it."""
    count = max(1, round(settings.stamped * len(images)))
    return stamp_varied(model, images[:count], backdoors, settings.variation, generator, at_once)


def altered(images: Tensor, generator: torch.Generator) -> Tensor:
    """Returns the images shifted, lighter or darker, and each with some of another one mixed in."""
    others = images[torch.randperm(len(images), generator=generator)]
    share = LARGEST_MIX * torch.rand(len(images), 1, 1, 1, generator=generator).to(images.device)
    return augmented(images, generator).lerp(others, share)


def unfaithfulness(answers: Tensor, before: Tensor) -> Tensor:
    """Returns how far answers are from those before (Kullback–Leibler, in nats, the mean over N), both (N, classes)."""
    return F.kl_div(answers.log_softmax(1), before.log_softmax(1), reduction="batchmean", log_target=True)
