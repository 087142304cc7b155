"""Figure 7: two backdoors in one model, each for a class of its own.  [§5.3.2]"""

from __future__ import annotations

from tabor.attacks.plant import Plant
from tabor.attacks.poison import SQUARE
from tabor.experiments.compared import Compared, compared, faults, figures, laid_out, rows
from tabor.experiments.outcome import COLUMNS
from tabor.experiments.report import Report
from tabor.experiments.workshop import Workshop
from tabor.position import Position


def two_classes(workshop: Workshop) -> Report:
    """Plants a square and a logo for two classes, and scans with both methods; TABOR must report both, and no other."""
    sites = workshop.signs_and_photographs()
    found = {site.setting.name: _scanned(site) for site in sites}
    return Report(
        title="Figure 7: two backdoors, two classes",
        paper="TABOR reports both classes and no other on GTSRB and on ImageNet. Neural Cleanse misses a backdoor on "
        "GTSRB by the text, and reports false positives by the caption; on ImageNet it reports three wrong classes.",
        columns=["model", "method", *COLUMNS],
        rows=[row for name, outcomes in found.items() for row in rows(name, outcomes)],
        figures=[value for name, outcomes in found.items() for value in figures(name, outcomes)],
        pictures=laid_out(list(found.values())),
        wrong=[fault for name, outcomes in found.items() for fault in faults(name, outcomes)],
        stand_ins=[site.setting.stand_in for site in sites],
    )


def _scanned(site: Workshop) -> Compared:
    size = site.setting.size
    plants = [Plant(SQUARE, size, Position.BOTTOM_RIGHT, 7), Plant(site.logo, size, Position.TOP_LEFT, 2)]
    return compared(site, site.victim(plants))
