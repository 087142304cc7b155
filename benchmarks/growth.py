"""How the search's time and memory grow with the number of classes and the size of the images.

Random weights and random images: no trigger works, so nothing converges and every search takes its most steps.  The
number of classes is varied on a tiny network, as the passes a class do not depend on the network; the size on a
ResNet18 with 10 classes, which are all searched to the end, and with a fiftieth of the steps.  Each row runs in a
process of its own, so that its peak memory is its own.  Without patches, whose cost hardly depends on either.

    python benchmarks/growth.py --json growth.json --plot growth.png
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch

import tabor
from tabor.allocator import keep_freed
from tabor.data import ImageSet
from tabor.findings import peak_memory
from tabor.methods.tabor import Tabor
from tabor.models.build import Architecture, initialise
from tabor.models.pixels import prepared
from tabor.presets import choose
from tabor.solver import SolverSettings

IMAGES = 128
CLASSES = [("tabor:digits4", classes, 32, 1.0) for classes in (10, 43, 100, 200, 1000)]
SIZES = [("timm:resnet18", 10, size, 0.02) for size in (32, 64, 224)]
"""Network, classes, edge of the images, and the part of the preset's steps that is taken."""


def arguments() -> argparse.Namespace:
    """Returns the parsed command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="standard")
    parser.add_argument("--memory", type=float, help="GiB, as of tabor scan")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    row = ("ARCH", "CLASSES", "EDGE", "PART")
    parser.add_argument("--row", nargs=4, metavar=row, help="print this row only, as JSON")
    return parser.parse_args()


def shortened(preset: str, part: float) -> SolverSettings:
    """Returns the preset's search with that part of its steps."""
    _, solver = choose("tabor", preset, IMAGES // 2)
    screening = solver.screening and replace(solver.screening, steps=max(1, round(solver.screening.steps * part)))
    return replace(
        solver,
        steps=round(solver.steps * part),
        smallest_steps=round(solver.smallest_steps * part),
        round_steps=min(solver.round_steps, round(solver.steps * part)),
        screening=screening,
    )


def measure(arch: str, classes: int, size: int, part: float, args: argparse.Namespace) -> dict[str, Any]:
    """Scans one random network; returns its row."""
    half = None if arch.startswith("tabor:") else (0.5, 0.5, 0.5)
    architecture = Architecture(name=arch, num_classes=classes, size=(size, size), mean=half, std=half)
    model = prepared(initialise(architecture, seed=0), architecture)
    pixels = torch.rand(IMAGES, 3, size, size, generator=torch.Generator().manual_seed(0))
    images = ImageSet(pixels, torch.arange(IMAGES) % classes, (), "noise")
    before, began = peak_memory(), time.monotonic()
    result = tabor.scan(
        model,
        images,
        method=Tabor(restoring=None),
        solver=shortened(args.preset, part),
        memory=args.memory,
    )
    seconds = time.monotonic() - began
    return {
        "arch": arch,
        "classes": classes,
        "size": size,
        "part": part,
        "seconds": seconds,
        "seconds_a_class": seconds / classes,
        "passes_a_class": result.timing["image_passes"] / classes,
        "peak_memory_bytes": peak_memory(),
        "memory_before_bytes": before,
    }


def run(row: tuple[str, int, int, float], args: argparse.Namespace) -> dict[str, Any]:
    """Measures one row in a process of its own."""
    command = [sys.executable, __file__, "--preset", args.preset, "--row", *map(str, row)]
    command += ["--memory", str(args.memory)] if args.memory else []
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    print(line(found), flush=True)
    return found


def line(row: dict[str, Any]) -> str:
    """Returns a row of the Markdown table."""
    cells = [
        row["arch"],
        row["classes"],
        row["size"],
        row["part"],
        f"{row['seconds']:.1f}",
        f"{row['seconds_a_class']:.3f}",
    ]
    cells += [f"{row['passes_a_class']:.0f}", f"{row['peak_memory_bytes'] / 2**20:.0f}"]
    return "| " + " | ".join(map(str, cells)) + " |"


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Draws time and memory against the number of classes and the size of the images."""
    figure, axes = plt.subplots(2, 2, figsize=(9, 6), layout="constrained")
    for column, (across, label) in enumerate([("classes", "classes, 32×32"), ("size", "edge in pixels, 10 classes")]):
        chosen = [r for r in rows if (r["arch"] == CLASSES[0][0]) == (across == "classes")]
        x = [r[across] for r in chosen]
        axes[0, column].plot(x, [r["seconds_a_class"] for r in chosen], marker="o")
        axes[1, column].plot(x, [r["peak_memory_bytes"] / 2**20 for r in chosen], marker="o")
        axes[1, column].set(xlabel=label, xscale="log", ylim=0)
        axes[0, column].set(xscale="log", ylim=0)
    axes[0, 0].set_ylabel("seconds a class")
    axes[1, 0].set_ylabel("peak memory, MiB")
    figure.savefig(path, dpi=120)


def main() -> int:
    """Runs the benchmark; returns the exit code."""
    keep_freed()  # as the command line does
    args = arguments()
    if args.row:
        arch, classes, size, part = args.row
        print(json.dumps(measure(arch, int(classes), int(size), float(part), args)))
        return 0
    head = ["network", "classes", "edge", "part", "s", "s a class", "passes a class", "peak MiB"]
    print("| " + " | ".join(head) + " |\n|" + " --- |" * len(head))
    rows = [run(row, args) for row in [*CLASSES, *SIZES]]
    if args.json:
        args.json.write_text(json.dumps({"preset": args.preset, "rows": rows}, indent=2) + "\n")
    if args.plot:
        plot(rows, args.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
