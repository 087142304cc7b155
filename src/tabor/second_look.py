"""Of several classes that stand out, which are targets and which are effects: what unlearning one of them leaves.

Where a backdoor was planted other classes have stronger patches too than in any clean model, now and then stronger than
the planted one.  Whether one of them that stands out was a target of its own, or is such an effect, shows in a copy of
the model that has unlearned the first one's trigger: the same test is made again, and what remains is held against the
law of clean models as they are.  Not in the paper, which reports such classes beside the right one; measured in
docs/results/second-look.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
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

CLEARLY = 0.2
"""By how much the two ranks must differ for the first to be the effect: patches that have nothing to do with each other
rank the other's class by chance."""

LEAST_BATCH = 4
KEPT = 4
"""What a step of unlearning keeps of an image, at most, in what a step of the search does: its batch holds half as many
stamped ones, and the weights have gradients too."""


Look = Callable[[int, Sequence[int]], "dict[int, Suspect] | None"]
"""Takes a class whose triggers are unlearned, and others; see `without`."""


def explained(
    first: int, strong: Sequence[int], threshold: float, look: Look, rank: Callable[[int, int], float]
) -> tuple[dict[int, int | None], set[int]]:
    """Returns of which class the others are effects, as far as unlearning tells.

    What does not stand out any more without the first is an effect of it, or the first of that: unlearning either takes
    away both.  What a backdoor makes stronger speaks for the planted class as well, what was planted for that alone.
    So the cause is the one that the other's patch ranks clearly higher, else the first.

    Args:
        first: the flagged class that stands out most.
        strong: the classes whose patch stands out, whether or not they are taken for effects.
        threshold: what an anomaly index must exceed to stand out.
        look: see `without`.
        rank: of the second class, with the first one's patch stamped; see `rank_beside`.

    Returns:
        For each class of which that was found, the one that it is an effect of, None: of none after all; and those
        that stood out until the trigger of that one was unlearned.
    """
    others = [k for k in strong if k != first]
    left = look(first, others)
    if left is None:
        return {}, set()
    standing = {k for k, s in left.items() if s.alone is not None and s.alone > threshold}
    gone = {k for k in others if k not in standing}
    causes: dict[int, int | None] = dict.fromkeys(gone, first)
    causes |= {k: first if of in gone else of for k in standing if (of := left[k].shadow_of) is not None}
    claims = {k: rank(k, first) - rank(first, k) for k in gone} if first in strong else {}
    if claims and max(claims.values()) > CLEARLY:
        cause = max(claims, key=lambda k: claims[k])
        return causes | {first: cause, cause: None}, set()
    return causes, gone


@torch.no_grad()
def rank_beside(classifier: Classifier, trigger: Trigger, other: int, images: ImageSet) -> float:
    """Returns how many classes are above another one where a trigger is stamped, on average, as a share of the others.

    0: it is the answer; 1: it is the last.

    Args:
        classifier: the model.
        trigger: on the classifier's device.
        other: the class.
        images: clean images, on the classifier's device.
    """
    logits = classifier.predict(trigger.stamp(images.images))
    return float((logits > logits[:, other, None]).sum(1).float().mean()) / max(logits.shape[1] - 1, 1)


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
