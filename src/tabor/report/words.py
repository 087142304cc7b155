"""The words for a verdict and the form of a number, the same in the page and in the terminal."""

from __future__ import annotations

import math

from tabor.class_finding import ClassFinding
from tabor.result import ScanResult, Verdict
from tabor.verdict import PAIR

NOTHING = "\N{EN DASH}"

HEADLINES = {
    Verdict.BACKDOORED: "Backdoor found",
    Verdict.CLEAN: "No trigger found",
    Verdict.UNDECIDED: "Undecided",
}

CAVEATS = {
    Verdict.BACKDOORED: "Images that carry the restored trigger are sent to the class named here. "
    "Do not rely on this model as it is.",
    Verdict.CLEAN: "This is no proof of absence: a backdoor of a kind that this search cannot restore "
    "would not be seen.",
    Verdict.UNDECIDED: "This speaks neither for the model nor against it.",
}


def number(value: float | None, digits: int = 2) -> str:
    """Returns a number with a fixed count of decimals, or a dash where there is none."""
    return NOTHING if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    """Returns a share in [0, 1] as a percentage, or a dash where there is none."""
    return NOTHING if value is None or not math.isfinite(value) else f"{100 * value:.1f} %"


def status(finding: ClassFinding) -> str:
    """Returns how the search for a class's trigger ended, in words."""
    return finding.status.value.replace("-", " ")


def compares_masks(result: ScanResult) -> bool:
    """Returns whether there are more than two classes with a trigger, of which one may be flagged by its mask."""
    return sum(finding.score is not None for finding in result.classes) > PAIR


def targets(result: ScanResult) -> list[tuple[int, str]]:
    """Returns index and name of each flagged class, most anomalous first."""
    return [(index, result.finding(index).name) for index in result.targets]
