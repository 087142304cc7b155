"""What a network sees in images: the features of which its logits are a linear function.

However a model came, as modules, as a graph, or as code, its last layer is one product of matrices at the level of
single operations.  So that is watched for, and nothing has to be known of the network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tabor.access import Classifier

ROUNDING = 1e-3
"""Largest difference, as a share of the largest logit, by which logits and the product may differ."""

Operation = Callable[..., Any]

FACTORS: Mapping[Operation, int] = {torch.ops.aten.mm.default: 0, torch.ops.aten.addmm.default: 1}
"""Products of two matrices, and the place of the first factor among their arguments."""


@dataclass(frozen=True, eq=False)
class Features:
    """What goes into the last layer.

    Attributes:
        seen: shape (N, F).
        weights: shape (F, classes); the logits are seen @ weights, but for a constant of each class and each image.
    """

    seen: Tensor
    weights: Tensor


class _Products(TorchDispatchMode):
    """Sees the matrices that are multiplied while a network runs."""

    def __init__(self, classes: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._classes = classes
        self.last: tuple[Tensor, Tensor] | None = None

    def __torch_dispatch__(
        self,
        func: Operation,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Notes a product that has as many columns as there are classes, and lets every operation happen."""
        first = FACTORS.get(func)
        if first is not None and args[first + 1].shape[1] == self._classes:
            self.last = (args[first], args[first + 1])
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def features(classifier: Classifier, images: Tensor) -> Features | None:
    """Returns what the network itself sees in images (N, C, H, W).

    None where its last layer is no product, or where it fails while that is watched for.
    """
    seen: list[Tensor] = []
    logits: list[Tensor] = []
    weights = None
    for part in images.split(classifier.answered_at_once):
        try:
            with _Products(classifier.num_classes) as products:
                logits.append(classifier.predict(part))
        except Exception:  # noqa: BLE001 (a stranger's forward may raise anything, and need not bear to be watched)
            return None
        if products.last is None or len(products.last[0]) != len(part):
            return None
        seen.append(products.last[0])
        weights = products.last[1]
    if weights is None:
        return None
    found = Features(torch.cat(seen), weights)
    return found if _explains(found, torch.cat(logits)) else None


def _explains(found: Features, logits: Tensor) -> bool:
    """Whether the logits are the product but for a constant of each class, as a bias is, and of each image."""
    rest = logits - found.seen @ found.weights
    rest = rest - rest.mean(1, keepdim=True)
    return float((rest - rest.mean(0)).abs().max()) <= ROUNDING * max(float(logits.abs().max()), 1.0)
