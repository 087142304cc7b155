"""The paper's experiments: each runs, and lays its outcome beside the printed one."""

from tabor.experiments.figure6 import incorrect_triggers
from tabor.experiments.figure7 import two_classes
from tabor.experiments.figure8 import one_class
from tabor.experiments.figure9 import all_weights
from tabor.experiments.figure10 import other_settings
from tabor.experiments.report import Report, write
from tabor.experiments.scales import SCALES, Scale, Setting
from tabor.experiments.table1a import triggers_on_gtsrb
from tabor.experiments.table1b import triggers_on_imagenet
from tabor.experiments.tables4_6 import restored_triggers
from tabor.experiments.workshop import Workshop

__all__ = ["EXPERIMENTS", "SCALES", "Report", "Scale", "Setting", "Workshop", "write"]

EXPERIMENTS = {
    "table1a": triggers_on_gtsrb,
    "table1b": triggers_on_imagenet,
    "figure6": incorrect_triggers,
    "figure7": two_classes,
    "figure8": one_class,
    "figure9": all_weights,
    "figure10": other_settings,
    "tables4-6": restored_triggers,
}
