"""Which other classes stand out still in a copy of the model that has unlearned the first one's trigger.

Where a backdoor was planted other classes have stronger patches too than in any clean model.  Whether one of them that
stands out was a target of its own, or is such an effect, shows once the first trigger is gone: the same test is made
again, and what remains is held against the law of clean models as they are.  Not in the paper, which reports such
classes beside the right one; measured in docs/results/second-look.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import nn

from tabor.access import Classifier
from tabor.attacks.badnet import Backdoor
from tabor.data import ImageSet
from tabor.evidence import measure
from tabor.patches import RestoreSettings
from tabor.repair.unlearning import UnlearningSettings, unlearn
from tabor.repair.variation import also_plain
from tabor.suspects import restore_suspects
from tabor.trigger import Trigger

UNLEARNING_SHARE = 0.3
"""How much of the work the unlearning is, for the progress line."""

AGREEING = 0.9
"""Share of clean images that the copy must send to the model's own class: it is to be the model but for the trigger."""

LEAST_BATCH = 4
KEPT = 4
"""What a step of unlearning keeps of an image, at most, in what a step of the search does: its batch holds half as many
stamped ones, and the weights have gradients too."""


def standing_without(
    classifier: Classifier,
    halves: tuple[ImageSet, ImageSet],
    target: int,
    triggers: Sequence[Trigger],
    others: Sequence[int],
    threshold: float,
    settings: RestoreSettings,
    seed: int,
    on_step: Callable[[float], None],
) -> dict[int, int | None] | None:
    """Returns those of the other classes whose patch stands out although the target's triggers are unlearned.

    Args:
        classifier: the model, which stays as it is.
        halves: images to unlearn and to search with, and others to measure on.
        target: the class whose triggers are unlearned, on the classifier's device.
        triggers: at least one.
        others: the classes to look at again.
        threshold: what the anomaly index of a patch must exceed.
        settings: the search for patches.
        seed: of every random draw.
        on_step: called with the share of the work done, in [0, 1].

    Returns:
        The classes, each with the one of the others that it is an effect of in the copy, None: of none; instead of
        them None where it cannot be told: nothing in the model can learn, a trigger works all the same, or the copy
        sees other things in clean images.
    """
    planted = [Backdoor(trigger, target) for trigger in triggers]
    search, confirm = halves
    try:
        without = classifier.altered(
            lambda network: _unlearn(network, classifier, planted, search, seed), search.images
        )
    except Exception:  # noqa: BLE001 (a stranger's forward may raise anything where its weights learn)
        return None
    if _agreement(classifier, without, confirm) < AGREEING:
        return None
    if any(measure(without, backdoor.trigger, target, confirm).works for backdoor in planted):
        return None
    on_step(UNLEARNING_SHARE)
    all_of_them = replace(settings, by_worth=len(others), by_score=0)
    again = restore_suspects(
        without,
        halves,
        others,
        {},
        all_of_them,
        seed,
        lambda share: on_step(UNLEARNING_SHARE + (1 - UNLEARNING_SHARE) * share),
    )
    classifier.image_passes += without.image_passes
    return {k: s.shadow_of for k, s in again.items() if s.alone is not None and s.alone > threshold}


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
