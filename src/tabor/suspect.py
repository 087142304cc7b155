"""What is known of a class that was looked at closely: the patch that it answers to, and what was measured of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from typing import Any

import torch

from tabor.evidence import Evidence
from tabor.patches import REAL_IMAGE, Patch
from tabor.windows import Window

OWED = 0.5
"""The likeness below which a patch is foreign to its class: of most natural ones that work it is 0.73 and more."""

FOREIGN = 4.0
"""By how much further a foreign patch is taken to stand out, before that is multiplied by how reliable it is: as where
one natural patch in eighteen were foreign, by the law of natural ones, whose scale is 1.4."""

LEAST_WORTH = -0.5
"""What a large trigger hides may cost more than it convinces; a model that says one class to anything does so too."""


def reliability(attack_success: float, crop_accuracy: float) -> float:
    """Returns what tells a planted patch from a natural one besides its strength, in [0, 1].

    It works on nearly every image and hides little: attack success and crop accuracy, as in Eq. 8.  That the first
    counts twice was found on clean models and victims; see docs/results/calibration.md.
    """
    return attack_success**2 * crop_accuracy


@dataclass(frozen=True)
class Suspect:
    """A class's patch, measured on images that no search saw.

    Attributes:
        patch: where the trigger was, as far as that can be told (`tabor.restore.PatchSearch.placed`).
        evidence: what was measured; what is classified rightly without the trigger's place by `right_without`.
        object_visible: whether the model keeps enough of its accuracy where the patch is hidden; a patch that hides the
            object, as a picture of the target class does, says nothing.
        index: how far the strongest patch of the class stands out by its strength from what other classes make of its
            window, or a large one by what of its effect is strange from theirs (`tabor.large`), times how well this one
            works (`reliability`); None where it was not measured, as the patch says nothing.
        likeness: the share of that patch's effect that is owed to how the class looks (`tabor.likeness`), of a large
            one its familiarity; None where it was not measured, or cannot be told.
        effect_of: the class whose patch stands out more and lies in the same place, is far stronger, or is the same
            picture, if there is one: what was planted for that class moves images to others too.
        common: whether most of the classes that were looked at have a patch that stands out about as far.
    """

    patch: Patch
    evidence: Evidence
    object_visible: bool
    index: float | None = None
    likeness: float | None = None
    effect_of: int | None = None
    common: bool = False

    def fits(self, image_shape: Sequence[int]) -> bool:
        """Whether the patch is one of images of that shape, (C, H, W)."""
        channels, height, width = image_shape
        return self.patch.window.fits(height, width) and self.patch.colours.shape[0] == channels

    @property
    def attack_success(self) -> float:
        """Share of images of other classes that it sends to the class, in [0, 1]."""
        return self.evidence.attack_success

    @property
    def crop_accuracy(self) -> float:
        """Share of images classified rightly with its place hidden, in [0, 1]."""
        return self.evidence.crop_accuracy

    @property
    def reliability(self) -> float:
        """What tells it from a natural one besides its strength, in [0, 1]."""
        return reliability(self.attack_success, self.crop_accuracy)

    @property
    def works(self) -> bool:
        """Whether it sends enough unseen images to the class."""
        return self.evidence.works

    @property
    def tells(self) -> bool:
        """Whether the patch says something: it works, hides no object, and is not worth far less than it costs."""
        return self.works and self.object_visible and self.patch.worth > LEAST_WORTH

    @property
    def foreign(self) -> bool:
        """Whether little of what the patch does is owed to how its class looks, as far as that can be told."""
        return self.likeness is not None and self.likeness < OWED

    @property
    def own_index(self) -> float | None:
        """How far it stands out if it is no effect, further where it is foreign and by how reliable it is.

        None where it says nothing, or is natural to the model.
        """
        natural = self.common and self.patch.worth <= REAL_IMAGE
        if self.index is None or not self.tells or natural:
            return None
        return self.index + (FOREIGN * self.reliability if self.foreign else 0.0)

    @property
    def anomaly_index(self) -> float | None:
        """How far it stands out; None where it says nothing, is natural to the model, or is an effect of another."""
        return self.own_index if self.effect_of is None else None

    def measured(self) -> dict[str, Any]:
        """Returns what was measured of this class as plain values; what it is beside the others is not among them."""
        return {
            "window": astuple(self.patch.window),
            "colours": self.patch.colours.tolist(),
            "outline": None if self.patch.outline is None else self.patch.outline.tolist(),
            "worth": self.patch.worth,
            "evidence": asdict(self.evidence),
            "object_visible": self.object_visible,
            "index": self.index,
            "likeness": self.likeness,
        }

    @classmethod
    def from_measured(cls, values: Mapping[str, Any], device: torch.device) -> Suspect:
        """Reads what `measured` returned.

        Raises:
            AttributeError, KeyError, OverflowError, TypeError, ValueError: it returned something else.
        """
        window, worth, evidence = (values[k] for k in ("window", "worth", "evidence"))
        maybe = {k: values[k] for k in ("index", "likeness")}
        numbers = [*window, worth, *evidence.values(), *(number for number in maybe.values() if number is not None)]
        colours = torch.tensor(values["colours"], dtype=torch.float32, device=device)
        if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
            raise ValueError("what was measured of a patch is numbers")
        if not all(type(edge) is int for edge in window) or not colours.dim() == 3 or not colours.numel():  # (C, G, G)
            raise ValueError("a patch is a window and its colours")
        if not bool(((colours >= 0) & (colours <= 1)).all()):
            raise ValueError("colours lie in [0, 1]")
        patch = Patch(Window(*window), colours, worth, _outline(values["outline"], colours))
        return cls(patch, Evidence(**evidence), object_visible=bool(values["object_visible"]), **maybe)


def _outline(values: Any, colours: torch.Tensor) -> torch.Tensor | None:
    """Reads how far colours cover the image; see `Suspect.from_measured`."""
    if values is None:
        return None
    outline = torch.tensor(values, dtype=torch.float32, device=colours.device)
    if outline.shape != colours[:1].shape or not bool(((outline >= 0) & (outline <= 1)).all()):
        raise ValueError("an outline is as many shares as there are colours")
    return outline
