"""Scans every model of one or more zoos with one method, and says how often it was right.

Each scan is the `tabor` command a user would type, in a process of its own; a scan that is there already is not done
again, so a run that was cut off goes on.  Prints Markdown; `--json` writes the same figures.

    tabor zoo build gtsrb-table1a --data DATA --out ZOO --picture LOGO
    python benchmarks/detection.py ZOO --data DATA --work DIR --workers 2
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from scipy.stats import binomtest
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from tabor.backdoor import true_backdoors
from tabor.fidelity import correctness, fidelity
from tabor.models.safetensors_file import read_record
from tabor.result import ScanResult
from tabor.zoo import ZooEntry, load_zoo

METHODS = {
    "tabor": ["--method", "tabor"],
    "tabor-paper": ["--method", "tabor", "--preset", "paper"],
    "neural-cleanse": ["--method", "neural-cleanse"],
}
SCANNED = (0, 1, 3)
"""Exit codes of a scan that came to a verdict."""


def arguments() -> argparse.Namespace:
    """Returns the parsed command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zoos", type=Path, nargs="+", help="folders that `tabor zoo build` wrote")
    parser.add_argument("--data", required=True, help="the clean images to scan with")
    parser.add_argument("--work", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--method", choices=METHODS, default="tabor")
    parser.add_argument("--preset", help="default: the command's own")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--images", default="512")
    parser.add_argument("--workers", type=int, default=1, help="scans side by side, each on one core")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def run_folder(args: argparse.Namespace, entry: ZooEntry, seed: int) -> Path:
    """Where the scan of one model goes."""
    folder: Path = args.work / f"{entry.name}-{args.method}-{args.preset or 'default'}-{args.images}-{seed}"
    return folder


def scan(args: argparse.Namespace, entry: ZooEntry, seed: int) -> None:
    """Scans one model, unless that is done already."""
    out = run_folder(args, entry, seed)
    if (out / "result.json").exists():
        return
    command = [sys.executable, "-m", "tabor", "scan", str(entry.path), "--data", args.data, "--out", str(out)]
    command += ["--images", args.images, "--seed", str(seed), *METHODS[args.method]]
    command += ["--preset", args.preset] if args.preset else []
    threads = {"OMP_NUM_THREADS": "1"} if args.workers > 1 else {}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | threads, check=False)
    if done.returncode not in SCANNED:
        sys.exit(f"{' '.join(command)} returned {done.returncode}: {done.stderr[-2000:]}")
    print(f"scanned {entry.name} (seed {seed})", file=sys.stderr, flush=True)


