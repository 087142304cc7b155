"""Large triggers, which are told by what they do to an image and not by how strongly.

In a window of a sixth of the image many free colours make any class of a well-learned network, and natural classes lead
by more there than the very trigger does.  Drawings of a few shapes do not: what a natural class makes of them moves an
image where images of the class lie, while what was planted goes a way that none of them goes.  So of each class the
drawing that it answers to most is sought, by mutation and selection, as shapes have no gradient; and a class stands out
by how much of the effect is strange to it.  Not in the paper; measured in docs/results/large.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from tabor.anomaly import mad
from tabor.drawings import children, draw, random_drawings
from tabor.draws import key
from tabor.evidence import WORKS, sent
from tabor.ground import Ground, on_others
from tabor.patches import Patch
from tabor.scene import Scene
from tabor.suspect import Suspect
from tabor.windows import Window

EDGES = (0.3, 0.36, 0.42, 0.48)
"""Edges of the windows, as shares of the image's shorter edge."""

COARSE = 2.0
"""Pixels along the smallest of them that one of the usual search's many colours stands for, up to which that search
sees as much."""

GRID = 48
"""Colours along a window: what was taught is sharp, and a blurred drawing is less like it."""

FIRST, KEPT, BORN, GENERATIONS = 300, 8, 24, 30
"""Random drawings that the search begins with; how many of a class's best have children; how many children they have
at a time; and how often."""

SEEN = 20
"""Images that a drawing is judged by while it is sought."""

MOVED = 0.1
"""Share of children that lie in another window than their parent."""

FAMILIAR = 0.65
"""Familiarity up to which a class is looked at; natural drawings that work on half of the images have 0.7 and more."""

SPREAD = 0.06
"""Least standard deviation that the strange effects of natural classes are taken to have, in leads of a clean image."""

LOTS = 2**34
"""The stream of draws that nothing else uses."""


@dataclass(frozen=True, eq=False)
class _Pool:
    """The drawings of a class that are best so far, best first.

    Attributes:
        drawings: shape (N, shapes, numbers).
        places: N numbers of their windows, int64.
        worth: shape (N,).
    """

    drawings: Tensor
    places: Tensor
    worth: Tensor

    def best(self, count: int) -> _Pool:
        """Returns so many of them."""
        order = self.worth.argsort(descending=True, stable=True)[:count]
        return _Pool(self.drawings[order], self.places[order], self.worth[order])

    def joined(self, other: _Pool) -> _Pool:
        """Returns these and others."""
        return _Pool(
            torch.cat([self.drawings, other.drawings]),
            torch.cat([self.places, other.places]),
            torch.cat([self.worth, other.worth]),
        )


@dataclass(frozen=True, eq=False)
class _Tried:
    """What a class answers to.

    Attributes:
        pool: its drawings.
        patch: the best of them.
        familiarity: of the patch; None where nobody can tell.
        strange: what it does besides, in leads of a clean image's own class; 0 where nobody can tell.
    """

    pool: _Pool
    patch: Patch
    familiarity: float | None
    strange: float

    @property
    def foreign(self) -> bool:
        """Whether it may be foreign to its class."""
        return self.familiarity is not None and self.familiarity < FAMILIAR


def large_suspects(scene: Scene, targets: Sequence[int], on_step: Callable[[float], None]) -> dict[int, Suspect]:
    """Returns the classes that answer to a large drawing in a corner which is foreign to them.

    Args:
        scene: the model and the images.
        targets: the classes to look at, if there are enough images of them to tell what is familiar; of more than
            `RestoreSettings.large` those that answer most to random drawings.
        on_step: called with the share of the work done, in [0, 1].

    Returns:
        For each of them its patch.  The index is the anomaly index (§4.2.4) of how much of its effect is strange to the
        class; the likeness is its familiarity.  Empty where the usual search sees as much.
    """
    windows = _corners(scene.ground)
    known = [k for k in range(scene.ground.classifier.num_classes) if scene.looks.known(k)]
    count = scene.ground.settings.large
    if not windows or not count or not set(known) & set(targets):
        return {}
    first, worth = _first(scene, windows)
    by_worth = sorted(known, key=lambda k: -float(worth[:, k].max()))
    close = [k for k in by_worth if k in targets][:count]
    tried: dict[int, _Tried] = {}
    for target in close:
        tried[target] = _try(scene, windows, target, replace(first, worth=worth[:, target]))
        on_step(len(tried) / (len(close) + 1))
    foreign = {k: _again(scene, windows, k, one) for k, one in tried.items() if _convicts(scene, k, one)}
    if foreign:
        others = [k for k in by_worth if k not in close][: count - len(close)]
        tried |= {k: _try(scene, windows, k, replace(first, worth=worth[:, k])) for k in others}
    return {target: _judged(scene, target, one, tried) for target, one in foreign.items()}


