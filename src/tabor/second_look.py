"""Of several classes that stand out, which are targets and which are effects: what unlearning one of them leaves.

Where a backdoor was planted other classes have smaller masks and stronger patches too than in any clean model, now and
then stronger than the planted one.  Whether one of them that stands out was a target of its own, or is such an effect,
shows in a copy of the model that has unlearned the first one's trigger: what stands out there by its patch, or the
mask that works there, is no effect of that.  Not in the paper, which reports such classes beside the right one;
measured in docs/results/second-look.md.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from tabor.access import Classifier
from tabor.backdoor import Backdoor
from tabor.data import ImageSet
from tabor.errors import ModelError
from tabor.evidence import measure
from tabor.examined import Examined
from tabor.methods.base import Method
from tabor.patches import RestoreSettings
from tabor.repair.unlearning import UnlearningSettings, unlearn
from tabor.repair.variation import also_plain
from tabor.suspect import Suspect
from tabor.suspects import restore_suspects
from tabor.trigger import Trigger

UNLEARNING_SHARE, FIRST_LOOK = 0.3, 0.6
"""How much of the work of a look the unlearning is, and of all of it the first look, for the progress line."""

AGREEING = 0.9
"""Share of clean images that the copy must send to the model's own class: it is to be the model but for the trigger."""

STILL = 0.5
"""Attack success from which a class's small mask works in the copy as well, and so by itself."""

CLEARLY = 0.2
"""By how much the two ranks must differ for the first to be the effect: patches that have nothing to do with each other
rank the other's class by chance."""


def settled(
    seen: Examined,
    classifier: Classifier,
    halves: tuple[ImageSet, ImageSet],
    method: Method,
    seed: int,
    on_step: Callable[[float], None],
) -> Examined:
    """Looks again at the classes that stand out beside the first one, which are targets or effects of its trigger.

    These are the classes whose patch stands out, whether or not it was taken for an effect, and those that are flagged
    by their small mask alone.  Where one stands out still without the first, it is looked from the other side whether
    the first does without that: a cause remains without its effect.

    Args:
        seen: what was found.
        classifier: the model, which stays as it is.
        halves: images to search with and others to measure on, on the classifier's device.
        method: the tests, and the search for patches, without which nothing is looked at again.
        seed: of every random draw.
        on_step: called with the share of the work done, in [0, 1].

    Returns:
        The same, with what was found of which classes are effects; the verdict stays what it is.
    """
    decision = seen.decide(method)
    flagged, by_patch, threshold = seen.flagged(decision), seen.by_patch(decision), decision.patch_threshold
    if not flagged or method.restoring is None or threshold is None:
        return seen
    first = flagged[0]
    strong = [k for k, s in seen.suspects.items() if k in by_patch and (s.effect_of is None or s.effect_of in flagged)]
    others = [k for k in dict.fromkeys([*strong, *flagged]) if k != first]
    if not others:
        return seen
    looks = _Looks(seen, classifier, halves, strong, threshold, method.restoring, seed)
    left = looks.without(first, others, lambda share: on_step(FIRST_LOOK * share))
    if left is None:
        return seen
    causes, told = explained(first, left.gone, left.patches, looks.rank), left.gone
    standing = [k for k in flagged if k != first and k not in causes]
    if causes.get(first) is not None:
        told = set()  # what was unlearned is not what was planted
    elif standing:
        back = looks.without(standing[0], [first], lambda share: on_step(FIRST_LOOK + (1 - FIRST_LOOK) * share))
        if back is not None and back.gone:  # what remains without the other is the cause
            causes, told = causes | {first: standing[0]}, {first}
    again = _with_causes(seen, causes, told)
    return again if again.decide(method).verdict is decision.verdict else seen


@dataclass(frozen=True)
class _Left:
    """What is left of other classes in a copy that has unlearned the triggers of one.

    Attributes:
        gone: those that do not stand out any more by their patch, or whose small mask does not work any more.
        patches: of those that stood out by their patch.
    """

    gone: set[int]
    patches: Mapping[int, Suspect]


@dataclass(frozen=True)
class _Looks:
    """Looks at what was found in copies of the model that have unlearned a class's triggers.

    Attributes:
        seen: what was found.
        classifier, halves, settings, seed: as of the scan.
        strong: the classes whose patch stands out; the others do by their mask.
        threshold: what a patch's index must exceed.
    """

    seen: Examined
    classifier: Classifier
    halves: tuple[ImageSet, ImageSet]
    strong: Collection[int]
    threshold: float
    settings: RestoreSettings
    seed: int

    def without(self, target: int, others: Sequence[int], on_step: Callable[[float], None]) -> _Left | None:
        """Returns what is left of others without the target's triggers; None where it cannot be told."""
        device = self.classifier.device
        triggers = [trigger.to(device) for trigger in self.seen.restored(target)]
        strong = [k for k in others if k in self.strong]
        masks = {k: self.seen.mask(k).to(device) for k in others if k not in self.strong}
        copy = None
        try:
            copy = without(self.classifier, self.halves, target, triggers, self.seed)
            if copy is None:
                return None
            on_step(UNLEARNING_SHARE)
            lost = {k for k, mask in masks.items() if measure(copy, mask, k, self.halves[1]).attack_success < STILL}
            patches = _patches_in(copy, self.halves, strong, self.settings, self.seed, on_step)
        except ModelError:  # what was altered answers some images with no finite numbers
            return None
        finally:
            self.classifier.image_passes += 0 if copy is None else copy.image_passes
        standing = {k for k, s in patches.items() if s.own_index is not None and s.own_index > self.threshold}
        return _Left(lost | {k for k in strong if k not in standing}, patches)

    def rank(self, target: int, other: int) -> float:
        """Returns `rank_beside` of the second class with the first one's restored trigger."""
        trigger = self.seen.restored(target)[-1].to(self.classifier.device)
        return rank_beside(self.classifier, trigger, other, self.halves[1])


