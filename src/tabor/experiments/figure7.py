"""Figure 7: two backdoors in one model, each for a class of its own.  [§5.3.2]"""

from __future__ import annotations

from tabor.attacks.plant import Plant
from tabor.attacks.poison import SQUARE
from tabor.experiments.compared import compared
from tabor.experiments.outcome import COLUMNS, true_triggers
from tabor.experiments.report import Report
from tabor.experiments.workshop import Workshop
from tabor.position import Position


def two_classes(workshop: Workshop) -> Report:
    """Plants a square and a logo for two classes, and scans with both methods; TABOR must report both, and no other."""
    size = workshop.setting.size
    plants = [
        Plant(SQUARE, size, Position.BOTTOM_RIGHT, 7),
        Plant(workshop.logo, size, Position.TOP_LEFT, 2),
    ]
    victim = workshop.victim(plants)
    outcomes = compared(workshop, victim)
    ours = outcomes["tabor"]
    return Report(
        title="Figure 7: two backdoors, two classes",
        paper="TABOR reports both classes and no other; on GTSRB Neural Cleanse misses a backdoor by the text, "
        "and reports false positives by the caption.",
        columns=["method", *COLUMNS],
        rows=[[method, *outcome.cells()] for method, outcome in outcomes.items()],
        figures=[{"method": method, **outcome.figures()} for method, outcome in outcomes.items()],
        pictures=[true_triggers(ours.planted), *(outcome.restored(method) for method, outcome in outcomes.items())],
        wrong=[] if ours.right else [f"TABOR reports {list(ours.result.targets)}"],
        stand_ins=[workshop.setting.stand_in],
    )
