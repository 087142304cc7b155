"""Figures 9 and 14: one victim under all the weights λ of Table 2, with both methods.  [§5.3.2, Appendix A and B]"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from tabor.attacks.plant import Plant
from tabor.attacks.poison import SQUARE
from tabor.experiments.outcome import COLUMNS, Outcome, true_triggers
from tabor.experiments.report import Report, Shown
from tabor.experiments.workshop import Workshop
from tabor.methods.base import Method
from tabor.methods.neural_cleanse import CostSettings, NeuralCleanse
from tabor.methods.tabor import Lambdas, Tabor
from tabor.position import Position
from tabor.presets import PIXEL_SCALE

TABLE_2 = (
    (1e-3, 1e-5),
    (1e-4, 1e-6),
    (1e-5, 1e-7),
    (1e-6, 1e-8),
    (1e-4, 1e-6),
    (1e-2, 1e-4),
)
"""TABOR's λ1 to λ6, as printed."""

FACTORS = (1.0, PIXEL_SCALE, 1.0, PIXEL_SCALE**2, 1.0, 1.0)
"""On them, for patterns in [0, 1]; see `presets.TABLE_3`."""

NEURAL_CLEANSE = (1e-1, 1e-3, 1e-5, 1e-7)
"""Neural Cleanse's λ1."""

NAMES = [field.name for field in dataclasses.fields(Lambdas)]

SHARE_RIGHT = 60 / 64
PICTURES_A_ROW = 8

T = TypeVar("T")


class Tried(NamedTuple):
    """A method, the weights λ that it was given, as printed, and what it found."""

    method: Method
    weights: tuple[float, ...]
    outcome: Outcome


def all_weights(workshop: Workshop) -> Report:
    """Scans one victim with every combination of λ, or evenly chosen ones; sixty of 64 verdicts of TABOR must be right.

    The verdict is that of whole scans, which rests on patches too.  On these λ only masks depend, and which classes are
    looked at closely for them: each scan takes the patches over that the scans before it have sought, and seeks the
    others.  Whether the planted class's mask stands out is in the table as well.
    """
    plant = Plant(SQUARE, workshop.setting.size, Position.BOTTOM_RIGHT, 7)
    victim = workshop.victim([plant])
    planted = workshop.planted(victim)

    def tried(method: Method, weights: tuple[float, ...], label: str, like: str | None = None) -> Tried:
        return Tried(method, weights, Outcome(planted, workshop.scan(victim, method, label, like)))

    most = workshop.scale.combinations
    combinations = evenly(list(itertools.product(*TABLE_2)), most)
    labels = [f"tabor-{number}-of-{len(combinations)}" for number in range(len(combinations))]
    ours = [
        tried(_with_lambdas(weights), weights, label, like)
        for weights, label, like in zip(combinations, labels, [None, *labels], strict=False)
    ]
    theirs = [
        tried(NeuralCleanse(cost=CostSettings(initial=weight)), (weight,), f"neural-cleanse-{weight:.0e}")
        for weight in evenly(NEURAL_CLEANSE, most)
    ]
    right = sum(each.outcome.right for each in ours)
    return Report(
        title="Figures 9 and 14: the weights of Table 2",
        paper="the weights have nearly no influence upon the detection. They are shown as printed, for patterns in "
        "0…255; for those in 0…1 λ2 is 255 times and λ4 255² times as large.",
        columns=[
            "",
            "method",
            *(f"λ{k + 1}" for k in range(len(TABLE_2))),
            "index of the mask",
            "of the patch",
            *COLUMNS[:-1],
        ],
        rows=[_row(number, each) for number, each in enumerate(ours + theirs)],
        figures=[
            {"method": each.method.name, "lambdas": list(each.weights), **each.outcome.figures()}
            for each in ours + theirs
        ],
        pictures=[true_triggers(planted), *_in_rows(ours), *_in_rows(theirs, first=len(ours))],
        wrong=[] if right >= SHARE_RIGHT * len(ours) else [f"{right} of TABOR's {len(ours)} verdicts are right"],
        stand_ins=[workshop.setting.stand_in],
    )


def evenly(values: Sequence[T], most: int) -> list[T]:
    """Returns at most so many of the values, evenly chosen."""
    return list(values[:: -(-len(values) // most)])


def _with_lambdas(weights: Sequence[float]) -> Tabor:
    ours = (weight * factor for weight, factor in zip(weights, FACTORS, strict=True))
    return Tabor(lambdas=Lambdas(**dict(zip(NAMES, ours, strict=True))))


def _row(number: int, tried: Tried) -> list[str]:
    empty = [""] * (len(TABLE_2) - len(tried.weights))
    (planted,) = tried.outcome.figures()["planted"]
    indices = ("–" if planted[k] is None else f"{planted[k]:.2f}" for k in ("anomaly_index", "patch_index"))
    weights = [f"{weight:.0e}" for weight in tried.weights]
    told = tried.outcome.cells()[:-1]  # not the seconds: patches that were taken over took none
    return [str(number), tried.method.name, *weights, *empty, *indices, *told]


def _in_rows(tried: Sequence[Tried], first: int = 0) -> list[list[Shown]]:
    """Returns the triggers that were restored, under their numbers."""
    shown = [each.outcome.restored(str(number))[0] for number, each in enumerate(tried, first)]
    return [shown[k : k + PICTURES_A_ROW] for k in range(0, len(shown), PICTURES_A_ROW)]
