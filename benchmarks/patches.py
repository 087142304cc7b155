"""Seeks the patches of every model of one or more zoos, and says how far they stand out.

The patches alone, without the search for small masks; a model that is done already is not done again.

    python benchmarks/patches.py ZOO --data DATA --json FILE
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from tabor import load_images, load_model
from tabor.access import Classifier
from tabor.backdoor import true_backdoors
from tabor.fidelity import fidelity
from tabor.models.safetensors_file import read_record
from tabor.patches import RestoreSettings
from tabor.scanning import COMPARED
from tabor.suspects import restore_suspects
from tabor.zoo import ZooEntry, load_zoo


def arguments() -> argparse.Namespace:
    """Returns the parsed command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zoos", type=Path, nargs="+", help="folders that `tabor zoo build` wrote")
    parser.add_argument("--data", required=True, help="the clean images to search with")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0, help="of the choice of images")
    parser.add_argument("--json", type=Path, required=True, help="where the figures go, and are found again")
    return parser.parse_args()


def examine(entry: ZooEntry, data: str, limit: int, seed: int) -> dict[str, Any]:
    """Returns what was found in one model."""
    began = time.monotonic()
    model = load_model(entry.path)
    images = load_images(data, limit=limit, seed=seed)
    classifier = Classifier(model, torch.device("cpu"), images.shape)
    classifier.hasten(images.balanced(COMPARED, seed=0).images)
    targets = list(range(classifier.num_classes))
    settings, halves = RestoreSettings(), images.halves(seed)
    suspects = restore_suspects(classifier, halves, targets, {}, settings, seed, lambda _: None)
    planted = {b.target: b.trigger.mask for b in true_backdoors(read_record(entry.path))}
    height, width = images.shape[1:]
    found = []
    for target, suspect in suspects.items():
        window = suspect.patch.window
        seen = {
            "target": target,
            "window": [window.top, window.left, window.bottom, window.right],
            "worth": suspect.patch.worth,
            "index": suspect.index,
            "attack_success": suspect.attack_success,
            "crop_accuracy": suspect.crop_accuracy,
            "object_visible": suspect.object_visible,
            "effect_of": suspect.effect_of,
            "tells": suspect.anomaly_index is not None,
        }
        if target in planted:
            seen["f1"] = fidelity(suspect.patch.trigger(height, width).mask, planted[target]).f1
        found.append(seen)
    seconds = time.monotonic() - began
    return {"model": entry.name, "planted": list(planted), "patches": found, "seconds": seconds}


def line(row: dict[str, Any]) -> str:
    """Returns one model's figures as text."""
    told = []
    for p in sorted(row["patches"], key=lambda p: -(p["index"] or 0.0)):
        star, silent = "*" * (p["target"] in row["planted"]), " (says nothing)" * (not p["tells"])
        f1 = f", F1 {p['f1']:.2f}" if "f1" in p else ""
        success = f"attack success {p['attack_success']:.2f}, crop accuracy {p['crop_accuracy']:.2f}"
        index = "–" if p["index"] is None else f"{p['index']:.1f}"
        told.append(f"{star}{p['target']}: {index}{silent}, worth {p['worth']:.2f}, {success}{f1}")
    return f"{row['model']}: {'; '.join(told)}; {row['seconds']:.0f} s"


def main() -> int:
    """Runs the benchmark; returns the exit code."""
    args = arguments()
    rows: list[dict[str, Any]] = json.loads(args.json.read_text()) if args.json.exists() else []
    done = {row["model"] for row in rows}
    for entry in (entry for zoo in args.zoos for entry in load_zoo(zoo) if entry.name not in done):
        rows.append(examine(entry, args.data, args.images, args.seed))
        args.json.write_text(json.dumps(rows, indent=1) + "\n")
        print(line(rows[-1]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