def row(args: argparse.Namespace, entry: ZooEntry, seed: int) -> dict[str, Any]:
    """Compares one scan with what is known about the model."""
    result = ScanResult.load(run_folder(args, entry, seed))
    planted = true_backdoors(read_record(entry.path))
    found = [fidelity(result.trigger(b.target).mask, b.trigger.mask) for b in planted]
    indices = {f.index: f.anomaly_index for f in result.classes}
    patches = {f.index: f.patch.anomaly_index if f.patch else None for f in result.classes}
    others = [value for index, value in indices.items() if index not in entry.targets and value is not None]
    return {
        "model": entry.name,
        "seed": seed,
        "clean_accuracy": entry.clean_accuracy,
        "attack_success": list(entry.attack_success),
        "accepted": entry.accepted,
        "verdict": str(result.verdict),
        "targets": list(result.targets),
        "planted": list(entry.targets),
        "symbol": correctness(result, entry.targets).value,
        "extra_classes": len(set(result.targets) - set(entry.targets)),
        "precision": [f.precision for f in found],
        "recall": [f.recall for f in found],
        "f1": [f.f1 for f in found],
        "target_index": [indices[target] for target in entry.targets],
        "highest_other_index": max(others, default=None),
        "target_patch": [patches[target] for target in entry.targets],
        "highest_other_patch": max(
            (p for k, p in patches.items() if k not in entry.targets and p is not None), default=None
        ),
        "threshold": result.threshold,
        "score": result.score,
        "seconds": result.timing["seconds"],
    }


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns the rates over all scans; None where there is nothing to measure."""
    victims = [r for r in rows if r["planted"]]
    clean = [r for r in rows if not r["planted"]]
    truth, scores = [int(bool(r["planted"])) for r in rows], [r["score"] for r in rows]
    f1 = [value for r in victims for value in r["f1"]]
    return {
        "victims": len(victims),
        "clean": len(clean),
        "detected": share(r["verdict"] == "backdoored" for r in victims),
        "right_class": share(set(r["planted"]) <= set(r["targets"]) for r in victims),
        "no_extra_class": share(not r["extra_classes"] for r in victims),
        "false_alarms": share(r["verdict"] == "backdoored" for r in clean),
        "undecided": share(r["verdict"] == "undecided" for r in rows),
        "mean_f1": sum(f1) / len(f1) if f1 else None,
        "auroc": float(roc_auc_score(truth, scores)) if victims and clean else None,
        "cross_entropy": float(log_loss(truth, scores, labels=[0, 1])),
        "brier": float(brier_score_loss(truth, scores)),
        "mean_seconds": sum(r["seconds"] for r in rows) / len(rows),
    }


def share(hits: Any) -> dict[str, Any] | None:
    """Returns a rate with its 95 % Clopper–Pearson interval; None of nothing."""
    values = [bool(hit) for hit in hits]
    if not values:
        return None
    interval = binomtest(sum(values), len(values)).proportion_ci(confidence_level=0.95, method="exact")
    return {"count": sum(values), "of": len(values), "interval": [float(interval.low), float(interval.high)]}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the rows as a Markdown table."""
    head = ["model", "seed", "clean acc.", "ASR", "verdict", "targets", "", "precision", "recall", "F1"]
    head += ["index of target", "highest other", "threshold"]
    head += ["patch index of target", "highest other", "score", "s"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for r in rows:
        cells = [
            r["model"],
            str(r["seed"]),
            f"{r['clean_accuracy']:.4f}",
            numbers(r["attack_success"], 4),
            r["verdict"],
        ]
        cells += [", ".join(map(str, r["targets"])) or "–", r["symbol"]]
        cells += [numbers(r[name]) for name in ("precision", "recall", "f1", "target_index")]
        cells += [
            numbers([r["highest_other_index"]]),
            f"{r['threshold']:.2f}",
            numbers(r["target_patch"]),
            numbers([r["highest_other_patch"]]),
            f"{r['score']:.3f}",
            f"{r['seconds']:.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def numbers(values: Sequence[float | None], digits: int = 2) -> str:
    """Returns numbers with a fixed count of decimals, a dash for none."""
    return ", ".join("–" if v is None else f"{v:.{digits}f}" for v in values) or "–"


def rates(summary: dict[str, Any]) -> str:
    """Returns the summary as a Markdown list."""
    lines = []
    for name, value in summary.items():
        if isinstance(value, dict):
            low, high = value["interval"]
            lines.append(f"- {name}: {value['count']} of {value['of']} (95 %: {low:.3f} to {high:.3f})")
        else:
            lines.append(f"- {name}: {'–' if value is None else value if isinstance(value, int) else f'{value:.3f}'}")
    return "\n".join(lines)


def main() -> int:
    """Runs the benchmark; returns the exit code."""
    args = arguments()
    args.work.mkdir(parents=True, exist_ok=True)
    entries = [entry for zoo in args.zoos for entry in load_zoo(zoo)]
    jobs = [(entry, seed) for entry in entries for seed in args.seeds]
    with ThreadPoolExecutor(args.workers) as pool:
        for done in [pool.submit(scan, args, *job) for job in jobs]:
            done.result()
    rows = [row(args, *job) for job in jobs]
    summary = summarise(rows)
    print(table(rows), rates(summary), sep="\n\n")
    if short := [entry.name for entry in entries if not entry.accepted]:
        print(f"\nThe attack or the accuracy of these falls short of what was asked of the zoo: {', '.join(short)}")
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(), "torch": torch.__version__}
    if args.json:
        written = {"machine": machine, "method": args.method, "summary": summary, "rows": rows}
        args.json.write_text(json.dumps(written, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
