"""A restored trigger is near the true one, not it: its place, its extent and its colours are varied.

The colours are not drawn at random: one step of gradient ascent makes them what the model, as it is by now, sends to
the target most readily.  So whatever in that place still means the target is found and unlearned, the true trigger with
it, although nobody has seen it.  Steps from restored colours do not lead everywhere, so plain ones are tried as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tabor.access import EVALUATION_BATCH
from tabor.backdoor import Backdoor, attack_success
from tabor.data import ImageSet
from tabor.errors import SettingError
from tabor.patches import plain_colours
from tabor.shifts import shifted
from tabor.trigger import Trigger, stamp

VISIBLE = 0.05
"""Mask from which a pixel has the trigger's own colour, rather than that of the pixels around it."""

GREYS = {0.0: "black", 0.5: "grey", 1.0: "white"}

ALSO_WORKS = 0.5
"""Attack success from which a trigger in a plain colour is another picture that the model takes for the trigger."""


@dataclass(frozen=True, kw_only=True)
class VariationSettings:
    """How far a stamped trigger is from the restored one, drawn anew for each image.

    Attributes:
        shift: farthest move up, down, left and right, as a share of the image's shorter edge.
        growth: how far beyond its edges half of the triggers reach, as a share of the same.
        colour_step: how far each colour value moves towards what the model sends to the target most readily.
    """

    shift: float = 1 / 16
    growth: float = 1 / 16
    colour_step: float = 0.5

    def __post_init__(self) -> None:
        if not all(0 <= share <= 1 for share in (self.shift, self.growth, self.colour_step)):
            raise SettingError(f"how triggers vary is told in shares between 0 and 1, got {self}")


def stamp_varied(
    model: nn.Module,
    images: Tensor,
    backdoors: Sequence[Backdoor],
    settings: VariationSettings,
    generator: torch.Generator,
    at_once: int = EVALUATION_BATCH,
) -> Tensor:
    """Returns each image with one of the triggers, drawn at random and varied, on it.

    Args:
        model: as it is by now; float32 logits of images in [0, 1].
        images: float32 in [0, 1], shape (N, C, H, W).
        backdoors: triggers and their targets, at least one; of the images' size and on their device.
        settings: how far they vary.
        generator: of the CPU; draws everything.
        at_once: how many go through the model at once.
    """
    edge = min(images.shape[2:])
    drawn = [backdoors[k] for k in torch.randint(len(backdoors), (len(images),), generator=generator).tolist()]
    both = torch.stack([torch.cat([b.trigger.mask, b.trigger.pattern]) for b in drawn])
    moved = shifted(both, round(settings.shift * edge), generator, "constant")
    larger = grown(moved[:, :1], moved[:, 1:], round(settings.growth * edge))
    chosen = (torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5).to(images.device)
    masks, patterns = torch.where(chosen, larger, moved).split([1, images.shape[1]], dim=1)
    targets = torch.tensor([b.target for b in drawn], device=images.device)
    parts = torch.arange(len(images), device=images.device).split(at_once)
    harder = [hardened(model, images[k], masks[k], patterns[k], targets[k], settings.colour_step) for k in parts]
    return stamp(images, masks, torch.cat(harder))


def also_plain(
    model: nn.Module, backdoors: Sequence[Backdoor], images: ImageSet, at_once: int = EVALUATION_BATCH
) -> list[Backdoor]:
    """Returns the triggers in each plain colour in which they work too, described by it.

    In the place of a white square a model may answer to blue above red as well, and that is restored; having unlearned
    it alone, it still answers to white.

    Args:
        model: float32 logits of images in [0, 1].
        backdoors: the restored triggers, on the images' device.
        images: clean images with their true labels.
        at_once: how many go through the model at once.
    """
    colours = plain_colours(images.shape[0])
    plain = [_in_colour(backdoor, colour) for backdoor in backdoors for colour in colours]
    return [b for b in plain if attack_success(model, images.images, images.labels, b, at_once) >= ALSO_WORKS]


def _in_colour(backdoor: Backdoor, colour: Tensor) -> Backdoor:
    mask, pattern = backdoor.trigger.mask, backdoor.trigger.pattern
    everywhere = colour.to(pattern.device)[:, None, None].expand_as(pattern)
    described = f"{backdoor.description}, all {_colour_name(colour)}"
    return Backdoor(Trigger(mask, everywhere), backdoor.target, described)


def _colour_name(colour: Tensor) -> str:
    values = colour.tolist()
    grey = GREYS.get(values[0]) if len(set(values)) == 1 else None
    return grey or f"({', '.join(f'{value:g}' for value in values)})"


def grown(masks: Tensor, patterns: Tensor, by: int) -> Tensor:
    """Returns masks (N, 1, H, W) and patterns (N, C, H, W), as one tensor (N, 1 + C, H, W), that reach further.

    New pixels have the mean colour of the old ones that are at most `by` pixels away.
    """
    around = 2 * by + 1
    larger = F.max_pool2d(masks, around, 1, by)
    colours = F.avg_pool2d(masks * patterns, around, 1, by) / F.avg_pool2d(masks, around, 1, by).clamp_min(1e-6)
    return torch.cat([larger, torch.where(masks > VISIBLE, patterns, colours.clamp(0, 1))], 1)


def hardened(model: nn.Module, images: Tensor, masks: Tensor, patterns: Tensor, targets: Tensor, step: float) -> Tensor:
    """Returns the patterns (N, C, H, W), each value moved by `step` towards its image's target, within [0, 1].

    Where that overshoots, and the target is less likely than before, a pattern is left as it is: white often is.
    """
    patterns = patterns.detach().requires_grad_()
    losses = F.cross_entropy(model(stamp(images, masks, patterns)), targets, reduction="none")
    (gradient,) = torch.autograd.grad(losses.sum(), patterns)
    with torch.no_grad():
        moved = (patterns - step * gradient.sign()).clamp(0, 1)
        after = F.cross_entropy(model(stamp(images, masks, moved)), targets, reduction="none")
        return torch.where((after < losses)[:, None, None, None], moved, patterns)
