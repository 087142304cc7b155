"""How far the patch of a class stands out from what other classes make of the same window.

A network may answer strongly to patches of any kind, or in any window that hides the object; then it does so for many
classes.  What was planted is answered to by one.  So an outlier test like that of §4.2.4 is made once more, within the
window: each class that is compared has colours of its own there.  Natural patches come in families: what one speed
limit answers to is nearly one for another.  So the target is held against the class that answers most beside it, and
not against the median one.  Not in the paper; measured in docs/results/contrast.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from tabor.anomaly import mad
from tabor.colours import random_colours, seek
from tabor.draws import key
from tabor.ground import Ground
from tabor.patches import REAL_IMAGE, Patch

LOTS = 2**33
"""The stream of draws that nothing else uses."""

SPREAD = 0.15
"""Least standard deviation that other classes' leads in a window are taken to have, in mean leads of a clean image's
own class; in networks of 43 classes it is 0.12 to 0.46, and smaller in a ResNet than elsewhere."""


def compared(target: int, classes: int, count: int, seed: int) -> list[int]:
    """Returns so many classes other than the target, drawn by lot; all others where they are fewer."""
    others = [k for k in range(classes) if k != target]
    return sorted(sorted(others, key=lambda k: key(seed, LOTS, k))[:count])


def patch_index(ground: Ground, patch: Patch, target: int, others: Sequence[int], seed: int) -> float:
    """Returns how far a patch's lead stands out from other classes' leads in the same window; see `standing_out`.

    What the window costs is the same for all.

    Args:
        ground: the model and the images.
        patch: the target's.
        target: its class.
        others: the classes that are compared; each has its own colours sought in the patch's window, as many of them,
            from the same random ones and for as many steps.
        seed: of the random colours.

    Raises:
        DataError: all images are of one of the other classes.
    """
    begin = random_colours(ground, patch.colours.shape[-1], torch.Generator().manual_seed(seed))
    rivals = seek(ground, [patch.window] * len(others), others, begin, ground.settings.steps)
    return standing_out(patch.worth, [rival.worth for rival in rivals])


def standing_out(lead: float, others: Sequence[float], spread: float = SPREAD) -> float:
    """Returns how many robust standard deviations of the others a lead lies above the highest of them.

    Where that one is worth more than a real image, above the second: there may be two backdoors with one place.  The
    deviation is 1.4826·MAD, not less than `spread`.
    """
    values = np.sort(np.asarray(others, dtype=np.float64))[::-1]
    rival = values[1] if len(values) > 1 and values[0] > REAL_IMAGE else values[0]
    return (lead - float(rival)) / max(mad(values), spread)
