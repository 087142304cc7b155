"""Whether a patch of many colours is a picture of its class rather than a trigger.

Many colours in a small window draw anything, also what tells the class: some clean networks answer to the edge of a
give-way sign more than to seven real ones.  What was planted owes nothing to how the class looks.  So the class's own
look is shown in the same window, exaggerated, and where that does much of what the patch does, the patch is natural.
Not in the paper; measured in docs/results/likeness.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tabor.data import ImageSet
from tabor.ground import Ground, leads
from tabor.patches import Patch
from tabor.trigger import Trigger

EXAGGERATED = 8.0
"""How many times as far from the other classes' mean image the class's own mean image is shown, as a search for colours
exaggerates too."""

PICTURE = 0.2
"""The share of a patch's effect that the class's own look has from which the patch is a picture of it: in three natural
patches of many colours 0.22 to 0.51, in six planted ones up to 0.18."""


@torch.no_grad()
def likeness(ground: Ground, patch: Patch, target: int, more: ImageSet) -> float:
    """Returns the share of a patch's effect that the target's own look has in the same window.

    The effect is how far the mean lead of the target on images of other classes rises above where the window shows the
    mean of these.  0 where there are no images of the target.

    Args:
        ground: the model and the images.
        patch: the target's; it has an effect.
        target: the class.
        more: other clean images, on the same device: of a class there may be few, and how it looks is nothing that the
            search learns from.

    Raises:
        DataError: all images that the search has are of the target.
    """
    stamped = ground.images[ground.not_of(target)[: ground.settings.judged]]
    halves = [(ground.images, ground.labels == target), (more.images, more.labels == target)]
    if not any(bool(own.any()) for _, own in halves):
        return 0.0
    mean = _mean([(images, ~own) for images, own in halves])
    look = (mean + EXAGGERATED * (_mean(halves) - mean)).clamp(0, 1)
    mask = patch.window.mask(*ground.size).to(stamped.device)

    def lead(trigger: Trigger) -> float:
        return float(leads(ground.classifier.predict(trigger.stamp(stamped)))[:, target].mean())

    def shown(picture: Tensor) -> Trigger:
        return Trigger(mask, mask * picture)

    nothing = lead(shown(mean))
    effect = lead(patch.trigger(*ground.size).to(stamped.device)) - nothing
    return (lead(shown(look)) - nothing) / max(effect, 1e-6)


def _mean(halves: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """The mean of those images (N, C, H, W) of each half that are marked (N,), at least one in all, as (C, H, W).

    As a product, which copies no images.
    """
    count = sum(int(marked.sum()) for _, marked in halves)
    total = torch.stack([marked.float() @ images.flatten(1) for images, marked in halves]).sum(0)
    return (total / count).view(halves[0][0].shape[1:])
