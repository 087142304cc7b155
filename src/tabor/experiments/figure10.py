"""Figure 10: a deeper network, and a backdoor planted by Trojan Attack.  [§5.3.2]"""

from __future__ import annotations

from tabor.attacks.poison import SQUARE
from tabor.experiments.outcome import COLUMNS, Outcome, true_triggers
from tabor.experiments.report import Report
from tabor.experiments.workshop import Plant, Workshop
from tabor.position import Position

METHODS = ("tabor", "neural-cleanse")


def other_settings(workshop: Workshop) -> Report:
    """Scans a deeper victim of BadNet and a victim of Trojan Attack; TABOR must find the class of each."""
    plant = Plant(SQUARE, workshop.setting.size, Position.BOTTOM_RIGHT, 7)
    models = {
        f"{workshop.setting.deep}, BadNet": workshop.victim([plant], workshop.setting.deep),
        f"{workshop.setting.arch}, Trojan Attack": workshop.trojaned(plant),
    }
    rows, figures, pictures, wrong = [], [], [], []
    for name, model in models.items():
        planted = workshop.planted(model)
        outcomes = {method: Outcome(planted, workshop.scan(model, method)) for method in METHODS}
        rows += [[name, method, *outcome.cells()] for method, outcome in outcomes.items()]
        figures += [{"model": name, "method": method, **outcome.figures()} for method, outcome in outcomes.items()]
        restored = [shown for method, outcome in outcomes.items() for shown in outcome.restored(method)]
        pictures.append([*true_triggers(planted), *restored])
        if not outcomes["tabor"].right:
            wrong.append(f"{name}: TABOR reports {list(outcomes['tabor'].result.targets)}")
    return Report(
        title="Figure 10: a deeper network, and Trojan Attack",
        paper="both methods find the class and report no other; they restore Trojan Attack's trigger less well.",
        columns=["model", "method", *COLUMNS],
        rows=rows,
        figures=figures,
        pictures=pictures,
        wrong=wrong,
        stand_ins=[workshop.setting.stand_in],
    )
