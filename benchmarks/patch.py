"""Patches every victim of one or more zoos after its scan, and says what became of accuracy and attack.

The runs are those that benchmarks/detection.py left in its work folder.  Each patching is the `tabor` command a user
would type, in a process of its own; one that is there already is not done again, so a benchmark that was cut off goes
on.  Accuracy and attack success are measured on all images of the split that were not given to the command.  A victim
whose scan flags nothing is listed, not patched.  Prints Markdown; `--json` writes the same figures.

    python benchmarks/detection.py ZOO --data DATA --work DIR
    python benchmarks/patch.py ZOO --data DATA --work DIR
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tabor import ImageSet, ScanResult, load_images, load_model
from tabor.backdoor import attack_success, true_backdoors
from tabor.data.images import balanced_order
from tabor.models.safetensors_file import read_record
from tabor.training import accuracy
from tabor.zoo import ZooEntry, load_zoo

PATCHED = (0, 1)
"""Exit codes of a patching that wrote a file."""

MOST_SUCCESS, MOST_LOSS, MOST_SECONDS = 0.05, 0.01, 60.0
"""What is asked: attack success of the true trigger, lost clean accuracy, time of one patching."""


def arguments() -> argparse.Namespace:
    """Returns the parsed command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zoos", type=Path, nargs="+", help="folders that `tabor zoo build` wrote")
    parser.add_argument("--data", required=True, help="the clean images to patch and to measure with")
    parser.add_argument("--work", type=Path, required=True, help="the folder of the runs, and for the patched models")
    parser.add_argument("--method", default="tabor", help="of the scans, as detection.py names it")
    parser.add_argument("--preset", help="of the scans; default: the command's own")
    parser.add_argument("--scan-seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the patching")
    parser.add_argument("--images", type=int, default=512, help="of the scans and of the patching")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def run_folder(args: argparse.Namespace, entry: ZooEntry) -> Path:
    """Where detection.py left the scan of one model."""
    folder: Path = args.work / f"{entry.name}-{args.method}-{args.preset or 'default'}-{args.images}-{args.scan_seed}"
    return folder


def patch(args: argparse.Namespace, entry: ZooEntry, seed: int) -> Path:
    """Patches one model, unless that is done already; returns the file."""
    out: Path = args.work / "patched" / f"{run_folder(args, entry).name}-patched-{seed}.safetensors"
    if not out.exists():
        command = [sys.executable, "-m", "tabor", "patch", str(entry.path), "--data", args.data, "--out", str(out)]
        command += ["--run", str(run_folder(args, entry)), "--images", str(args.images), "--seed", str(seed), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode not in PATCHED:
            sys.exit(f"{' '.join(command)} returned {done.returncode}: {done.stderr[-2000:]}")
        print(f"patched {entry.name} (seed {seed})", file=sys.stderr, flush=True)
    return out


def row(args: argparse.Namespace, entry: ZooEntry, seed: int, images: ImageSet) -> dict[str, Any]:
    """Compares a model before and after on the images that the command was not given."""
    out = patch(args, entry, seed)
    unseen = images.select(balanced_order(images.labels, seed)[args.images :])
    record = read_record(out)["patched"]
    planted = true_backdoors(read_record(entry.path))
    models = [load_model(path) for path in (entry.path, out)]
    before, after = (accuracy(model, unseen.images, unseen.labels) for model in models)
    success = [[attack_success(model, unseen.images, unseen.labels, b) for b in planted] for model in models]
    return {
        "model": entry.name,
        "seed": seed,
        "stamped": [effect["description"] for effect in record["restored"]],
        "accuracy": [before, after],
        "true_success": success,
        "restored_success": [[e["attack_success"][k] for e in record["restored"]] for k in ("before", "after")],
        "images_measured": len(unseen),
        "seconds": record["seconds"],
        "reached": max(success[1]) <= MOST_SUCCESS and before - after <= MOST_LOSS and record["seconds"] < MOST_SECONDS,
    }


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns the worst and the mean over all patchings."""
    lost = [100 * (r["accuracy"][0] - r["accuracy"][1]) for r in rows]
    success = [max(r["true_success"][1]) for r in rows]
    seconds = [r["seconds"] for r in rows]
    return {
        "patchings": len(rows),
        "reached": sum(r["reached"] for r in rows),
        "highest_true_success": max(success),
        "mean_true_success": sum(success) / len(rows),
        "most_lost_points": max(lost),
        "mean_lost_points": sum(lost) / len(rows),
        "most_seconds": max(seconds),
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the rows as a Markdown table."""
    head = ["model", "seed", "clean acc.", "after", "points", "true trigger", "after", "restored", "after", "s", ""]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for r in rows:
        before, after = r["accuracy"]
        cells = [r["model"], str(r["seed"]), f"{before:.4f}", f"{after:.4f}", f"{100 * (after - before):+.2f}"]
        cells += [numbers(values) for values in (*r["true_success"], *r["restored_success"])]
        cells += [f"{r['seconds']:.0f}", "reached" if r["reached"] else "**missed**"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def numbers(values: Sequence[float]) -> str:
    """Returns shares with four decimals."""
    return ", ".join(f"{value:.4f}" for value in values)


def main() -> int:
    """Runs the benchmark; returns the exit code."""
    args = arguments()
    victims = [entry for zoo in args.zoos for entry in load_zoo(zoo) if entry.targets]
    found = [entry for entry in victims if ScanResult.load(run_folder(args, entry)).targets]
    images = load_images(args.data)
    rows = [row(args, entry, seed, images) for entry in found for seed in args.seeds]
    if rows:
        summary = summarise(rows)
        print(table(rows), "\n".join(f"- {name}: {value:.4g}" for name, value in summary.items()), sep="\n\n")
    if missed := [entry.name for entry in victims if entry not in found]:
        print(f"\nNothing was flagged in these, so nothing was patched: {', '.join(missed)}")
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(), "torch": torch.__version__}
    if args.json and rows:
        written = {"machine": machine, "date": time.strftime("%Y-%m-%d"), "summary": summary, "rows": rows}
        args.json.write_text(json.dumps(written, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
