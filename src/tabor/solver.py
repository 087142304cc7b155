"""The batched search: which classes are searched together, and which of them to the end.  [§4.3]"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from tabor.access import Classifier
from tabor.data import ImageSet
from tabor.group import Candidate, Group, SolverSettings
from tabor.methods.base import Method
from tabor.screening import Screening

__all__ = ["Candidate", "Progress", "SolverSettings", "solve"]


@dataclass(frozen=True)
class Progress:
    """Where the search stands, after each round.

    Attributes:
        finished: classes done, of this and earlier groups.
        classes: all classes to search.
        share: work done so far, in [0, 1].
        smallest_mask: L1 of the smallest working mask so far, of any class, in pixels; None before the first.
    """

    finished: int
    classes: int
    share: float
    smallest_mask: float | None


def solve(
    classifier: Classifier,
    images: ImageSet,
    targets: Sequence[int],
    method: Method,
    settings: SolverSettings,
    seed: int,
    on_round: Callable[[Progress], None] | None = None,
    on_class: Callable[[Candidate], None] | None = None,
    among: Sequence[int] | None = None,
) -> list[Candidate]:
    """Searches the smallest trigger for each target class.

    Args:
        classifier: the model.
        images: clean images to search with, on the classifier's device.
        targets: the classes to search, each in 0 … num_classes − 1.
        method: objective and schedule.
        settings: the optimiser.
        seed: of every random draw.
        on_round: called after every round of every group.
        on_class: called with each class as soon as it is done.
        among: all classes of the scan, some of which may have been searched before; None: the targets.

    Returns:
        One candidate for each target, in the order given.

    Raises:
        DataError: all images are of one target class, so nothing could be misclassified as it.
        ModelError: the model's outputs are not finite.
    """
    # A class takes up to twice its batch, as R3 looks at it with the trigger's place blacked out.
    at_once = min(settings.group_images, classifier.images_at_once // 2)
    size = max(1, at_once // settings.batch_size)
    parts = (targets[start : start + size] for start in range(0, len(targets), size))
    groups: Iterable[Group] = (Group(classifier, images, part, method, settings, seed) for part in parts)
    watch = _Watch(len(targets), on_round, on_class)
    screening, everyone = settings.screening, targets if among is None else among
    if screening is not None and screening.screens(everyone):
        groups = _screened(groups, screening, screening.peers(everyone, seed), settings.steps, watch)
    for group in groups:
        while group.running:
            watch.round(group, group.run_round(), settings.steps)
    return [watch.found[target] for target in targets]


def _screened(
    groups: Iterable[Group], screening: Screening, peers: Collection[int], steps: int, watch: _Watch
) -> list[Group]:
    """Searches every class for a while; returns the groups with the classes that are searched to the end."""
    waiting: list[Group] = []
    for group in groups:
        while group.running and group.steps < screening.steps:
            watch.round(group, group.run_round(), steps)
        waiting.append(group)
        # After each group, so that the state of a thousand classes is never held at once.
        stay = screening.stay({target: size for each in waiting for target, size in each.sizes.items()}, peers)
        for each in waiting:
            watch.done(each.dismiss(stay))
    return waiting


class _Watch:
    """Collects the classes that are done, and tells the caller how far the search is."""

    def __init__(
        self,
        classes: int,
        on_round: Callable[[Progress], None] | None,
        on_class: Callable[[Candidate], None] | None,
    ) -> None:
        self.found: dict[int, Candidate] = {}
        self._classes, self._on_round, self._on_class = classes, on_round, on_class
        self._smallest = math.inf
        self._share = 0.0

    def done(self, candidates: Sequence[Candidate]) -> None:
        """Takes classes that are done."""
        for candidate in candidates:
            self._smallest = min(self._smallest, candidate.size)
            self.found[candidate.target] = candidate
            if self._on_class is not None:
                self._on_class(candidate)

    def round(self, group: Group, candidates: Sequence[Candidate], steps: int) -> None:
        """Takes what is done after a round of a group that runs for at most so many steps."""
        self.done(candidates)
        self._smallest = min([self._smallest, *group.sizes.values()])
        share = (len(self.found) + group.running * group.steps / steps) / self._classes
        self._share = max(self._share, min(share, 1.0))  # classes that go on after the screening are not done with it
        if self._on_round is not None:
            smallest = self._smallest if math.isfinite(self._smallest) else None
            self._on_round(Progress(len(self.found), self._classes, self._share, smallest))
