"""`scan`: model and clean images in, verdict out."""

from __future__ import annotations

import dataclasses
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tabor.access import Classifier, choose_device
from tabor.data import ImageSet
from tabor.errors import DataError, SettingError
from tabor.evidence import Evidence, measure
from tabor.journal import Journal, fingerprint
from tabor.methods.base import Method
from tabor.models import LoadedModel
from tabor.presets import choose
from tabor.result import ClassFinding, ClassStatus, ScanResult
from tabor.solver import Candidate, Progress, SolverSettings, solve
from tabor.verdict import FEW_CLASSES, Decision, decide

CONFIRMED = 0.8
"""Attack success on unseen images without which no class is flagged, whatever its score."""

SEEDS = 2**63
"""How many seeds there are; torch takes no larger one."""

LOW_ACCURACY = 0.5
"""Clean accuracy below which the preprocessing, or the images, are probably wrong."""


def scan(
    model: nn.Module,
    images: ImageSet | tuple[Tensor, Tensor],
    *,
    preset: str = "standard",
    method: str | Method = "tabor",
    solver: SolverSettings | None = None,
    classes: Sequence[int] | None = None,
    seed: int = 0,
    device: str = "auto",
    out: str | Path | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> ScanResult:
    """Searches a classifier for backdoors.

    Half of the images are used to search, the other half to confirm: nothing that is reported was measured on an
    image that the search saw.

    Args:
        model: takes images (N, C, H, W) in [0, 1] and returns logits; it is copied and left as it is.
        images: an `ImageSet`, or (images, labels) tensors: float32 in [0, 1] (N, C, H, W) and int64 (N,).
        preset: "fast", "standard" or "paper".
        method: "tabor", "neural-cleanse", or a `Method` of one's own.
        solver: optimiser settings instead of the preset's.
        classes: the classes to search; None: all.
        seed: of every random draw.
        device: "auto", "cpu", "cuda", …
        out: folder for the run; an interrupted scan of the same model, images and settings goes on from there.
        on_progress: called after every round.

    Raises:
        DataError: the images do not fit the model, or are too few.
        ModelError: the model does not answer as a classifier.
        SettingError: an unknown name, a class outside the range, or a device that is not there.
        TaborError: the folder cannot be written.
    """
    began = time.monotonic()
    images = images if isinstance(images, ImageSet) else ImageSet(*images, class_names=())
    if not 0 <= seed < SEEDS:
        raise SettingError(f"a seed lies between 0 and {SEEDS - 1}, got {seed}")
    where = choose_device(device)
    _check_size(model, images)
    channels, height, width = images.images.shape[1:]
    classifier = Classifier(model, where, (channels, height, width))
    targets = _check_classes(classes, classifier.num_classes, images)
    search, confirm = (_on(half, where) for half in images.halves(seed))
    chosen, chosen_solver = choose(method if isinstance(method, str) else "tabor", preset, len(search))
    chosen = chosen if isinstance(method, str) else method
    settings = solver or chosen_solver
    record: dict[str, Any] = {"solver": dataclasses.asdict(settings), chosen.name: chosen.describe()}
    identity = _identity(model, classifier.num_classes)
    answers = classifier.predict(images.images.to(where)).cpu()
    clean_accuracy = float((answers.argmax(1) == images.labels.cpu()).float().mean())

    journal = None
    if out is not None:
        journal = Journal(Path(out), fingerprint(model, images, answers, record, seed))
    ordered = _search(classifier, search, targets, chosen, settings, seed, journal, on_progress)
    evidence = [measure(classifier, c.trigger.to(where), c.target, confirm) for c in ordered]
    decision = _decide(ordered, evidence, chosen)
    result = ScanResult(
        verdict=decision.verdict,
        reason=decision.reason,
        score=decision.score,
        targets=tuple(ordered[k].target for k in decision.targets),
        threshold=decision.threshold,
        method=chosen.name,
        preset=preset,
        settings=record,
        seed=seed,
        device=str(where),
        model=identity,
        data=_described(images),
        clean_accuracy=clean_accuracy,
        timing=_timing(classifier, time.monotonic() - began),
        warnings=tuple(_warnings(clean_accuracy, images, targets, classifier.num_classes)),
        classes=tuple(_findings(ordered, evidence, decision, chosen, images)),
        triggers={c.target: c.trigger.to("cpu") for c in ordered},
        tabor_version=_version(),
    )
    if out is not None and journal is not None:
        result.save(out)
        journal.close()
    return result


def _check_size(model: nn.Module, images: ImageSet) -> None:
    if not isinstance(model, LoadedModel) or tuple(images.images.shape[1:]) == model.architecture.image_shape:
        return
    wanted, got = model.architecture.image_shape, tuple(images.images.shape[1:])
    way_out = "they differ in channels" if wanted[0] != got[0] else f"resize them with --size {wanted[1]}"
    raise DataError(
        f"the model takes images of {_shape(wanted)} (channels×height×width), the data has {_shape(got)}; {way_out}"
    )


def _shape(shape: Sequence[int]) -> str:
    return "×".join(str(n) for n in shape)


def _check_classes(classes: Sequence[int] | None, num_classes: int, images: ImageSet) -> list[int]:
    highest = int(images.labels.max())
    if highest >= num_classes:
        raise DataError(
            f"the images have a label {highest}, but the model knows only the classes 0 to {num_classes - 1}: "
            f"these images and this model do not belong together"
        )
    if len(torch.unique(images.labels)) < 2:
        raise DataError("all images are of one class; a scan needs images of at least 2 classes")
    targets = list(range(num_classes)) if classes is None else list(dict.fromkeys(classes))
    wrong = [target for target in targets if not 0 <= target < num_classes]
    if wrong or not targets:
        raise SettingError(f"class {wrong[0] if wrong else '(none)'} cannot be scanned; give 0 to {num_classes - 1}")
    return targets


def _on(images: ImageSet, device: torch.device) -> ImageSet:
    return dataclasses.replace(images, images=images.images.to(device), labels=images.labels.to(device))


def _search(
    classifier: Classifier,
    images: ImageSet,
    targets: Sequence[int],
    method: Method,
    settings: SolverSettings,
    seed: int,
    journal: Journal | None,
    on_progress: Callable[[Progress], None] | None,
) -> list[Candidate]:
    """Searches the classes that the journal does not have yet; returns a candidate for each target."""
    candidates = dict(journal.finished) if journal else {}
    left = [target for target in targets if target not in candidates]
    on_class = journal.add if journal else None
    for candidate in solve(classifier, images, left, method, settings, seed, on_progress, on_class):
        candidates[candidate.target] = candidate
    return [candidates[target] for target in targets]


def _decide(candidates: Sequence[Candidate], evidence: Sequence[Evidence], method: Method) -> Decision:
    works = [c.status is not ClassStatus.NO_TRIGGER for c in candidates]
    return decide(
        [method.score(e) if ok else None for e, ok in zip(evidence, works, strict=True)],
        method.outliers,
        finished=[c.status is ClassStatus.CONVERGED for c in candidates],
        confirmed=[e.attacked >= CONFIRMED * e.attacked_of for e in evidence],
    )


def _findings(
    candidates: Sequence[Candidate],
    evidence: Sequence[Evidence],
    decision: Decision,
    method: Method,
    images: ImageSet,
) -> list[ClassFinding]:
    findings = []
    for k, (candidate, seen) in enumerate(zip(candidates, evidence, strict=True)):
        works = candidate.status is not ClassStatus.NO_TRIGGER
        findings.append(
            ClassFinding(
                index=candidate.target,
                name=images.class_name(candidate.target),
                status=candidate.status,
                score=method.score(seen) if works and decision.anomaly_indices[k] is not None else None,
                anomaly_index=decision.anomaly_indices[k],
                flagged=k in decision.targets,
                mask_l1=seen.mask_l1,
                attack_success=seen.attacked / max(seen.attacked_of, 1),
                crop_accuracy=seen.cropped_right / max(seen.cropped_of, 1),
                explanation_accuracy=seen.explained / max(seen.explained_of, 1),
                sparsity=seen.mask_l1 / seen.pixels,
                smoothness=seen.mask_smoothness / seen.edges,
                steps=candidate.steps,
            )
        )
    return sorted(findings, key=lambda finding: finding.index)


def _identity(model: nn.Module, num_classes: int) -> dict[str, Any]:
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


def _described(images: ImageSet) -> dict[str, Any]:
    present = len(torch.unique(images.labels))
    return {"source": images.source, "images": len(images), "classes_present": present}


def _timing(classifier: Classifier, seconds: float) -> dict[str, Any]:
    return {
        "seconds": seconds,
        "image_passes": classifier.image_passes,
        "images_per_second": classifier.image_passes / seconds,
        "peak_memory_bytes": _peak_memory(classifier.device),
    }


def _warnings(clean_accuracy: float, images: ImageSet, targets: Sequence[int], num_classes: int) -> list[str]:
    told = []
    if clean_accuracy < LOW_ACCURACY:
        told.append(
            f"the model is right on only {clean_accuracy:.0%} of the clean images: the preprocessing, the labels or "
            f"the images are probably not those it was trained for, and the verdict means little"
        )
    present = len(torch.unique(images.labels))
    if present < num_classes:
        told.append(f"only {present} of {num_classes} classes have an image")
    if len(targets) < FEW_CLASSES:
        told.append(
            f"with {len(targets)} classes an outlier test means little; each class was held against the others and the "
            f"spread of clean models"
        )
    return told


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _version() -> str:
    from tabor import __version__

    return __version__
