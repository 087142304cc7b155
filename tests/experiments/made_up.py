"""A scan and a workshop that are made up: nothing is trained and nothing searched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tabor.attacks.plant import Plant
from tabor.backdoor import Backdoor
from tabor.experiments import SCALES, Setting
from tabor.methods.base import Method
from tabor.result import ScanResult
from tabor.trigger import Trigger

from ..scanned import finding, scan_result


def trigger(columns: int) -> Trigger:
    """White in the first columns of 4×4 pixels."""
    mask = torch.zeros(1, 4, 4)
    mask[..., :columns] = 1
    return Trigger(mask, torch.ones(1, 4, 4))


def result(*targets: int) -> ScanResult:
    """Of a scan that restored two columns for each of three classes."""
    return scan_result(
        targets,
        classes=tuple(finding(k, flagged=k in targets, anomaly_index=float(k)) for k in range(3)),
        triggers={k: trigger(2) for k in range(3)},
    )


class Shop:
    """Stands for a `Workshop`: models are named by what was planted, and TABOR finds all but some of them."""

    scale = SCALES["ci"]
    setting = scale.gtsrb
    logo = "logo"

    def __init__(self, *missed: str) -> None:
        self.missed = missed
        self.models: list[str] = []
        self.scans: list[tuple[str, str | None]] = []

    def at(self, setting: Setting) -> Shop:
        other = Shop(*self.missed)
        other.setting, other.models = setting, self.models
        return other

    def signs_and_photographs(self) -> list[Shop]:
        return [self]

    def base(self, arch: str) -> Path:
        return self._made(f"clean-{arch}")

    def victim(self, plants: Sequence[Plant], arch: str | None = None) -> Path:
        return self._made("-".join([*([arch] if arch else []), *(plant.name for plant in plants)]))

    def trojaned(self, plant: Plant) -> Path:
        return self._made(f"trojaned-{plant.name}")

    def record(self, model: Path) -> dict[str, Any]:
        planted = [] if "clean" in model.name else [{"attack_success": 0.9876}]
        return {"backdoors": planted}

    def clean_accuracy(self, _: Path) -> float:
        return 0.75

    def planted(self, model: Path) -> list[Backdoor]:
        return [] if "clean" in model.name else [Backdoor(trigger(2), 2, model.name)]

    def scan(
        self, model: Path, method: str | Method = "tabor", label: str | None = None, like: str | None = None
    ) -> ScanResult:
        name = method if isinstance(method, str) else method.name
        self.scans.append((label or name, like))
        missed = name != "tabor" or "clean" in model.name or str(model) in self.missed
        return result() if missed else result(2)

    def _made(self, name: str) -> Path:
        self.models.append(f"{self.setting.name}/{name}")
        return Path(self.models[-1])
