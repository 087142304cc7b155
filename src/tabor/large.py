"""Large triggers, which are told by what they do to an image and not by how strongly.

In a window of a sixth of the image many free colours make any class of a well-learned network, and natural classes lead
by more there than the very trigger does.  But what they draw is familiar: it moves an image where images of the class
lie.  What was planted goes a way that none of them goes.  Not in the paper; measured in docs/results/large.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from tabor.colours import seek
from tabor.contrast import compared, standing_out
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


def large_suspects(scene: Scene, targets: Sequence[int], on_step: Callable[[float], None]) -> dict[int, Suspect]:
    """Returns the classes that answer to a large patch in a corner which is foreign to them.

    Args:
        scene: the model and the images.
        targets: the classes to look at, if there are enough images of them to tell what is familiar; of more than
            `RestoreSettings.large` those whose colours lead after few steps.
        on_step: called with the share of the work done, in [0, 1].

    Returns:
        For each of them its patch.  The index is how far it stands out, by how foreign it is or by its lead; the
        likeness is its familiarity.  Empty where the usual search sees as much.
    """
    settings = scene.ground.settings
    windows = _corners(scene.ground, EDGE)
    known = [target for target in targets if scene.looks.known(target)]
    if not windows or not settings.large or not known:
        return {}
    scene = replace(scene, ground=scene.ground.sought_by(_searched_by(settings)))
    found: dict[int, Suspect] = {}
    close = known if len(known) <= settings.large else _leading(scene, windows, known)
    for k, target in enumerate(close):
        if foreign := _foreign(scene, windows, target):
            found[target] = _judged(scene, target, _located(scene, target, foreign))
        on_step((k + 1) / len(close))
    return found


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


def _leading(scene: Scene, windows: Sequence[Window], targets: Sequence[int]) -> list[int]:
    """Those classes that after a few steps are worth most in any of the windows."""
    settings = scene.ground.settings
    begin, worth = _begin(scene), {}
    for target in targets:
        tried = seek(scene.ground, windows, [target] * len(windows), begin, settings.trial_steps)
        worth[target] = max(patch.worth for patch in tried)
    return sorted(targets, key=lambda target: -worth[target])[: settings.large]


def _foreign(scene: Scene, windows: Sequence[Window], target: int) -> list[Patch]:
    """The class's patches in these windows that work and are foreign to it, best first."""
    patches = seek(scene.ground, windows, [target] * len(windows), _begin(scene), scene.ground.settings.steps)
    convincing = sorted((patch for patch in patches if patch.worth > LEAST_WORTH), key=lambda patch: -patch.worth)
    shares = [_familiarity(scene, patch, target) for patch in convincing]
    return [
        patch
        for patch, share in zip(convincing, shares, strict=True)
        if share is not None and share < OWED and _works(scene, patch, target)
    ]


def _located(scene: Scene, target: int, foreign: Sequence[Patch]) -> Patch:
    """The best of the class's foreign patches, in these windows and smaller and larger ones in the same corners."""
    near = [
        window
        for share in NEAR
        for window in _corners(scene.ground, share)
        if any(window.overlap(patch.window) > 0 for patch in foreign)
    ]
    return max([*foreign, *_foreign(scene, near, target)], key=lambda patch: patch.worth)


def _judged(scene: Scene, target: int, patch: Patch) -> Suspect:
    """What is known of the class by its patch."""
    suspect = scene.suspect(patch, target)
    familiarity = _familiarity(scene, patch, target)
    if not suspect.tells or familiarity is None:
        return suspect
    index = _index(scene, patch, target, familiarity)
    return replace(suspect, index=index * suspect.reliability, likeness=familiarity)


def _index(scene: Scene, patch: Patch, target: int, familiarity: float) -> float:
    """How far the patch stands out in its window, by its lead or among those that work there by how foreign it is."""
    ground = scene.ground
    others = compared(target, ground.classifier.num_classes, ground.settings.compared, scene.seed)
    rivals = seek(ground, [patch.window] * len(others), others, _begin(scene), ground.settings.steps)
    natural = [
        -rival_familiarity
        for rival, k in zip(rivals, others, strict=True)
        if _works(scene, rival, k) and (rival_familiarity := _familiarity(scene, rival, k)) is not None
    ]
    by_lead = standing_out(patch.worth, [rival.worth for rival in rivals])
    return max(by_lead, standing_out(-familiarity, natural, SPREAD)) if natural else by_lead


def _works(scene: Scene, patch: Patch, target: int) -> bool:
    attacked = sent(scene.ground.classifier, scene.trigger(patch), target, scene.confirm)
    return len(attacked) > 0 and float(attacked.float().mean()) >= WORKS


def _familiarity(scene: Scene, patch: Patch, target: int) -> float | None:
    return scene.looks.familiarity(scene.trigger(patch), target)
