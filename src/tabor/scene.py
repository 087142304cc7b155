"""What looking closely at a class takes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tabor.data import ImageSet
from tabor.evidence import measure, right_without
from tabor.ground import Ground
from tabor.likeness import Looks
from tabor.patches import Patch
from tabor.suspect import Suspect
from tabor.trigger import Trigger


@dataclass(frozen=True, eq=False)
class Scene:
    """The model, the images, and what was seen of both.

    Attributes:
        ground: the model and the images to search with.
        looks: how the classes look to it.
        confirm: the other images.
        right: how many of these are classified rightly.
        seed: of the colours that a search begins with.
    """

    ground: Ground
    looks: Looks
    confirm: ImageSet
    right: int
    seed: int

    def trigger(self, patch: Patch) -> Trigger:
        """Returns the patch as a trigger for the images, on their device."""
        return patch.trigger(*self.ground.size).to(self.confirm.images.device)

    def suspect(self, patch: Patch, target: int) -> Suspect:
        """Returns what a patch does for its class, measured on the other images; how far it stands out is not known."""
        classifier, trigger = self.ground.classifier, self.trigger(patch)
        least = self.ground.settings.least_kept * self.right
        sight = right_without(classifier, trigger.mask, self.confirm, least)
        evidence = replace(measure(classifier, trigger, target, self.confirm), cropped_right=sight)
        return Suspect(patch, evidence, object_visible=sight >= max(least, 1))
