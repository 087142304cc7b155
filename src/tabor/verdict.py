"""From a score a class to a verdict on the model: an outlier test over the classes.  [§4.2.4]

A score is small where the trigger is small, compact and effective, and only small scores are suspicious: a class
that is hard to reach says nothing about a backdoor.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit
from scipy.stats import norm

from tabor.anomaly import SPREADS, anomaly_indices
from tabor.calibration import CERTAINTY, Null
from tabor.errors import SettingError, one_line
from tabor.result import Verdict

PAIR = 2
"""So many classes are held against each other alone, and in a clean model of two one may be reached far more easily."""

EVEN = 0.5
"""The least chance of a backdoor that a model is given that is not called clean."""

BY_MASK = "a trigger far smaller than the others need"
BY_PATCH = "a patch that no other class answers to nearly as much"
"""What a class is flagged for, in words."""


@dataclass(frozen=True, kw_only=True)
class OutlierSettings:
    """The outlier test.

    Attributes:
        false_alarm_rate: chance that a clean model has any class flagged: as if scores were normal and their spread
            known, each of n classes is tested at rate/n.  Where the spread is estimated the chance is higher, but for
            `spread_floor`: of 10 classes about 11 times by the MAD and 4 times by Qn, of 43 classes 5 times and twice,
            and 14 and 7 times where 16 of them are what the others are held against.
        patches: the law of the largest anomaly index of a clean model's patches.  With it a class is flagged for either
            reason, and each test has half of the rate.  None: patches count for nothing.
        threshold: a fixed anomaly index instead (the literature's 2).
        mask_share: a class is flagged by its score only where its mask has at most that share of the peers' median L1:
            what else is in a score may stand out where the trigger is as large as any.  Where it is larger, its index
            counts as no more than the threshold.  None: whatever its size.
        spread: what estimates the scores' standard deviation: "mad", the paper's, or "qn", which is less noisy.
        spread_floor: smallest standard deviation that the scores are taken to have: the natural spread in clean
            models.  It stands in for the estimate where few classes are scanned, and keeps one of 0 harmless.
        undecided_share: if for more than this share of the classes that were not screened out no search came to its
            end with a working trigger, and none is flagged, the verdict is undecided.
    """

    false_alarm_rate: float = 0.01
    patches: Null | None = None
    threshold: float | None = None
    mask_share: float | None = None
    spread: str = "mad"
    spread_floor: float = 0.0
    undecided_share: float = 0.1

    def __post_init__(self) -> None:
        floor, threshold = self.spread_floor, self.threshold
        finite = 0 <= floor < math.inf and (threshold is None or math.isfinite(threshold))
        if not finite or not 0 < self.false_alarm_rate < 1 or not 0 <= self.undecided_share <= 1:
            raise SettingError(f"the outlier test needs rates in (0, 1) and a floor that is not negative, got {self}")
        if self.mask_share is not None and not 0 < self.mask_share < math.inf:
            raise SettingError(f"the outlier test needs a mask share above 0, got {self}")
        if self.spread not in SPREADS:
            raise SettingError(f"unknown estimate of the spread {one_line(self.spread)}; use {' or '.join(SPREADS)}")

    def threshold_for(self, classes: int) -> float:
        """Returns the anomaly index above which one of `classes` classes is flagged."""
        if self.threshold is not None:
            return self.threshold
        return float(norm.isf(self._rate / max(classes, 1)))

    @property
    def patch_threshold(self) -> float | None:
        """The anomaly index of a patch above which a class is flagged; None: none is, whatever it is."""
        return None if self.patches is None else self.patches.threshold(self._rate)

    def p_value(self, index: float | None, patch: float | None, classes: int) -> float | None:
        """Returns the chance that a clean model's largest index or patch's index is as extreme as these.

        None where neither was measured.
        """
        chances = []
        if index is not None:
            chances.append(float(-np.expm1(classes * norm.logcdf(index))))
        if patch is not None and self.patches is not None:
            chances.append(self.patches.p_value(patch))
        tests = 1 if self.patches is None else 2  # that were made, whether or not they had something to say
        return min(1.0, tests * min(chances)) if chances else None

    def probability(self, index: float | None, patch: float | None, threshold: float) -> float:
        """Returns the chance that the model is backdoored, in [0.01, 0.99], by the stronger evidence; 0.5 without any.

        What a mask's index says is no more than a monotone function of it, 0.5 at its threshold.
        """
        chances = []
        if index is not None:
            chances.append(float(np.clip(expit(index - threshold), 1 - CERTAINTY, CERTAINTY)))
        if patch is not None and self.patches is not None:
            chances.append(self.patches.probability(patch))
        return max(chances, default=0.5)

    @property
    def calibration(self) -> str:
        """On what the chances rest, in words."""
        if self.patches is None:
            return "normal scores whose spread is known; not fitted to any clean model"
        return f"scores: normal, not fitted; {self.patches.source}"

    @property
    def _rate(self) -> float:
        return self.false_alarm_rate if self.patches is None else self.false_alarm_rate / 2


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What the test concludes.

    Attributes:
        verdict: clean, backdoored or undecided.
        targets: positions of the flagged classes, most anomalous first.
        anomaly_indices: one for each class, None where the class has no score.
        threshold: what they were held against.
        far_smaller: positions of the classes whose mask is small enough for that; see `OutlierSettings.mask_share`.
        patch_threshold: what the patches' indices were held against; None where patches count for nothing.
        score: the chance that the model is backdoored, in [0.01, 0.99]; see `OutlierSettings.probability`.
            Not below 0.5 where the verdict is not clean.
        p_value: the chance that a clean model looks as suspicious as this one; None where nothing was found to judge.
        reason: one sentence.
    """

    verdict: Verdict
    targets: tuple[int, ...]
    anomaly_indices: tuple[float | None, ...]
    threshold: float
    far_smaller: frozenset[int]
    patch_threshold: float | None
    score: float
    p_value: float | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class ClassFacts:
    """What the tests are told of a class.

    Attributes:
        score: smaller is more suspicious; None where no working trigger was found.
        mask_l1: of its trigger, in pixels.
        finished: whether its search came to its end.
        confirmed: whether its trigger works on images the search never saw, without which its score does not flag it.
        patch: the anomaly index of its patch, larger is more suspicious; None where none was sought, or where it says
            nothing.
        screened: whether it was left out of the search after a glance, as others stood out more.
        peer: whether it was searched to the end whatever its glance said, so that its score tells what is natural.
    """

    score: float | None
    mask_l1: float = 0.0
    finished: bool = True
    confirmed: bool = True
    patch: float | None = None
    screened: bool = False
    peer: bool = True


def decide(classes: Sequence[ClassFacts], settings: OutlierSettings) -> Decision:
    """Applies the test of the scores, and that of the patches.

    Rules, in this order: any patch above its threshold: backdoored.  Fewer than two scores, or fewer than half of the
    classes searched to the end scored: undecided (classes that stand out are named all the same).  Any class flagged:
    backdoored.  Two classes scored, which tell nothing of each other, fewer than half of the scored classes confirmed,
    or more than `undecided_share` of the classes without an end: undecided.  Otherwise clean.
    """
    count = len(classes)
    scored = {k: c.score for k, c in enumerate(classes) if c.score is not None and math.isfinite(c.score)}
    peers = [classes[k].peer for k in scored]
    estimate = SPREADS[settings.spread]
    indices = anomaly_indices(list(scored.values()), settings.spread_floor, peers, estimate)
    values = dict(zip(scored, indices, strict=True))
    threshold = settings.threshold_for(count)  # a class that was left out, or has no trigger, was looked at as well
    patch_threshold = settings.patch_threshold
    alone = len(scored) <= PAIR  # which of two is the easier to reach tells nothing
    far_smaller = _far_smaller({k: classes[k] for k in scored}, settings.mask_share)
    held = {k: value if k in far_smaller else min(value, threshold) for k, value in values.items()}
    tested = {} if alone else {k: value for k, value in held.items() if classes[k].confirmed}
    patches = {k: c.patch for k, c in enumerate(classes) if c.patch is not None}
    small = {k: value - threshold for k, value in tested.items() if value > threshold}
    strong = {
        k: patch - patch_threshold
        for k, patch in patches.items()
        if patch_threshold is not None and patch > patch_threshold
    }
    targets = tuple(sorted(small | strong, key=lambda k: (-small.get(k, 0.0) - strong.get(k, 0.0), k)))
    searched = _Searched(
        classes=count,
        to_the_end=sum(not c.screened for c in classes),
        scored=len(scored),
        confirmed=sum(classes[k].confirmed for k in scored),
        unfinished=sum(not c.screened and not (c.finished and k in scored) for k, c in enumerate(classes)),
    )
    verdict, reason = _conclude(searched, targets, strong, settings)
    index, strongest = max(tested.values(), default=None), max(patches.values(), default=None)
    # Just above a patch's threshold the densities speak against a backdoor; but few clean models come that far at all.
    # And where a scan comes to no verdict, what it did not see speaks neither for nor against one.
    least = 0.0 if verdict is Verdict.CLEAN else EVEN
    return Decision(
        verdict=verdict,
        targets=targets,
        anomaly_indices=tuple(values.get(k) for k in range(count)),
        threshold=threshold,
        far_smaller=far_smaller,
        patch_threshold=patch_threshold,
        score=max(least, settings.probability(index, strongest, threshold)),
        p_value=settings.p_value(index, strongest, count),
        reason=reason,
    )


def _far_smaller(scored: Mapping[int, ClassFacts], share: float | None) -> frozenset[int]:
    """The positions of the classes whose mask has at most that share of the peers' median L1."""
    if share is None or not scored:
        return frozenset(scored)
    sizes = [facts.mask_l1 for facts in scored.values() if facts.peer] or [facts.mask_l1 for facts in scored.values()]
    most = share * float(np.median(sizes))
    return frozenset(k for k, facts in scored.items() if facts.mask_l1 <= most)


@dataclass(frozen=True, kw_only=True)
class _Searched:
    """How many classes there are, were searched to the end, have a score, and a trigger that works on unseen images,
    and were cut off while searched.
    """

    classes: int
    to_the_end: int
    scored: int
    confirmed: int
    unfinished: int


def _conclude(
    of: _Searched, targets: Sequence[int], strong: Collection[int], settings: OutlierSettings
) -> tuple[Verdict, str]:
    classes, searched, scored = of.classes, of.to_the_end, of.scored
    which = "one class stands" if len(targets) == 1 else f"{len(targets)} classes stand"
    if strong:
        others = len(targets) - len(strong)
        how = f": {len(strong)} by {BY_PATCH}, {others} by {BY_MASK}" if others else f" by {BY_PATCH}"
        return Verdict.BACKDOORED, f"{which} out among {classes}{how}"
    if scored < 2 or 2 * scored < searched:
        return (
            Verdict.UNDECIDED,
            f"a working trigger was found for only {scored} of {searched} classes, too few to compare",
        )
    if targets:
        return Verdict.BACKDOORED, f"{which} out among {classes} by {BY_MASK}"
    if scored == PAIR:
        return Verdict.UNDECIDED, "two classes have nothing to be compared with but each other"
    if 2 * of.confirmed < scored:
        return Verdict.UNDECIDED, (
            f"only {of.confirmed} of {scored} triggers work on images that the search did not see: give more images"
        )
    if of.unfinished > settings.undecided_share * searched:
        return Verdict.UNDECIDED, f"the search did not come to its end for {of.unfinished} of {searched} classes"
    return Verdict.CLEAN, f"no class of {classes} stands out by its trigger"
