"""What a patch is: a window with colours, and how patches are sought."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tabor.errors import SettingError
from tabor.trigger import Trigger
from tabor.windows import Window

REAL_IMAGE = 1.0
"""Worth of a patch that convinces as much as a real image of its class."""


EVERYWHERE = ((0.1875, 0.09375), (0.28125, 0.09375), (0.40625, 0.125))
"""Edges of first windows all over an image, and the steps between them, as shares of its shorter edge."""

AT_THE_BORDER = tuple((k / 32, (1 - k / 32) / 2 + 1 / 64) for k in (3, 4, 5, 7, 8, 10, 11, 12, 14, 15))
"""The same of squares of other sizes, three by three of each: in the corners and the middles of the edges, where
triggers are put, and in the middle.  Some networks answer to a trigger of its very size, and to one that lacks a row or
has two more not at all."""


@dataclass(frozen=True, kw_only=True)
class RestoreSettings:
    """How patches are sought.

    Attributes:
        shapes: edges of the first windows and the steps between them, as shares of the image's shorter edge.
        grid: colours along each edge of a window, between which it shades.  One colour misses pictures; with free
            pixels a trained network has patches anywhere that beat the planted one.
        fine_grid: the same of a second search, in the best windows of the first and in the corners: a trigger of many
            colours is seen by no fewer.
        price: what covering the whole image costs, in leads of a clean image's own class.
        slenderness: what it costs that a window is e times as long as wide, likewise: triggers are compact.
        hiding: what it costs that the odds of keeping a right answer with the window hidden are e times lower
            than where nothing is hidden, likewise.
        least_kept: share of its accuracy that the model must keep where a window is hidden: a patch over the object is
            a picture of another class, not a trigger.
        by_worth, by_score: how many classes are looked at closely for a good first window, and for a small score.
        first: best first windows of a class that are looked at, and after them those in the corners that lie apart.
        kept: of these, how many are looked at again with all tries.
        hopeless: worth of a class's best first window up to which it is not looked at closer: a planted trigger may be
            worth nothing in the first windows, which are a pixel or two beside it.
        poor: worth after the first round of the closer search up to which it ends.
        apart: Jaccard index above which two first windows are taken for the same.
        spreads, fine_spreads: how far, as a share of their edges in [0, 1], windows are moved and stretched in each
            round of the closer search, and of the second one, which goes on while many colours promise something.
        drawn: windows that are drawn at random in a round, near the best few so far.
        promising, unranked: of these, how many are tried because they do well with the colours found so far, and how
            many whatever they do.
        tries: random colours that the search for a window's colours begins with.
        trial_steps: optimiser steps after which the start that leads goes on alone.
        steps, first_steps: optimiser steps on the colours, and in the first look.
        compared: how many other classes, at most, tell by their leads in a patch's window what is natural there.
        surveyed, batch_size, judged, cropped: images that the survey takes, that a step on the colours takes, that a
            patch is judged by, and that tell what a window hides.
        learning_rate: of Adam, on the colours before the sigmoid.
        large: how many classes are looked at for a large trigger (`tabor.large`).
    """

    shapes: tuple[tuple[float, float], ...] = (*EVERYWHERE, *AT_THE_BORDER)
    grid: int = 3
    fine_grid: int = 8
    price: float = 4.0
    slenderness: float = 1.0
    hiding: float = 1.0
    least_kept: float = 0.45
    by_worth: int = 3
    by_score: int = 2
    first: int = 16
    kept: int = 6
    hopeless: float = -1.0
    poor: float = -0.5
    apart: float = 0.6
    spreads: tuple[float, ...] = (0.2, 0.2, 0.1)
    fine_spreads: tuple[float, ...] = (0.2, 0.2, 0.1, 0.1)
    drawn: int = 160
    promising: int = 10
    unranked: int = 6
    tries: int = 2
    trial_steps: int = 8
    steps: int = 20
    first_steps: int = 10
    compared: int = 64
    surveyed: int = 8
    batch_size: int = 8
    judged: int = 64
    cropped: int = 64
    learning_rate: float = 0.6
    large: int = 16

    def __post_init__(self) -> None:
        positive = (
            self.grid,
            self.fine_grid,
            self.first,
            self.kept,
            self.drawn,
            self.promising,
            self.tries,
            self.trial_steps,
            self.steps,
            self.first_steps,
            self.compared,
            self.surveyed,
            self.batch_size,
            self.judged,
            self.cropped,
        )
        others = (self.by_worth, self.by_score, self.unranked, self.large)
        if not all(isinstance(count, int) for count in (*positive, *others)):
            raise SettingError(f"the search for patches needs whole numbers as counts, got {self}")
        if min(positive) < 1:
            raise SettingError(f"the search for patches needs positive counts, got {self}")
        if min(others) < 0 or not self.learning_rate > 0:
            raise SettingError(f"the search for patches needs a positive rate and no negative counts, got {self}")
        if not self.shapes or not all(0 < edge <= 1 for shape in self.shapes for edge in shape):
            raise SettingError(f"the search for patches needs windows with edges in (0, 1] of the image's, got {self}")
        if not all(0 <= spread <= 1 for spread in (*self.spreads, *self.fine_spreads)):
            raise SettingError(f"the search for patches needs spreads between 0 and 1, got {self}")
        if not all(math.isfinite(value) for value in vars(self).values() if isinstance(value, float)):
            raise SettingError(f"the search for patches needs finite numbers, got {self}")


@dataclass(frozen=True, eq=False)
class Patch:
    """A window with colours.

    Attributes:
        window: where it is.
        colours: in [0, 1], shape (C, G, G), at even distances in the window; between them it shades.
        worth: the mean lead of the target's logit over the highest other one, in mean leads of a clean image's own
            class (1: it convinces as much as a real image of the target does), less what the window costs.
        outline: how far the colours cover the image, in [0, 1], shape (1, G, G); None: wholly.
    """

    window: Window
    colours: Tensor
    worth: float
    outline: Tensor | None = None

    def trigger(self, height: int, width: int) -> Trigger:
        """Returns it as a trigger for images of that size; its mask is 0 outside of the window."""
        outlines = None if self.outline is None else self.outline[None]
        masks, patterns = paint([self.window], self.colours[None], height, width, outlines)
        return Trigger(masks[0], (masks[0] > 0) * patterns[0].clamp(0, 1))


def paint(
    windows: Sequence[Window], colours: Tensor, height: int, width: int, outlines: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Returns masks (K, 1, H, W) of windows and patterns (K, C, H, W) that shade between colours (K, C, G, G).

    With outlines (K, 1, G, G) the masks are not 1 in all of the window.  Gradients flow to the colours.
    """
    grid = colours.shape[2]
    down = torch.stack([_shares(w.top, w.bottom, height, grid) for w in windows]).to(colours.device)
    across = torch.stack([_shares(w.left, w.right, width, grid) for w in windows]).to(colours.device)
    # Shading is bilinear, so what each row and each column has of each colour tells all, and two products do it.
    masks = (down.sum(2)[:, None, :, None] * across.sum(2)[:, None, None, :]).round()
    if outlines is not None:
        masks = (down[:, None] @ outlines @ across.mT[:, None]).clamp(0, 1)
    return masks, down[:, None] @ colours @ across.mT[:, None]


@functools.lru_cache(maxsize=4096)
def _shares(start: int, end: int, length: int, grid: int) -> Tensor:
    """What each pixel of a line has of each of so many colours spread from start to end, shape (length, grid).

    Rows sum to 1 inside and to 0 outside.
    """
    inside = F.interpolate(torch.eye(grid)[None], end - start, mode="linear", align_corners=False)[0].T
    return F.pad(inside, (0, 0, start, length - end))


def plain_colours(channels: int) -> Tensor:
    """Returns the corners of the colour cube and its middle, (colours, C); of over 3 channels black, grey, white."""
    corners = list(itertools.product((0.0, 1.0), repeat=channels)) if channels <= 3 else []
    return torch.tensor([*corners, *([level] * channels for level in (0.0, 0.5, 1.0) if level == 0.5 or not corners)])
