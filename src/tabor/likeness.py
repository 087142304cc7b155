"""Whether what a patch does is owed to how its class looks: a natural patch, or one that somebody planted.

Many colours in a small window draw anything, also what tells the class: some clean networks answer to the edge of a
give-way sign more than to seven real ones.  What was planted owes little to that: training taught the network a way of
its own to the class.  That shows in the features of which its logits are a linear function: a natural patch moves them
where images of the class lie, a planted one elsewhere.  Not in the paper; measured in docs/results/likeness.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from tabor.access import Classifier
from tabor.data import ImageSet
from tabor.features import features
from tabor.trigger import Trigger

FEWEST = 20
"""Images of a class from which on it is known where any of its images lie: of faces, three of each person, natural
patches had a familiarity of 0.18."""


class Looks:
    """How the classes look to a network.

    Args:
        classifier: the model.
        halves: clean images, on the classifier's device: how a class looks takes all there are.
        measured: images of the second half, at most, that a patch is stamped on.
    """

    def __init__(self, classifier: Classifier, halves: tuple[ImageSet, ImageSet], measured: int) -> None:
        self._classifier, self._others, self._measured = classifier, halves[1], measured
        self._clean = features(classifier, torch.cat([half.images for half in halves]))
        self._labels = torch.cat([half.labels for half in halves])

    def likeness(self, trigger: Trigger, target: int) -> float | None:
        """Returns the share of a trigger's effect that is owed to how its class looks.

        The effect is how far the target's logit rises above the mean of the others, on images of other classes: the
        features' mean change times the last layer's weights.  What is owed to the class is the same of that part of the
        change which points from the mean of all other images to the mean of the class's own.  It may be below 0, and
        above 1 where the rest of the change speaks against the class.

        None where that cannot be told: the last layer is no product, there are no images of the class or no others,
        they look alike, or there is no effect.

        Args:
            trigger: on the classifier's device.
            target: the class.
        """
        return self._share(trigger, target, _on_average)

    def known(self, target: int) -> bool:
        """Whether there are enough images of a class to tell a trigger's familiarity."""
        return int((self._labels == target).sum()) >= FEWEST

    def familiarity(self, trigger: Trigger, target: int) -> float | None:
        """Returns the share of a trigger's effect that lies where any of the class's images do.

        As `likeness`, but of that part of the change which lies in the directions in which the images of the class
        differ most from the mean of all others: half as many as there are images of it.  A large patch may be a picture
        of what few of them show.

        None where that cannot be told, as there, and of a class that is not `known`.
        """
        if not self.known(target):
            return None
        return self._share(trigger, target, _in_particular)

    def strangeness(self, trigger: Trigger, target: int) -> float | None:
        """Returns the rest of a trigger's effect, which lies where none of the class's images do, in logits.

        None where `familiarity` cannot be told, but for lack of an effect.
        """
        found = self._effect(trigger, target, _in_particular) if self.known(target) else None
        return None if found is None else found[0] - found[1]

    def _share(self, trigger: Trigger, target: int, directions: Callable[[Tensor], Tensor]) -> float | None:
        """The share of the effect that lies in these directions."""
        found = self._effect(trigger, target, directions)
        return found[1] / found[0] if found is not None and found[0] > 0 else None

    def _effect(
        self, trigger: Trigger, target: int, directions: Callable[[Tensor], Tensor]
    ) -> tuple[float, float] | None:
        """The effect, and that in these directions, (D, F) and orthonormal, of the class's images beside others."""
        own = self._labels == target
        images = self._others.images[self._others.labels != target][: self._measured]
        if self._clean is None or not bool(own.any()) or len(images) == 0:
            return None
        before, after = features(self._classifier, images), features(self._classifier, trigger.stamp(images))
        if before is None or after is None:
            return None
        seen, own = _exactly(self._clean.seen), own.cpu()
        change = (_exactly(after.seen) - _exactly(before.seen)).mean(0)
        answer = _above_the_others(_exactly(self._clean.weights), target)
        effect, differences = float(change @ answer), seen[own] - seen[~own].mean(0)
        if not math.isfinite(effect) or not bool(differences.isfinite().all()):
            return None
        basis = directions(differences)
        return (effect, float((basis @ change) @ (basis @ answer))) if len(basis) else None


def _exactly(values: Tensor) -> Tensor:
    """The same in double precision, which not every device has: a stranger's may be as large as single goes."""
    return values.detach().to("cpu", torch.float64)


def _on_average(differences: Tensor) -> Tensor:
    """The direction (1, F) of the mean of differences (N, F); none (0, F) where that is 0."""
    mean = differences.mean(0, keepdim=True)
    return mean / mean.norm() if bool(mean.any()) else mean[:0]


def _in_particular(differences: Tensor) -> Tensor:
    """The directions (D, F) that differences (N, F) have most in, half as many as there are; none where all are 0."""
    directions = torch.linalg.svd(differences, full_matrices=False).Vh
    return directions[: max(1, len(differences) // 2)] if bool(differences.any()) else directions[:0]


def _above_the_others(weights: Tensor, target: int) -> Tensor:
    """What a class's logit has of each feature more than the mean of the others, (F,), of weights (F, classes)."""
    others = torch.arange(weights.shape[1], device=weights.device) != target
    return weights[:, target] - weights[:, others].mean(1)
