"""`patch`: a model, what a scan found in it, and clean images in; the model without its backdoors out."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from tabor.access import Classifier, choose_device
from tabor.backdoor import Backdoor, known_backdoors
from tabor.data import ImageSet, as_image_set
from tabor.data.fitting import check_halves, check_labels
from tabor.draws import checked_seed
from tabor.errors import DataError, TaborError, dimensions, one_line
from tabor.evidence import WORKS, sent
from tabor.models import LoadedModel
from tabor.models.outputs import TELLING, as_logits, told_by
from tabor.repair.unlearning import UnlearningSettings, unlearn
from tabor.repair.variation import also_plain
from tabor.result import ScanResult

ANSWERS = 0.5
"""Attack success before, which at least one restored trigger must have: else the run and the model do not fit."""


@dataclass(frozen=True)
class Change:
    """A share in [0, 1] of the images held out, before and after."""

    before: float
    after: float


@dataclass(frozen=True)
class Effect:
    """What became of one trigger: the share of stamped images of other classes that it sends to its target."""

    backdoor: Backdoor
    success: Change

    def to_dict(self) -> dict[str, Any]:
        """Returns it as plain values, without the pixels."""
        return {
            "target": self.backdoor.target,
            "description": self.backdoor.description,
            "attack_success": asdict(self.success),
        }


@dataclass(frozen=True, kw_only=True)
class PatchOutcome:
    """A patched model and what was measured, on images that it was not patched with.

    Attributes:
        model: the patched copy, of the same class as the model that was given.
        clean_accuracy: share of clean images classified rightly.
        restored: the triggers that were unlearned.
        plain: the same in the plain colours in which they worked too; these were unlearned with them.
        planted: the true ones, where the model's own record has them; they take no part in the patching.
        images_used: images that it was patched with.
        images_measured: images held out.
        settings: how it was done.
        seed: of every random draw.
        seconds: what it took, with the measuring.
    """

    model: nn.Module
    clean_accuracy: Change
    restored: tuple[Effect, ...]
    plain: tuple[Effect, ...]
    planted: tuple[Effect, ...]
    images_used: int
    images_measured: int
    settings: UnlearningSettings
    seed: int
    seconds: float

    @property
    def unlearned(self) -> bool:
        """Whether none of the triggers that were unlearned works any more, as a scan counts it."""
        return all(effect.success.after < WORKS for effect in (*self.restored, *self.plain))

    def to_dict(self) -> dict[str, Any]:
        """Returns all but the model as plain values."""
        return {
            "clean_accuracy": asdict(self.clean_accuracy),
            "restored": [effect.to_dict() for effect in self.restored],
            "plain": [effect.to_dict() for effect in self.plain],
            "planted": [effect.to_dict() for effect in self.planted],
            "images_used": self.images_used,
            "images_measured": self.images_measured,
            "settings": asdict(self.settings),
            "seed": self.seed,
            "seconds": self.seconds,
        }


@torch.inference_mode(False)  # whatever the caller does without gradients, unlearning needs them
@torch.enable_grad()
def patch(
    model: nn.Module,
    result: ScanResult | Sequence[ScanResult],
    images: ImageSet | tuple[Tensor, Tensor],
    *,
    settings: UnlearningSettings | None = None,
    seed: int = 0,
    device: str = "auto",
) -> PatchOutcome:
    """Takes the backdoors that a scan found out of a model.

    The restored triggers are unlearned, and the same in each plain colour in which they work too (`also_plain`).  Half
    of the images are used to patch, the other half to measure.  With the seed and the images of the scan they are
    the same halves as the scan's.

    Args:
        model: takes images (N, C, H, W) in [0, 1] and returns logits, or probabilities; it is copied and left as it is.
        result: of a scan of this model, or of several.
        images: clean images with their true labels: an `ImageSet`, or (images, labels) tensors: float32 in [0, 1]
            (N, C, H, W) and int64 (N,).
        settings: of the unlearning.
        seed: of every random draw.
        device: "auto", "cpu", "cuda", …

    Raises:
        TaborError: the scans flagged no class, or were of another model.
        DataError: the images do not fit the model or the triggers, or are of one class.
        ModelError: the model cannot be copied or has nothing to train, or its record is damaged.
        SettingError: there is no such device, or the seed is none.
    """
    began = time.monotonic()
    seed = checked_seed(seed)
    images = as_image_set(images)
    results = [result] if isinstance(result, ScanResult) else list(result)
    loaded = (model.source, model.sha256) if isinstance(model, LoadedModel) else ("the model", None)
    check_run(*loaded, results)
    restored = [backdoor for one in results for backdoor in restored_backdoors(one)]
    _check_size(restored, images)
    where = choose_device(device)
    before = Classifier(model, where, images.shape)
    check_labels(images, before.num_classes)
    _check_targets(restored, before.num_classes)
    planted = known_backdoors(model)
    used, held_out = halves = images.halves(seed)
    check_halves(halves)
    accuracy, success = _measured(before, held_out, restored)
    _check_answers(success)

    settings = settings or UnlearningSettings()
    patched = _own_copy(model, where)
    stamped, seen = [replace(b, trigger=b.trigger.to(where)) for b in restored], used.to(where)
    plain = also_plain(patched, stamped, seen)
    success += _measured(before, held_out, [*plain, *planted])[1]
    learner = as_logits(patched, told_by(before.predict(seen.images[:TELLING])))
    unlearn(learner, [*stamped, *plain], seen, settings, seed)
    watched = [*restored, *plain, *planted]
    accuracy_after, success_after = _measured(Classifier(patched, where, images.shape), held_out, watched)
    effects = iter([Effect(b, Change(*s)) for b, *s in zip(watched, success, success_after, strict=True)])
    return PatchOutcome(
        model=patched.to(_home(model)),
        clean_accuracy=Change(accuracy, accuracy_after),
        restored=tuple(islice(effects, len(restored))),
        plain=tuple(Effect(_on_cpu(effect.backdoor), effect.success) for effect in islice(effects, len(plain))),
        planted=tuple(effects),
        images_used=len(used),
        images_measured=len(held_out),
        settings=settings,
        seed=seed,
        seconds=time.monotonic() - began,
    )


def restored_backdoors(result: ScanResult) -> list[Backdoor]:
    """Returns the flagged classes' triggers: the smallest mask, if it works or is all there is, and the whole patch."""
    found = []
    for target in result.targets:
        patched = target in result.patches
        if result.finding(target).attack_success >= WORKS or not patched:
            found.append(Backdoor(result.triggers[target], target, "restored mask"))
        if patched:
            found.append(Backdoor(result.patches[target], target, "restored patch"))
    return found


