"""Fits the laws of clean models to scans of clean models, and tests them on other scans.

Takes runs that benchmarks/detection.py left of clean zoos.  Every second model in the order of their names, network by
network, is fitted and the rest tested, or all are fitted and the runs of `--test` tested.  Prints Markdown; the bound
is the upper end of the 95 % Clopper–Pearson interval of the share of tested models above the threshold.

    tabor zoo build gtsrb-clean --data DATA --out ZOO
    python benchmarks/detection.py ZOO --data DATA --work DIR
    python benchmarks/calibration.py DIR
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from scipy.stats import binomtest

from tabor import ScanResult
from tabor.calibration import Null, fit_null
from tabor.evidence import WORKS

RATE = 0.01
"""Chance of a false alarm by each of the two tests."""

HEAD = (
    "law",
    "location",
    "scale",
    "share",
    "threshold",
    "above it: fitted",
    "tested",
    "bound",
)

FEWEST = 3
"""Models with a value that a fit takes."""

ANY = 1.0
"""What planted triggers reach plays no part in a threshold."""


def arguments() -> argparse.Namespace:
    """Returns the parsed command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="folders with the runs of clean models")
    parser.add_argument("--test", type=Path, nargs="+", default=[], help="folders with runs to test on")
    return parser.parse_args()


def load(folders: Sequence[Path]) -> list[ScanResult]:
    """Returns the runs below some folders, those of each network together."""
    found = [ScanResult.load(path.parent) for folder in folders for path in sorted(folder.glob("*/result.json"))]
    return sorted(found, key=lambda result: str(result.model["architecture"]))


def largest_mask(result: ScanResult) -> float | None:
    """Returns the largest anomaly index of a mask that could flag its class."""
    working = (f for f in result.classes if f.attack_success >= WORKS)
    return max((f.anomaly_index for f in working if f.anomaly_index is not None), default=None)


def largest_patch(result: ScanResult) -> float | None:
    """Returns the largest anomaly index of a patch."""
    indices = (f.patch.anomaly_index for f in result.classes if f.patch is not None)
    return max((index for index in indices if index is not None), default=None)


def fit(values: Sequence[float | None]) -> Null | None:
    """Fits the law; None: too few models have a value.  Their share is Laplace's estimate, unless all have one."""
    known = [value for value in values if value is not None]
    if len(known) < FEWEST:
        return None
    share = 1.0 if len(known) == len(values) else (len(known) + 1) / (len(values) + 2)
    return dataclasses.replace(fit_null(known, ANY, f"{len(values)} clean models"), share=share)


def row(name: str, law: Null | None, fitted: Sequence[float | None], tested: Sequence[float | None]) -> str:
    """Returns one law as a row of a Markdown table."""
    if law is None:
        known = sum(value is not None for value in fitted)
        return f"| {name} | too few to fit: {known} of {len(fitted)} models have a value |" + " |" * (len(HEAD) - 2)
    threshold = law.threshold(RATE)
    above = [sum(value is not None and value > threshold for value in values) for values in (fitted, tested)]
    bound = binomtest(above[1], len(tested)).proportion_ci(confidence_level=0.95, method="exact").high
    cells = [name, f"{law.location:.2f}", f"{law.scale:.2f}", f"{law.share:.2f}", f"{threshold:.2f}"]
    cells += [f"{above[0]} of {len(fitted)}", f"{above[1]} of {len(tested)}"]
    return "| " + " | ".join([*cells, f"{bound:.3f}"]) + " |"


def main() -> int:
    """Runs the benchmark; returns the exit code."""
    args = arguments()
    runs = load(args.runs)
    fitted, tested = (runs, load(args.test)) if args.test else (runs[::2], runs[1::2])
    if len({result.model["num_classes"] for result in [*fitted, *tested]}) != 1 or not tested:
        sys.exit("give at least two runs, all of models with as many classes")
    print("| " + " | ".join(HEAD) + " |", "|" + " --- |" * len(HEAD), sep="\n")
    measures: dict[str, Callable[[ScanResult], float | None]] = {"masks": largest_mask, "patches": largest_patch}
    for name, measure in measures.items():
        values, others = ([measure(result) for result in results] for results in (fitted, tested))
        print(row(name, fit(values), values, others))
    return 0


if __name__ == "__main__":
    sys.exit(main())
