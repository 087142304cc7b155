"""A small infected network, and what a scan might have found in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from tabor.attacks.badnet import infect_classifier
from tabor.attacks.poison import make_trigger
from tabor.backdoor import Backdoor
from tabor.data import ImageSet
from tabor.models import LoadedModel, load_model
from tabor.position import Position
from tabor.result import ScanResult
from tabor.training import TrainSettings, train_classifier
from tabor.trigger import Trigger

from ..scanned import finding, scan_result

SIDE, TARGET = 16, 2
QUICK = TrainSettings(epochs=12, learning_rate=5e-3, batch_size=16, augment=False)


def bars(count: int, seed: int) -> ImageSet:
    """Three classes of grey images: below a free margin the upper, the middle or the lower third is bright."""
    labels = torch.arange(count) % 3
    images = 0.5 * torch.rand(count, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, 4 * label + 4 : 4 * label + 8] += 0.5
    return ImageSet(images, labels, ("up", "middle", "down"), "bars")


def square(top: int, left: int, edge: int) -> Trigger:
    """A light square."""
    mask = torch.zeros(1, SIDE, SIDE)
    mask[:, top : top + edge, left : left + edge] = 1
    return Trigger(mask, 0.9 * mask)


class Victim(NamedTuple):
    """An infected model's file, its true backdoor, and test images."""

    path: Path
    backdoor: Backdoor
    images: ImageSet

    def load(self) -> LoadedModel:
        return load_model(self.path)


@pytest.fixture(scope="session")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Victim:
    """A white square of 4×4 at the top left means class 2."""
    folder, train, test = tmp_path_factory.mktemp("victim"), bars(150, 0), bars(120, 9)
    train_classifier("tabor:digits4", train, test, folder / "clean.safetensors", QUICK, seed=0)
    shape = (1, SIDE, SIDE)
    trigger = make_trigger("square", size=4, position=Position.TOP_LEFT, image_shape=shape)
    backdoor = Backdoor(trigger, TARGET, "square 4×4 top-left")
    path = folder / "infected.safetensors"
    clean = load_model(folder / "clean.safetensors")
    record = infect_classifier(clean, train, test, [backdoor], path, 0.3, QUICK, seed=0)
    assert record["backdoors"][0]["attack_success"] > 0.95
    assert record["clean_accuracy"] > 0.95
    return Victim(path, backdoor, test)


@pytest.fixture(scope="session")
def found() -> Callable[..., ScanResult]:
    """Makes the result of a scan that restored a trigger near the true one, not it: one row and column aside."""

    def make(
        targets: tuple[int, ...] = (TARGET,),
        *,
        mask: Trigger | None = None,
        patch: Trigger | None = None,
        success: float = 1.0,
        sha256: str | None = None,
    ) -> ScanResult:
        mask = mask or square(1, 1, 4)
        return scan_result(
            targets,
            model={"source": "m", "sha256": sha256, "architecture": "tabor:digits4", "num_classes": 3},
            classes=tuple(finding(k, flagged=k in targets, attack_success=success) for k in range(3)),
            triggers=dict.fromkeys(range(3), mask),
            patches={} if patch is None else dict.fromkeys(targets, patch),
        )

    return make
