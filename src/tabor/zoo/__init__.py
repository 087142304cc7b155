"""Many models whose backdoor is known, or known to be absent: what a detector is measured on."""

from tabor.zoo.build import ZooEntry, build_zoo, load_zoo
from tabor.zoo.plans import ZOOS, plan_zoo

__all__ = ["ZOOS", "ZooEntry", "build_zoo", "load_zoo", "plan_zoo"]
