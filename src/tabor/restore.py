"""The trigger as a patch of a few colours: a second kind of evidence, and a trigger that is not scattered.

The smallest mask that sends images to the target is a part of the trigger (the paper's recall is 0.52), not always in
its place, and where the trigger is large some natural pattern is smaller.  But a network that was taught a trigger
answers to a patch of its size, at its place, in its main colours far more strongly than to anything natural, and a
few steps of a search find these colours.  Not in the paper; measured in docs/results/patches.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tabor.colours import plain_worth, random_colours, seek
from tabor.ground import Ground
from tabor.patches import Patch
from tabor.windows import Window, sliding

EQUAL = 0.8
"""Share of the best window's worth from which a window is taken to be as good: what a network was taught by a picture
it answers to as much, or more, in windows beside the picture's place, and its search ends in any of them."""

ENOUGH = 5.0
"""Worth from which a window is taken to be as good as any: training a backdoor ends when its images are as certain as
real ones, so that more than a few times the evidence of a real image tells nothing of where the trigger was."""


@dataclass(frozen=True)
class Survey:
    """What every class makes of each first window in its best plain colour.

    Attributes:
        size: height and width of the images.
        windows: S of them.
        worth: shape (S, classes).
    """

    size: tuple[int, int]
    windows: Sequence[Window]
    worth: Tensor

    def best(self, target: int) -> float:
        """Returns the highest worth for a class."""
        return float(self.worth[:, target].max())

    def first(self, target: int, count: int, apart: float) -> list[Window]:
        """Returns the best few windows for a class, and those in the corners; no two overlap by more than that.

        In the corners triggers are put, and a large picture there is nothing like a plain colour.  Empty where every
        window hides the object.
        """
        order = self.worth[:, target].argsort(descending=True, stable=True).tolist()
        seen = [self.windows[k] for k in order if bool(self.worth[k, target].isfinite())]
        corners = [window for window in seen if window.inset(*self.size) == 0]
        return distinct([*distinct(seen, count, apart), *corners], len(seen), apart)


def distinct(windows: Sequence[Window], count: int, apart: float) -> list[Window]:
    """Returns the first few windows that do not overlap an earlier one by more than that Jaccard index."""
    chosen: list[Window] = []
    for window in windows:
        if len(chosen) < count and all(window.overlap(other) <= apart for other in chosen):
            chosen.append(window)
    return chosen


def survey(ground: Ground) -> Survey:
    """Tries every first window in every plain colour: the same forward passes tell of all classes."""
    windows = sliding(*ground.size, ground.settings.shapes)
    best = plain_worth(ground, windows).amax(1)
    return Survey(ground.size, windows, best - ground.costs(windows)[:, None])


