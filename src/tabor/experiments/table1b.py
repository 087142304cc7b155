"""Table 1(b), with the pictures of Appendix Table 6: ImageNet, black squares and logos.  [§5.3.1]"""

from __future__ import annotations

from tabor.attacks.plant import LOGO
from tabor.attacks.poison import SQUARE
from tabor.experiments.report import Report
from tabor.experiments.table1 import Printed, Table, sizes_shapes_places
from tabor.experiments.workshop import Workshop
from tabor.position import Position

TABLE_1B = Table(
    title="Table 1(b): triggers of several sizes, shapes and places, on ImageNet",
    paper="TABOR finds every victim's class, with extra classes on 16 of 20, at a mean F1 of 0.42; "
    "Neural Cleanse finds 2 of 20, at 0.13 where there is a number, and both call the clean model clean.",
    clean=Printed("●", "●"),
    victims={
        (SQUARE, Position.TOP_LEFT): {
            20: Printed("● 0.587", "○ 0.126"),
            40: Printed("⦿ 0.459", "○ 0.616"),  # its precision of 0.598 and recall of 0.033 make 0.063
            60: Printed("⦿ 0.963", "● 0.080"),
            80: Printed("⦿ 0.797", "○ 0.089"),
            100: Printed("⦿ 0.503", "○ 0.073"),
        },
        (SQUARE, Position.BOTTOM_RIGHT): {
            20: Printed("⦿ 0.444", "○ 0.060"),
            40: Printed("⦿ 0.475", "○ 0.121"),
            60: Printed("⦿ 0.841", "○ 0.047"),
            80: Printed("⦿ 0.711", "○ 0.044"),
            100: Printed("⦿ 0.592", "○ NaN"),
        },
        (LOGO, Position.TOP_RIGHT): {
            20: Printed("⦿ 0.237", "○ 0.019"),
            40: Printed("● 0.313", "○ 0.129"),
            60: Printed("⦿ 0.205", "● 0.150"),
            80: Printed("⦿ 0.238", "○ 0.066"),
            100: Printed("⦿ 0.189", "○ 0.106"),
        },
        (LOGO, Position.BOTTOM_LEFT): {
            20: Printed("⦿ 0.018", "○ 0.239"),  # the one row where Neural Cleanse's precision and recall exceed TABOR's
            40: Printed("● 0.418", "○ 0.086"),
            60: Printed("⦿ 0.254", "○ 0.147"),
            80: Printed("⦿ 0.083", "○ NaN"),
            100: Printed("● 0.163", "○ NaN"),
        },
    },
    least_mean_f1=0.42,
)


def triggers_on_imagenet(workshop: Workshop) -> Report:
    """Scans the clean base and a victim for each trigger with both methods."""
    return sizes_shapes_places(workshop.at(workshop.scale.imagenet), TABLE_1B)
