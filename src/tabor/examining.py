"""The part of a scan that takes its time: every class's search, its evidence, and a closer look at the suspicious."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch

from tabor.access import Classifier
from tabor.class_finding import ClassStatus
from tabor.data import ImageSet
from tabor.evidence import measure
from tabor.examined import Examined
from tabor.journal import Journal
from tabor.methods.base import Method
from tabor.second_look import settled
from tabor.solver import Candidate, Progress, SolverSettings, solve
from tabor.suspect import Suspect
from tabor.suspects import restore_suspects

SEARCH_SHARE, FIRST_LOOK_SHARE = 0.3, 0.9
"""About how much of the time the search takes, where patches are sought after it, and when these are found, for the
progress line."""

SCREENED = ClassStatus.SCREENED

GLANCE = 64
"""Images that a class's trigger is measured on where it was screened out: no verdict rests on it."""


def examine(
    classifier: Classifier,
    halves: tuple[ImageSet, ImageSet],
    targets: Sequence[int],
    method: Method,
    settings: SolverSettings,
    seed: int,
    journal: Journal | None,
    on_progress: Callable[[Progress], None] | None,
) -> Examined:
    """Searches the smallest trigger of every class, measures it, and looks closely at the suspicious ones."""
    watch = _Watch(on_progress, len(targets), SEARCH_SHARE if method.restoring else 1.0)
    peers = settings.screening.peers(targets, seed) if settings.screening else frozenset(targets)
    found = _search(classifier, halves[0], targets, method, settings, seed, journal, watch.searched)
    confirm, few = halves[1], halves[1].select(torch.arange(min(len(halves[1]), GLANCE)))
    evidence = [
        measure(classifier, c.trigger.to(classifier.device), c.target, few if c.status is SCREENED else confirm)
        for c in found
    ]
    scores = [method.score(e) if c.works else None for c, e in zip(found, evidence, strict=True)]
    suspects: dict[int, Suspect] = {}
    if method.restoring:
        known = {c.target: score for c, score in zip(found, scores, strict=True) if score is not None}
        suspects = restore_suspects(
            classifier,
            halves,
            targets,
            known,
            method.restoring,
            seed,
            watch.restored,
            before=_looked_at(journal, classifier.device, halves[0].shape) if journal else None,
            on_suspect=journal.add_suspect if journal else None,
        )
    seen = Examined(found, evidence, scores, suspects, peers)
    seen = settled(seen, classifier, halves, method, seed, watch.settled)
    watch.settled(1.0)
    return seen


def _looked_at(journal: Journal, device: torch.device, image_shape: tuple[int, int, int]) -> dict[int, Suspect]:
    """The classes that were looked at closely before, as far as what the journal says can be."""
    return {target: s for target, s in journal.suspects(device).items() if s.fits(image_shape)}


def _search(
    classifier: Classifier,
    images: ImageSet,
    targets: Sequence[int],
    method: Method,
    settings: SolverSettings,
    seed: int,
    journal: Journal | None,
    on_progress: Callable[[Progress], None],
) -> list[Candidate]:
    """Searches the classes that the journal does not have yet; returns a candidate for each target."""
    earlier = journal.finished.values() if journal else ()
    candidates = {c.target: c for c in earlier if c.trigger.pattern.shape == images.images.shape[1:]}
    left = [target for target in targets if target not in candidates]
    on_class = journal.add if journal else None
    for candidate in solve(classifier, images, left, method, settings, seed, on_progress, on_class, targets):
        candidates[candidate.target] = candidate
    return [candidates[target] for target in targets]


class _Watch:
    """Tells the caller how far the scan is: the search, and the patches after it."""

    def __init__(self, tell: Callable[[Progress], None] | None, classes: int, search_share: float) -> None:
        self._tell, self._share = tell, search_share
        self._last = Progress(classes, classes, search_share, None)  # nothing is searched where all was found before

    def searched(self, progress: Progress) -> None:
        """Takes the search's progress."""
        self._last = dataclasses.replace(progress, share=progress.share * self._share)
        if self._tell is not None:
            self._tell(self._last)

    def restored(self, share: float) -> None:
        """Takes the share of the patches' work that is done."""
        self._at(self._share + (FIRST_LOOK_SHARE - self._share) * share)

    def settled(self, share: float) -> None:
        """Takes the share of the second look's work that is done."""
        self._at(FIRST_LOOK_SHARE + (1 - FIRST_LOOK_SHARE) * share)

    def _at(self, share: float) -> None:
        if self._tell is not None:
            self._tell(dataclasses.replace(self._last, share=share))