class PatchSearch:
    """Seeks the window, and the colours in it, that one class answers to most.

    A window's worth is what a few steps make of it from the same few random colours and from a plain one, whatever
    window was looked at before.  Carried along from window to window the colours would go on becoming stronger, and the
    last window, not the right one, would win.

    Args:
        ground: the model and the images.
        target: the class.
        grid: colours along each edge of a window.
        seed: of the random colours.

    Raises:
        DataError: all images are of that class.
    """

    def __init__(self, ground: Ground, target: int, grid: int, seed: int) -> None:
        self.ground, self.target, self.settings = ground, target, ground.settings
        self._others = ground.not_of(target)
        self._generator = torch.Generator().manual_seed(seed)
        self._begin = random_colours(ground, grid, self._generator)
        self._known: dict[Window, Patch] = {}

    def best(self, windows: Sequence[Window], spreads: Sequence[float], least: float) -> Patch:
        """Returns the best patch in these windows or near them.

        Args:
            windows: that are looked at first.
            spreads: how far windows are moved in each round; see `RestoreSettings.spreads`.
            least: worth in the first windows up to which none near them is tried.
        """
        first = self.begin(windows)
        return self.closer(spreads) if first.worth > least else first

    def begin(self, windows: Sequence[Window]) -> Patch:
        """Returns the best patch in these windows: all are glimpsed at, and the best few judged."""
        glimpsed = _sorted(self._seek(windows, self._begin[:1], self.settings.first_steps))
        self.judge([patch.window for patch in glimpsed[: self.settings.kept]])
        return self._measured(self.leading()[0])

    def closer(self, spreads: Sequence[float]) -> Patch:
        """Returns the best patch found by now or near the best few.

        The search ends where nothing comes near to what it costs; see `RestoreSettings.poor`.

        Args:
            spreads: how far windows are moved in each round; see `RestoreSettings.spreads`.
        """
        for spread in spreads:
            self.judge(self.near(self.leading(), spread))
            if self.leading()[0].worth <= self.settings.poor:
                break
        return self._measured(self.leading()[0])

    def leading(self) -> list[Patch]:
        """Returns the best few patches found by now."""
        return _sorted(list(self._known.values()))[: self.settings.kept]

    def placed(self) -> Patch:
        """Returns that patch, of those about as good as the best one found by now, which is nearest to a corner.

        A trigger is put where it hides little, and the network tells no better where it was.  Of several in corners one
        that the best overlaps, as a network that convolves knows a trigger in other corners too; of these the smallest,
        and from there on windows are tried that are smaller by an edge's pixel, for as long as one is about as good.
        """
        strongest = max(self._known.values(), key=lambda patch: patch.worth)
        best, least = strongest.worth, min(strongest.worth, EQUAL * strongest.worth, ENOUGH)

        def place(patch: Patch) -> tuple[int, bool, int]:
            window = patch.window
            return window.inset(*self.ground.size), window.overlap(strongest.window) == 0, window.area

        placed = min((patch for patch in self._known.values() if patch.worth >= least), key=place)
        while best > 0:
            inner = [window for window in placed.window.inner() if not self.ground.hides(window)]
            nearer = min([placed, *(p for p in self.judge(inner) if p.worth >= least)], key=place)
            if nearer is placed:
                break
            placed = nearer
        return self._measured(placed)

    def near(self, patches: Sequence[Patch], spread: float) -> list[Window]:
        """Returns windows near these patches', moved and stretched by about that share of their edges.

        Of many random ones, those that do best with the colours of the patch that they are near, and a few whatever
        they do: where colours differ from place to place, those of another window say little.
        """
        settings = self.settings
        drawn: dict[Window, Tensor] = {}
        for _ in range(settings.drawn):
            patch = patches[int(torch.randint(len(patches), (1,), generator=self._generator))]
            window = patch.window.altered(spread * torch.randn(4, generator=self._generator), *self.ground.size)
            if window not in self._known:
                drawn.setdefault(window, patch.colours)
        if not drawn:
            return []
        windows = list(drawn)
        few = self._others[: settings.batch_size]
        worth = self.ground.judged(few, windows, torch.stack(list(drawn.values())))[..., self.target].mean(1)
        worth -= self.ground.shape_costs(windows)  # what they hide takes passes: only of those that may be tried
        ranked = (windows[k] for k in worth.argsort(descending=True, stable=True).tolist())
        promising = itertools.islice((w for w in ranked if not self.ground.hides(w)), settings.promising)
        unranked = [w for w in windows[: settings.unranked] if not self.ground.hides(w)]
        return list(dict.fromkeys([*promising, *unranked]))

    def judge(self, windows: Sequence[Window]) -> list[Patch]:
        """Returns the best patch found in each window, sought once."""
        new = [window for window in windows if window not in self._known]
        self._known |= {patch.window: patch for patch in self._seek(new, self._begin, self.settings.steps)}
        return [self._known[window] for window in windows]

    def _seek(self, windows: Sequence[Window], begin: Tensor, steps: int) -> list[Patch]:
        return seek(self.ground, windows, [self.target] * len(windows), begin, steps)

    def _measured(self, patch: Patch) -> Patch:
        """The patch with its worth by the network itself."""
        images = self.ground.images[self._others[: self.settings.judged]]
        return replace(patch, worth=self.ground.worth(patch, self.target, images))


def _sorted(patches: Sequence[Patch]) -> list[Patch]:
    return sorted(patches, key=lambda patch: -patch.worth)
