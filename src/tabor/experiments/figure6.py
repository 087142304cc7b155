"""Figure 6: the true trigger, what both methods restore for its class, and the incorrect triggers.  [§5.3.1]"""

from __future__ import annotations

from tabor.class_finding import ClassFinding
from tabor.experiments.compared import faults, rows
from tabor.experiments.outcome import COLUMNS, Outcome, true_triggers
from tabor.experiments.report import Report, Shown
from tabor.experiments.table1 import victim
from tabor.experiments.table1b import TABLE_1B
from tabor.experiments.workshop import Workshop

INCORRECT = 2
"""Classes shown of those that no trigger was planted for."""


def incorrect_triggers(workshop: Workshop) -> Report:
    """Shows for each place the victim of Table 1(b) with the middle one of the sizes; TABOR must find its class."""
    shop = workshop.at(workshop.scale.imagenet)
    edges = sorted(shop.setting.sizes)
    victims = [victim(shop, place, edges[len(edges) // 2]) for place in TABLE_1B.victims]
    outcomes = [(method, outcome) for each in victims for method, outcome in each.found.items()]
    cells = [row for each in victims for row in rows(each.name, each.found)]
    values = [value for each in victims for value in each.figures()]
    return Report(
        title="Figure 6: true and incorrect triggers",
        paper="Neural Cleanse's incorrect triggers look much like its true ones, TABOR's less so.",
        columns=["model", "method", *COLUMNS, "true: anomaly index", "incorrect: anomaly index"],
        rows=[[*row, *_indices(outcome)] for row, (_, outcome) in zip(cells, outcomes, strict=True)],
        figures=[
            {**value, "incorrect": [{"class": f.index, "anomaly_index": f.anomaly_index} for f in incorrect(outcome)]}
            for value, (_, outcome) in zip(values, outcomes, strict=True)
        ],
        pictures=[_shown(method, outcome) for method, outcome in outcomes],
        wrong=[fault for each in victims for fault in faults(each.name, each.found)],
        stand_ins=[shop.setting.stand_in],
    )


def incorrect(outcome: Outcome) -> list[ClassFinding]:
    """Returns the findings of the classes with the largest anomaly index that no trigger was planted for."""
    others = [finding for finding in outcome.result.classes if finding.index not in outcome.wanted]

    def index(finding: ClassFinding) -> float:
        return float("-inf") if finding.anomaly_index is None else finding.anomaly_index

    return sorted(others, key=index, reverse=True)[:INCORRECT]


def _indices(outcome: Outcome) -> list[str]:
    """The cells for the anomaly indices of the true classes and of the incorrect ones."""
    true = [outcome.result.finding(backdoor.target) for backdoor in outcome.planted]
    return [", ".join(map(_index, findings)) for findings in (true, incorrect(outcome))]


def _index(finding: ClassFinding) -> str:
    value = finding.anomaly_index
    return f"{finding.index}: –" if value is None else f"{finding.index}: {value:.2f}"


def _shown(method: str, outcome: Outcome) -> list[Shown]:
    wrong = [Shown(f"incorrect, class {f.index}", outcome.result.trigger(f.index)) for f in incorrect(outcome)]
    return [*true_triggers(outcome.planted), *outcome.restored(method), *wrong]
