"""Table 1(a), with the pictures of Appendix Table 5: GTSRB.  [§5.3.1]"""

from __future__ import annotations

from tabor.attacks.plant import LOGO
from tabor.attacks.poison import SQUARE
from tabor.experiments.report import Report
from tabor.experiments.table1 import Printed, Table, sizes_shapes_places
from tabor.experiments.workshop import Workshop
from tabor.position import Position

TABLE_1A = Table(
    title="Table 1(a): triggers of several sizes, shapes and places",
    paper="TABOR finds every victim's class, with extra classes on about half, at a mean F1 of 0.635; "
    "Neural Cleanse finds 6 of 19 at 0.435 and calls the clean model backdoored.",
    clean=Printed("●", "○"),
    victims={
        (SQUARE, Position.TOP_LEFT): {
            6: Printed("● 0.597", "● 0.518"),
            8: Printed("● 0.813", "○ 0.601"),
            10: Printed("● 0.734", "○ 0.596"),
            12: Printed("● 0.602", "○ 0.443"),
            14: Printed("● 0.890", "○ 0.374"),
        },
        (SQUARE, Position.BOTTOM_RIGHT): {
            6: Printed("● 0.918", "○ 0.298"),
            8: Printed("⦿ 0.966", "○ 0.578"),
            10: Printed("⦿ 0.857", "○ 0.592"),
            12: Printed("● 0.663", "○ 0.563"),
            14: Printed("–", "–"),  # shown in Appendix Table 5 alone
        },
        (LOGO, Position.TOP_RIGHT): {
            6: Printed("● 0.622", "○ 0.256"),
            8: Printed("⦿ 0.443", "⦿ 0.556"),
            10: Printed("⦿ 0.500", "⦿ 0.369"),
            12: Printed("⦿ 0.388", "⦿ 0.321"),
            14: Printed("⦿ 0.432", "○ 0.450"),
        },
        (LOGO, Position.BOTTOM_LEFT): {
            6: Printed("⦿ 0.517", "○ 0.083"),
            8: Printed("⦿ 0.563", "⦿ 0.461"),
            10: Printed("⦿ 0.650", "○ 0.531"),
            12: Printed("● 0.558", "○ 0.446"),
            14: Printed("⦿ 0.356", "⦿ 0.232"),
        },
    },
    least_mean_f1=0.8,
)


def triggers_on_gtsrb(workshop: Workshop) -> Report:
    """Scans the clean base and a victim for each trigger with both methods."""
    return sizes_shapes_places(workshop, TABLE_1A)
