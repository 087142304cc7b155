"""A model under both methods: TABOR, and the one that the paper holds it against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from tabor.experiments.outcome import Outcome, true_triggers
from tabor.experiments.report import Shown
from tabor.experiments.workshop import Workshop

METHODS = ("tabor", "neural-cleanse")

Compared: TypeAlias = Mapping[str, Outcome]
"""A model's outcome by the name of the method."""


def compared(workshop: Workshop, model: Path) -> Compared:
    """Scans a model with each method."""
    planted = workshop.planted(model)
    return {method: Outcome(planted, workshop.scan(model, method)) for method in METHODS}


def rows(name: str, found: Compared) -> list[list[str]]:
    """Returns a row for each method: the model's name, the method, and the cells for `COLUMNS`."""
    return [[name, method, *outcome.cells()] for method, outcome in found.items()]


def figures(name: str, found: Compared) -> list[dict[str, Any]]:
    """Returns the same and more as plain values."""
    return [{"model": name, "method": method, **outcome.figures()} for method, outcome in found.items()]


def faults(name: str, found: Compared) -> list[str]:
    """Returns what TABOR did not find as it must, in words."""
    ours = found["tabor"]
    return [] if ours.right else [f"{name}: TABOR reports {list(ours.result.targets)}"]


def laid_out(models: Sequence[Compared]) -> list[list[Shown]]:
    """Returns rows of pictures as in Appendix D, a model a column: the true triggers, Neural Cleanse's, TABOR's."""
    true = [shown for found in models for shown in true_triggers(found["tabor"].planted)]
    restored = [[shown for found in models for shown in found[method].restored(method)] for method in reversed(METHODS)]
    return [true, *restored]
