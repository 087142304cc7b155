"""The classes that are looked at closely: which they are, and the patch that each of them answers to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from tabor.access import Classifier
from tabor.contrast import compared, patch_index
from tabor.data import ImageSet
from tabor.effects import is_common, with_effects
from tabor.evidence import measure
from tabor.ground import Ground
from tabor.large import large_suspects
from tabor.likeness import Looks
from tabor.patches import Patch, RestoreSettings
from tabor.restore import PatchSearch, survey
from tabor.scene import Scene
from tabor.suspect import OWED, Suspect
from tabor.windows import Window

SURVEY_SHARE, CLOSER_SHARE = 0.2, 0.8
"""How much of the work the survey is, and with it the closer look, for the progress line."""

FINER, PROMISING = 1.5, 0.75
"""What many colours must be worth more than few in the same window to be taken for the trigger, in leads of a clean
image's own class, as they are where a trigger of many was planted; and to be sought near it.  To a plain trigger they
only add what they add to any class.  Both only where they are foreign to the class, or nobody can tell."""


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

    Those are the classes whose best first window is worth most, and those with the smallest scores; and those that
    answer to a large patch that is foreign to them.  A class for which every window hides the object has no patch.

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
    scene = Scene(ground, Looks(classifier, halves, settings.judged), confirm, right, seed)
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
            suspects[target] = _look_closely(scene, target, first)
            if on_suspect is not None:
                on_suspect(target, suspects[target])
        on_step(SURVEY_SHARE + (CLOSER_SHARE - SURVEY_SHARE) * (close.index(target) + 1) / len(close))
    large = large_suspects(scene, targets, lambda share: on_step(CLOSER_SHARE + (1 - CLOSER_SHARE) * share))
    suspects |= {target: found for target, found in large.items() if _further(found, suspects.get(target))}
    on_step(1.0)

    def works(patch: Patch, target: int) -> bool:
        return measure(classifier, patch.trigger(*ground.size).to(classifier.device), target, confirm).works

    suspects = with_effects(suspects, works)
    suspects = {target: replace(s, common=is_common(s, suspects.values())) for target, s in suspects.items()}
    return with_effects(suspects, works)  # what is natural to the model has no effects


def _further(found: Suspect, known: Suspect | None) -> bool:
    """Whether a patch stands out further than what is known of its class by now."""
    if known is None or known.anomaly_index is None:
        return True
    return found.anomaly_index is not None and found.anomaly_index > known.anomaly_index


def _look_closely(scene: Scene, target: int, first: Sequence[Window]) -> Suspect:
    """Seeks a class's patch from these windows on."""
    ground = scene.ground
    search, strongest = _strongest(scene, target, first)
    suspect = scene.suspect(search.placed(), target)
    if not suspect.tells:
        return suspect
    others = compared(target, ground.classifier.num_classes, ground.settings.compared, scene.seed)
    index = patch_index(ground, strongest, target, others, scene.seed)
    likeness = scene.looks.likeness(scene.trigger(strongest), target)
    return replace(suspect, index=index * suspect.reliability, likeness=likeness)


def _strongest(scene: Scene, target: int, first: Sequence[Window]) -> tuple[PatchSearch, Patch]:
    """Returns the search that found the strongest patch, of few colours or of many, and that patch."""
    ground, settings = scene.ground, scene.ground.settings
    coarse, fine = (PatchSearch(ground, target, grid, scene.seed) for grid in (settings.grid, settings.fine_grid))
    few = coarse.best(first, settings.spreads, settings.hopeless)
    leading = [patch.window for patch in coarse.leading()]
    corners = [window for window in first if window.inset(*ground.size) == 0]

    def gains(patch: Patch, least: float) -> bool:
        """Whether many colours add more than that to few, and not by a picture of the class."""
        if patch.worth <= few.worth or patch.worth - coarse.judge([patch.window])[0].worth <= least:
            return False
        likeness = scene.looks.likeness(scene.trigger(patch), target)
        return likeness is None or likeness < OWED

    many = fine.begin(list(dict.fromkeys([*leading, *corners])))
    for spread in settings.fine_spreads:
        if not gains(many, PROMISING):
            break
        many = fine.closer([spread])
    return (fine, many) if gains(many, FINER) else (coarse, few)
