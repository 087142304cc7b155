"""The paper's method: an objective with four regularisers, and a quality measure.  [§4, Eq. 2–8, 10, 11]"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from tabor.access import Classifier
from tabor.calibration import Null
from tabor.errors import SettingError
from tabor.evidence import Evidence, smoothness
from tabor.methods.base import Batch, Objective
from tabor.patches import RestoreSettings
from tabor.schedule import AugmentationSettings, augment
from tabor.trigger import crop, isolate, stamp
from tabor.verdict import OutlierSettings

ENDLESS = 1e6
"""Stands for infinity in Eq. 8, so that medians exist and the score can be stored."""

PATCHES = Null(
    location=1.42,
    scale=1.38,
    planted=60.0,
    source="patches: 101 clean classifiers of GTSRB, three networks (docs/results/calibration.md)",
    share=0.21,
)
"""The law of the largest index of a clean model's patches, in those 21 of the 101 in which one says something."""

LAMBDA_PIXELS = 32 * 32
"""Of the images that the least factor on the λ is for."""

SMALLEST_MASK = 0.01
"""In pixels; keeps the logarithms of an empty mask and of a constant one finite."""


def elastic_net(values: Tensor) -> Tensor:
    """R_elastic: the L1 norm plus the L2 norm, not squared, over all but the first dimension.  [§4.2.1]

    The paper says "the sum of L1 and L2 norms"; public implementations square the second.

    Args:
        values: shape (K, ...).

    Returns:
        Shape (K,).
    """
    flat = values.flatten(1)
    return flat.abs().sum(1) + torch.linalg.vector_norm(flat, dim=1)


def outside(mask: Tensor, pattern: Tensor) -> Tensor:
    """Δ' = (1−M)⊙Δ: the colours outside the trigger (Eq. 2)."""
    return (1 - mask) * pattern


def target_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """L(f(x_t), y_t): mean cross-entropy to the target, shape (K,), of logits (K, B, classes) (Eq. 1)."""
    batch = logits.shape[1]
    labels = targets[:, None].expand(-1, batch)
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").unflatten(0, (-1, batch)).mean(1)


def r1(mask: Tensor, pattern: Tensor, on_mask: float, on_pattern: float) -> Tensor:
    """R1 = λ1·R_elastic(M) + λ2·R_elastic(Δ'): against overly large triggers (Eq. 2), shape (K,)."""
    return _weighted(on_mask, lambda: elastic_net(mask), mask) + _weighted(
        on_pattern, lambda: elastic_net(outside(mask, pattern)), mask
    )


def r2(mask: Tensor, pattern: Tensor, on_mask: float, on_pattern: float) -> Tensor:
    """R2 = λ3·s(M) + λ4·s(Δ'): against scattered triggers (Eq. 3), shape (K,)."""
    return _weighted(on_mask, lambda: smoothness(mask), mask) + _weighted(
        on_pattern, lambda: smoothness(outside(mask, pattern)), mask
    )


def r3(logits: Tensor, labels: Tensor, weight: float) -> Tensor:
    """R3 = λ5·L(f(x⊙(1−M)), y_t'): against triggers that block the key object (Eq. 4).

    Args:
        logits: of the cropped images, shape (K, B, classes).
        labels: their true classes, shape (K, B).
        weight: λ5.

    Returns:
        Shape (K,), the mean over the images.
    """
    losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    return weight * losses.unflatten(0, labels.shape).mean(1)


def r4(logits: Tensor, targets: Tensor, weight: float) -> Tensor:
    """R4 = λ6·L(f(M⊙Δ), y_t): against triggers that overlay the true one (Eq. 7).

    Args:
        logits: of the triggers alone, shape (K, classes).
        targets: shape (K,).
        weight: λ6.

    Returns:
        Shape (K,).
    """
    return weight * F.cross_entropy(logits, targets, reduction="none")


