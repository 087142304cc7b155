"""What a scan saw, as the record has it."""

from __future__ import annotations

import resource
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tabor.access import Classifier
from tabor.anomaly import FEW_CLASSES
from tabor.class_finding import ClassFinding, PatchFinding
from tabor.data import ImageSet
from tabor.evidence import Evidence
from tabor.methods.base import Method
from tabor.models import LoadedModel
from tabor.solver import Candidate
from tabor.suspect import Suspect
from tabor.verdict import Decision


def findings(
    candidates: Sequence[Candidate],
    evidence: Sequence[Evidence],
    scores: Sequence[float | None],
    decision: Decision,
    suspects: Mapping[int, Suspect],
    images: ImageSet,
) -> list[ClassFinding]:
    """Returns what was found for each class, by class index."""
    found = []
    for k, (candidate, seen) in enumerate(zip(candidates, evidence, strict=True)):
        found.append(
            ClassFinding(
                index=candidate.target,
                name=images.class_name(candidate.target),
                status=candidate.status,
                score=scores[k] if decision.anomaly_indices[k] is not None else None,
                anomaly_index=decision.anomaly_indices[k],
                flagged=k in decision.targets,
                mask_l1=seen.mask_l1,
                attack_success=seen.attack_success,
                crop_accuracy=seen.crop_accuracy,
                explanation_accuracy=seen.explanation_accuracy,
                sparsity=seen.mask_l1 / seen.pixels,
                smoothness=seen.mask_smoothness / seen.edges,
                steps=candidate.steps,
                patch=_patch(suspects.get(candidate.target)),
            )
        )
    return sorted(found, key=lambda finding: finding.index)


def _patch(suspect: Suspect | None) -> PatchFinding | None:
    if suspect is None:
        return None
    window = suspect.patch.window
    return PatchFinding(
        window=(window.top, window.left, window.bottom, window.right),
        worth=suspect.patch.worth,
        anomaly_index=suspect.anomaly_index,
        attack_success=suspect.attack_success,
        crop_accuracy=suspect.crop_accuracy,
        effect_of=suspect.effect_of,
        likeness=suspect.likeness,
    )


def identity(model: nn.Module, num_classes: int) -> dict[str, Any]:
    """Returns which model it is."""
    if isinstance(model, LoadedModel):
        return {
            "source": model.source,
            "sha256": model.sha256,
            "architecture": model.architecture.name,
            "num_classes": num_classes,
        }
    return {
        "source": "memory",
        "sha256": None,
        "architecture": type(model).__name__,
        "num_classes": num_classes,
    }


def described(images: ImageSet) -> dict[str, Any]:
    """Returns which images they are."""
    present = len(torch.unique(images.labels))
    return {"source": images.source, "images": len(images), "classes_present": present}


def timing(classifier: Classifier, seconds: float) -> dict[str, Any]:
    """Returns what the scan cost."""
    return {
        "seconds": seconds,
        "image_passes": classifier.image_passes,
        "images_per_second": classifier.image_passes / seconds,
        "peak_memory_bytes": _peak_memory(classifier.device),
    }


def warnings_about(classifier: Classifier, images: ImageSet, targets: Sequence[int], method: Method) -> list[str]:
    """Returns what a person should know before trusting the verdict."""
    told = []
    present = len(torch.unique(images.labels))
    if present < classifier.num_classes:
        told.append(f"only {present} of {classifier.num_classes} classes have an image")
    if len(targets) < FEW_CLASSES:
        known = " and the spread of clean models" if method.outliers.spread_floor else ""
        told.append(
            f"with {len(targets)} classes an outlier test means little; each class was held against the others{known}"
        )
    return told


def warnings_of_effects(effects: Mapping[int, int], settled: Collection[int]) -> list[str]:
    """Returns a warning for each class that would be flagged, were it not taken for an effect of a flagged one.

    Args:
        effects: these classes, with that one.
        settled: those that stood out until that one's trigger was unlearned.
    """
    return [
        f"class {target} stood out too, until what was planted for class {cause} was unlearned in a copy of the model: "
        f"it is taken for an effect of that"
        if target in settled
        else f"class {target} answers to a trigger too, which is taken for an effect of what was planted for class "
        f"{cause}; unlearn that one and scan again (tabor patch --rescan) to know"
        for target, cause in effects.items()
    ]


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_memory()


def peak_memory() -> int:
    """Returns the most bytes that this process has had in memory."""
    try:  # what getrusage says on Linux may be that of the process that started this one
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
