"""The paper's experiments: each runs, and lays its outcome beside the printed one."""

from tabor.experiments.figure7 import two_classes
from tabor.experiments.figure8 import one_class
from tabor.experiments.figure9 import all_weights
from tabor.experiments.figure10 import other_settings
from tabor.experiments.report import Report, write
from tabor.experiments.scales import SCALES, Scale, Setting
from tabor.experiments.table1a import sizes_shapes_places
from tabor.experiments.workshop import Workshop

__all__ = ["EXPERIMENTS", "SCALES", "Report", "Scale", "Setting", "Workshop", "write"]

EXPERIMENTS = {
    "table1a": sizes_shapes_places,
    "figure7": two_classes,
    "figure8": one_class,
    "figure9": all_weights,
    "figure10": other_settings,
}