def quality_paper(evidence: Evidence) -> float:
    """A(M_t, Δ_t) of Eq. 8 at its word; −log 0 is endlessly large, log 0 endlessly small, and the first wins.

    The explanation is one image, so its accuracy is 0 or 1.
    """
    accuracies = (evidence.attack_success, evidence.crop_accuracy, evidence.explanation_accuracy)
    if min(accuracies) == 0:
        return ENDLESS
    measures = (evidence.shape_pixels / evidence.pixels, evidence.shape_smoothness / evidence.edges)
    if min(measures) == 0:
        return -ENDLESS
    return sum(map(math.log, measures)) - sum(map(math.log, accuracies))


def quality_robust(evidence: Evidence) -> float:
    """Eq. 8 made to stay finite and to grade.

    log(‖M‖₁/d²) + log(s(M)/(d·(d−1))) − log p_att − log(p_crop/(1−p_crop)) − log p_exp

    Differs from the paper in three ways (measured in docs/paper-notes.md).  Size and smoothness are the mask's own: F
    of Eq. 8 misses a black trigger, and counts every pixel of a mask that is never exactly 0.  Each p of s successes
    in n trials is (s+1)/(n+2), Laplace's estimate: never 0 or 1, and for the one image of acc_exp worth no more than
    log 2.  acc_crop counts by its log-odds: a planted trigger hides nothing of the object, a natural one much, and
    −log is flat just where that shows.
    """
    attacked = _chance(evidence.attacked, evidence.attacked_of)
    cropped = _chance(evidence.cropped_right, evidence.cropped_of)
    explained = _chance(evidence.explained, evidence.explained_of)
    size = max(evidence.mask_l1, SMALLEST_MASK) / evidence.pixels
    scatter = max(evidence.mask_smoothness, SMALLEST_MASK) / evidence.edges
    return math.log(size * scatter) - math.log(attacked * explained) - math.log(cropped / (1 - cropped))


def _chance(successes: int, trials: int) -> float:
    """Laplace's estimate of a chance, in (0, 1)."""
    return (successes + 1) / (trials + 2)


@dataclass(frozen=True, kw_only=True)
class Lambdas:
    """λ1 to λ6 of Eq. 10, for masks and patterns in [0, 1]; a weight of 0 means that the term is not evaluated.

    Attributes:
        mask_size: λ1, on R_elastic(M).
        pattern_size: λ2, on R_elastic(Δ').
        mask_smoothness: λ3, on s(M).
        pattern_smoothness: λ4, on s(Δ').
        crop: λ5, on the loss of cropped images.
        explanation: λ6, on the loss of the trigger alone.
    """

    mask_size: float = 1e-2
    pattern_size: float = 1e-4
    mask_smoothness: float = 1e-2
    pattern_smoothness: float = 1e-4
    crop: float = 1e-2
    explanation: float = 1e-2

    def __post_init__(self) -> None:
        if not all(0 <= weight < math.inf for weight in dataclasses.astuple(self)):
            raise SettingError(f"a λ is a number that is not negative, got {self}")


@dataclass
class Augmentation:
    """The λ augmentation as a `Schedule`: one factor a class on all six λ."""

    settings: AugmentationSettings
    weight: Tensor

    def update(self, success: Tensor) -> None:
        """Takes a round's attack success (K,)."""
        self.weight = augment(self.weight, success, self.settings)

    def keep(self, index: Tensor) -> None:
        """Forgets every class but those at the given positions."""
        self.weight = self.weight[index]


