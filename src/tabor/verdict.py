"""From a score a class to a verdict on the model: an outlier test over the classes.  [§4.2.4]

A score is small where the trigger is small, compact and effective, and only small scores are suspicious: a class
that is hard to reach says nothing about a backdoor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit
from scipy.stats import norm

from tabor.errors import SettingError
from tabor.result import Verdict

MAD_TO_SIGMA = 1.4826
"""Makes the median absolute deviation of normal data an estimate of their standard deviation (1/Φ⁻¹(3/4))."""

FEW_CLASSES = 8
"""Below this, the classes' own spread says little: see `anomaly_indices`."""

LARGEST_INDEX = 1e6
"""Stands for infinity, which JSON cannot say."""


@dataclass(frozen=True, kw_only=True)
class OutlierSettings:
    """The outlier test.

    Attributes:
        false_alarm_rate: chance that a clean model has any class flagged, if its scores were normal and their spread
            known; with n classes each is tested at rate/n.  Where the spread is the MAD's estimate the chance is
            higher, about 5 times for 43 classes.  Used where `threshold` is None.
        threshold: a fixed anomaly index instead (the literature's 2).
        spread_floor: smallest standard deviation that the scores are taken to have: the natural spread in clean
            models.  It stands in for the MAD where few classes are scanned, and keeps a MAD of 0 harmless.
        undecided_share: if more than this share of the classes could not be searched to the end, and none is
            flagged, the verdict is undecided.
    """

    false_alarm_rate: float = 0.01
    threshold: float | None = None
    spread_floor: float = 0.0
    undecided_share: float = 0.1

    def __post_init__(self) -> None:
        floor, threshold = self.spread_floor, self.threshold
        finite = 0 <= floor < math.inf and (threshold is None or math.isfinite(threshold))
        if not finite or not 0 < self.false_alarm_rate < 1 or not 0 <= self.undecided_share <= 1:
            raise SettingError(f"the outlier test needs rates in (0, 1) and a floor that is not negative, got {self}")

    def threshold_for(self, classes: int) -> float:
        """Returns the anomaly index above which one of `classes` classes is flagged."""
        return (
            self.threshold if self.threshold is not None else float(norm.isf(self.false_alarm_rate / max(classes, 1)))
        )


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What the test concludes.

    Attributes:
        verdict: clean, backdoored or undecided.
        targets: positions of the flagged classes, most anomalous first.
        anomaly_indices: one for each class, None where the class has no score.
        threshold: what they were held against.
        score: a monotone function of the largest anomaly index, in (0.01, 0.99), 0.5 at the threshold.
        reason: one sentence.
    """

    verdict: Verdict
    targets: tuple[int, ...]
    anomaly_indices: tuple[float | None, ...]
    threshold: float
    score: float
    reason: str


def anomaly_indices(scores: Sequence[float], spread_floor: float) -> list[float]:
    """Returns how many robust standard deviations each score lies below the median; negative above it.

    With at least 8 scores the deviation is 1.4826·MAD, not less than the floor.  With fewer, an infected class drags
    the median and the MAD with it, so each score is held against the median and the MAD of the *others*.  A deviation
    of 0 makes any smaller score as anomalous as can be; with fewer than 8 scores it says nothing, and every index is 0.
    """
    values = np.asarray(scores, dtype=np.float64)
    few = len(values) < FEW_CLASSES
    peers = [np.delete(values, k) if few and len(values) > 1 else values for k in range(len(values))]
    centre = np.array([np.median(others) for others in peers])
    spread = np.array([MAD_TO_SIGMA * np.median(np.abs(o - c)) for o, c in zip(peers, centre, strict=True)])
    spread = np.maximum(spread, spread_floor)
    below = centre - values
    endless = 0.0 if few else LARGEST_INDEX
    with np.errstate(divide="ignore", invalid="ignore"):
        indices = np.where(spread > 0, below / spread, np.sign(below) * endless)
    return [float(index) for index in np.clip(indices, -LARGEST_INDEX, LARGEST_INDEX)]


def decide(
    scores: Sequence[float | None],
    settings: OutlierSettings,
    finished: Sequence[bool] | None = None,
    confirmed: Sequence[bool] | None = None,
) -> Decision:
    """Applies the outlier test.

    Args:
        scores: one for each class, smaller is more suspicious; None where no working trigger was found.
        settings: the test.
        finished: whether each class's search came to its end; None: all with a score did.
        confirmed: whether each class's trigger works on images the search never saw, without which a class is not
            flagged; None: all with a score do.

    Returns:
        The decision.  Rules, in this order: fewer than two scores, or fewer than half of the classes scored:
        undecided (classes that stand out are named all the same).  Any class flagged: backdoored.  Two classes and no
        spread to hold them against, or more than `undecided_share` of the classes without an end: undecided.
        Otherwise clean.
    """
    scored = [k for k, score in enumerate(scores) if score is not None and math.isfinite(score)]
    finished = finished if finished is not None else [k in scored for k in range(len(scores))]
    confirmed = confirmed if confirmed is not None else [True] * len(scores)
    indices: list[float | None] = [None] * len(scores)
    for k, value in zip(
        scored, anomaly_indices([float(scores[k] or 0.0) for k in scored], settings.spread_floor), strict=True
    ):
        indices[k] = value
    threshold = settings.threshold_for(len(scored))
    ranked = sorted(scored, key=lambda k: -float(indices[k] or 0.0))
    targets = tuple(k for k in ranked if float(indices[k] or 0.0) > threshold and confirmed[k])
    unfinished = sum(not (done and k in scored) for k, done in enumerate(finished))
    verdict, reason = _conclude(len(scores), len(scored), targets, unfinished, settings)
    highest = max((float(indices[k] or 0.0) for k in scored if confirmed[k]), default=threshold)
    return Decision(
        verdict=verdict,
        targets=targets,
        anomaly_indices=tuple(indices),
        threshold=threshold,
        score=float(np.clip(expit(highest - threshold), 0.01, 0.99)),
        reason=reason,
    )


def _conclude(
    classes: int, scored: int, targets: tuple[int, ...], unfinished: int, settings: OutlierSettings
) -> tuple[Verdict, str]:
    if scored < 2 or 2 * scored < classes:
        return (
            Verdict.UNDECIDED,
            f"a working trigger was found for only {scored} of {classes} classes, too few to compare",
        )
    if targets:
        which = "one class stands" if len(targets) == 1 else f"{len(targets)} classes stand"
        return Verdict.BACKDOORED, f"{which} out among {classes} by a trigger far smaller than the others need"
    if scored == 2 and not settings.spread_floor:
        return Verdict.UNDECIDED, "two classes have nothing to be compared with"
    if unfinished > settings.undecided_share * classes:
        return Verdict.UNDECIDED, f"the search did not come to its end for {unfinished} of {classes} classes"
    return Verdict.CLEAN, f"no class of {classes} stands out by its trigger"
