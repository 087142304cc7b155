"""How heavily the regularisers weigh, per class, as the search goes on.  [§4.3, hyperparameter augmentation]"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tabor.errors import SettingError


@dataclass(frozen=True, kw_only=True)
class AugmentationSettings:
    """The λ augmentation of §4.3.

    The paper multiplies or divides all six λ by the same step, so one factor a class carries all of them.

    Attributes:
        initial: factor on the λ at the start ("relatively small").
        step: m, by which the factor is multiplied or divided; above 1.
        success: φ, the attack success from which the factor grows, in (0, 1].
        smallest: the factor never falls below this, on images of 32×32; see `Tabor.schedule`.
        largest: nor rises above this.
    """

    initial: float = 0.1
    step: float = 1.3
    success: float = 0.95
    smallest: float = 0.1
    largest: float = 1e4

    def __post_init__(self) -> None:
        if not 1 < self.step < math.inf or not 0 < self.success <= 1:
            raise SettingError(f"the augmentation needs a step above 1 and a success in (0, 1], got {self}")
        if not 0 < self.smallest <= self.initial <= self.largest < math.inf:
            raise SettingError(f"the augmentation needs 0 < smallest ≤ initial ≤ largest, got {self}")


def augment(factor: Tensor, success: Tensor, settings: AugmentationSettings) -> Tensor:
    """Returns the next factors (K,): multiplied by m where the success (K,) reaches φ, divided where not (§4.3)."""
    moved = torch.where(success >= settings.success, factor * settings.step, factor / settings.step)
    return moved.clamp(settings.smallest, settings.largest)
