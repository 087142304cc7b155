"""How good a scan was where the true trigger is known: of the restored trigger, and of the verdict.  [Eq. 9, §5.2.2]"""

from __future__ import annotations

import enum
from collections.abc import Collection
from dataclasses import dataclass

from torch import Tensor

from tabor.result import ScanResult, Verdict


@dataclass(frozen=True)
class Fidelity:
    """How well a restored mask covers the true one (Eq. 9).

    Attributes:
        precision: share of the restored mask that lies in the true one, in [0, 1]; 0 for an empty mask.
        recall: share of the true mask that was restored, in [0, 1]; 0 for an empty mask.
        f1: their harmonic mean; 0 where both are 0 (the paper's table has NaN there).
    """

    precision: float
    recall: float
    f1: float


def fidelity(restored: Tensor, true: Tensor) -> Fidelity:
    """Compares a restored mask with the true one, both (1, H, W) in [0, 1] (Eq. 9)."""
    overlap = float((restored * true).sum())
    restored_size, true_size = float(restored.sum()), float(true.sum())
    precision = overlap / restored_size if restored_size else 0.0
    recall = overlap / true_size if true_size else 0.0
    both = precision + recall
    return Fidelity(precision, recall, 2 * precision * recall / both if both else 0.0)


class Correctness(enum.Enum):
    """The four symbols of §5.2.2."""

    SUCCESS = "●"
    """A planted target reported, and no class that is none; for a clean model, nothing reported."""
    SUCCESS_WITH_ERRORS = "⦿"
    """A planted target reported, and classes that are none."""
    INCORRECT = "⊖"
    """Only classes reported that are no planted target."""
    FAILURE = "○"
    """Nothing reported though a backdoor was planted, or something reported for a clean model, or that undecided."""


def correctness(result: ScanResult, planted: Collection[int]) -> Correctness:
    """Returns the symbol for a scan of a model with these planted targets (none: a clean model).

    It goes by the classes that are named, but an undecided scan of a clean model has not told that it is clean.

    Where several backdoors are planted, a report that misses one of them counts by what it does name: the paper has
    no symbol for it.
    """
    reported = set(result.targets)
    hits, extras = reported & set(planted), reported - set(planted)
    if not reported:
        told = not planted and result.verdict is Verdict.CLEAN
        return Correctness.SUCCESS if told else Correctness.FAILURE
    if not planted:
        return Correctness.FAILURE
    if not hits:
        return Correctness.INCORRECT
    return Correctness.SUCCESS_WITH_ERRORS if extras else Correctness.SUCCESS
