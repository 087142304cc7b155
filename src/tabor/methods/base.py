"""What a detection method is: an objective to minimise, a schedule for its weight, a score for what was found.

The solver knows methods only through this protocol; a new method is one new file beside this one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from tabor.access import Classifier
from tabor.evidence import Evidence
from tabor.patches import RestoreSettings
from tabor.verdict import OutlierSettings


@dataclass(frozen=True)
class Batch:
    """Clean images for one step of K classes.

    Attributes:
        images: float32 in [0, 1], shape (K, B, C, H, W); none of class k's images is of class k.
        labels: their true classes, int64, shape (K, B).
        targets: the class that each of the K searches is for, int64, shape (K,).
        kept: mask pixels in force for each image, bool, shape (B, 1, H, W); None: all.
    """

    images: Tensor
    labels: Tensor
    targets: Tensor
    kept: Tensor | None = None


@dataclass(frozen=True)
class Objective:
    """The objective at one point, per class.

    Attributes:
        loss: what to minimise, shape (K,).
        success: share of the batch that the trigger sends to the target, shape (K,).
        terms: the regularisation terms at the base weights, shape (K, T), for the convergence test.
    """

    loss: Tensor
    success: Tensor
    terms: Tensor


class Schedule(Protocol):
    """The weight of the regularisers, per class, from round to round."""

    @property
    def weight(self) -> Tensor:
        """Factor on the regularisers, shape (K,)."""

    def update(self, success: Tensor) -> None:
        """Takes a round's attack success (K,)."""

    def keep(self, index: Tensor) -> None:
        """Forgets every class but those at the given positions."""


class Method(Protocol):
    """A way to search for a trigger and to judge it."""

    @property
    def name(self) -> str:
        """What `--method` calls it."""

    @property
    def outliers(self) -> OutlierSettings:
        """How its scores are tested."""

    @property
    def mask_dropout(self) -> float:
        """Chance that a mask pixel is switched off for one image of one step."""

    @property
    def image_shift(self) -> float:
        """How far images are moved under the trigger at most, anew in each step, as a share of their shorter edge."""

    @property
    def restoring(self) -> RestoreSettings | None:
        """How whole triggers are restored as patches; None: they are not."""

    def objective(
        self, classifier: Classifier, batch: Batch, mask: Tensor, pattern: Tensor, weight: Tensor
    ) -> Objective:
        """Returns the objective for masks (K, 1, H, W), patterns (K, C, H, W) and a regulariser weight (K,)."""

    def schedule(self, classes: int, pixels: int, device: torch.device) -> Schedule:
        """Returns a fresh schedule for that many classes and images of so many pixels."""

    def score(self, evidence: Evidence) -> float:
        """Returns the quality of a restored trigger; smaller is more suspicious."""

    def describe(self) -> dict[str, Any]:
        """Returns its settings as plain values, for the record."""
