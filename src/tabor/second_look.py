"""Of several classes that stand out, which are targets and which are effects: what unlearning one of them leaves.

Where a backdoor was planted other classes have stronger patches too than in any clean model, now and then stronger than
the planted one.  Whether one of them that stands out was a target of its own, or is such an effect, shows in a copy of
the model that has unlearned the other's trigger: the same test is made again, and what remains is held against the law
of clean models as they are.  Not in the paper, which reports such classes beside the right one; measured in
docs/results/second-look.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from torch import nn

from tabor.access import Classifier
from tabor.attacks.badnet import Backdoor
from tabor.data import ImageSet
from tabor.evidence import measure
from tabor.patches import RestoreSettings
from tabor.repair.unlearning import UnlearningSettings, unlearn
from tabor.repair.variation import also_plain
from tabor.suspects import Suspect, restore_suspects
from tabor.trigger import Trigger

UNLEARNING_SHARE = 0.3
"""How much of the work the unlearning is, for the progress line."""

AGREEING = 0.9
"""Share of clean images that the copy must send to the model's own class: it is to be the model but for the trigger."""

LEAST_BATCH = 4
KEPT = 4
"""What a step of unlearning keeps of an image, at most, in what a step of the search does: its batch holds half as many
stamped ones, and the weights have gradients too."""


Look = Callable[[int, Sequence[int]], "dict[int, Suspect] | None"]
"""Takes a class whose triggers are unlearned, and others; see `without`."""


def explained(
    first: int, strong: Sequence[int], threshold: float, look: Look
) -> tuple[dict[int, int | None], set[int]]:
    """Returns of which class the others are effects, as far as unlearning tells.

    What does not stand out any more without the first is an effect of it.  But natural patches that a backdoor makes
    stronger may stand out more than the planted one, and unlearning one of two patches of the same picture takes much
    of the other.  So the first is looked at again without that one of the others of which most is left; where less is
    left of the first then, it is the effect.

    Args:
        first: the flagged class that stands out most.
        strong: the classes whose patch stands out, whether or not they are taken for effects.
        threshold: what an anomaly index must exceed to stand out.
        look: see `without`.

    Returns:
        For each class of which that was found, the one that it is an effect of, None: of none after all; and those
        that stood out until another's trigger was unlearned.
    """
    others = [k for k in strong if k != first]
    left = look(first, others)
    if left is None:
        return {}, set()
    gone = {k for k in others if _left(left, k) <= threshold}
    causes: dict[int, int | None] = dict.fromkeys(gone, first)
    causes |= {k: first if of in gone else of for k in {*others} - gone if (of := left[k].shadow_of) is not None}
    telling = [k for k in others if k in left and left[k].anomaly_index is not None]
    if telling and first in strong:
        second = max(telling, key=lambda k: _left(left, k))
        back = look(second, [first])
        if back is not None and _left(back, first) <= threshold and _left(back, first) < _left(left, second):
            return causes | {first: second, second: None}, gone - {second} | {first}
    return causes, gone


def _left(suspects: Mapping[int, Suspect], target: int) -> float:
    """How far a class stands out; −∞ where its patch says nothing."""
    found = suspects.get(target)
    return -math.inf if found is None or found.alone is None else found.alone


def without(
    classifier: Classifier,
    halves: tuple[ImageSet, ImageSet],
    target: int,
    triggers: Sequence[Trigger],
    others: Sequence[int],
    settings: RestoreSettings,
    seed: int,
    on_step: Callable[[float], None],
) -> dict[int, Suspect] | None:
    """Returns what the other classes' patches are where the target's triggers are unlearned.

    Args:
        classifier: the model, which stays as it is.
        halves: images to unlearn and to search with, and others to measure on.
        target: the class whose triggers are unlearned, on the classifier's device.
        triggers: at least one.
        others: the classes to look at again.
        settings: the search for patches.
        seed: of every random draw.
        on_step: called with the share of the work done, in [0, 1].

    Returns:
        The classes, but for those of which every window hides the object; None where it cannot be told: nothing in the
        model can learn, a trigger works all the same, or the copy sees other things in clean images.
    """
    planted = [Backdoor(trigger, target) for trigger in triggers]
    search, confirm = halves
    try:
        copy = classifier.altered(lambda network: _unlearn(network, classifier, planted, search, seed), search.images)
    except Exception:  # noqa: BLE001 (a stranger's forward may raise anything where its weights learn)
        return None
    if _agreement(classifier, copy, confirm) < AGREEING:
        return None
    if any(measure(copy, backdoor.trigger, target, confirm).works for backdoor in planted):
        return None
    on_step(UNLEARNING_SHARE)
    all_of_them = replace(settings, by_worth=len(others), by_score=0)
    again = restore_suspects(
        copy,
        halves,
        others,
        {},
        all_of_them,
        seed,
        lambda share: on_step(UNLEARNING_SHARE + (1 - UNLEARNING_SHARE) * share),
    )
    classifier.image_passes += copy.image_passes
    return again


def _agreement(one: Classifier, other: Classifier, images: ImageSet) -> float:
    same = one.predict(images.images).argmax(1) == other.predict(images.images).argmax(1)
    return float(same.float().mean())


def _unlearn(
    network: nn.Module, classifier: Classifier, planted: Sequence[Backdoor], images: ImageSet, seed: int
) -> None:
    settings, at_once = UnlearningSettings(), classifier.answered_at_once
    batch = min(settings.batch_size, max(LEAST_BATCH, classifier.images_at_once // KEPT))
    backdoors = [*planted, *also_plain(network, planted, images, at_once)]
    unlearn(network, backdoors, images, replace(settings, batch_size=batch), seed, at_once)
