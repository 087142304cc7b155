"""Large triggers, which are told by what they do to an image and not by how strongly.

In a window of a sixth of the image many free colours make any class of a well-learned network, and natural classes lead
by more there than the very trigger does.  But what they draw is familiar: it moves an image where images of the class
lie.  What was planted goes a way that none of them goes.  Not in the paper; measured in docs/results/large.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tabor.colours import seek
from tabor.contrast import standing_out
from tabor.evidence import WORKS, sent
from tabor.ground import Ground
from tabor.patches import Patch, RestoreSettings
from tabor.scene import Scene
from tabor.suspect import LEAST_WORTH, OWED, Suspect
from tabor.windows import Window

EDGE, NEAR = 0.42, (0.3, 0.36, 0.48)
"""Edge of the windows, as a share of the image's shorter edge; and where one tells, edges that are tried there too."""

GRID = 16
"""Colours along it: 8 do not tell a picture of 50 pixels."""

COARSE = 3.0
"""Pixels along it that one of the usual search's many colours stands for, up to which that search sees as much."""

NOISE = 1.8
"""Standard deviation of the random colours that a search begins with, before the sigmoid: they are nearly uniform.
From grey or a plain colour the search comes to what the class looks like more often."""

SPREAD = 0.08
"""Least standard deviation that the familiarity of other classes' patches in a window is taken to have."""


@dataclass(frozen=True, eq=False)
class _Tried:
    """What a class makes of a window.

    Attributes:
        patch: its best colours there.
        familiarity: of the patch; None where it does not convince, or nobody can tell.
    """

    patch: Patch
    familiarity: float | None

    @property
    def foreign(self) -> bool:
        """Whether it is foreign to its class."""
        return self.familiarity is not None and self.familiarity < OWED


def large_suspects(scene: Scene, targets: Sequence[int], on_step: Callable[[float], None]) -> dict[int, Suspect]:
    """Returns the classes that answer to a large patch in a corner which is foreign to them.

    Args:
        scene: the model and the images.
        targets: the classes to look at, if there are enough images of them to tell what is familiar; of more than
            `RestoreSettings.large` those whose colours lead after few steps.
        on_step: called with the share of the work done, in [0, 1].

    Returns:
        For each of them its patch.  The index is how far it stands out, by how foreign it is or by its lead, in the
        corner where it does most; the likeness is its familiarity there.  Empty where the usual search sees as much.
    """
    settings = scene.ground.settings
    windows = _corners(scene.ground, EDGE)
    known = [k for k in range(scene.ground.classifier.num_classes) if scene.looks.known(k)]
    if not windows or not settings.large:
        return {}
    scene = replace(scene, ground=scene.ground.sought_by(_searched_by(settings)))
    close = _leading(scene, windows, [k for k in known if k in targets], settings.large)
    tried: dict[int, list[_Tried]] = {}
    for target in close:
        tried[target] = _try(scene, windows, target)
        on_step(len(tried) / len(close))
    foreign = {target: _working(scene, target, tried[target]) for target in close}
    if any(foreign.values()):
        others = [k for k in known if k not in close]
        tried |= {k: _try(scene, windows, k) for k in _leading(scene, windows, others, settings.large - len(close))}
    return {target: _judged(scene, target, found, tried) for target, found in foreign.items() if found}


def _searched_by(settings: RestoreSettings) -> RestoreSettings:
    """More and smaller steps, from one start."""
    return replace(settings, tries=1, plain=False, steps=80, learning_rate=0.3)


def _corners(ground: Ground, share: float) -> list[Window]:
    """The windows in the corners that do not hide the object; none in images that are small."""
    height, width = ground.size
    edge = round(share * min(height, width))
    if edge <= COARSE * ground.settings.fine_grid:
        return []
    places = itertools.product((0, height - edge), (0, width - edge))
    corners = [Window(top, left, top + edge, left + edge) for top, left in places]
    return [window for window in corners if not ground.hides(window)]


def _begin(scene: Scene) -> Tensor:
    images = scene.ground.images
    start = torch.randn(1, images.shape[1], GRID, GRID, generator=torch.Generator().manual_seed(scene.seed))
    return (NOISE * start).to(images.device)


def _leading(scene: Scene, windows: Sequence[Window], targets: Sequence[int], count: int) -> list[int]:
    """So many of these classes, and where there are more those that after a few steps are worth most in any window."""
    if len(targets) <= count or not count:
        return list(targets[:count])
    begin, worth = _begin(scene), {}
    for target in targets:
        tried = seek(scene.ground, windows, [target] * len(windows), begin, scene.ground.settings.trial_steps)
        worth[target] = max(patch.worth for patch in tried)
    return sorted(targets, key=lambda target: -worth[target])[:count]


def _try(scene: Scene, windows: Sequence[Window], target: int) -> list[_Tried]:
    """What the class makes of each window."""
    patches = seek(scene.ground, windows, [target] * len(windows), _begin(scene), scene.ground.settings.steps)
    return [
        _Tried(patch, scene.looks.familiarity(scene.trigger(patch), target) if patch.worth > LEAST_WORTH else None)
        for patch in patches
    ]


def _working(scene: Scene, target: int, tried: Sequence[_Tried]) -> list[_Tried]:
    """Those that are foreign to the class and work on images that no search saw."""
    return [one for one in tried if one.foreign and _works(scene, one.patch, target)]


def _works(scene: Scene, patch: Patch, target: int) -> bool:
    attacked = sent(scene.ground.classifier, scene.trigger(patch), target, scene.confirm)
    return len(attacked) > 0 and float(attacked.float().mean()) >= WORKS


def _judged(scene: Scene, target: int, foreign: Sequence[_Tried], tried: Mapping[int, Sequence[_Tried]]) -> Suspect:
    """What is known of the class by these patches of its own, beside what all classes make of their windows."""
    suspect = scene.suspect(_located(scene, target, foreign), target)
    if not suspect.tells:
        return suspect
    indices = [_index(scene, target, one, tried) for one in foreign]
    index, furthest = max(zip(indices, foreign, strict=True), key=lambda found: found[0])
    return replace(suspect, index=index * suspect.reliability, likeness=furthest.familiarity)


def _located(scene: Scene, target: int, foreign: Sequence[_Tried]) -> Patch:
    """The patch that is worth most, of these and in smaller and larger squares in the same corners."""
    near = [
        window
        for share in NEAR
        for window in _corners(scene.ground, share)
        if any(window.overlap(one.patch.window) > 0 for one in foreign)
    ]
    found = [*foreign, *_working(scene, target, _try(scene, near, target))]
    return max((one.patch for one in found), key=lambda patch: patch.worth)


def _index(scene: Scene, target: int, own: _Tried, tried: Mapping[int, Sequence[_Tried]]) -> float:
    """How far a patch stands out in its window, by its lead or among those that work there by how foreign it is.

    0 where no other class was tried.
    """
    window = own.patch.window
    rivals = [(k, one) for k, every in tried.items() if k != target for one in every if one.patch.window == window]
    natural = [-one.familiarity for k, one in rivals if one.familiarity is not None and _works(scene, one.patch, k)]
    by_lead = standing_out(own.patch.worth, [one.patch.worth for _, one in rivals]) if rivals else 0.0
    if own.familiarity is None or not natural:
        return by_lead
    return max(by_lead, standing_out(-own.familiarity, natural, SPREAD))
