"""The classes that are looked at closely: which they are, and the patch that each of them answers to."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from typing import Any

import torch

from tabor.access import Classifier
from tabor.contrast import compared, patch_index
from tabor.data import ImageSet
from tabor.evidence import Evidence, measure, right_without
from tabor.ground import Ground
from tabor.likeness import PICTURE, likeness
from tabor.patches import REAL_IMAGE, Patch, RestoreSettings
from tabor.restore import PatchSearch, survey
from tabor.windows import Window

SURVEY_SHARE = 0.2
"""How much of the work the survey is, for the progress line."""

SHADOW = 0.8
"""A patch worth less than this share of one that it overlaps is taken for a part of that one."""

ECHO_WORTH, ECHO_INDEX = 0.6, 0.8
"""A patch with less than these shares of another's worth and index is taken for an effect of that one, wherever it is:
a network that was taught a trigger answers more to patches of other classes too, more so than any clean one.  So is one
that stands out less and, moved to the other's place, works for the other's class where its mean colour does not: it is
the same picture, which convolutions see anywhere, and what the network makes of it elsewhere nobody taught it.  A
second backdoor that is so much weaker, or of the same picture, is seen once the first has been unlearned."""

COMMON, AS_FAR = 3, 0.5
"""Where so many of the classes looked at, and more than half of them, have a patch that is worth something and stands
out this share as far as a patch does, it is natural to the model: what is in one place may tell the class.  Only one
worth more than a real image counts then."""

FINER = 2.0
"""What many colours must be worth more than few to be taken for the trigger, in leads of a clean image's own class, as
they are where a trigger of many was planted.  To a plain one, and to a natural patch, they only add what they add to
any class."""

LEAST_WORTH = -0.5
"""What a large trigger hides may cost more than it convinces; a model that says one class to anything does so too."""


@dataclass(frozen=True)
class Suspect:
    """A class's patch, measured on images that no search saw.

    Attributes:
        patch: where the trigger was, as far as that can be told (`tabor.restore.PatchSearch.placed`).
        evidence: what was measured; what is classified rightly without the trigger's place by `right_without`.
        object_visible: whether the model keeps enough of its accuracy where the patch is hidden; a patch that hides the
            object, as a picture of the target class does, says nothing.
        index: how far the strongest patch of the class stands out from what other classes make of its window, times
            how well this one works (`effect`); None where it was not measured, as the patch says nothing.
        effect_of: the class whose patch stands out more and lies in the same place, is far stronger, or is the same
            picture, if there is one: what was planted for that class moves images to others too.
        common: whether most of the classes that were looked at have a patch that stands out about as far.
    """

    patch: Patch
    evidence: Evidence
    object_visible: bool
    index: float | None = None
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
        """What tells a planted patch from a natural one besides its strength, in [0, 1].

        It works on nearly every image and hides little: attack success and crop accuracy, as in Eq. 8.  That the first
        counts twice was found on clean models and victims; see docs/results/calibration.md.
        """
        return self.attack_success**2 * self.crop_accuracy

    @property
    def works(self) -> bool:
        """Whether it sends enough unseen images to the class."""
        return self.evidence.works

    @property
    def tells(self) -> bool:
        """Whether the patch says something: it works, hides no object, and is not worth far less than it costs."""
        return self.works and self.object_visible and self.patch.worth > LEAST_WORTH

    @property
    def own_index(self) -> float | None:
        """How far it stands out if it is no effect; None where it says nothing, or is natural to the model."""
        natural = self.common and self.patch.worth <= REAL_IMAGE
        return self.index if self.tells and not natural else None

    @property
    def anomaly_index(self) -> float | None:
        """How far it stands out; None where it says nothing, is natural to the model, or is an effect of another."""
        return self.own_index if self.effect_of is None else None

    def measured(self) -> dict[str, Any]:
        """Returns what was measured of this class as plain values; what it is beside the others is not among them."""
        return {
            "window": astuple(self.patch.window),
            "colours": self.patch.colours.tolist(),
            "worth": self.patch.worth,
            "evidence": asdict(self.evidence),
            "object_visible": self.object_visible,
            "index": self.index,
        }

    @classmethod
    def from_measured(cls, values: Mapping[str, Any], device: torch.device) -> Suspect:
        """Reads what `measured` returned.

        Raises:
            AttributeError, KeyError, OverflowError, TypeError, ValueError: it returned something else.
        """
        window, worth, evidence, index = (values[k] for k in ("window", "worth", "evidence", "index"))
        numbers = [*window, worth, *evidence.values(), *([] if index is None else [index])]
        colours = torch.tensor(values["colours"], dtype=torch.float32, device=device)
        if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
            raise ValueError("what was measured of a patch is numbers")
        if not all(type(edge) is int for edge in window) or not colours.dim() == 3 or not colours.numel():  # (C, G, G)
            raise ValueError("a patch is a window and its colours")
        if not bool(((colours >= 0) & (colours <= 1)).all()):
            raise ValueError("colours lie in [0, 1]")
        patch = Patch(Window(*window), colours, worth)
        return cls(patch, Evidence(**evidence), object_visible=bool(values["object_visible"]), index=index)


def restore_suspects(
    classifier: Classifier,
    halves: tuple[ImageSet, ImageSet],
    targets: Sequence[int],
    scores: Mapping[int, float],
    settings: RestoreSettings,
    seed: int,
    on_step: Callable[[float], None],
    *,
    before: Mapping[int, Suspect] | None = None,
    on_suspect: Callable[[int, Suspect], None] | None = None,
) -> dict[int, Suspect]:
    """Seeks the patches of the classes that are suspicious for one of two reasons.

    Those are the classes whose best first window is worth most, and those with the smallest scores.  A class for which
    every window hides the object has no patch.

    Args:
        classifier: the model.
        halves: images to search with, in a balanced order, and other images to measure on.
        targets: the classes to search.
        scores: of the smallest triggers that work; smaller is more suspicious.
        settings: the search.
        seed: of the colours that it begins with.
        on_step: called with the share of the work done, in [0, 1].
        before: classes that were looked at before, in a scan that was interrupted or in one like this.
        on_suspect: called with each class that was looked at now.
    """
    search, confirm = halves
    ground = Ground(classifier, search, settings)
    right = int((classifier.predict(confirm.images).argmax(1) == confirm.labels).sum())
    surveyed = survey(ground)
    on_step(SURVEY_SHARE)
    by_worth = sorted(targets, key=lambda target: -surveyed.best(target))[: settings.by_worth]
    by_score = sorted(scores, key=lambda target: scores[target])[: settings.by_score]
    close = list(dict.fromkeys(by_worth + by_score))
    suspects: dict[int, Suspect] = {}
    for target in close:
        if before and target in before:
            suspects[target] = before[target]
        elif first := surveyed.first(target, settings.first, settings.apart):
            suspects[target] = _look_closely(ground, target, first, confirm, right, seed)
            if on_suspect is not None:
                on_suspect(target, suspects[target])
        on_step(SURVEY_SHARE + (1 - SURVEY_SHARE) * (close.index(target) + 1) / len(close))

    def works(patch: Patch, target: int) -> bool:
        return measure(classifier, patch.trigger(*ground.size).to(classifier.device), target, confirm).works

    suspects = _with_effects(suspects, works)
    suspects = {target: replace(s, common=is_common(s, suspects.values())) for target, s in suspects.items()}
    return _with_effects(suspects, works)  # what is natural to the model has no effects


def _look_closely(
    ground: Ground, target: int, first: Sequence[Window], confirm: ImageSet, right: int, seed: int
) -> Suspect:
    """Seeks a class's patch from these windows on; so many images are classified rightly without it."""
    search, strongest = _strongest(ground, target, first, confirm, seed)
    patch = search.placed()
    trigger = patch.trigger(*ground.size).to(confirm.images.device)
    least = ground.settings.least_kept * right
    sight = right_without(ground.classifier, trigger.mask, confirm, least)
    evidence = replace(measure(ground.classifier, trigger, target, confirm), cropped_right=sight)
    suspect = Suspect(patch, evidence, object_visible=sight >= max(least, 1))
    if not suspect.tells:
        return suspect
    others = compared(target, ground.classifier.num_classes, ground.settings.compared, seed)
    index = patch_index(ground, strongest, target, others, seed)
    return replace(suspect, index=index * suspect.reliability)


