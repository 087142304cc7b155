"""Trains a clean and an infected classifier for each seed, scans both with each method, and compares.

Every step is the `tabor` command a user would type, and is skipped where its output is there already, so a run that
was cut off goes on.  Prints a Markdown table; `--json` writes the same figures.

    python benchmarks/core.py --data DATA --work DIR --seeds 0 1 2 --methods tabor neural-cleanse
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import torch

from tabor.backdoor import true_backdoors
from tabor.fidelity import correctness, fidelity
from tabor.models import load_model
from tabor.result import ScanResult

DEFAULT_DATA = Path(os.environ.get("TABOR_DATA") or "../shared/data") / "gtsrb"


def arguments() -> argparse.Namespace:
    """Returns the parsed command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=str(DEFAULT_DATA), help="parquet folder with the splits train and test")
    parser.add_argument("--work", type=Path, required=True, help="folder for models and runs")
    parser.add_argument("--arch", default="tabor:gtsrb6")
    parser.add_argument("--trigger", default="square")
    parser.add_argument("--trigger-size", default="8")
    parser.add_argument("--position", default="bottom-right")
    parser.add_argument("--target", default="33")
    parser.add_argument("--epochs", help="of the clean training; default: the command's own")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--scan-seeds", type=int, nargs="+", help="default: each model is scanned with its own seed")
    parser.add_argument("--methods", nargs="+", default=["tabor"])
    parser.add_argument("--preset", default="standard")
    parser.add_argument("--images", default="512")
    parser.add_argument("--workers", type=int, default=1, help="scans side by side, each on one core")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--expect-right", action="store_true", help="exit 1 if a verdict of tabor is wrong")
    return parser.parse_args()


def make_models(args: argparse.Namespace, seed: int) -> dict[str, Path]:
    """Trains and infects one pair of models; returns their files."""
    kind = args.arch.replace(":", "-")
    clean = args.work / f"{kind}-clean-{seed}.safetensors"
    planted = f"{Path(args.trigger).stem}-{args.trigger_size}-{args.position}-{args.target}"
    infected = args.work / f"{kind}-infected-{planted}-{seed}.safetensors"
    common = ["--data", args.data, "--seed", str(seed)]
    if not clean.exists():
        epochs = ["--epochs", args.epochs] if args.epochs else []
        run(["train", *common, "--arch", args.arch, "--out", str(clean), *epochs], {0})
    if not infected.exists():
        trigger = ["--trigger", args.trigger, "--trigger-size", args.trigger_size, "--position", args.position]
        plant = ["--target", args.target, "--out", str(infected)]
        run(["infect", "badnet", str(clean), *common, *trigger, *plant], {0})
    return {"clean": clean, "infected": infected}


def scan_model(args: argparse.Namespace, path: Path, seed: int, method: str) -> dict[str, Any]:
    """Scans one model; returns the row for the table."""
    out = args.work / "runs" / f"{path.stem}-{method}-{args.preset}-{args.images}-{seed}"
    if not (out / "result.json").exists():
        options = ["--images", args.images, "--seed", str(seed), "--preset", args.preset, "--method", method]
        threads = {"OMP_NUM_THREADS": "1"} if args.workers > 1 else {}
        run(["scan", str(path), "--data", args.data, "--out", str(out), *options], {0, 1, 3}, threads)
    result = ScanResult.load(out)
    record = load_model(path).record
    planted = true_backdoors(record)
    found = [fidelity(result.trigger(b.target).mask, b.trigger.mask) for b in planted]
    targets = {b.target for b in planted}
    others = [f for f in result.classes if f.index not in targets and f.anomaly_index is not None]
    return {
        "model": path.stem,
        "clean_accuracy": record["clean_accuracy"],
        "attack_success": [entry["attack_success"] for entry in record.get("backdoors", [])],
        "method": method,
        "preset": args.preset,
        "seed": seed,
        "verdict": str(result.verdict),
        "targets": list(result.targets),
        "symbol": correctness(result, targets).value,
        "target_index": [result.finding(b.target).anomaly_index for b in planted],
        "highest_other_index": max((float(f.anomaly_index or 0) for f in others), default=None),
        "threshold": result.threshold,
        "precision": [f.precision for f in found],
        "recall": [f.recall for f in found],
        "f1": [f.f1 for f in found],
        "converged": sum(f.status == "converged" for f in result.classes),
        "classes": len(result.classes),
        "seconds": result.timing["seconds"],
        "images_per_second": result.timing["images_per_second"],
        "peak_memory_bytes": result.timing["peak_memory_bytes"],
    }


def run(argv: list[str], accepted: set[int], threads: dict[str, str] | None = None) -> None:
    """Runs one `tabor` command as a user would, and stops everything if it fails.

    In a process of its own: in one that has trained a model, the memory of a scan would be that of the training.
    """
    print("tabor " + " ".join(argv), file=sys.stderr, flush=True)
    command, environment = [sys.executable, "-m", "tabor", *argv], os.environ | (threads or {})
    code = subprocess.run(command, stdout=sys.stderr, env=environment, check=False).returncode
    if code not in accepted:
        sys.exit(f"tabor {argv[0]} returned {code}")


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the rows as a Markdown table."""
    head = ["model", "method", "seed", "clean acc.", "ASR", "verdict", "targets", "", "index of target"]
    head += ["highest other", "threshold", "precision", "recall", "F1", "converged", "s", "MiB"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row in rows:
        cells = [
            row["model"],
            row["method"],
            row["seed"],
            f"{row['clean_accuracy']:.4f}",
            numbers(row["attack_success"]),
        ]
        cells += [row["verdict"], row["targets"] or "–", row["symbol"], numbers(row["target_index"], 2)]
        cells += [numbers([row["highest_other_index"]], 2), f"{row['threshold']:.2f}"]
        cells += [numbers(row[name], 2) for name in ("precision", "recall", "f1")]
        cells += [f"{row['converged']}/{row['classes']}", f"{row['seconds']:.0f}"]
        cells += [f"{row['peak_memory_bytes'] / 2**20:.0f}"]
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines)


def numbers(values: list[float | None], digits: int = 4) -> str:
    """Returns numbers with a fixed count of decimals, a dash for none."""
    return ", ".join("–" if v is None else f"{v:.{digits}f}" for v in values) or "–"


def main() -> int:
    """Runs the benchmark; returns the exit code."""
    args = arguments()
    args.work.mkdir(parents=True, exist_ok=True)
    models = [(path, args.scan_seeds or [seed]) for seed in args.seeds for path in make_models(args, seed).values()]
    scans = [(path, *how) for path, seeds in models for how in product(seeds, args.methods)]
    with ThreadPoolExecutor(args.workers) as pool:
        rows = list(pool.map(lambda scan: scan_model(args, *scan), scans))
    print(table(rows))
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(), "torch": torch.__version__}
    if args.json:
        made = {"command": sys.argv, "machine": machine, "date": time.strftime("%Y-%m-%d"), "rows": rows}
        args.json.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    wrong = [row for row in rows if row["method"] == "tabor" and row["symbol"] != "●"]
    return 1 if wrong and args.expect_right else 0


if __name__ == "__main__":
    sys.exit(main())
