"""A whole scan beside the usual loop's, on one model and the same images, until the loop's verdict is the scan's.

The loop searches one class after another (speed.py) and reports, by Neural Cleanse's rule, the classes whose masks lie
more than 2 robust standard deviations below the median.  It is asked after every so many steps; what counts is the time
from which on it reports what the scan does.

    python benchmarks/whole.py MODEL --data DATA --json whole.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import torch
from speed import loop

from tabor import load_images, load_model, scan
from tabor.allocator import keep_freed
from tabor.anomaly import anomaly_indices
from tabor.methods.tabor import Tabor

REPORTED = 2.0
"""Anomaly index from which Neural Cleanse reports a class."""


def arguments() -> argparse.Namespace:
    """Returns the parsed command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", required=True, help="the clean images to scan with")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--steps", type=int, default=800, help="of the loop, a class")
    parser.add_argument("--every", type=int, default=100, help="steps after which the loop is asked again")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if not 0 < args.every <= args.steps:
        parser.error(f"--every lies between 1 and --steps, {args.steps}; got {args.every}")
    return args


def looped(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Returns, after every so many steps of all classes, the time taken and what the loop reports."""
    model = load_model(args.model).eval().requires_grad_(False)
    search, _ = load_images(args.data, limit=args.images, seed=0).halves(0)
    classes = model.architecture.num_classes
    asked = list(range(args.every, args.steps + 1, args.every))
    sizes: dict[int, list[float]] = {step: [] for step in asked}
    seconds = dict.fromkeys(asked, 0.0)
    method = Tabor(crop_share=1.0, mask_dropout=0.0, image_shift=0.0, restoring=None)
    for target in range(classes):
        began = time.monotonic()
        for step, mask in enumerate(loop(model, search, target, args.steps, method), 1):
            if step in sizes:
                sizes[step].append(float(mask.sum()))
                seconds[step] += time.monotonic() - began
        print(f"class {target}: " + ", ".join(f"{sizes[step][-1]:.1f}" for step in asked), file=sys.stderr, flush=True)
    reported = {step: [k for k, x in enumerate(anomaly_indices(sizes[step], 0.0)) if x > REPORTED] for step in asked}
    return [{"steps": step, "seconds": seconds[step], "reported": reported[step]} for step in asked]


def settled(rows: list[dict[str, Any]], targets: list[int]) -> dict[str, Any] | None:
    """Returns the first row from which on all report these classes; None: the last does not."""
    right = [row["reported"] == targets for row in rows]
    since = len(rows) - next((k for k, each in enumerate(reversed(right)) if not each), len(rows))
    return rows[since] if since < len(rows) else None


def main() -> int:
    """Runs the benchmark; returns the exit code."""
    keep_freed()  # as the command line does
    args = arguments()
    images = load_images(args.data, limit=args.images, seed=0)
    result = scan(load_model(args.model), images, device="cpu")
    took = result.timing["seconds"]
    targets = sorted(result.targets)
    print(f"tabor scan: {took:.0f} s, reports {targets}")
    rows = looped(args)
    for row in rows:
        print(f"loop, {row['steps']} steps a class: {row['seconds']:.0f} s, reports {row['reported']}")
    same = settled(rows, targets)
    last = rows[-1]
    print(f"all {last['steps']} steps of the loop take {last['seconds'] / took:.1f} × the scan's time")
    if same is not None:
        print(f"its verdict is the same from {same['steps']} steps on, {same['seconds'] / took:.1f} ×")
    if args.json:
        machine = {"device": platform.machine(), "threads": torch.get_num_threads(), "cores": os.cpu_count()}
        found = {"scan": {"seconds": took, "reported": targets}, "loop": rows, "machine": machine}
        args.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
