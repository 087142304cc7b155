"""A scan result made by hand, small enough to check each number by eye."""

from __future__ import annotations

import pytest
import torch

from tabor.class_finding import ClassFinding, ClassStatus, PatchFinding
from tabor.data.images import ImageSet
from tabor.result import ScanResult, Verdict
from tabor.trigger import Trigger

SIDE = 8
# Class 2 is the planted one, class 4 the one without a trigger.
ANOMALIES: tuple[float | None, ...] = (0.4, -0.7, 6.25, 1.1, None, 0.0)
NAMES = ("zero", "<script>alert(1)</script>", "stop & go", "$three_3$", "four", "[red]five[/red]\x1b[2J")


def finding(index: int) -> ClassFinding:
    anomaly = ANOMALIES[index]
    return ClassFinding(
        index=index,
        name=NAMES[index],
        status=ClassStatus.NO_TRIGGER if anomaly is None else ClassStatus.CONVERGED,
        score=None if anomaly is None else -anomaly,
        anomaly_index=anomaly,
        flagged=index == 2,
        mask_l1=1.5 + index,
        attack_success=0.125 * index,
        crop_accuracy=0.95,
        explanation_accuracy=0.5,
        sparsity=0.0625,
        smoothness=0.01,
        steps=300,
        patch=PatchFinding(
            window=(5, 5, 8, 8), worth=4.5, anomaly_index=12.5, attack_success=0.875, crop_accuracy=0.75, effect_of=3
        )
        if index == 2
        else None,
    )


def corner_trigger(index: int) -> Trigger:
    """A trigger on the last 3 × 3 pixels whose strength differs by class."""
    mask = torch.zeros(1, SIDE, SIDE)
    mask[:, -3:, -3:] = 1 / (1 + index)
    pattern = torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(index))
    return Trigger(mask, pattern)


@pytest.fixture(scope="session")
def scan_result() -> ScanResult:
    return ScanResult(
        verdict=Verdict.BACKDOORED,
        reason="Class 2 needs a far smaller trigger than the others.",
        score=0.97,
        p_value=0.004,
        calibration="clean models",
        targets=(2,),
        threshold=2.0,
        patch_threshold=8.0,
        method="tabor",
        preset="fast",
        settings={"steps": 300, "learning_rate": 0.1, "weights": {"r1": 0.001, "r2": None}, "sizes": [8, 8]},
        seed=0,
        device="cpu",
        model={
            "source": "model.safetensors",
            "sha256": "ab" * 32,
            "architecture": "tabor:gtsrb6",
            "num_classes": 6,
        },
        data={"source": "digits", "images": 64, "classes_present": 6},
        clean_accuracy=0.984375,
        timing={
            "seconds": 12.5,
            "image_passes": 19200,
            "images_per_second": 1536.0,
            "peak_memory_bytes": None,
        },
        warnings=("Only 64 images were given.",),
        classes=tuple(finding(index) for index in range(len(NAMES))),
        triggers={index: corner_trigger(index) for index in range(len(NAMES))},
        patches={2: corner_trigger(0)},
        tabor_version="0.1.0",
    )


@pytest.fixture(scope="session")
def images() -> ImageSet:
    values = torch.rand(12, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(7))
    return ImageSet(values, torch.arange(12) % 6, NAMES, "digits")
