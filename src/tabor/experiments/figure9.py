"""Figures 9 and 14: the same model under all the weights λ of Table 2.  [§5.3.2, Appendix B]"""

from __future__ import annotations

import dataclasses
import itertools

from tabor.attacks.poison import SQUARE
from tabor.experiments.outcome import COLUMNS, Outcome, true_triggers
from tabor.experiments.report import Report
from tabor.experiments.workshop import Plant, Workshop
from tabor.methods.tabor import Lambdas, Tabor
from tabor.position import Position
from tabor.presets import PIXEL_SCALE

TABLE_2 = (
    (1e-3, 1e-5),
    (1e-4 * PIXEL_SCALE, 1e-6 * PIXEL_SCALE),
    (1e-5, 1e-7),
    (1e-6 * PIXEL_SCALE**2, 1e-8 * PIXEL_SCALE**2),
    (1e-4, 1e-6),
    (1e-2, 1e-4),
)
"""λ1 to λ6, for patterns in [0, 1]; see `presets.TABLE_3`."""

NAMES = [field.name for field in dataclasses.fields(Lambdas)]

SHARE_RIGHT = 60 / 64
PICTURES_A_ROW = 8


def all_weights(workshop: Workshop) -> Report:
    """Scans one victim with every combination of λ, or evenly chosen ones; sixty of 64 verdicts must be right."""
    plant = Plant(SQUARE, workshop.setting.size, Position.BOTTOM_RIGHT, 7)
    victim = workshop.victim([plant])
    planted = workshop.planted(victim)
    combinations = list(itertools.product(*TABLE_2))
    chosen = combinations[:: len(combinations) // workshop.scale.combinations]
    outcomes = []
    for number, weights in enumerate(chosen):
        method = Tabor(lambdas=Lambdas(**dict(zip(NAMES, weights, strict=True))))
        outcomes.append(Outcome(planted, workshop.scan(victim, method, f"lambdas-{number}-of-{len(chosen)}")))
    right = sum(outcome.right for outcome in outcomes)
    shown = [o.restored(f"{k}")[0] for k, o in enumerate(outcomes)]
    return Report(
        title="Figure 9: the weights of Table 2",
        paper="the weights have nearly no influence upon the detection.",
        columns=["", *(f"λ{k}" for k in range(1, 7)), *COLUMNS],
        rows=[
            [str(k), *(f"{weight:.0e}" for weight in weights), *outcome.cells()]
            for k, (weights, outcome) in enumerate(zip(chosen, outcomes, strict=True))
        ],
        figures=[
            {"lambdas": list(weights), **outcome.figures()} for weights, outcome in zip(chosen, outcomes, strict=True)
        ],
        pictures=[
            true_triggers(planted),
            *(shown[k : k + PICTURES_A_ROW] for k in range(0, len(shown), PICTURES_A_ROW)),
        ],
        wrong=[] if right >= SHARE_RIGHT * len(chosen) else [f"{right} of {len(chosen)} verdicts are right"],
        stand_ins=[workshop.setting.stand_in],
    )
