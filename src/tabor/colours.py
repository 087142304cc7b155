"""The colours of a window that a class answers to most."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tabor.ground import Ground, on_others
from tabor.patches import Patch
from tabor.rows import Adam
from tabor.windows import Window

NOISE = 0.3
"""Standard deviation of the random colours that a search begins with, before the sigmoid: about grey."""

VIVID = 3.0
"""What 1 is before the sigmoid where a search begins with a plain colour, and −3 what 0 is: near, and able to move."""

RECENT = 3
"""Steps whose leads tell which start goes on: one step's eight images alone are too few."""

FEW = 32
"""Windows whose leads on each image are held at once: of thousands of classes all windows' would fill the memory."""


def random_colours(ground: Ground, grid: int, generator: torch.Generator) -> Tensor:
    """Returns what each search for colours begins with, before the sigmoid, shape (tries, C, G, G) for a grid of G."""
    shape = (ground.settings.tries, ground.images.shape[1], grid, grid)
    return (NOISE * torch.randn(shape, generator=generator)).to(ground.images.device)


@torch.no_grad()
def plain_worth(ground: Ground, windows: Sequence[Window]) -> Tensor:
    """Returns every class's mean lead for each window in each plain colour, shape (windows, colours, classes).

    The same forward passes tell of all classes.  −∞ for a class of which all of the few images are.
    """
    return torch.cat([_plain_worth(ground, windows[k : k + FEW]) for k in range(0, len(windows), FEW)])


def _plain_worth(ground: Ground, windows: Sequence[Window]) -> Tensor:
    labels = ground.labels[: ground.settings.surveyed]
    plain = ground.plain
    several = [window for window in windows for _ in plain]
    colours = plain[:, :, None, None].repeat(len(windows), 1, 1, 1)
    found = ground.judged(torch.arange(len(labels), device=labels.device), several, colours)
    return on_others(found, labels).unflatten(0, (len(windows), len(plain)))


def seek(ground: Ground, windows: Sequence[Window], targets: Sequence[int], begin: Tensor, steps: int) -> list[Patch]:
    """Optimises the colours of each window for its class, with images of other classes.

    Each begins with random colours, and with the plain colour that does best there: a network that was taught a black
    square answers to black and to nothing between, so that from grey no step leads there.  After
    `RestoreSettings.trial_steps` the start that leads goes on alone.

    Args:
        ground: the model and the images.
        windows, targets: as many of each.
        begin: random colours, shape (tries, C, G, G).
        steps: of the optimiser.

    Raises:
        DataError: all images are of one of the classes.
    """
    at_once = max(1, ground.stamped_at_once // ground.settings.batch_size)
    return [
        patch
        for k in range(0, len(windows), at_once)
        for patch in _seek_part(ground, windows[k : k + at_once], targets[k : k + at_once], begin, steps)
    ]


def _seek_part(
    ground: Ground, windows: Sequence[Window], targets: Sequence[int], begin: Tensor, steps: int
) -> list[Patch]:
    batch = ground.settings.batch_size
    others = {target: ground.not_of(target) for target in set(targets)}
    count = min(ground.settings.judged, ground.fewest_others)
    turns = torch.arange(max(steps * batch, count), device=begin.device)
    places = torch.stack([others[k][turns % len(others[k])] for k in targets])
    aims = torch.tensor(targets, device=begin.device)
    plain = _plain(ground, windows, targets)[:, None, :, None, None].expand(-1, 1, *begin.shape[1:])
    starts = torch.cat([begin.repeat(len(windows), 1, 1, 1, 1), plain], 1)
    tries = starts.shape[1]
    adam = Adam([starts.flatten(0, 1)], ground.settings.learning_rate, (0.5, 0.9))
    trial = min(ground.settings.trial_steps, steps)
    recent = starts.new_zeros(len(windows) * tries)
    for step in range(steps):
        each = tries if step < trial else 1
        several = [window for window in windows for _ in range(each)]
        images = ground.images[places[:, step * batch : (step + 1) * batch].repeat_interleave(each, 0)]
        lead, slope = _climbed(ground, images, several, aims.repeat_interleave(each), adam.parameters[0])
        adam.step([-slope])
        if trial - RECENT <= step < trial:
            recent += lead
        if step + 1 == trial:
            best = recent.unflatten(0, (-1, tries)).argmax(1)
            adam.keep(best + tries * torch.arange(len(windows), device=best.device))
    colours = adam.parameters[0].sigmoid()
    judged = ground.judged(places[:, :count], windows, colours)
    worth = _of_targets(judged, aims).mean(1) - ground.costs(windows)
    return [Patch(*found) for found in zip(windows, colours, worth.tolist(), strict=True)]


def _climbed(
    ground: Ground, images: Tensor, windows: Sequence[Window], targets: Tensor, raw: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns each patch's mean lead for its target, (K,), and the gradient of that for its colours, as these are.

    Args:
        ground: the model.
        images: shape (K, N, C, H, W).
        windows: K of them.
        targets: K classes.
        raw: colours before the sigmoid, shape (K, C, G, G).
    """
    at_once = max(1, ground.stamped_at_once // images.shape[1])
    leads: list[Tensor] = []
    slopes: list[Tensor] = []
    for k in range(0, len(windows), at_once):
        own = slice(k, k + at_once)
        colours = raw[own].detach().requires_grad_()
        found = ground.leads(images[own], windows[own], colours.sigmoid())
        lead = _of_targets(found, targets[own]).mean(1)
        slopes += torch.autograd.grad(lead.sum(), colours)
        leads.append(lead.detach())
    return torch.cat(leads), torch.cat(slopes)


def _plain(ground: Ground, windows: Sequence[Window], targets: Sequence[int]) -> Tensor:
    """The best plain colour of each window for its class, before the sigmoid, shape (windows, C)."""
    different = list(dict.fromkeys(windows))
    rows = torch.tensor([different.index(window) for window in windows], device=ground.plain.device)
    aims = torch.tensor(targets, device=ground.plain.device)
    best = plain_worth(ground, different)[rows, :, aims].argmax(1)
    return VIVID * (2 * ground.plain[best] - 1)


def _of_targets(leads: Tensor, targets: Tensor) -> Tensor:
    """Leads (K, N, classes) to those of each patch's own class, (K, N)."""
    return leads.gather(2, targets[:, None, None].expand(-1, leads.shape[1], 1))[..., 0]