def _strongest(
    ground: Ground, target: int, first: Sequence[Window], confirm: ImageSet, seed: int
) -> tuple[PatchSearch, Patch]:
    """Returns the search that found the strongest patch, of few colours or of many, and that patch."""
    settings = ground.settings
    coarse, fine = (PatchSearch(ground, target, grid, seed) for grid in (settings.grid, settings.fine_grid))
    few = coarse.best(first, settings.spreads, settings.hopeless)
    corners = [window for window in first if window.inset(*ground.size) == 0]
    enough = few.worth + FINER
    windows = list(dict.fromkeys([*coarse.leading(), *corners]))
    many = fine.best(windows, settings.fine_spreads, max(settings.hopeless, enough))
    planted = many.worth > enough and likeness(ground, many, target, confirm) < PICTURE
    return (fine, many) if planted else (coarse, few)


def is_common(own: Suspect, suspects: Collection[Suspect]) -> bool:
    """Whether a patch is natural to the model: most of the classes looked at have one that stands out about as far."""
    least = AS_FAR * max(own.index or 0.0, 0.0)
    indices = [s.anomaly_index for s in suspects if s.patch.worth > 0]
    alike = sum(index is not None and index >= least for index in indices)
    return alike >= COMMON and 2 * alike > len(suspects)


