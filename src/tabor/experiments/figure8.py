"""Figure 8: two backdoors in one model for one class; one is found and unlearned, and then the other.  [§5.3.2]"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tabor.attacks.plant import Plant
from tabor.attacks.poison import SQUARE
from tabor.evidence import WORKS
from tabor.experiments.outcome import COLUMNS, Outcome, true_triggers
from tabor.experiments.report import Report
from tabor.experiments.workshop import Workshop
from tabor.position import Position

STAGES = ("before", "patched once", "patched twice")
PLACES = (Position.BOTTOM_RIGHT, Position.TOP_LEFT)


@dataclass(frozen=True)
class Stage:
    """A scan before or after a patch.

    Attributes:
        name: the data, and how often the model was patched.
        success: attack success of each true trigger by then.
        outcome: of the scan.
    """

    name: str
    success: list[float]
    outcome: Outcome


def one_class(workshop: Workshop) -> Report:
    """Plants two triggers for one class, scans, patches, and scans again.

    The class must be found, and found again after the patch for as long as a planted trigger still works.
    """
    sites = workshop.signs_and_photographs()
    lines = [list(_stages(site)) for site in sites]
    stages = [stage for line in lines for stage in line]
    return Report(
        title="Figure 8: two backdoors, one class",
        paper="both methods find the class and restore one trigger of the two; when that is unlearned, TABOR finds the "
        "other on GTSRB and not on ImageNet, and Neural Cleanse on neither.",
        columns=["model", *(f"ASR {place}" for place in PLACES), *COLUMNS],
        rows=[[s.name, *(f"{reached:.3f}" for reached in s.success), *s.outcome.cells()] for s in stages],
        figures=[{"stage": s.name, "attack_success": s.success, **s.outcome.figures()} for s in stages],
        pictures=[
            shown
            for line in lines
            for shown in (true_triggers(line[0].outcome.planted), *(s.outcome.restored(s.name) for s in line))
        ],
        wrong=[
            f"{s.name}: {list(s.outcome.result.targets)} is reported, not {sorted(s.outcome.wanted)}"
            for s in stages
            if not s.outcome.right
        ],
        stand_ins=[site.setting.stand_in for site in sites],
    )


def _stages(site: Workshop) -> Iterator[Stage]:
    plants = [Plant(p, site.setting.size, place, 7) for p, place in zip((SQUARE, site.logo), PLACES, strict=True)]
    model = site.victim(plants)
    truth = site.planted(model)
    for name in STAGES:
        success = site.successes(model)
        outcome = Outcome(truth, site.scan(model), [reached >= WORKS for reached in success])
        yield Stage(f"{site.setting.name}, {name}", success, outcome)
        if not outcome.result.targets or name == STAGES[-1]:
            break
        model = site.patched(model, outcome.result)