@dataclass(frozen=True, kw_only=True)
class Tabor:
    """The method and its settings.

    Attributes:
        lambdas: the base weights.
        augmentation: how they grow and shrink.
        crop_share: share of each batch that R3 is evaluated on, in (0, 1]; it costs as many passes.
        mask_dropout: chance that a mask pixel is switched off for one image of one step.  Not in the paper.
        image_shift: how far each image of a step is moved under the trigger at most, up, down, left and right, as a
            share of its shorter edge, so that what is found works on images that the search never saw.  Not in the
            paper.
        quality: "robust", or "paper" for Eq. 8 at its word.
        restoring: how whole triggers are restored as patches, which is evidence too; None: not at all.  Not in the
            paper.
        outliers: the tests of scores and patches; without `restoring` of scores alone, at the whole rate.
    """

    lambdas: Lambdas = field(default_factory=Lambdas)
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    crop_share: float = 0.25
    mask_dropout: float = 0.1
    image_shift: float = 1 / 16
    quality: Literal["robust", "paper"] = "robust"
    restoring: RestoreSettings | None = field(default_factory=RestoreSettings)
    outliers: OutlierSettings = field(
        default_factory=lambda: OutlierSettings(
            false_alarm_rate=0.02, mask_share=0.5, spread="qn", spread_floor=0.75, patches=PATCHES
        )
    )

    name = "tabor"

    def __post_init__(self) -> None:
        if not 0 < self.crop_share <= 1 or not 0 <= self.mask_dropout < 1 or not 0 <= self.image_shift < 1:
            raise SettingError(f"crop_share lies in (0, 1], mask_dropout and image_shift in [0, 1), got {self}")
        if self.quality not in ("robust", "paper"):
            raise SettingError(f"quality is 'robust' or 'paper', got {self.quality!r}")
        if self.restoring is None:
            object.__setattr__(self, "outliers", dataclasses.replace(self.outliers, patches=None))

    def objective(
        self, classifier: Classifier, batch: Batch, mask: Tensor, pattern: Tensor, weight: Tensor
    ) -> Objective:
        """The complete objective of Eq. 10 and 11, every view of the images in one pass through the network."""
        classes, images = batch.labels.shape
        cropped = max(1, round(self.crop_share * images)) if self.lambdas.crop else 0
        in_force = mask[:, None] if batch.kept is None else mask[:, None] * batch.kept
        views = [stamp(batch.images, in_force, pattern[:, None]).flatten(0, 1)]
        if cropped:
            views.append(crop(batch.images[:, :cropped], mask[:, None]).flatten(0, 1))
        if self.lambdas.explanation:
            views.append(isolate(mask, pattern))
        logits = iter(classifier.logits(torch.cat(views)).split([len(view) for view in views]))

        stamped = next(logits).unflatten(0, (classes, images))
        terms = [
            r1(mask, pattern, self.lambdas.mask_size, self.lambdas.pattern_size),
            r2(mask, pattern, self.lambdas.mask_smoothness, self.lambdas.pattern_smoothness),
        ]
        if cropped:
            of_cropped = next(logits).unflatten(0, (classes, cropped))
            terms.append(r3(of_cropped, batch.labels[:, :cropped], self.lambdas.crop))
        if self.lambdas.explanation:
            terms.append(r4(next(logits), batch.targets, self.lambdas.explanation))
        regularisers = torch.stack(terms, 1)
        return Objective(
            loss=target_loss(stamped, batch.targets) + weight * regularisers.sum(1),
            success=(stamped.detach().argmax(2) == batch.targets[:, None]).float().mean(1),
            terms=regularisers.detach(),
        )

    def schedule(self, classes: int, pixels: int, device: torch.device) -> Augmentation:
        """The λ augmentation of §4.3.

        The λ weigh each pixel, so in images of more than `LAMBDA_PIXELS` the factor may fall further, that much less.
        """
        smallest = self.augmentation.smallest * min(LAMBDA_PIXELS / pixels, 1.0)
        settings = dataclasses.replace(self.augmentation, smallest=smallest)
        return Augmentation(settings, torch.full((classes,), settings.initial, device=device))

    def score(self, evidence: Evidence) -> float:
        """Eq. 8, at its word or made robust."""
        return quality_paper(evidence) if self.quality == "paper" else quality_robust(evidence)

    def describe(self) -> dict[str, Any]:
        """Returns the settings as plain values."""
        return dataclasses.asdict(self)


def _weighted(weight: float, term: Any, like: Tensor) -> Tensor:
    return weight * term() if weight else like.new_zeros(len(like))