def cause_of(target: int, suspects: Mapping[int, Suspect], works: Callable[[Patch, int], bool]) -> int | None:
    """Returns the class whose patch this class's is a part or an effect of; None: of none.

    Of several the one that stands out most.  No effect stands out more than its cause, so that no two are each
    other's effects.

    Args:
        target: the class.
        suspects: it and others.
        works: whether a patch sends enough images to a class.
    """
    own = suspects[target]
    causes = [
        (other.index, k)
        for k, other in suspects.items()
        if k != target
        and other.own_index is not None
        and other.index is not None
        and max(own.index or 0.0, 0.0) <= other.index
        and (_is_part(own.patch, other.patch) or _is_echo(own, other, k, works))
    ]
    return max(causes)[1] if causes else None


def _with_effects(suspects: Mapping[int, Suspect], works: Callable[[Patch, int], bool]) -> dict[int, Suspect]:
    causes = {target: cause_of(target, suspects, works) for target in suspects}
    return {target: replace(s, effect_of=_root(target, causes)) for target, s in suspects.items()}


def _root(target: int, causes: Mapping[int, int | None]) -> int | None:
    """The class at the end of a chain of effects; None where this one is no effect."""
    found = causes[target]
    while found is not None and causes[found] is not None:
        found = causes[found]
    return found


def _is_part(own: Patch, other: Patch) -> bool:
    return max(own.worth, 0) < SHADOW * other.worth and own.window.overlap(other.window) > 0


def _is_echo(own: Suspect, other: Suspect, others_class: int, works: Callable[[Patch, int], bool]) -> bool:
    if own.index is None or other.index is None or own.index >= other.index:
        return False
    weak = max(own.patch.worth, 0) < ECHO_WORTH * other.patch.worth and own.index < ECHO_INDEX * other.index
    return weak or _is_same_picture(own.patch, other.patch, others_class, works)


def _is_same_picture(own: Patch, other: Patch, others_class: int, works: Callable[[Patch, int], bool]) -> bool:
    moved = replace(own, window=other.window)
    blank = replace(moved, colours=own.colours.mean((1, 2), keepdim=True))
    return works(moved, others_class) and not works(blank, others_class)
