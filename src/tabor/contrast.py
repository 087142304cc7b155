"""How far the patch of a class stands out from what other classes make of the same window.

A network may answer strongly to patches of any kind, or in any window that hides the object; then it does so for many
classes.  What was planted is answered to by one.  So the outlier test of §4.2.4 is made once more, within the window:
each class that is compared has colours of its own there.  Not in the paper; measured in docs/results/contrast.md.
"""

from __future__ import annotations

from collections.abc import Sequence

from tabor.draws import key
from tabor.ground import Ground
from tabor.patches import Patch
from tabor.restore import PatchSearch
from tabor.verdict import anomaly_indices

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
    """Returns how many robust standard deviations a patch's lead lies above the median of other classes' leads.

    What the window costs is the same for all.

    Args:
        ground: the model and the images.
        patch: the target's.
        target: its class.
        others: the classes that are compared; each has its own colours sought in the patch's window, from the same
            random ones and for as many steps.
        seed: of the random colours.

    Raises:
        DataError: all images are of one of the other classes.
    """
    leads = [PatchSearch(ground, other, seed).judge([patch.window])[0].worth for other in others]
    scores = [-worth for worth in (patch.worth, *leads)]
    return anomaly_indices(scores, SPREAD, [False, *(True for _ in others)])[0]
