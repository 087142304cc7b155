"""The trigger as a patch with hard edges: a second kind of evidence, and the whole trigger instead of a part.

The smallest mask that sends images to the target is a part of the trigger (the paper's recall is 0.52), not always in
its place, and where the trigger is large some natural pattern is smaller.  But a network that was taught a trigger
answers to the whole of it, at its place, far more strongly than to a part, to a shifted copy, to a larger patch of the
same colours, or to anything natural.  So for each class a window is sought, filled with colours that vary smoothly,
that moves the target's lead over the other classes furthest for what it covers and hides.  Not in the paper; measured
in docs/method.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tabor.access import Classifier
from tabor.data import ImageSet
from tabor.errors import DataError
from tabor.rows import Adam
from tabor.trigger import Trigger, crop, stamp
from tabor.windows import Move, Window, grid, heaviest, moves

FINE_SIZE = 32
"""Edge in pixels of images in which a window moves by single pixels from the start."""


@dataclass(frozen=True, kw_only=True)
class RestoreSettings:
    """How the window is sought.

    Attributes:
        sizes: edges of the first windows, as shares of the image's.
        price: what covering the whole image costs, in leads of a clean image's own class.
        roughness: what a pair of neighbouring pixels costs whose colours lie as far apart as can be, likewise.
        hiding: what hiding nothing of the object is worth at most, likewise: the log-odds of the crop accuracy up to
            here.
        candidates: how many classes are looked at closely for each reason: a small mask, or a good first window.
        rounds: most rounds of the climb.
        patience: rounds without a better window after which it ends.
        tried: neighbours whose colours are adapted in a round.
        survey_steps, start_steps, round_steps, final_steps: optimiser steps on the colours: of every class's first
            windows, of a candidate's, in each round, and of the window found.
        survey_batch, batch_size: images a step, in the survey and after it.
        survey_judged, judged: images that a window is judged by, likewise.
        learning_rate: of Adam, on the colours before the sigmoid.
    """

    sizes: tuple[float, ...] = (0.25, 0.4375)
    price: float = 8.0
    roughness: float = 0.3
    hiding: float = 2.5
    candidates: int = 3
    rounds: int = 25
    patience: int = 3
    tried: int = 8
    survey_steps: int = 12
    start_steps: int = 30
    round_steps: int = 8
    final_steps: int = 80
    survey_batch: int = 8
    batch_size: int = 16
    survey_judged: int = 32
    judged: int = 64
    learning_rate: float = 0.2


@dataclass(frozen=True)
class Patch:
    """A window and its colours.

    Attributes:
        window: where it is.
        pattern: its colours, float32 in [0, 1], shape (C, H, W); outside of the window they mean nothing.
        worth: the mean lead of the target's logit over the highest other one, in mean leads of a clean image's own
            class (1: it convinces as much as a real image of the target does), less the prices of rough colours and of
            the pixels covered, plus the worth of hiding nothing.
    """

    window: Window
    pattern: Tensor
    worth: float

    def trigger(self) -> Trigger:
        """Returns it as a trigger whose mask is 1 in the window and 0 elsewhere."""
        mask = self.window.mask(*self.pattern.shape[1:]).to(self.pattern.device)
        return Trigger(mask, self.pattern * mask)


def lead(logits: Tensor, classes: Tensor) -> Tensor:
    """Returns how far each row's logit of its class (N,) lies above its highest other one, of logits (N, classes)."""
    own = logits.gather(1, classes[:, None])
    return own[:, 0] - logits.scatter(1, classes[:, None], -torch.inf).amax(1)


