"""Figure 8: two backdoors in one model for one class; one is found and unlearned, and then the other.  [§5.3.2]"""

from __future__ import annotations

from tabor.attacks.plant import Plant
from tabor.attacks.poison import SQUARE
from tabor.evidence import WORKS
from tabor.experiments.outcome import COLUMNS, Outcome, true_triggers
from tabor.experiments.report import Report
from tabor.experiments.workshop import Workshop
from tabor.position import Position


def one_class(workshop: Workshop) -> Report:
    """Plants two triggers for one class, scans, patches, and scans again.

    The class must be found, and found again after the patch for as long as a planted trigger still works.
    """
    size = workshop.setting.size
    plants = [Plant(SQUARE, size, Position.BOTTOM_RIGHT, 7), Plant(workshop.logo, size, Position.TOP_LEFT, 7)]
    model = workshop.victim(plants)
    truth = workshop.planted(model)
    rows, figures, pictures, wrong = [], [], [true_triggers(truth)], []
    stages = ("before", "patched once", "patched twice")
    for stage in stages:
        success = workshop.successes(model)
        outcome = Outcome(truth, workshop.scan(model), [reached >= WORKS for reached in success])
        if not outcome.right:
            wrong.append(f"{stage}: {list(outcome.result.targets)} is reported, not {sorted(outcome.wanted)}")
        rows.append([stage, *(f"{reached:.3f}" for reached in success), *outcome.cells()])
        figures.append({"stage": stage, "attack_success": success, **outcome.figures()})
        pictures.append(outcome.restored(stage))
        if not outcome.result.targets or stage == stages[-1]:
            break
        model = workshop.patched(model, outcome.result)
    return Report(
        title="Figure 8: two backdoors, one class",
        paper="both methods find the class and restore one trigger of the two; when that is unlearned, TABOR finds the "
        "other on GTSRB, and Neural Cleanse does not.",
        columns=["model", *(f"ASR {b.description}" for b in truth), *COLUMNS],
        rows=rows,
        figures=figures,
        pictures=pictures,
        wrong=wrong,
        stand_ins=[workshop.setting.stand_in],
    )
