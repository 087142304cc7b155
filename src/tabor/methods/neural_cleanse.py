"""Neural Cleanse (Wang et al. 2019), the baseline: the smallest mask that works, judged by its L1 norm."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tabor.access import Classifier
from tabor.errors import SettingError
from tabor.evidence import Evidence
from tabor.methods.base import Batch, Objective
from tabor.methods.tabor import target_loss
from tabor.trigger import stamp
from tabor.verdict import OutlierSettings


@dataclass(frozen=True, kw_only=True)
class CostSettings:
    """Its dynamic weight: raised after `patience` good rounds in a row, lowered after as many bad ones.

    Differs from the original code in that there the first raise after the weight is set comes a round earlier, and
    patience and success are 5 and 0.99, which preset "paper" takes.

    Attributes:
        initial: weight on the mask's L1 once the attack has worked for `patience` rounds; before that it is 0.
        up: factor on the way up, above 1.
        down: divisor on the way down, above 1; the original code takes up^1.5.
        patience: rounds in a row.
        success: attack success that makes a round good, in (0, 1].
    """

    initial: float = 1e-3
    up: float = 2.0
    down: float = 2.0**1.5
    patience: int = 2
    success: float = 0.95

    def __post_init__(self) -> None:
        factors = 1 < self.up < math.inf and 1 < self.down < math.inf and 0 < self.initial < math.inf
        if not factors or self.patience < 1 or not 0 < self.success <= 1:
            raise SettingError(f"the weight schedule needs factors above 1 and a success in (0, 1], got {self}")


class Cost:
    """The dynamic weight of K classes as a `Schedule`."""

    def __init__(self, settings: CostSettings, classes: int, device: torch.device) -> None:
        self.settings = settings
        self.weight = torch.zeros(classes, device=device)
        self._good = torch.zeros(classes, device=device)
        self._bad = torch.zeros(classes, device=device)

    def update(self, success: Tensor) -> None:
        """Takes a round's attack success (K,)."""
        good = success >= self.settings.success
        self._good = torch.where(good, self._good + 1, 0)
        self._bad = torch.where(good, 0, self._bad + 1)
        up, down = self._good >= self.settings.patience, self._bad >= self.settings.patience
        raised = torch.where(self.weight > 0, self.weight * self.settings.up, self.settings.initial)
        self.weight = torch.where(up, raised, torch.where(down, self.weight / self.settings.down, self.weight))
        self._good = torch.where(up, 0, self._good)
        self._bad = torch.where(down, 0, self._bad)

    def keep(self, index: Tensor) -> None:
        """Forgets every class but those at the given positions."""
        self.weight, self._good, self._bad = self.weight[index], self._good[index], self._bad[index]


@dataclass(frozen=True, kw_only=True)
class NeuralCleanse:
    """The method and its settings.

    Attributes:
        cost: the weight on the mask's L1.
        outliers: MAD on the L1 norms, flagged above an anomaly index of 2.
    """

    cost: CostSettings = field(default_factory=CostSettings)
    outliers: OutlierSettings = field(default_factory=lambda: OutlierSettings(threshold=2.0))

    name = "neural-cleanse"
    mask_dropout = 0.0
    image_shift = 0.0
    restoring = None

    def objective(
        self, classifier: Classifier, batch: Batch, mask: Tensor, pattern: Tensor, weight: Tensor
    ) -> Objective:
        """Cross-entropy to the target plus the weighted L1 norm of the mask."""
        classes, images = batch.labels.shape
        logits = classifier.logits(stamp(batch.images, mask[:, None], pattern[:, None]).flatten(0, 1))
        logits = logits.unflatten(0, (classes, images))
        size = mask.flatten(1).sum(1)
        return Objective(
            loss=target_loss(logits, batch.targets) + weight * size,
            success=(logits.detach().argmax(2) == batch.targets[:, None]).float().mean(1),
            terms=size.detach()[:, None],
        )

    def schedule(self, classes: int, pixels: int, device: torch.device) -> Cost:
        """The dynamic weight."""
        return Cost(self.cost, classes, device)

    def score(self, evidence: Evidence) -> float:
        """The mask's L1 norm, in pixels."""
        return evidence.mask_l1

    def describe(self) -> dict[str, Any]:
        """Returns the settings as plain values."""
        return dataclasses.asdict(self)