def _with_causes(seen: Examined, causes: Mapping[int, int | None], told: Collection[int]) -> Examined:
    """What was found, with the causes of those that are effects; those told were settled by unlearning the cause."""

    def root(target: int) -> int:
        return target if (of := causes.get(target)) is None else root(of)

    def effect_of(target: int, before: int | None) -> int | None:
        return root(by) if (by := causes.get(target, before)) is not None else None

    suspects = {k: replace(s, effect_of=effect_of(k, s.effect_of)) for k, s in seen.suspects.items()}
    masks = {k: root(k) for k, of in causes.items() if of is not None}
    return replace(seen, suspects=suspects, mask_effects=masks, settled=told)


def explained(
    first: int, gone: Collection[int], left: Mapping[int, Suspect], rank: Callable[[int, int], float]
) -> dict[int, int | None]:
    """Returns of which class the others are effects, as far as unlearning tells; None: of none after all.

    What does not stand out any more without the first is an effect of it, or the first of that: unlearning either takes
    away both.  What a backdoor makes stronger speaks for the planted class as well, what was planted for that alone.
    So the cause is the one that the other's trigger ranks clearly higher, else the first.

    Args:
        first: the flagged class that stands out most.
        gone: the classes that do not stand out any more without its trigger.
        left: what the patches of others are without it, those of `gone` among them.
        rank: of the second class, with the first one's restored trigger stamped; see `rank_beside`.
    """
    causes: dict[int, int | None] = dict.fromkeys(gone, first)
    beside = {k: of for k, s in left.items() if k not in gone and (of := s.effect_of) is not None}
    causes |= {k: first if of in gone else of for k, of in beside.items()}
    claims = {k: rank(k, first) - rank(first, k) for k in gone}
    if claims and max(claims.values()) > CLEARLY:
        cause = max(claims, key=lambda k: claims[k])
        causes |= {first: cause, cause: None}
    return causes


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
    classifier: Classifier, halves: tuple[ImageSet, ImageSet], target: int, triggers: Sequence[Trigger], seed: int
) -> Classifier | None:
    """Returns a copy of the model in which the target's triggers are unlearned.

    Args:
        classifier: the model, which stays as it is.
        halves: images to unlearn with, and others to measure on.
        target: the class whose triggers are unlearned.
        triggers: at least one, on the classifier's device.
        seed: of every random draw.

    Returns:
        None where nothing can be told by it: nothing in the model can learn, a trigger works all the same, or the copy
        sees other things in clean images.
    """
    planted = [Backdoor(trigger, target) for trigger in triggers]
    search, confirm = halves
    try:
        copy = classifier.altered(lambda network: _unlearn(network, classifier, planted, search, seed), search.images)
    except Exception:  # noqa: BLE001 (a stranger's forward may raise anything where its weights learn)
        return None
    if _agreement(classifier, copy, confirm) < AGREEING:
        return None
    works = any(measure(copy, backdoor.trigger, target, confirm).works for backdoor in planted)
    return None if works else copy


def _patches_in(
    copy: Classifier,
    halves: tuple[ImageSet, ImageSet],
    targets: Sequence[int],
    settings: RestoreSettings,
    seed: int,
    on_step: Callable[[float], None],
) -> dict[int, Suspect]:
    """The patches of these classes, but for those of which every window hides the object."""
    if not targets:
        return {}
    every, rest = replace(settings, by_worth=len(targets), by_score=0), 1 - UNLEARNING_SHARE
    return restore_suspects(copy, halves, targets, {}, every, seed, lambda s: on_step(UNLEARNING_SHARE + rest * s))


def _agreement(one: Classifier, other: Classifier, images: ImageSet) -> float:
    same = one.predict(images.images).argmax(1) == other.predict(images.images).argmax(1)
    return float(same.float().mean())


def _unlearn(
    network: nn.Module, classifier: Classifier, planted: Sequence[Backdoor], images: ImageSet, seed: int
) -> None:
    at_once = classifier.answered_at_once
    backdoors = [*planted, *also_plain(network, planted, images, at_once)]
    unlearn(network, backdoors, images, UnlearningSettings(), seed, at_once)
