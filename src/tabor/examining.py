"""The part of a scan that takes its time: every class's search, its evidence, and a closer look at the suspicious."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch

from tabor.access import Classifier
from tabor.data import ImageSet
from tabor.evidence import Evidence, measure
from tabor.journal import Journal
from tabor.methods.base import Method
from tabor.result import ClassStatus
from tabor.second_look import explained, rank_beside, without
from tabor.solver import Candidate, Progress, SolverSettings, solve
from tabor.suspects import Suspect, restore_suspects
from tabor.trigger import Trigger
from tabor.verdict import Decision, decide

SEARCH_SHARE, FIRST_LOOK_SHARE = 0.3, 0.9
"""About how much of the time the search takes, where patches are sought after it, and when these are found, for the
progress line."""

SCREENED = ClassStatus.SCREENED

GLANCE = 64
"""Images that a class's trigger is measured on where it was screened out: no verdict rests on it."""


@dataclass(frozen=True)
class Examined:
    """What was found for each class before anything is concluded; the lists run along the classes searched.

    Attributes:
        candidates: how each class's search ended.
        evidence: what was measured on its trigger.
        scores: the trigger's quality; None where none works or the class was not searched to the end.
        suspects: the classes that were looked at closely.
        peers: classes that were searched to the end whatever their masks: what the others are held against.
        settled: classes that stood out until the trigger of the one that stands out most was unlearned.
    """

    candidates: list[Candidate]
    evidence: list[Evidence]
    scores: list[float | None]
    suspects: dict[int, Suspect]
    peers: Collection[int]
    settled: Collection[int] = ()

    def decide(self, method: Method) -> Decision:
        """Applies the method's tests.

        A class is not flagged by its small mask where its patch is a part or an effect of a flagged class's: its mask
        is that too.
        """
        decision = self._decide(method, effects=())
        flagged = {self.candidates[k].target for k in decision.targets}
        effects = {target for target, suspect in self.suspects.items() if suspect.shadow_of in flagged}
        return self._decide(method, effects) if effects & flagged else decision

    def _decide(self, method: Method, effects: Collection[int]) -> Decision:
        return decide(
            self.scores,
            method.outliers,
            finished=[c.status is ClassStatus.CONVERGED for c in self.candidates],
            confirmed=[
                e.works and c.target not in effects for c, e in zip(self.candidates, self.evidence, strict=True)
            ],
            screened=[c.status is SCREENED for c in self.candidates],
            peers=[c.target in self.peers for c in self.candidates],
            patches=[s.anomaly_index if (s := self.suspects.get(c.target)) else None for c in self.candidates],
        )

    def by_mask(self, decision: Decision) -> set[int]:
        """Returns the classes whose small mask stands out and works, whether or not they are flagged by it."""
        each = zip(self.candidates, self.evidence, decision.anomaly_indices, strict=True)
        return {c.target for c, e, index in each if e.works and index is not None and index > decision.threshold}

    def flagged(self, decision: Decision) -> tuple[int, ...]:
        """Returns the classes that a decision flags, most anomalous first."""
        return tuple(self.candidates[k].target for k in decision.targets)

    def restored(self, target: int) -> list[Trigger]:
        """Returns what was restored of a class's trigger, the smallest mask and the whole patch, as far as it works."""
        masks = {c.target: c.trigger for c, e in zip(self.candidates, self.evidence, strict=True) if e.works}
        return [found[target] for found in (masks, self.patches([target])) if target in found]

    def patches(self, flagged: Sequence[int]) -> dict[int, Trigger]:
        """Returns the whole triggers of the flagged classes, where one works."""
        working = {target: self.suspects[target] for target in flagged if target in self.suspects}
        height, width = self.candidates[0].trigger.mask.shape[1:]
        return {target: s.patch.trigger(height, width).to("cpu") for target, s in working.items() if s.works}


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
    seen = _settled(seen, classifier, halves, method, seed, watch.settled)
    watch.settled(1.0)
    return seen


def _settled(
    seen: Examined,
    classifier: Classifier,
    halves: tuple[ImageSet, ImageSet],
    method: Method,
    seed: int,
    on_step: Callable[[float], None],
) -> Examined:
    """Looks again at the classes whose patches stand out, where there are others than the first: effects or targets."""
    decision = seen.decide(method)
    threshold, flagged = decision.patch_threshold, seen.flagged(decision)
    if threshold is None or method.restoring is None:
        return seen
    standing_out = {k: s for k, s in seen.suspects.items() if s.alone is not None and s.alone > threshold}
    strong = [k for k, s in standing_out.items() if s.shadow_of is None or s.shadow_of in flagged]
    if not flagged or not set(strong) - {flagged[0]}:
        return seen
    restoring, size, confirm = method.restoring, halves[1].shape[1:], halves[1]

    def look(target: int, others: Sequence[int]) -> dict[int, Suspect] | None:
        triggers = [trigger.to(classifier.device) for trigger in seen.restored(target)]
        return without(classifier, halves, target, triggers, others, restoring, seed, on_step)

    def rank(target: int, other: int) -> float:
        trigger = seen.suspects[target].patch.trigger(*size).to(classifier.device)
        return rank_beside(classifier, trigger, other, confirm)

    causes, gone = explained(flagged[0], strong, threshold, look, rank)

    def root(target: int | None) -> int | None:
        while target is not None and (of := causes.get(target)) is not None:
            target = of
        return target

    suspects = {k: dataclasses.replace(s, shadow_of=root(causes.get(k, s.shadow_of))) for k, s in seen.suspects.items()}
    return dataclasses.replace(seen, suspects=suspects, settled=gone)


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
