"""The classes that are looked at closely: which they are, and the patch that each of them answers to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tabor.access import Classifier
from tabor.data import ImageSet
from tabor.evidence import Evidence, measure
from tabor.restore import Patch, Restorer, RestoreSettings
from tabor.trigger import Trigger

SEEN = 0.5
"""Crop accuracy below which a patch hides the object, as a picture of the target class does, and says nothing."""

SURVEYS_A_RESTORATION = 10
"""How many surveys take as long as one climb, for the progress line."""


@dataclass(frozen=True)
class Suspect:
    """A class's patch, measured on images that no search saw.

    Attributes:
        patch: where it is and what it is worth.
        evidence: what was measured.
    """

    patch: Patch
    evidence: Evidence

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
    def worth(self) -> float | None:
        """The patch's worth; None where it does not work or hides the object, and so says nothing."""
        return self.patch.worth if self.works and self.crop_accuracy >= SEEN else None


def restore_suspects(
    classifier: Classifier,
    halves: tuple[ImageSet, ImageSet],
    triggers: Mapping[int, Trigger],
    scores: Mapping[int, float],
    settings: RestoreSettings,
    seed: int,
    on_step: Callable[[float], None],
) -> dict[int, Suspect]:
    """Seeks the patches of the classes that are suspicious for one of two reasons.

    Those are the classes with the smallest scores, and those whose best window of a coarse grid is worth most.

    Args:
        classifier: the model.
        halves: images to search with, and other images to measure on.
        triggers: the smallest trigger that was found for each class.
        scores: of those triggers that work; smaller is more suspicious.
        settings: the search.
        seed: of its random draws.
        on_step: called with the share of the work done, in [0, 1].
    """
    search, confirm = halves
    restorer = Restorer(classifier, search, settings, seed)
    work = len(triggers) + SURVEYS_A_RESTORATION * 2 * settings.candidates
    surveyed: dict[int, Patch] = {}
    for target in triggers:
        surveyed[target] = restorer.survey(target)
        on_step(len(surveyed) / work)
    by_score = sorted(scores, key=lambda target: scores[target])
    by_worth = sorted(surveyed, key=lambda target: -surveyed[target].worth)
    close = dict.fromkeys(by_score[: settings.candidates] + by_worth[: settings.candidates])
    suspects: dict[int, Suspect] = {}
    for target in close:
        patch = restorer.restore(target, triggers[target], surveyed[target])
        suspects[target] = Suspect(patch, measure(classifier, patch.trigger(), target, confirm))
        on_step((len(triggers) + SURVEYS_A_RESTORATION * len(suspects)) / work)
    return suspects
