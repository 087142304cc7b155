"""The classes that are looked at closely: which they are, and the patch that each of them answers to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from tabor.access import Classifier
from tabor.contrast import compared, patch_index
from tabor.data import ImageSet
from tabor.evidence import Evidence, measure
from tabor.ground import Ground
from tabor.patches import Patch, RestoreSettings
from tabor.restore import PatchSearch, survey

SURVEY_SHARE = 0.2
"""How much of the work the survey is, for the progress line."""

SHADOW = 0.5
"""A patch worth less than this share of one that it overlaps is taken for a part of that one."""

COMMON = 3
"""Where so many of the classes looked at, and more than half of them, have a patch that says something, such patches
are natural to the model: what is in one place may tell the class.  Only one worth more than a real image counts."""

REAL_IMAGE = 1.0
"""Worth of a patch that convinces as much as a real image of its class."""


@dataclass(frozen=True)
class Suspect:
    """A class's patch, measured on images that no search saw.

    Attributes:
        patch: where it is and what it is worth.
        evidence: what was measured.
        in_sight: whether the model keeps enough of its accuracy where the patch is blacked out; a patch that hides the
            object, as a picture of the target class does, says nothing.
        index: how far it stands out from what other classes make of its window; None where it was not measured, as the
            patch says nothing.
        shadow_of: the class whose far stronger patch lies in the same place, if there is one: what was planted for
            that class moves images to others too.
        common: whether most of the classes that were looked at have a patch that says something.
    """

    patch: Patch
    evidence: Evidence
    in_sight: bool
    index: float | None = None
    shadow_of: int | None = None
    common: bool = False

    @property
    def attack_success(self) -> float:
        """Share of images of other classes that it sends to the class, in [0, 1]."""
        return self.evidence.attacked / max(self.evidence.attacked_of, 1)

    @property
    def crop_accuracy(self) -> float:
        """Share of images classified rightly with its place blacked out, in [0, 1]."""
        return self.evidence.cropped_right / max(self.evidence.cropped_of, 1)

    @property
    def works(self) -> bool:
        """Whether it sends enough unseen images to the class."""
        return self.evidence.works

    @property
    def tells(self) -> bool:
        """Whether the patch says something: it works, is worth more than it costs, and does not hide the object."""
        return self.works and self.in_sight and self.patch.worth > 0

    @property
    def anomaly_index(self) -> float | None:
        """How far it stands out; None where it says nothing, is a shadow, or is natural to the model."""
        natural = self.common and self.patch.worth <= REAL_IMAGE
        return self.index if self.tells and self.shadow_of is None and not natural else None


def restore_suspects(
    classifier: Classifier,
    halves: tuple[ImageSet, ImageSet],
    targets: Sequence[int],
    scores: Mapping[int, float],
    settings: RestoreSettings,
    seed: int,
    on_step: Callable[[float], None],
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
        if first := surveyed.first(target, settings.first, settings.apart):
            patch = PatchSearch(ground, target, seed).best(first)
            trigger = patch.trigger(*ground.size).to(classifier.device)
            evidence = measure(classifier, trigger, target, confirm)
            suspect = Suspect(patch, evidence, evidence.cropped_right >= settings.seen * right)
            if suspect.tells:
                others = compared(target, classifier.num_classes, settings.compared, seed)
                suspect = replace(suspect, index=patch_index(ground, patch, target, others, seed))
            suspects[target] = suspect
        on_step(SURVEY_SHARE + (1 - SURVEY_SHARE) * (close.index(target) + 1) / len(close))
    suspects = {target: replace(suspect, shadow_of=_caster(target, suspects)) for target, suspect in suspects.items()}
    common = is_common(suspects.values())
    return {target: replace(suspect, common=common) for target, suspect in suspects.items()}


def is_common(suspects: Collection[Suspect]) -> bool:
    """Whether patches that say something are natural to the model, as most of the classes looked at have one."""
    telling = sum(suspect.anomaly_index is not None for suspect in suspects)
    return telling >= COMMON and 2 * telling > len(suspects)


def _caster(target: int, suspects: Mapping[int, Suspect]) -> int | None:
    """The class that casts this shadow: of the strongest working patch that overlaps this far weaker one."""
    own = suspects[target].patch
    casters = [
        (other.patch.worth, k)
        for k, other in suspects.items()
        if other.works and max(own.worth, 0) < SHADOW * other.patch.worth and own.window.overlap(other.patch.window) > 0
    ]
    return max(casters)[1] if casters else None
