"""What each switch that saves passes is worth: the same models scanned with it thrown the other way.

Whole scans, "as it is" and with `--precision exact`; the switches of the search for masks with the masks alone, those
of the search for patches with as few masks as a scan can have.  A scan that is there already is not done again.  Prints
Markdown; `--json` writes the same figures.

    python benchmarks/switches.py MODEL … --data DATA --work DIR
    python benchmarks/switches.py MODEL … --data DATA --work DIR --only whole exact
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from tabor import ScanResult, load_images, load_model, scan
from tabor.backdoor import true_backdoors
from tabor.fidelity import fidelity
from tabor.methods.tabor import Lambdas, Tabor
from tabor.models.safetensors_file import read_record
from tabor.patches import RestoreSettings
from tabor.presets import STANDARD
from tabor.solver import SolverSettings

ONE_ROUND = replace(STANDARD, steps=STANDARD.round_steps, smallest_steps=0, screening=None)
"""Of masks, where they do not matter."""


@dataclass(frozen=True)
class Switch:
    """A scan's settings, and what it is held against.

    Attributes:
        what: in words.
        against: the name of the switch that it is compared with; None: with nothing.
    """

    what: str
    against: str | None = None
    method: Tabor = field(default_factory=Tabor)
    solver: SolverSettings = STANDARD
    precision: str = "auto"


MASKS = Tabor(restoring=None)

NEVER = 1e9
"""A worth that nothing falls below when it is negative; ∞ cannot be written into a result."""

SWITCHES = {
    "whole": Switch("the whole scan"),
    "exact": Switch("in float32", "whole", precision="exact"),
    "masks": Switch("masks alone", method=MASKS),
    "unscreened": Switch("every class to the end", "masks", MASKS, replace(STANDARD, screening=None)),
    "no-early-stop": Switch("all 500 steps", "masks", MASKS, replace(STANDARD, smallest_steps=STANDARD.steps)),
    "r3-on-all": Switch("R3 on every image", "masks", replace(MASKS, crop_share=1.0)),
    "no-r3": Switch("without R3", "masks", replace(MASKS, lambdas=Lambdas(crop=0.0))),
    "patches": Switch("patches alone", solver=ONE_ROUND),
    "never-left": Switch(
        "no class left after a poor start",
        "patches",
        Tabor(restoring=RestoreSettings(hopeless=-NEVER, poor=-NEVER)),
        ONE_ROUND,
    ),
    "all-starts": Switch(
        "the start that leads at the end",
        "patches",
        Tabor(restoring=RestoreSettings(trial_steps=RestoreSettings().steps)),
        ONE_ROUND,
    ),
    "few-colours": Switch(
        "3×3 colours in the second search too", "patches", Tabor(restoring=RestoreSettings(fine_grid=3)), ONE_ROUND
    ),
    "one-try": Switch("one random start a window", "patches", Tabor(restoring=RestoreSettings(tries=1)), ONE_ROUND),
}


def arguments() -> argparse.Namespace:
    """Returns the parsed command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--data", required=True, help="the clean images to scan with")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--work", type=Path, required=True, help="folder for the scans")
    parser.add_argument("--only", nargs="+", choices=SWITCHES, default=list(SWITCHES))
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def scanned(path: Path, name: str, args: argparse.Namespace) -> ScanResult:
    """Returns a model's scan, from the work folder where it is there already."""
    out, switch = args.work / f"{path.stem}-{name}-{args.images}", SWITCHES[name]
    if (out / "result.json").exists():
        return ScanResult.load(out)
    images = load_images(args.data, limit=args.images, seed=0)
    return scan(
        load_model(path),
        images,
        method=switch.method,
        solver=switch.solver,
        precision=switch.precision,
        device="cpu",
        out=out,
    )


def overlap(found: ScanResult, other: ScanResult, target: int) -> float:
    """Returns the Jaccard index of what two scans restored for a class."""
    first, second = (result.trigger(target).binarise().mask > 0 for result in (found, other))
    union = int((first | second).sum())
    return int((first & second).sum()) / union if union else 1.0


def row(path: Path, name: str, results: dict[str, ScanResult]) -> dict[str, Any]:
    """Returns a scan's figures beside those of the scan that it is held against."""
    result, against = results[name], results.get(SWITCHES[name].against or "")
    planted = true_backdoors(read_record(path))
    targets = {backdoor.target for backdoor in planted}
    masks = {c.index: c.anomaly_index for c in result.classes}
    patches = {c.index: c.patch.anomaly_index if c.patch else None for c in result.classes}
    passes: int = result.timing["image_passes"]
    return {
        "model": path.stem,
        "switch": name,
        "verdict": str(result.verdict),
        "targets": list(result.targets),
        "passes": passes,
        "passes_ratio": None if against is None else passes / against.timing["image_passes"],
        "seconds": result.timing["seconds"],
        "mask_index": _largest(masks, targets),
        "highest_other_mask_index": _largest(masks, masks.keys() - targets),
        "patch_index": _largest(patches, targets),
        "highest_other_patch_index": _largest(patches, patches.keys() - targets),
        "f1": [fidelity(result.trigger(b.target).mask, b.trigger.mask).f1 for b in planted],
        "jaccard": [] if against is None else [overlap(result, against, target) for target in sorted(targets)],
    }


def _largest(indices: dict[int, float | None], classes: Collection[int]) -> float | None:
    return max((value for k in classes if (value := indices[k]) is not None), default=None)


def line(found: dict[str, Any]) -> str:
    """Returns a row of the Markdown table."""
    cells = [found["model"], SWITCHES[found["switch"]].what, found["verdict"], ", ".join(map(str, found["targets"]))]
    cells += [f"{found['passes']:,}", _number(found["passes_ratio"]), f"{found['seconds']:.0f}"]
    keys = ("mask_index", "highest_other_mask_index", "patch_index", "highest_other_patch_index")
    cells += [_number(found[key]) for key in keys]
    cells += [", ".join(map(_number, found[key])) or "–" for key in ("f1", "jaccard")]
    return "| " + " | ".join(cells) + " |"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def main() -> int:
    """Runs the benchmark; returns the exit code."""
    args = arguments()
    head = ["model", "switch", "verdict", "targets", "passes", "× passes", "s", "index of target's mask"]
    head += ["highest other", "index of target's patch", "highest other", "F1", "Jaccard"]
    print("| " + " | ".join(head) + " |\n|" + " --- |" * len(head))
    rows = []
    for path in args.models:
        results: dict[str, ScanResult] = {}
        for name in args.only:
            results[name] = scanned(path, name, args)
            rows.append(row(path, name, results))
            print(line(rows[-1]), flush=True)
    if args.json:
        args.json.write_text(json.dumps({"threads": torch.get_num_threads(), "rows": rows}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