def _corners(ground: Ground) -> list[Window]:
    """The windows in the corners that do not hide the object; none in images that are small."""
    height, width = ground.size
    edges = [round(share * min(height, width)) for share in EDGES]
    if edges[0] <= COARSE * ground.settings.fine_grid:
        return []
    corners = [
        Window(top, left, top + edge, left + edge)
        for edge in edges
        for top, left in itertools.product((0, height - edge), (0, width - edge))
    ]
    return [window for window in corners if not ground.hides(window)]


def _first(scene: Scene, windows: Sequence[Window]) -> tuple[_Pool, Tensor]:
    """Random drawings in random windows, and what each is worth for every class, (FIRST, classes)."""
    generator = _draws(scene, 0)
    drawings = random_drawings(FIRST, scene.ground.images.shape[1], generator)
    places = torch.randint(len(windows), (FIRST,), generator=generator)
    return _Pool(drawings, places, torch.zeros(FIRST)), _worth(scene.ground, windows, drawings, places)


def _draws(scene: Scene, step: int) -> torch.Generator:
    return torch.Generator().manual_seed(key(scene.seed, LOTS, step))


def _worth(ground: Ground, windows: Sequence[Window], drawings: Tensor, places: Tensor) -> Tensor:
    """What drawings are worth for every class, shape (N, classes), on the CPU."""
    parts = zip(drawings.split(BORN), places.split(BORN), strict=True)
    return torch.cat([_worth_of_few(ground, windows, *part) for part in parts])


def _worth_of_few(ground: Ground, windows: Sequence[Window], drawings: Tensor, places: Tensor) -> Tensor:
    device, labels = ground.images.device, ground.labels[:SEEN]
    placed = [windows[place] for place in places.tolist()]
    outlines, colours = (part.to(device) for part in draw(drawings, GRID))
    found = ground.judged(torch.arange(len(labels), device=device), placed, colours, outlines)
    return (on_others(found, labels) - ground.costs(placed)[:, None]).cpu()


def _try(scene: Scene, windows: Sequence[Window], target: int, begin: _Pool) -> _Tried:
    """What the class answers to after so many generations."""
    pool, ground, generator = begin.best(KEPT), scene.ground, _draws(scene, 1 + target)
    for _ in range(GENERATIONS):
        drawings, parents = children(pool.drawings, BORN, generator)
        elsewhere = torch.randint(len(windows), (BORN,), generator=generator)
        places = torch.where(torch.rand(BORN, generator=generator) < MOVED, elsewhere, pool.places[parents])
        worth = _worth(ground, windows, drawings, places)[:, target]
        pool = pool.joined(_Pool(drawings, places, worth)).best(KEPT)
    outlines, colours = (part[0].to(ground.images.device) for part in draw(pool.drawings[:1], GRID))
    patch = Patch(windows[int(pool.places[0])], colours, float(pool.worth[0]), outlines)
    trigger = scene.trigger(patch)
    strange = scene.looks.strangeness(trigger, target)
    return _Tried(pool, patch, scene.looks.familiarity(trigger, target), (strange or 0.0) / ground.unit)


def _convicts(scene: Scene, target: int, one: _Tried) -> bool:
    """Whether it is foreign to the class and works on images that no search saw."""
    return one.foreign and _success(scene, target, one.patch) >= WORKS


def _success(scene: Scene, target: int, patch: Patch) -> float:
    attacked = sent(scene.ground.classifier, scene.trigger(patch), target, scene.confirm)
    return float(attacked.float().mean()) if len(attacked) else 0.0


def _again(scene: Scene, windows: Sequence[Window], target: int, one: _Tried) -> _Tried:
    """The same after as many generations more, unless that leads elsewhere."""
    later = _try(scene, windows, target, one.pool)
    return later if _convicts(scene, target, later) else one


def _judged(scene: Scene, target: int, one: _Tried, tried: Mapping[int, _Tried]) -> Suspect:
    """What is known of the class by its drawing, beside those of the others."""
    suspect = scene.suspect(one.patch, target)
    if not suspect.tells:
        return suspect
    natural = np.array([other.strange for k, other in tried.items() if k != target])
    index = (one.strange - float(np.median(natural))) / max(mad(natural), SPREAD) if len(natural) else 0.0
    return replace(suspect, index=index * suspect.reliability, likeness=one.familiarity)
