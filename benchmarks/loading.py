"""How long loading takes: one network in every format, each loaded in a process of its own, rehearsal included.

python benchmarks/loading.py --work DIR --arch timm:resnet50 --size 224
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from formats import written

from tabor import load_model
from tabor.models.build import Architecture, initialise
from tabor.models.safetensors_file import write_model

TIMED = """
import json, os, sys, time
import tabor
load = tabor.load_model  # torch is imported here, and not counted
path, how = json.loads(sys.argv[1])
how = {k: tuple(v) if isinstance(v, list) else v for k, v in how.items()}
began = time.monotonic()
load(path, **how)
used = os.times()
print(time.monotonic() - began, used.user + used.system, used.children_user + used.children_system)
"""


def arguments() -> argparse.Namespace:
    """Returns the parsed command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the files")
    parser.add_argument("--arch", default="timm:resnet50")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--num-classes", type=int, default=1000)
    return parser.parse_args()


def timed(path: Path, how: dict[str, Any]) -> tuple[float, ...]:
    """Returns seconds on the clock for loading, and processor seconds of the process and of its children."""
    order = json.dumps([str(path), how])
    done = subprocess.run([sys.executable, "-c", TIMED, order], capture_output=True, text=True, check=True)
    return tuple(map(float, done.stdout.split()))


def main() -> int:
    """Runs the benchmark; returns the exit code."""
    args = arguments()
    half = (0.5, 0.5, 0.5)
    size = (args.size, args.size)
    architecture = Architecture(name=args.arch, num_classes=args.num_classes, size=size, mean=half, std=half)
    source = args.work / "model.safetensors"
    write_model(source, initialise(architecture, seed=0).state_dict(), architecture, {})
    print("| format | MB | load, s | processor s, its own (with imports) | the rehearsal's |\n|" + " --- |" * 5)
    for name, (path, how) in written(load_model(source), source, args.work).items():
        size_of = sum(f.stat().st_size for f in (path.rglob("*") if path.is_dir() else [path])) / 1e6
        clock, own, children = timed(path, how)
        print(f"| {name} | {size_of:.0f} | {clock:.1f} | {own:.1f} | {children:.1f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
