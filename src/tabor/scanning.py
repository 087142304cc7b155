"""`scan`: model and clean images in, verdict out."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import tabor
from tabor.access import PRECISIONS, Classifier, choose_device
from tabor.data import ImageSet, as_image_set
from tabor.data.fitting import check_halves, check_labels
from tabor.draws import checked_seed, whole
from tabor.engine import room
from tabor.errors import DataError, ModelError, SettingError, dimensions, one_line
from tabor.examining import examine
from tabor.findings import described, findings, identity, timing, warnings_about, warnings_of_effects
from tabor.journal import Journal, fingerprint
from tabor.methods.base import Method
from tabor.models import LoadedModel
from tabor.models.outputs import TELLING, as_logits, told_by
from tabor.presets import choose
from tabor.result import ScanResult
from tabor.sanity import accuracy_warning
from tabor.solver import Progress, SolverSettings

COMPARED = 256
"""Images that a faster copy of the model must answer like the model itself."""

MOST_MEMORY = 2**30
"""GiB: more than any machine has, and its bytes can be counted."""


@torch.inference_mode(False)  # whatever the caller does without gradients, a search needs them
@torch.enable_grad()
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
    precision: str = "auto",
    memory: float | None = None,
    out: str | Path | None = None,
    like: str | Path | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> ScanResult:
    """Searches a classifier for backdoors.

    Half of the images are used to search, the other half to confirm.  Attack success, crop and explanation accuracy,
    and with them each class's score, are measured on images that the search did not see; a patch's worth and how far
    it stands out are not, but count by how well the patch works on the others.

    Args:
        model: takes images (N, C, H, W) in [0, 1] and returns logits, or probabilities, which is seen; it is copied and
            left as it is.
        images: an `ImageSet`, or (images, labels) tensors: float32 in [0, 1] (N, C, H, W) and int64 (N,).
        preset: "fast", "standard", "thorough" or "paper"; see `presets.choose`.
        method: "tabor", "neural-cleanse", or a `Method` of one's own.
        solver: optimiser settings instead of the preset's.
        classes: the classes to search; None: all.
        seed: of every random draw.
        device: "auto", "cpu", "cuda", …
        precision: "auto" lets the search run on a faster copy of the network, in bfloat16 where the device has that, if
            the copy answers alike; "exact" does not.  What is found is measured on the network itself either way.
        memory: GiB that the process may take, or of the GPU's memory; None: a half of what is free.  Images go through
            the network in smaller parts to keep it.
        out: folder for the run; an interrupted scan of the same model, images and settings goes on from there, and
            believes what that one found: take no stranger's folder.  What a scan of anything else found there is
            removed when this one begins.
        like: folder of another scan of the same model and images: patches that it sought are not sought again, if
            nothing differs that they depend on; else it counts for nothing.  It saves most of the time where only the
            masks' settings differ.  Needs `out`.
        on_progress: called after every round.

    Raises:
        DataError: the images do not fit the model, or are too few.
        ModelError: the model does not answer as a classifier.
        SettingError: an unknown name, `like` without `out`, a class outside the range, or a device that is not there.
        TaborError: the folder cannot be written.
    """
    began = time.monotonic()
    images = as_image_set(images)
    seed = checked_seed(seed)
    _check_folders(out, like)
    check_cost(precision, memory)
    limit = None if memory is None else int(memory * 2**30)
    _check_size(model, images)
    classifier = _reach(model, images, device, precision, limit)
    targets = _check_classes(classes, classifier.num_classes)
    search, confirm = _halves(classifier, images, seed, limit)
    chosen, chosen_solver = choose(method, preset, len(search))
    settings = solver or chosen_solver
    computed_in = str(classifier.dtype).removeprefix("torch.")
    record = {"solver": dataclasses.asdict(settings), chosen.name: chosen.describe(), "precision": computed_in}
    clean_accuracy = _accuracy(classifier, images)
    told = _warn(model, images, clean_accuracy, classifier, limit)
    told += warnings_about(classifier, images, targets, chosen)
    journal = _journal(out, like, lambda: fingerprint(model, classifier, images, targets, record, seed))
    seen = examine(classifier, (search, confirm), targets, chosen, settings, seed, journal, on_progress)
    decision = seen.decide(chosen)
    flagged = seen.flagged(decision)
    effects = warnings_of_effects(seen.explained_away(decision), seen.settled)
    result = ScanResult(
        verdict=decision.verdict,
        reason=decision.reason,
        score=decision.score,
        p_value=decision.p_value,
        calibration=chosen.outliers.calibration,
        targets=flagged,
        threshold=decision.threshold,
        patch_threshold=decision.patch_threshold,
        method=chosen.name,
        preset=preset,
        settings=record,
        seed=seed,
        device=str(classifier.device),
        model=identity(model, classifier.num_classes),
        data=described(images),
        clean_accuracy=clean_accuracy,
        timing=timing(classifier, time.monotonic() - began),
        warnings=(*told, *effects),
        classes=tuple(findings(seen.candidates, seen.evidence, seen.scores, decision, seen.suspects, images)),
        triggers={c.target: c.trigger.to("cpu") for c in seen.candidates},
        patches=seen.patches(flagged),
        tabor_version=tabor.__version__,
    )
    if out is not None and journal is not None:
        result.save(out)
        journal.close()
    return result


def _journal(out: str | Path | None, like: str | Path | None, searched: Callable[[], dict[str, Any]]) -> Journal | None:
    if out is None:
        return None
    journal = Journal(Path(out), searched(), None if like is None else Path(like))
    if journal.told:
        logging.getLogger("tabor").warning("%s: %s", one_line(out), journal.told)
    return journal


def _accuracy(classifier: Classifier, images: ImageSet) -> float:
    answers = classifier.predict(images.images.to(classifier.device)).cpu()
    return float((answers.argmax(1) == images.labels.cpu()).float().mean())


def _warn(model: nn.Module, images: ImageSet, accuracy: float, classifier: Classifier, limit: int | None) -> list[str]:
    """Says before the work, so that it can be stopped, what speaks against it.

    That is a model that is wrong about the clean images, and memory that is taken already.
    """
    wrong = accuracy_warning(model, images, accuracy, classifier.images_at_once)
    told = [] if wrong is None else [wrong]
    if limit is not None and room(classifier.device, limit) == 0:
        told.append(
            f"more than the {limit / 2**30:.3g} GiB of memory asked for is taken already; the images go through the "
            f"network one at a time, which is slow, and the limit is not kept"
        )
    for warning in told:
        logging.getLogger("tabor").warning("%s", warning)
    return told


def _reach(model: nn.Module, images: ImageSet, device: str, precision: str, limit: int | None) -> Classifier:
    """Returns the model as the scan sees it, as fast as it may be; what tells that keeps to the limit as well."""
    where = choose_device(device)
    classifier = Classifier(model, where, images.shape)
    check_labels(images, classifier.num_classes)
    few = images.images[:TELLING].to(where)
    if not isinstance(model, LoadedModel):
        network = as_logits(model, told_by(classifier.predict(few)))
        classifier = classifier if network is model else Classifier(network, where, images.shape)
    _check_gradients(classifier, few)
    classifier.limit_memory(limit)
    if precision == "auto":
        classifier.hasten(images.balanced(COMPARED, seed=0).images.to(classifier.device))
    return classifier


def _check_gradients(classifier: Classifier, images: Tensor) -> None:
    """Finds out whether the answers tell how they would change with the images, as far as they change with them."""
    answers = classifier.logits(images[:2].clone().requires_grad_())
    if not answers.requires_grad and not torch.equal(answers[:1], answers[-1:]):
        raise ModelError(
            "the model gives no gradients, by which triggers are sought: its forward must not run under "
            "torch.no_grad(), nor detach its answers or round them"
        )


def _halves(classifier: Classifier, images: ImageSet, seed: int, limit: int | None) -> tuple[ImageSet, ImageSet]:
    """Returns the images to search and to confirm with, on the device, and limits the memory of what is done with them.

    In this order: they are copies, and what they take is not left for the search.
    """
    halves = images.halves(seed)
    check_halves(halves)
    search, confirm = (half.to(classifier.device) for half in halves)
    classifier.limit_memory(limit)
    return search, confirm


def check_cost(precision: str, memory: float | None) -> None:
    """Finds out whether a scan can be told to cost so much; see `scan`.

    Raises:
        SettingError: there is no such precision, or the memory is no positive number, or more than any machine has.
    """
    if precision not in PRECISIONS:
        raise SettingError(f"unknown precision {one_line(precision)}; use {' or '.join(PRECISIONS)}")
    if memory is not None and not (isinstance(memory, int | float) and 0 < memory <= MOST_MEMORY):
        raise SettingError(f"the memory is a positive number of GiB, up to {MOST_MEMORY:,}, got {memory}")


def _check_folders(out: str | Path | None, like: str | Path | None) -> None:
    if like is not None and out is None:
        raise SettingError("what another scan found is taken over into a run's folder; give out as well")


def _check_size(model: nn.Module, images: ImageSet) -> None:
    if not isinstance(model, LoadedModel) or tuple(images.images.shape[1:]) == model.architecture.image_shape:
        return
    wanted, got = model.architecture.image_shape, tuple(images.images.shape[1:])
    way_out = (
        "they differ in channels (load_images takes grey, load_model takes channels)"
        if wanted[0] != got[0]
        else f"load them with size={wanted[1:]}, or, if the model's file does not say what it takes, the model with "
        f"size={got[1:]}"
    )
    raise DataError(
        f"the model takes images of {dimensions(wanted)} (channels×height×width), the data has {dimensions(got)}; "
        f"{way_out}"
    )


def _check_classes(classes: Sequence[int] | None, num_classes: int) -> list[int]:
    if not isinstance(classes, Iterable | None):
        raise SettingError(f"the classes to scan are a list of numbers, got {one_line(classes, 40)}")
    asked = range(num_classes) if classes is None else (whole(target, "a class") for target in classes)
    targets = list(dict.fromkeys(asked))
    wrong = [target for target in targets if not 0 <= target < num_classes]
    if wrong or not targets:
        raise SettingError(f"class {wrong[0] if wrong else '(none)'} cannot be scanned; give 0 to {num_classes - 1}")
    return targets