def check_run(source: str, digest: str | None, results: Sequence[ScanResult]) -> None:
    """Finds out whether runs flag a class of the model at hand.

    Args:
        source: the model's name.
        digest: hexadecimal SHA-256 of its file; None: not known.
        results: of the runs.

    Raises:
        TaborError: none does, or a run is of another model.
    """
    if not any(result.targets for result in results):
        raise TaborError("the scan flagged no class of this model, so there is nothing to patch")
    for scanned in (result.model["sha256"] for result in results):
        if None not in (scanned, digest) and scanned != digest:
            raise TaborError(
                f"the run is of another model (SHA-256 {one_line(scanned, 12)}), not of {one_line(source)} "
                f"({one_line(digest, 12)}); scan this one first"
            )


def _check_size(restored: Sequence[Backdoor], images: ImageSet) -> None:
    for wanted in (tuple(backdoor.trigger.pattern.shape) for backdoor in restored):
        if images.shape != wanted:
            raise DataError(
                f"the run's triggers are for images of {dimensions(wanted)} (channels×height×width), "
                f"the data has {dimensions(images.shape)}"
            )


def _check_targets(restored: Sequence[Backdoor], num_classes: int) -> None:
    highest = max(backdoor.target for backdoor in restored)
    if highest >= num_classes:
        raise TaborError(f"the run flags class {highest}, but the model knows only the classes 0 to {num_classes - 1}")


def _check_answers(success: Sequence[float]) -> None:
    if max(success) < ANSWERS:
        raise TaborError(
            f"the run's triggers do not work on this model (attack success {max(success):.0%} at most); give the "
            f"architecture, the normalisation and the images of the scan"
        )


def _measured(classifier: Classifier, images: ImageSet, backdoors: Sequence[Backdoor]) -> tuple[float, list[float]]:
    """The clean accuracy, and each backdoor's attack success on images of other classes."""
    images = images.to(classifier.device)
    right = (classifier.predict(images.images).argmax(1) == images.labels).float().mean()
    attacked = [sent(classifier, b.trigger.to(classifier.device), b.target, images) for b in backdoors]
    return float(right), [float(to_target.float().mean()) for to_target in attacked]


def _own_copy(model: nn.Module, device: torch.device) -> nn.Module:
    patched = copy.deepcopy(model).float().to(device)
    if isinstance(patched, LoadedModel):
        patched.sha256 = None
    return patched


def _on_cpu(backdoor: Backdoor) -> Backdoor:
    return replace(backdoor, trigger=backdoor.trigger.to("cpu"))


def _home(model: nn.Module) -> torch.device:
    return next((weight.device for weight in model.parameters()), torch.device("cpu"))
