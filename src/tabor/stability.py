"""When a class's search has converged: its regularisation terms do not change any more.  [§4.3]"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tabor.errors import SettingError


@dataclass(frozen=True, kw_only=True)
class StabilitySettings:
    """When a class has converged.

    The paper stops "until each of the regularization terms stays stable", |R_t^(k−1) − R_t^(k)| < ε.  A term is
    measured on mini-batches and the λ keep swinging, so the terms are averaged over past rounds first, and ε is
    relative to the sum of the terms: an absolute one would mean something else for each image size.

    Attributes:
        tolerance: ε, as a share of the sum of the terms.
        memory: weight of the past in the running average, in [0, 1).
        rounds: how many rounds in a row must be stable.
    """

    tolerance: float = 0.02
    memory: float = 0.7
    rounds: int = 3

    def __post_init__(self) -> None:
        if not 0 < self.tolerance < 1 or not 0 <= self.memory < 1 or self.rounds < 1:
            raise SettingError(f"stability needs a tolerance in (0, 1), a memory in [0, 1) and rounds ≥ 1, got {self}")


@dataclass
class Stability:
    """Watches the regularisation terms of K classes over rounds; see `StabilitySettings`."""

    settings: StabilitySettings
    average: Tensor | None = None
    streak: Tensor | None = None

    def update(self, terms: Tensor) -> Tensor:
        """Takes this round's terms (K, T), at the λ's base values, and returns which classes are stable (K,) bool."""
        if self.average is None or self.streak is None:
            self.average, self.streak = terms.clone(), torch.zeros(len(terms), device=terms.device)
            return torch.zeros(len(terms), dtype=torch.bool, device=terms.device)
        averaged = self.settings.memory * self.average + (1 - self.settings.memory) * terms
        change = (averaged - self.average).abs().amax(1)
        still = change <= self.settings.tolerance * averaged.abs().sum(1)
        self.average = averaged
        self.streak = torch.where(still, self.streak + 1, torch.zeros_like(self.streak))
        return self.streak >= self.settings.rounds

    def keep(self, index: Tensor) -> None:
        """Forgets every class but those at the given positions."""
        if self.average is not None and self.streak is not None:
            self.average, self.streak = self.average[index], self.streak[index]
