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
        false_alarm_rate: chance that a clean model with normal scores has any class flagged; with n classes each is
            tested at rate/n.  Used where `threshold` is None.
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
        if not 0 < self.false_alarm_rate < 1 or not 0 <= self.undecided_share <= 1 or self.spread_floor < 0:
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
    the median and the MAD with it, so each score is held against the median of the *others* and the floor alone.  A
    deviation of 0 (identical scores and no floor) makes any smaller score as anomalous as can be and an equal one 0.
    """
    values = np.asarray(scores, dtype=np.float64)
    if len(values) >= FEW_CLASSES:
        centre = np.full(len(values), np.median(values))
        spread = max(MAD_TO_SIGMA * float(np.median(np.abs(values - centre))), spread_floor)
    else:
        centre = np.array(
            [np.median(np.delete(values, k)) if len(values) > 1 else values[k] for k in range(len(values))]
        )
        spread = spread_floor
    below = centre - values
    if spread > 0:
        return [float(np.clip(b / spread, -LARGEST_INDEX, LARGEST_INDEX)) for b in below]
    return [math.copysign(LARGEST_INDEX, b) if b else 0.0 for b in below]


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
        undecided.  Any class flagged: backdoored.  More than `undecided_share` of the classes without an end:
        undecided.  Otherwise clean.
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
    if unfinished > settings.undecided_share * classes:
        return Verdict.UNDECIDED, f"the search did not come to its end for {unfinished} of {classes} classes"
    return Verdict.CLEAN, f"no class of {classes} stands out by its trigger"