def roughness(masks: Tensor, patterns: Tensor) -> Tensor:
    """Σ of squared differences of neighbouring pixels of patterns (K, C, H, W) where both lie in masks (K, 1, H, W).

    Returns:
        Shape (K,): the s(·) of Eq. 3 over the inside of the mask.
    """
    down = masks[..., 1:, :] * masks[..., :-1, :] * (patterns[..., 1:, :] - patterns[..., :-1, :]).square()
    right = masks[..., :, 1:] * masks[..., :, :-1] * (patterns[..., :, 1:] - patterns[..., :, :-1]).square()
    return down.flatten(1).sum(1) + right.flatten(1).sum(1)


class Restorer:
    """Seeks the window of one class after another in one model.

    Args:
        classifier: the model.
        images: clean images to search with, on the classifier's device.
        settings: the search.
        seed: of the order of the images.
    """

    def __init__(self, classifier: Classifier, images: ImageSet, settings: RestoreSettings, seed: int) -> None:
        self.classifier, self.settings = classifier, settings
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
        self.images = images.select(order.to(images.labels.device))
        own = lead(classifier.predict(images.images), images.labels)
        self.unit = max(float(own.clamp(min=0).mean()), 1e-6)
        self.crops = _Crops(classifier, self.images, settings.hiding)

    def survey(self, target: int) -> Patch:
        """Returns the best of a coarse grid of windows for a class, its colours hardly adapted.

        Raises:
            DataError: all images are of that class.
        """
        settings, search = self.settings, _Search(self, target)
        height, width = self.images.images.shape[2:]
        windows = grid(height, width, settings.sizes)
        grey = torch.full((len(windows), *self.images.images.shape[1:]), 0.5, device=self.images.images.device)
        patterns = search.fit(windows, grey, settings.survey_steps, settings.survey_batch)
        return search.best(windows, patterns, settings.survey_judged)

    def restore(self, target: int, trigger: Trigger, surveyed: Patch) -> Patch:
        """Returns the window that a climb reaches from the better of two starts.

        Args:
            target: the class.
            trigger: the smallest one that sends images there: the first windows hold most of its mask.
            surveyed: the best of the coarse grid.

        Raises:
            DataError: all images are of that class.
        """
        settings, search = self.settings, _Search(self, target)
        height, width = trigger.mask.shape[1:]
        edges = sorted({max(1, round(share * min(height, width))) for share in (*settings.sizes, 0.125, 0.34375)})
        windows = [surveyed.window, *sorted({heaviest(trigger.mask, edge) for edge in edges})]
        patterns = torch.stack([surveyed.pattern, *[trigger.pattern] * (len(windows) - 1)])
        patterns = search.fit(windows, patterns, settings.start_steps, settings.batch_size)
        patch = search.best(windows, patterns, settings.judged)
        for unit in sorted({1, max(1, min(height, width) // FINE_SIZE)}, reverse=True):
            patch = search.climb(patch, unit)
        pattern = search.fit([patch.window], patch.pattern[None], settings.final_steps, settings.batch_size)
        return search.best([patch.window], pattern, settings.judged)


@dataclass
class _Crops:
    """What hiding nothing is worth, window by window: it is the same for every class."""

    classifier: Classifier
    images: ImageSet
    most: float
    known: dict[Window, float] = field(default_factory=dict)

    def worth(self, windows: Sequence[Window]) -> list[float]:
        """Returns the log-odds of the crop accuracy (Laplace's estimate), not above the most."""
        for window in windows:
            if window not in self.known:
                mask = window.mask(*self.images.images.shape[2:]).to(self.images.images.device)
                answers = self.classifier.predict(crop(self.images.images[:128], mask)).argmax(1)
                right, of = int((answers == self.images.labels[:128]).sum()), len(answers)
                self.known[window] = min(self.most, math.log((right + 1) / (of - right + 1)))
        return [self.known[window] for window in windows]


class _Search:
    """Fits colours to windows and judges them for one class."""

    def __init__(self, restorer: Restorer, target: int) -> None:
        images = restorer.images
        self.images = images.images[images.labels != target]
        if len(self.images) == 0:
            raise DataError(f"all images are of class {target}, so none could be misclassified as it")
        self.classifier, self.settings, self.target = restorer.classifier, restorer.settings, target
        self.unit, self.crops = restorer.unit, restorer.crops
        self.drawn = 0

    def fit(self, windows: Sequence[Window], patterns: Tensor, steps: int, batch: int) -> Tensor:
        """Returns the patterns (K, C, H, W) after so many steps towards a larger lead with smooth colours."""
        masks = self._masks(windows)
        adam = Adam([patterns.clamp(0.02, 0.98).logit()], self.settings.learning_rate, (0.5, 0.9))
        for _ in range(steps):
            images = self._draw(batch)
            raw = adam.parameters[0].detach().requires_grad_()
            loss = self.settings.roughness * roughness(masks, raw.sigmoid()) - self._leads(images, masks, raw.sigmoid())
            adam.step(torch.autograd.grad(loss.sum(), raw))
        return adam.parameters[0].sigmoid()

    def best(self, windows: Sequence[Window], patterns: Tensor, count: int) -> Patch:
        """Returns the window of most worth, judged by so many images."""
        worth = self._gain(windows, patterns, count) + patterns.new_tensor(self.crops.worth(windows))
        k = int(worth.argmax())
        return Patch(windows[k], patterns[k], float(worth[k]))

    def climb(self, patch: Patch, unit: int) -> Patch:
        """Moves the window to a better neighbour until there is none."""
        settings = self.settings
        height, width = patch.pattern.shape[1:]
        seen, idle = {patch.window}, 0
        for _ in range(settings.rounds):
            near = [move for move in moves(patch.window, height, width, unit) if move.window not in seen]
            chosen = self._most_promising(near, patch)
            windows = [patch.window, *(move.window for move in chosen)]
            patterns = torch.stack([patch.pattern, *(move.carry(patch.pattern, patch.window) for move in chosen)])
            patterns = self.fit(windows, patterns, settings.round_steps, settings.batch_size)
            better = self.best(windows, patterns, settings.judged)
            idle = idle + 1 if better.window == patch.window else 0
            seen, patch = seen | set(windows), better
            if idle == settings.patience:
                break
        return patch

    def _most_promising(self, near: Sequence[Move], patch: Patch) -> list[Move]:
        """The neighbours that are best before their colours are adapted, judged by few images."""
        if not near:
            return []
        carried = torch.stack([move.carry(patch.pattern, patch.window) for move in near])
        gains = self._gain([move.window for move in near], carried, self.settings.batch_size)
        return [near[k] for k in gains.topk(min(self.settings.tried, len(near))).indices.tolist()]

    @torch.no_grad()
    def _gain(self, windows: Sequence[Window], patterns: Tensor, count: int) -> Tensor:
        """The lead less the prices of rough colours and of pixels covered, shape (K,)."""
        masks = self._masks(windows)
        parts = zip(masks.split(1), patterns.split(1), strict=True)
        leads = torch.cat([self._leads(self.images[:count], mask, pattern) for mask, pattern in parts])
        covered = masks.flatten(1).mean(1)
        return leads - self.settings.roughness * roughness(masks, patterns) - self.settings.price * covered

    def _leads(self, images: Tensor, masks: Tensor, patterns: Tensor) -> Tensor:
        stamped = stamp(images, masks[:, None], patterns[:, None])
        targets = torch.full((len(masks) * len(images),), self.target, device=images.device)
        leads = lead(self.classifier.logits(stamped.flatten(0, 1)), targets)
        return leads.unflatten(0, stamped.shape[:2]).mean(1) / self.unit

    def _masks(self, windows: Sequence[Window]) -> Tensor:
        height, width = self.images.shape[2:]
        return torch.stack([window.mask(height, width) for window in windows]).to(self.images.device)

    def _draw(self, count: int) -> Tensor:
        index = (self.drawn + torch.arange(count)) % len(self.images)
        self.drawn += count
        return self.images[index]
