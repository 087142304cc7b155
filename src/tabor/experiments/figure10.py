"""Figure 10: deeper networks, and a backdoor planted by Trojan Attack.  [§5.3.2]"""

from __future__ import annotations

from pathlib import Path

from tabor.attacks.plant import Plant
from tabor.attacks.poison import SQUARE
from tabor.experiments.compared import compared, faults, figures, laid_out, rows
from tabor.experiments.outcome import COLUMNS
from tabor.experiments.report import Report
from tabor.experiments.workshop import Workshop
from tabor.position import Position


def other_settings(workshop: Workshop) -> Report:
    """Scans two deeper victims of BadNet and a victim of Trojan Attack; TABOR must find the class of each."""
    signs, photographs, faces = (workshop.at(setting) for setting in workshop.scale.settings)
    square = Plant(SQUARE, signs.setting.size, Position.BOTTOM_RIGHT, 7)
    logo = Plant(photographs.logo, photographs.setting.size, Position.TOP_RIGHT, photographs.setting.target)
    victims = [
        (signs, f"{signs.setting.deep}, BadNet", signs.victim([square], signs.setting.deep)),
        (photographs, f"{photographs.setting.deep}, BadNet", photographs.victim([logo], photographs.setting.deep)),
        (faces, f"{faces.setting.arch}, Trojan Attack", trojaned_face(faces)),
    ]
    found = {f"{shop.setting.name}: {name}": compared(shop, model) for shop, name, model in victims}
    return Report(
        title="Figure 10: deeper networks, and Trojan Attack",
        paper="both methods find the class and report no other; they restore Trojan Attack's trigger less well.",
        columns=["model", "method", *COLUMNS],
        rows=[row for name, outcomes in found.items() for row in rows(name, outcomes)],
        figures=[value for name, outcomes in found.items() for value in figures(name, outcomes)],
        pictures=laid_out(list(found.values())),
        wrong=[fault for name, outcomes in found.items() for fault in faults(name, outcomes)],
        stand_ins=[setting.stand_in for setting in workshop.scale.settings],
    )


def trojaned_face(workshop: Workshop) -> Path:
    """Returns the victim of Trojan Attack; the workshop is in the setting of the faces."""
    setting = workshop.setting
    return workshop.trojaned(Plant(SQUARE, setting.size, Position.BOTTOM_RIGHT, setting.target))
