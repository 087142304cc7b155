"""State of a search with one row a class, or a start, whose rows leave as they are done."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


class Best:
    """The smallest mask so far of each of K classes whose trigger worked."""

    def __init__(self, masks: Tensor, patterns: Tensor) -> None:
        self.size = torch.full((len(masks),), math.inf, device=masks.device)
        self.masks, self.patterns = masks.clone(), patterns.clone()

    def offer(self, masks: Tensor, patterns: Tensor, works: Tensor) -> None:
        """Takes the triggers that work and are smaller; where none ever worked, the latest."""
        size = masks.flatten(1).sum(1)
        better = works & (size < self.size)
        taken = (better | torch.isinf(self.size))[:, None, None, None]
        self.masks = torch.where(taken, masks, self.masks)
        self.patterns = torch.where(taken, patterns, self.patterns)
        self.size = torch.where(better, size, self.size)

    def keep(self, index: Tensor) -> None:
        """Forgets every class but those at the given positions."""
        self.size, self.masks, self.patterns = self.size[index], self.masks[index], self.patterns[index]


class Adam:
    """Adam [23] on stacked parameters whose rows may leave; torch's own keeps its state by parameter, not by row."""

    def __init__(self, parameters: Sequence[Tensor], rate: float, betas: tuple[float, float]) -> None:
        self.parameters = list(parameters)
        self.first = [torch.zeros_like(p) for p in parameters]
        self.second = [torch.zeros_like(p) for p in parameters]
        self.rate, (self.beta1, self.beta2) = rate, betas
        self.steps = 0

    def step(self, gradients: Sequence[Tensor]) -> None:
        """Moves the parameters in place against gradients of the same shapes."""
        self.steps += 1
        for value, gradient, first, second in zip(self.parameters, gradients, self.first, self.second, strict=True):
            first.lerp_(gradient, 1 - self.beta1)
            second.lerp_(gradient.square(), 1 - self.beta2)
            scale = (second / (1 - self.beta2**self.steps)).sqrt_().add_(1e-8)
            value.addcdiv_(first, scale, value=-self.rate / (1 - self.beta1**self.steps))

    def keep(self, index: Tensor) -> None:
        """Forgets every row but those at the given positions."""
        for tensors in (self.parameters, self.first, self.second):
            tensors[:] = [tensor[index] for tensor in tensors]
