"""The trigger as a window of one colour: a second kind of evidence, and a trigger that is not scattered.

The smallest mask that sends images to the target is a part of the trigger (the paper's recall is 0.52), not always in
its place, and where the trigger is large some natural pattern is smaller.  But a network that was taught a trigger
answers to a patch of its size, at its place, in its main colour far more strongly than to anything natural.  Free
colours would find stronger patches than the true one in any network; one colour leaves them no room.  Not in the paper;
measured in docs/results/patches.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tabor.errors import DataError
from tabor.ground import Ground
from tabor.rows import Adam
from tabor.trigger import Trigger
from tabor.windows import Window, neighbours, sliding

FINE_SIZE = 32
"""Edge in pixels of images in which a window moves by single pixels from the start."""


@dataclass(frozen=True, kw_only=True)
class RestoreSettings:
    """How patches are sought.

    Attributes:
        shapes: edges of the first windows and the steps between them, as shares of the image's shorter edge.
        price: what covering the whole image costs, in leads of a clean image's own class.
        slenderness: what it costs that a window is e times as long as wide, likewise: triggers are compact.
        hiding: what it costs that the odds of keeping a right answer with the window blacked out are e times lower
            than where nothing is hidden, likewise.
        seen: share of its accuracy that the model must keep where a window is blacked out, in the search: a patch over
            the object is a picture of another class, not a trigger.
        confirmed_seen: likewise on images that the search did not see, and stricter: the patches of objects move to the
            very limit of the search, those of triggers stay well within.
        by_worth, by_score: how many classes are looked at closely for a good first window, and for a small mask.
        starts: first windows of a class from which the climb begins.
        apart: Jaccard index above which two first windows are taken for the same.
        rounds: most rounds of the climb.
        patience: rounds without a better window after which it ends.
        tried: neighbours whose colour is adapted in a round.
        steps: optimiser steps on the colours in a round.
        surveyed, batch_size, judged, cropped: images that first windows are judged by, that neighbours and colours are
            tried on, that a step up is judged by, and that tell what a window hides.
        learning_rate: of Adam, on the colours before the sigmoid.
    """

    shapes: tuple[tuple[float, float], ...] = ((0.1875, 0.09375), (0.28125, 0.09375), (0.40625, 0.125))
    price: float = 1.0
    slenderness: float = 1.0
    hiding: float = 3.0
    seen: float = 0.75
    confirmed_seen: float = 0.85
    by_worth: int = 3
    by_score: int = 2
    starts: int = 2
    apart: float = 0.4
    rounds: int = 25
    patience: int = 2
    tried: int = 4
    steps: int = 5
    surveyed: int = 8
    batch_size: int = 16
    judged: int = 64
    cropped: int = 64
    learning_rate: float = 0.4


@dataclass(frozen=True)
class Patch:
    """A window of one colour.

    Attributes:
        window: where it is.
        colour: one value in [0, 1] for each channel.
        worth: the mean lead of the target's logit over the highest other one, in mean leads of a clean image's own
            class (1: it convinces as much as a real image of the target does), less what the window costs.
    """

    window: Window
    colour: tuple[float, ...]
    worth: float

    def trigger(self, height: int, width: int) -> Trigger:
        """Returns it as a trigger for images of that size; its mask is 1 in the window and 0 elsewhere."""
        mask = self.window.mask(height, width)
        return Trigger(mask, mask * torch.tensor(self.colour)[:, None, None])


@dataclass(frozen=True)
class Survey:
    """What every class makes of each first window in each plain colour.

    Attributes:
        windows: S of them, each several times.
        colours: shape (S, C).
        worth: shape (S, classes).
    """

    windows: Sequence[Window]
    colours: Tensor
    worth: Tensor

    def best(self, target: int) -> float:
        """Returns the highest worth for a class."""
        return float(self.worth[:, target].max())

    def starts(self, target: int, count: int, apart: float) -> list[Patch]:
        """Returns the best few first windows for a class that do not overlap by more than that.

        None where every window hides the object.
        """
        starts: list[Patch] = []
        for k in self.worth[:, target].argsort(descending=True, stable=True).tolist():
            window = self.windows[k]
            if not bool(self.worth[k, target].isfinite()):
                break
            if all(window.overlap(start.window) <= apart for start in starts):
                starts.append(Patch(window, tuple(self.colours[k].tolist()), float(self.worth[k, target])))
            if len(starts) == count:
                break
        return starts


@torch.no_grad()
def survey(ground: Ground, settings: RestoreSettings) -> Survey:
    """Tries every first window in every plain colour: the same forward passes tell of all classes."""
    windows = sliding(*ground.size, settings.shapes)
    images, labels = ground.images[: settings.surveyed], ground.labels[: settings.surveyed]
    plain = plain_colours(images.shape[1]).to(images.device)
    several = [window for window in windows for _ in plain]
    colours = plain.repeat(len(windows), 1)
    found = ground.judged(images, several, colours)
    others = (labels[:, None] != torch.arange(found.shape[2], device=labels.device)).float()
    mean = (found * others).sum(1) / others.sum(0)  # NaN where all images are of the class
    costs = ground.costs(windows).repeat_interleave(len(plain))
    worth = mean.nan_to_num(nan=-torch.inf) - costs[:, None]
    return Survey(several, colours, worth)


def plain_colours(channels: int) -> Tensor:
    """Returns the corners of the colour cube and its middle, shape (colours, C)."""
    corners = list(itertools.product((0.0, 1.0), repeat=channels)) if channels <= 3 else []
    return torch.tensor([*corners, *([level] * channels for level in (0.0, 0.5, 1.0) if level == 0.5 or not corners)])


class Climb:
    """Moves windows and adapts their colours towards what one class answers to most.

    Args:
        ground: the model and the images.
        target: the class.
        settings: the search.

    Raises:
        DataError: all images are of that class.
    """

    def __init__(self, ground: Ground, target: int, settings: RestoreSettings) -> None:
        self.ground, self.target, self.settings = ground, target, settings
        self.images = ground.images[ground.labels != target]
        if len(self.images) == 0:
            raise DataError(f"all images are of class {target}, so none could be misclassified as it")
        self._drawn = 0

    def best(self, starts: Sequence[Patch]) -> Patch:
        """Returns the best patch that a climb from any of the starts reaches."""
        height, width = self.ground.size
        units = sorted({1, max(1, min(height, width) // FINE_SIZE)}, reverse=True)
        reached = []
        for start in starts:
            patch = self.judge([start.window], self._colours([start]))[0]
            for unit in units:
                patch = self.climb(patch, unit)
            reached.append(patch)
        return max(reached, key=lambda patch: patch.worth)

    def climb(self, patch: Patch, unit: int) -> Patch:
        """Moves to a better neighbour, in steps of that many pixels, until there is none."""
        settings, ground = self.settings, self.ground
        seen, idle = {patch.window}, 0
        for _ in range(settings.rounds):
            near = [window for window in neighbours(patch.window, *ground.size, unit) if window not in seen]
            if not near or idle == settings.patience:
                break
            colours = self._colours([patch]).expand(len(near), -1)
            gain = self._leads(near, colours, settings.batch_size) - ground.costs(near)
            chosen = [near[k] for k in gain.topk(min(settings.tried, len(near))).indices.tolist()]
            windows = [patch.window, *chosen]
            tried = self.judge(windows, self.adapt(windows, self._colours([patch] * len(windows))))
            best = max(tried, key=lambda other: other.worth)
            idle = idle + 1 if best.worth <= patch.worth or best.window == patch.window else 0
            patch = max(patch, best, key=lambda other: other.worth)
            seen |= set(chosen)
        return patch

    def adapt(self, windows: Sequence[Window], colours: Tensor) -> Tensor:
        """Returns the colours (K, C) after a few steps towards a larger lead."""
        adam = Adam([colours.clamp(0.02, 0.98).logit()], self.settings.learning_rate, (0.5, 0.9))
        for _ in range(self.settings.steps):
            images = self._draw(self.settings.batch_size)
            raw = adam.parameters[0].detach().requires_grad_()
            lead = self.ground.leads(images, windows, raw.sigmoid())[..., self.target]
            adam.step(torch.autograd.grad(-lead.mean(1).sum(), raw))
        return adam.parameters[0].sigmoid()

    def judge(self, windows: Sequence[Window], colours: Tensor) -> list[Patch]:
        """Returns the patches with what they are worth."""
        lead = self._leads(windows, colours, self.settings.judged)
        worth = lead - self.ground.costs(windows)
        shades = [tuple(colour) for colour in colours.tolist()]
        return [Patch(*found) for found in zip(windows, shades, worth.tolist(), strict=True)]

    def _leads(self, windows: Sequence[Window], colours: Tensor, count: int) -> Tensor:
        return self.ground.judged(self.images[:count], windows, colours)[..., self.target].mean(1)

    def _colours(self, patches: Sequence[Patch]) -> Tensor:
        return torch.tensor([patch.colour for patch in patches], device=self.images.device)

    def _draw(self, count: int) -> Tensor:
        index = (self._drawn + torch.arange(count)) % len(self.images)
        self._drawn += count
        return self.images[index]
