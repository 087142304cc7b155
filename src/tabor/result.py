"""What a scan found: `ScanResult`, to and from disk."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from tabor import strict_json
from tabor.class_finding import ClassFinding, ClassStatus, PatchFinding
from tabor.errors import TaborError, one_line
from tabor.files import check_plain, replacing, write_text
from tabor.schema import check
from tabor.trigger import Trigger

SCHEMA_VERSION = 1
RESULT_FILE = "result.json"
TRIGGERS_FILE = "triggers.safetensors"
REPORT_FILE = "report.html"
FIGURES_FOLDER = "figures"
TENSORS = {"triggers", "patches"}
"""The fields that go to a file of their own."""

LARGEST_RESULT = 2**27
"""Bytes of `result.json`; 1,000 classes need less than a million."""


class Verdict(enum.StrEnum):
    """What the scan concludes about the model."""

    CLEAN = "clean"
    BACKDOORED = "backdoored"
    UNDECIDED = "undecided"


@dataclass(frozen=True, kw_only=True)
class ScanResult:
    """The whole outcome of a scan.

    Attributes:
        verdict: clean, backdoored or undecided.
        reason: one sentence that says why.
        score: the chance that the model is backdoored, in [0.01, 0.99], if half of all models are; by a patch fitted to
            models, by a mask no more than a monotone function of its index.  Not below 0.5 unless the verdict is clean.
        p_value: the chance that a clean model looks as suspicious; None where nothing was found to judge.
        calibration: on what the chances rest, in words.
        targets: the flagged classes, most anomalous first.
        threshold: the anomaly index above which a class is flagged, if its trigger works on unseen images.
        patch_threshold: the anomaly index of a patch above which a class is flagged, had any been
            sought; None for a method that knows none.
        method, preset, settings: what was run.
        seed: the seed of every random draw.
        device: where it ran.
        model: source, sha256 (None for a model from memory or changed since), architecture, num_classes.
        data: source, images, classes_present.
        clean_accuracy: share of the given images classified rightly, in [0, 1].
        timing: seconds, image_passes (images through the network), images_per_second, peak_memory_bytes (so far).
        warnings: what a person should know before trusting the verdict.
        classes: one finding for each class scanned, by class index.
        triggers: the smallest trigger that works, of each class scanned, or the last one tried where none does.
        patches: the whole trigger as a patch with hard edges, of each flagged class where one works.
    """

    verdict: Verdict
    reason: str
    score: float
    p_value: float | None
    calibration: str
    targets: tuple[int, ...]
    threshold: float
    patch_threshold: float | None
    method: str
    preset: str
    settings: Mapping[str, Any]
    seed: int
    device: str
    model: Mapping[str, Any]
    data: Mapping[str, Any]
    clean_accuracy: float
    timing: Mapping[str, Any]
    warnings: tuple[str, ...]
    classes: tuple[ClassFinding, ...]
    triggers: Mapping[int, Trigger]
    patches: Mapping[int, Trigger]
    tabor_version: str

    def trigger(self, index: int) -> Trigger:
        """Returns the trigger restored for a class: the whole one where there is a patch, else the smallest.

        Raises:
            TaborError: that class was not scanned.
        """
        try:
            return self.patches[index] if index in self.patches else self.triggers[index]
        except KeyError:
            scanned = ", ".join(str(k) for k in sorted(self.triggers))
            raise TaborError(f"class {one_line(repr(index), 40)} was not scanned; scanned were {scanned}") from None

    def finding(self, index: int) -> ClassFinding:
        """Returns the finding of a class.

        Raises:
            TaborError: that class was not scanned.
        """
        for finding in self.classes:
            if finding.index == index:
                return finding
        raise TaborError(f"class {one_line(repr(index), 40)} was not scanned")

    def most_suspicious(self, count: int) -> list[ClassFinding]:
        """Returns up to `count` findings: the flagged first, then those nearest to a threshold, of masks or patches."""

        def order(finding: ClassFinding) -> tuple[bool, float]:
            patch = finding.patch.anomaly_index if finding.patch else None
            found = (finding.anomaly_index, self.threshold), (patch, self.patch_threshold)
            return finding.flagged, max((i / at for i, at in found if i is not None and at), default=-math.inf)

        return sorted(self.classes, key=order, reverse=True)[:count]

    def to_dict(self) -> dict[str, Any]:
        """Returns what `result.json` holds; the triggers go to a file of their own."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in TENSORS}
        fields["classes"] = [dataclasses.asdict(finding) for finding in self.classes]
        plain: dict[str, Any] = json.loads(json.dumps({"schema_version": SCHEMA_VERSION} | fields, allow_nan=False))
        return plain

    def save(self, folder: str | Path) -> None:
        """Writes `result.json` and `triggers.safetensors` into the folder, each whole or not at all.

        Raises:
            TaborError: the folder cannot be written.
        """
        folder = Path(folder)
        tensors = {}
        named = {**{str(k): t for k, t in self.triggers.items()}, **{f"patch/{k}": t for k, t in self.patches.items()}}
        for name, trigger in named.items():
            tensors[f"mask/{name}"] = trigger.mask.cpu().clone().contiguous()
            tensors[f"pattern/{name}"] = trigger.pattern.cpu().clone().contiguous()
        with replacing(folder / TRIGGERS_FILE) as temporary:
            safetensors.torch.save_file(tensors, temporary)
        write_text(folder / RESULT_FILE, json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n")

    @staticmethod
    def load(folder: str | Path) -> ScanResult:
        """Reads what `save` wrote.

        Raises:
            TaborError: the folder holds no finished run, or one of another schema version.
        """
        folder = Path(folder)
        if folder.is_file():
            raise TaborError(f"{one_line(folder)} is a file; give the folder of a finished scan")
        try:
            for name, most in ((RESULT_FILE, LARGEST_RESULT), (TRIGGERS_FILE, None)):
                check_plain(folder / name, most)
            stored = strict_json.loads((folder / RESULT_FILE).read_text(encoding="utf-8"))
            tensors = safetensors.torch.load_file(folder / TRIGGERS_FILE)
        except FileNotFoundError as error:
            name = Path(error.filename).name if error.filename else TRIGGERS_FILE
            raise TaborError(
                f"{one_line(folder)} holds no finished run ({one_line(name)} is missing); "
                f"make one with: tabor scan MODEL --data DATA --out {one_line(folder)}"
            ) from None
        except (OSError, ValueError, safetensors.SafetensorError) as error:
            raise TaborError(f"{one_line(folder)} holds a damaged run: {one_line(error)}") from None
        return _from_dict(stored, tensors, folder)


def _from_dict(stored: Any, tensors: Mapping[str, Any], folder: Path) -> ScanResult:
    version = stored.get("schema_version") if isinstance(stored, dict) else None
    if version != SCHEMA_VERSION:
        raise TaborError(
            f"{one_line(folder / RESULT_FILE)} has schema version {one_line(version)}, "
            f"this tabor reads version {SCHEMA_VERSION}"
        )
    try:
        check(stored)
        names = {f.name for f in dataclasses.fields(ScanResult)} - TENSORS
        fields = {name: stored[name] for name in names}
        fields["verdict"] = Verdict(fields["verdict"])
        fields["targets"] = tuple(fields["targets"])
        fields["warnings"] = tuple(fields["warnings"])
        fields["classes"] = tuple(
            ClassFinding(**(entry | {"status": ClassStatus(entry["status"]), "patch": _patch(entry["patch"])}))
            for entry in fields["classes"]
        )
        triggers = {f.index: _trigger(tensors, str(f.index)) for f in fields["classes"]}
        patches = {
            index: _trigger(tensors, f"patch/{index}")
            for index in fields["targets"]
            if f"mask/patch/{index}" in tensors
        }
        if not set(fields["targets"]) <= set(triggers):
            raise TaborError("a target is no class of the run")
        return ScanResult(triggers=triggers, patches=patches, **fields)
    except jsonschema.ValidationError as error:
        raise TaborError(f"{one_line(folder)} holds a damaged run: {one_line(error.message, 120)}") from None
    except (KeyError, TaborError) as error:
        raise TaborError(f"{one_line(folder)} holds a damaged run: {one_line(error, 120)}") from None


def _trigger(tensors: Mapping[str, Tensor], name: str) -> Trigger:
    mask, pattern = tensors[f"mask/{name}"], tensors[f"pattern/{name}"]
    usual = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
    if not {mask.dtype, pattern.dtype} <= usual or not (mask.numel() and pattern.numel()):
        raise TaborError(f"the trigger {name} has no pixels, or none that are fractions")
    return Trigger(mask.float(), pattern.float())


def _patch(stored: dict[str, Any] | None) -> PatchFinding | None:
    return None if stored is None else PatchFinding(**(stored | {"window": tuple(stored["window"])}))
