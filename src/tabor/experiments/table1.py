"""Table 1, either half, with the pictures of Appendix D: triggers of several sizes, shapes and places.  [§5.3.1]"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple, TypeAlias

from tabor.attacks.plant import LOGO, Plant
from tabor.experiments.compared import METHODS, Compared, compared, faults, figures, laid_out
from tabor.experiments.outcome import COLUMNS
from tabor.experiments.report import Report
from tabor.experiments.workshop import Workshop
from tabor.position import Position


class Printed(NamedTuple):
    """A row as printed: the symbol of §5.2.2 and the F1 of the restored trigger, for each method."""

    tabor: str
    neural_cleanse: str


Place: TypeAlias = tuple[str, Position]
"""A trigger's shape, a square or the logo, and where it sits."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """One half of the table as printed, and what must come out.

    Attributes:
        title: what it is.
        paper: what the paper reports, in words.
        clean: the clean model's row.
        victims: the others, by place, then by the trigger's printed edge in pixels.
        least_mean_f1: of the triggers that TABOR restores.
    """

    title: str
    paper: str
    clean: Printed
    victims: Mapping[Place, Mapping[int, Printed]]
    least_mean_f1: float


class Row(NamedTuple):
    """A model's name, what both methods find, its clean accuracy, and the attack success of what was planted in it."""

    name: str
    found: Compared
    accuracy: float
    successes: Sequence[float]

    def cells(self) -> list[str]:
        """Returns the cells for the name, the accuracy, the success, and those of each method."""
        success = ", ".join(f"{value:.3f}" for value in self.successes) or "–"
        outcomes = (cell for method in METHODS for cell in self.found[method].cells())
        return [self.name, f"{self.accuracy:.3f}", success, *outcomes]

    def figures(self) -> list[dict[str, Any]]:
        """Returns the same and more as plain values, for each method."""
        made = {"clean_accuracy": self.accuracy, "attack_success": list(self.successes)}
        return [{**value, **made} for value in figures(self.name, self.found)]


def row_of(workshop: Workshop, name: str, model: Path) -> Row:
    """Scans a model with both methods."""
    successes = [backdoor["attack_success"] for backdoor in workshop.record(model).get("backdoors", [])]
    return Row(name, compared(workshop, model), workshop.clean_accuracy(model), successes)


def victim(workshop: Workshop, place: Place, edge: int) -> Row:
    """Makes and scans the victim of a row, given by its place and its printed edge."""
    (picture, position), setting = place, workshop.setting
    size = setting.sizes[edge]
    if picture == LOGO:
        plant = Plant(workshop.logo, size, position, setting.target)
    else:
        plant = Plant(picture, size, position, setting.target, setting.colour)
    ours = "" if size == edge else f", ours {size}×{size}"
    name = f"{picture} {edge}×{edge} {position}{ours}"
    return row_of(workshop, name, workshop.victim([plant]))


def sizes_shapes_places(workshop: Workshop, table: Table) -> Report:
    """Scans the clean base and a victim for each trigger with both methods.

    TABOR must call the base clean, find each victim's class and no other, and restore triggers as well as asked.
    """
    setting = workshop.setting
    clean = row_of(workshop, "clean", workshop.base(setting.arch))
    report_rows = [[*clean.cells(), *table.clean]]
    values = clean.figures()
    wrong = [] if clean.found["tabor"].right else ["the clean model: TABOR reports a class"]
    pictures, scores = [], []
    for place, printed in table.victims.items():
        victims = [victim(workshop, place, edge) for edge in setting.sizes]
        pictures += laid_out([each.found for each in victims])
        for each, edge in zip(victims, setting.sizes, strict=True):
            ours = each.found["tabor"]
            report_rows.append([*each.cells(), *printed[edge]])
            values += each.figures()
            wrong += faults(each.name, each.found)
            scores += [ours.fidelity(backdoor).f1 for backdoor in ours.planted]
    if mean(scores) < table.least_mean_f1:
        wrong.append(f"the mean F1 of TABOR's triggers is {mean(scores):.3f}, not {table.least_mean_f1}")
    return Report(
        title=table.title,
        paper=table.paper,
        columns=[
            "model",
            "clean accuracy",
            "attack success",
            *(f"{method}: {column}" if column else "" for method in METHODS for column in COLUMNS),
            *(f"printed: {method}" for method in METHODS),
        ],
        rows=report_rows,
        figures=values,
        pictures=pictures,
        wrong=wrong,
        stand_ins=[setting.stand_in],
    )
