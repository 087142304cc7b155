"""What was found for one class: `ClassFinding`, with how its search ended and the patch it answers to."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class ClassStatus(enum.StrEnum):
    """How the search for one class's trigger ended."""

    CONVERGED = "converged"
    """A trigger that works was found and had stopped changing."""
    UNFINISHED = "unfinished"
    """A trigger that works was found, but it was still shrinking when the budget ended."""
    SCREENED = "screened"
    """Others had smaller triggers early on, so it was not searched to the end."""
    NO_TRIGGER = "no-trigger"
    """No trigger reached the attack success asked for."""


@dataclass(frozen=True, kw_only=True)
class PatchFinding:
    """A class's trigger restored as a patch with hard edges; sought for the suspicious classes.

    Of those that it answers to about as strongly as to any, the one nearest to a corner.  How well it works is measured
    on clean images that the search never saw, its worth on those of the search.

    Attributes:
        window: its first row and column, and the row and column behind its last ones.
        worth: how strongly, for what it covers; see `tabor.patches.Patch`.
        anomaly_index: how many robust standard deviations the class's strongest patch lies above what other classes
            make of the same window, or what of a large one's effect is strange to the class above the same of theirs, 4
            more where the patch is foreign to the class, times attack success² and crop accuracy; None where the patch
            says nothing, is natural to the model, or is an effect of another.
        attack_success: share of images of other classes that it sends here, in [0, 1].
        crop_accuracy: share of images classified rightly with its place hidden in black; where that leaves too few of
            the right answers, in black, grey or white, whichever leaves most.
        effect_of: the class whose patch it is taken for an effect of; None: of none.
        likeness: the share of the strongest patch's effect that is owed to how the class looks, by which it is foreign
            or not (`tabor.likeness`); may lie outside [0, 1].  None where the patch says nothing, or nobody can tell.
    """

    window: tuple[int, int, int, int]
    worth: float
    anomaly_index: float | None
    attack_success: float
    crop_accuracy: float
    effect_of: int | None = None
    likeness: float | None = None


@dataclass(frozen=True, kw_only=True)
class ClassFinding:
    """What was found for one class taken as the attacker's target.

    Measured on clean images that the search never saw; None where there is nothing to measure.

    Attributes:
        index: the class index, 0 to num_classes − 1.
        name: the class's name in the data, or its index as text.
        status: how the search ended.
        score: the trigger's quality on the method's scale; smaller is more suspicious (Eq. 8 or the mask's L1).
        anomaly_index: how many robust standard deviations the score lies below the median of the classes held against.
        flagged: whether the class is reported as a backdoor's target.
        mask_l1: the sum of the mask, in pixels.
        attack_success: share of images of other classes that the trigger sends here, in [0, 1] (acc_att).
        crop_accuracy: share of images classified rightly with the trigger's place blacked out (acc_crop).
        explanation_accuracy: 1 where the trigger alone on black is classified as this class, else 0 (acc_exp).
        sparsity: ‖M‖₁/d², the share of the image that the trigger covers, in [0, 1] (Eq. 8, first term).
        smoothness: s(M)/(d·(d−1)), not negative (Eq. 8, second term).
        steps: optimiser steps spent.
        patch: the class's patch, where one was sought.
    """

    index: int
    name: str
    status: ClassStatus
    score: float | None
    anomaly_index: float | None
    flagged: bool
    mask_l1: float
    attack_success: float
    crop_accuracy: float
    explanation_accuracy: float
    sparsity: float
    smoothness: float
    steps: int
    patch: PatchFinding | None = None
