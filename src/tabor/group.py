"""The search for a few classes side by side: one pass through the network, a mask and a pattern each.  [§4.3]

Masks and patterns live behind a sigmoid, so that they stay in [0, 1] without clipping, or are clipped.  Random draws
are keyed by the seed and the class, or the seed and the step, so a class's search is the same whichever classes run
beside it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tabor.access import Classifier, gradients
from tabor.class_finding import ClassStatus
from tabor.data import ImageSet
from tabor.draws import key
from tabor.errors import DataError, SettingError
from tabor.methods.base import Batch, Method, Objective
from tabor.rows import Adam, Best
from tabor.screening import Screening
from tabor.shifts import shifted
from tabor.stability import Stability, StabilitySettings
from tabor.trigger import Trigger


@dataclass(frozen=True, kw_only=True)
class SolverSettings:
    """How the objective is minimised.

    Attributes:
        steps: most optimiser steps a class.
        batch_size: images a step and class, B.
        round_steps: steps between two looks at the attack success, after which the schedule moves.
        learning_rate: of Adam, on the values before the sigmoid, or where it is clipped on masks and patterns.
        betas: of Adam.
        clipped: whether Adam moves masks and patterns themselves, clipped to [0, 1] after each step, and so to 0 and 1,
            which no sigmoid reaches.
        initial_mask: value of a mask at the start, in (0, 1).
        success: attack success of a round from which its trigger counts as a candidate, in (0, 1].
        stability: when a class has converged.
        smallest_steps: a class is not stopped before.
        group_images: classes are searched in groups of about this many images a step, or fewer where the memory is
            limited.
        screening: which classes are searched to the end; None: all.
    """

    steps: int = 800
    batch_size: int = 8
    round_steps: int = 5
    learning_rate: float = 0.2
    betas: tuple[float, float] = (0.5, 0.9)
    clipped: bool = False
    initial_mask: float = 0.1
    success: float = 0.95
    stability: StabilitySettings = field(default_factory=StabilitySettings)
    smallest_steps: int = 500
    group_images: int = 256
    screening: Screening | None = None

    def __post_init__(self) -> None:
        counts = (self.steps, self.batch_size, self.round_steps, self.group_images)
        if min(counts) < 1 or self.smallest_steps < 0:
            raise SettingError(f"the solver needs positive step, batch, round and group sizes, got {self}")
        if not 0 < self.initial_mask < 1 or not 0 < self.success <= 1:
            raise SettingError(f"the solver needs an initial mask in (0, 1) and a success in (0, 1], got {self}")
        if not 0 < self.learning_rate < math.inf:
            raise SettingError(f"the solver needs a positive learning rate, got {self}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise SettingError(f"the solver needs two betas in [0, 1), got {self}")


@dataclass(frozen=True)
class Candidate:
    """How the search for one class ended.

    Attributes:
        target: the class.
        status: whether a trigger that works was found and had stopped changing.
        trigger: the smallest trigger that worked, or the last one where none did (so far, of a class screened out).
        steps: optimiser steps spent.
    """

    target: int
    status: ClassStatus
    trigger: Trigger
    steps: int

    @property
    def works(self) -> bool:
        """Whether a search to the end reached the attack success asked for."""
        return self.status in (ClassStatus.CONVERGED, ClassStatus.UNFINISHED)

    @property
    def size(self) -> float:
        """L1 of the mask in pixels; infinite where no trigger works."""
        return float(self.trigger.mask.sum()) if self.works else math.inf


class Group:
    """The search for a few classes side by side; a class that is done leaves the batch."""

    def __init__(
        self,
        classifier: Classifier,
        images: ImageSet,
        targets: Sequence[int],
        method: Method,
        settings: SolverSettings,
        seed: int,
    ) -> None:
        self.classifier, self.images, self.method, self.settings, self.seed = (
            classifier,
            images,
            method,
            settings,
            seed,
        )
        device = classifier.device
        self.targets = torch.tensor(list(targets), device=device)
        self.order = torch.stack([_image_order(images.labels, t, settings, seed) for t in targets]).to(device)
        starts = [_start(tuple(images.images.shape[1:]), t, settings.initial_mask, seed) for t in targets]
        raw = [torch.stack(values).to(device) for values in zip(*starts, strict=True)]
        masks, patterns = (values.sigmoid() for values in raw) if settings.clipped else raw
        self.adam = Adam([masks, patterns], settings.learning_rate, settings.betas)
        self.best = Best(*self._trigger())
        self.schedule = method.schedule(len(targets), math.prod(images.images.shape[2:]), device)
        self.stability = Stability(settings.stability)
        self.stable = torch.zeros(len(targets), dtype=torch.bool, device=device)

    @property
    def running(self) -> int:
        """Classes still in the batch."""
        return len(self.targets)

    @property
    def sizes(self) -> dict[int, float]:
        """L1 of the smallest working mask of each class still in the batch, in pixels; infinite where none works."""
        return dict(zip(self.targets.tolist(), self.best.size.tolist(), strict=True))

    @property
    def steps(self) -> int:
        """Steps done."""
        return self.adam.steps

    def run_round(self) -> list[Candidate]:
        """Runs one round of steps and returns the classes that are done with it."""
        steps = min(self.settings.round_steps, self.settings.steps - self.steps)
        success = torch.zeros(self.running, device=self.targets.device)
        terms: Tensor | None = None
        for _ in range(steps):
            at = self._step()
            success += at.success
            terms = at.terms / steps if terms is None else terms + at.terms / steps
        assert terms is not None  # noqa: S101 (steps ≥ 1)
        success /= steps  # once: a sum of parts of 1 may stay below it
        works = success >= self.settings.success
        self.best.offer(*self._trigger(), works)
        self.schedule.update(success)
        self.stable = self.stability.update(terms) & torch.isfinite(self.best.size)
        return self._leave()

    def _step(self) -> Objective:
        batch = self._draw()
        seen: list[Objective] = []

        def losses(mask: Tensor, pattern: Tensor) -> Tensor:
            shown = self._shown(mask, pattern)
            at = self.method.objective(self.classifier, batch, *shown, self.schedule.weight)
            seen.append(at)
            return at.loss

        self.adam.step(gradients(losses, *self.adam.parameters))
        if self.settings.clipped:
            for values in self.adam.parameters:
                values.clamp_(0, 1)
        return seen[0]

    def _draw(self) -> Batch:
        index, size = self.order[:, self.steps], self.images.images.shape[2:]
        generator = torch.Generator().manual_seed(key(self.seed, 0, self.steps))
        kept = None
        if self.method.mask_dropout:
            shape = (self.settings.batch_size, 1, *size)
            kept = (torch.rand(shape, generator=generator) >= self.method.mask_dropout).to(index.device)
        images = self.images.images[index]
        if furthest := round(self.method.image_shift * min(size)):
            # The classes' images of one place in the batch move alike, so that a class moves the same whichever are by.
            alike = images.transpose(0, 1).flatten(1, 2)
            moved = shifted(alike, furthest, generator, "replicate")
            images = moved.unflatten(1, (len(images), -1)).transpose(0, 1)
        return Batch(images, self.images.labels[index], self.targets, kept)

    def _trigger(self) -> tuple[Tensor, Tensor]:
        return self._shown(*self.adam.parameters)

    def _shown(self, mask: Tensor, pattern: Tensor) -> tuple[Tensor, Tensor]:
        return (mask, pattern) if self.settings.clipped else (mask.sigmoid(), pattern.sigmoid())

    def dismiss(self, stay: Collection[int]) -> list[Candidate]:
        """Ends the search for all classes but some; returns the others as screened out."""
        done = torch.tensor([target not in stay for target in self.targets.tolist()], dtype=torch.bool)
        return self._remove(done.to(self.targets.device), ClassStatus.SCREENED)

    def _leave(self) -> list[Candidate]:
        over = self.steps >= self.settings.steps
        may_stop = self.steps >= self.settings.smallest_steps
        return self._remove(torch.ones_like(self.stable) if over else self.stable & may_stop)

    def _remove(self, done: Tensor, status: ClassStatus | None = None) -> list[Candidate]:
        """Takes classes (K,) bool out of the batch; their status is as they are where none is given."""
        leaving = [self._candidate(int(k), status) for k in torch.nonzero(done).flatten()]
        if leaving:
            stay = torch.nonzero(~done).flatten()
            self.targets, self.order, self.stable = self.targets[stay], self.order[stay], self.stable[stay]
            for part in (self.adam, self.best, self.schedule, self.stability):
                part.keep(stay)
        return leaving

    def _candidate(self, k: int, status: ClassStatus | None) -> Candidate:
        if status is None and not math.isfinite(float(self.best.size[k])):
            status = ClassStatus.NO_TRIGGER
        elif status is None:
            status = ClassStatus.CONVERGED if bool(self.stable[k]) else ClassStatus.UNFINISHED
        trigger = Trigger(self.best.masks[k].clone(), self.best.patterns[k].clone())
        return Candidate(int(self.targets[k]), status, trigger, self.steps)


def _image_order(labels: Tensor, target: int, settings: SolverSettings, seed: int) -> Tensor:
    """Image positions for every step (steps, B): the images of other classes, in ever new shuffles."""
    others = torch.nonzero(labels.cpu() != target).flatten()
    if len(others) == 0:
        raise DataError(f"all images are of class {target}, so none could be misclassified as it")
    generator = torch.Generator().manual_seed(key(seed, target + 1, 0))
    needed = settings.steps * settings.batch_size
    shuffles = [others[torch.randperm(len(others), generator=generator)] for _ in range(-(-needed // len(others)))]
    return torch.cat(shuffles)[:needed].view(settings.steps, settings.batch_size)


def _start(shape: tuple[int, ...], target: int, initial_mask: float, seed: int) -> tuple[Tensor, Tensor]:
    """Mask and pattern before the sigmoid: a faint mask and middling colours, with a little noise on both."""
    channels, height, width = shape
    generator = torch.Generator().manual_seed(key(seed, target + 1, 1))
    mask = math.log(initial_mask / (1 - initial_mask)) + 0.1 * torch.randn(1, height, width, generator=generator)
    return mask, 0.5 * torch.randn(channels, height, width, generator=generator)
