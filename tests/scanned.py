"""Results of scans: one that never was, of which a test says what matters to it, and what can be compared of two."""

from __future__ import annotations

from typing import Any

from tabor.class_finding import ClassFinding, ClassStatus
from tabor.result import ScanResult, Verdict


def finding(index: int, **given: Any) -> ClassFinding:
    """Of a class whose trigger works and does not stand out."""
    plain: dict[str, Any] = {
        "name": str(index),
        "status": ClassStatus.CONVERGED,
        "score": 0.0,
        "anomaly_index": 0.0,
        "flagged": False,
        "mask_l1": 8.0,
        "attack_success": 1.0,
        "crop_accuracy": 1.0,
        "explanation_accuracy": 1.0,
        "sparsity": 0.5,
        "smoothness": 0.1,
        "steps": 5,
    }
    return ClassFinding(index=index, **(plain | given))


def scan_result(targets: tuple[int, ...], **given: Any) -> ScanResult:
    """Of three classes, of which these are flagged; `classes` and `triggers` must be given."""
    plain: dict[str, Any] = {
        "verdict": Verdict.BACKDOORED if targets else Verdict.CLEAN,
        "reason": "as the test wants it",
        "score": 0.5,
        "p_value": None,
        "calibration": "none",
        "threshold": 2.0,
        "patch_threshold": None,
        "method": "tabor",
        "preset": "fast",
        "settings": {},
        "seed": 0,
        "device": "cpu",
        "model": {"source": "memory", "sha256": None, "architecture": "tabor:digits4", "num_classes": 3},
        "data": {"source": "memory", "images": 120, "classes_present": 3},
        "clean_accuracy": 1.0,
        "timing": {"seconds": 2.4, "image_passes": 1, "images_per_second": 1.0, "peak_memory_bytes": 1},
        "warnings": (),
        "patches": {},
        "tabor_version": "0",
    }
    return ScanResult(targets=targets, **(plain | given))


def comparable(result: ScanResult) -> dict[str, Any]:
    """All but the time that the scan took."""
    return {key: value for key, value in result.to_dict().items() if key != "timing"}
