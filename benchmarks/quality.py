"""Scores the triggers of finished scans with several quality measures, and applies the same outlier test to each.

    python benchmarks/quality.py --data DATA --models DIR --runs DIR MODEL:RUN …

For each, DIR/MODEL.safetensors is the model, and the runs folder holds the scan RUN of it, made with `--out`.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import torch

from tabor.access import Classifier
from tabor.class_finding import ClassStatus
from tabor.data import load_images
from tabor.evidence import Evidence, measure
from tabor.methods.tabor import SMALLEST_MASK, quality_paper, quality_robust
from tabor.models import load_model
from tabor.result import ScanResult
from tabor.verdict import ClassFacts, OutlierSettings, decide

FIXED = OutlierSettings(threshold=2.0)
CORRECTED = OutlierSettings(spread_floor=0.75)


def crop_chance(evidence: Evidence) -> float:
    """Laplace's estimate of acc_crop."""
    return (evidence.cropped_right + 1) / (evidence.cropped_of + 2)


MEASURES: dict[str, tuple[Callable[[Evidence], float], OutlierSettings]] = {
    "Eq. 8 at its word, above 2": (quality_paper, FIXED),
    "mask L1, above 2": (lambda e: e.mask_l1, FIXED),
    "robust, above 2": (quality_robust, FIXED),
    "robust with −log p_crop": (lambda e: quality_robust(e) - math.log(1 - crop_chance(e)), CORRECTED),
    "robust without log s(M)": (
        lambda e: quality_robust(e) - math.log(max(e.mask_smoothness, SMALLEST_MASK)),
        CORRECTED,
    ),
    "robust": (quality_robust, CORRECTED),
}


def main() -> None:
    """Prints one Markdown row for each model and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("stems", nargs="+", metavar="MODEL:RUN")
    args = parser.parse_args()
    print("| model | measure | flagged | highest indices (class: index) |\n| --- | --- | --- | --- |")
    for stem in args.stems:
        model_name, _, run_name = stem.partition(":")
        evidence = measure_run(args.models / f"{model_name}.safetensors", args.runs / run_name, args.data)
        for name, (quality, outliers) in MEASURES.items():
            decision = decide([ClassFacts(score=quality(e)) for e in evidence], outliers)
            ranked = sorted(range(len(evidence)), key=lambda k: -(decision.anomaly_indices[k] or -math.inf))
            top = ", ".join(f"{k}: {decision.anomaly_indices[k] or math.nan:.2f}" for k in ranked[:3])
            print(f"| {model_name} | {name} | {list(decision.targets) or '–'} | {top} |")


def measure_run(model: Path, run: Path, data: str) -> list[Evidence]:
    """Measures every trigger of a run again, on the images that its search did not see."""
    result = ScanResult.load(run)
    if any(f.status is ClassStatus.SCREENED for f in result.classes):
        raise SystemExit(f"{run}: classes were screened out, and their triggers say nothing; scan without screening")
    images = load_images(data, limit=int(result.data["images"]), seed=result.seed)
    _, confirm = images.halves(result.seed)
    channels, height, width = images.images.shape[1:]
    classifier = Classifier(load_model(model), torch.device("cpu"), (channels, height, width))
    return [measure(classifier, result.triggers[f.index], f.index, confirm) for f in result.classes]


if __name__ == "__main__":
    main()
