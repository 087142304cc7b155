"""Tables 4 to 6: what both methods restored of each trigger, from faces, GTSRB and ImageNet.  [Appendix D]"""

from __future__ import annotations

from tabor.experiments.compared import faults, laid_out, rows
from tabor.experiments.figure10 import trojaned_face
from tabor.experiments.outcome import COLUMNS
from tabor.experiments.report import Report
from tabor.experiments.table1 import row_of, victim
from tabor.experiments.table1a import TABLE_1A
from tabor.experiments.table1b import TABLE_1B
from tabor.experiments.workshop import Workshop


def restored_triggers(workshop: Workshop) -> Report:
    """Shows the victims of Figure 10's Trojan Attack and of both halves of Table 1; TABOR must find each class."""
    signs, photographs, faces = (workshop.at(setting) for setting in workshop.scale.settings)
    lines = [("Table 4", [row_of(faces, "faces, Trojan Attack", trojaned_face(faces))])]
    for name, shop, table in (("Table 5", signs, TABLE_1A), ("Table 6", photographs, TABLE_1B)):
        lines += [(name, [victim(shop, place, edge) for edge in shop.setting.sizes]) for place in table.victims]
    each = [(table, model) for table, line in lines for model in line]
    return Report(
        title="Tables 4 to 6: restored triggers beside the original ones",
        paper="TABOR restores them with higher fidelity than Neural Cleanse overall, by Table 1 on all rows but four, "
        "of which one is a misprint.",
        columns=["", "model", "method", *COLUMNS],
        rows=[[table, *row] for table, model in each for row in rows(model.name, model.found)],
        figures=[{"table": table, **value} for table, model in each for value in model.figures()],
        pictures=[row for _, line in lines for row in laid_out([model.found for model in line])],
        wrong=[fault for table, model in each for fault in faults(f"{table}, {model.name}", model.found)],
        stand_ins=[shop.setting.stand_in for shop in (faces, signs, photographs)],
    )
