"""The second look: whether a class stands out still where the first one's trigger is unlearned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from tabor.access import Classifier
from tabor.backdoor import Backdoor
from tabor.data import ImageSet
from tabor.errors import ModelError
from tabor.evidence import Evidence, measure
from tabor.patches import RestoreSettings
from tabor.repair.unlearning import UnlearningSettings
from tabor.second_look import UNLEARNING_SHARE, _patches_in, explained, rank_beside, without
from tabor.trigger import Trigger
from tabor.windows import Window

FIRST, OTHER, SIDE = 2, 3, 16
PLACES = {FIRST: Window(10, 10, 14, 14), OTHER: Window(10, 1, 14, 5)}
SETTINGS = RestoreSettings(price=1.0, hiding=3.0, least_kept=0.75, cropped=32, compared=3)
THRESHOLD = 5.0


class Planted(nn.Module):
    """Classes 0 and 1 by the brightness at the upper left; 2, and 3 as far as it has a gain or an echo, by a window.

    Args:
        own: what class 3 makes of its window by itself.
        echo: what it makes of it by what was planted for class 2.
    """

    def __init__(self, own: float, echo: float) -> None:
        super().__init__()
        self.planted, self.own, self.echo = nn.Parameter(torch.tensor(40.0)), own, echo
        self.dark = nn.Parameter(torch.tensor(4.0))

    def forward(self, images: Tensor) -> Tensor:
        bright = images[:, :, :3, :3].mean((1, 2, 3))
        gains = {FIRST: self.planted, OTHER: self.own + self.echo * self.planted}
        answers = [gain * self._white(images, PLACES[k]) - 12 for k, gain in gains.items()]
        return torch.stack([self.dark - 8 * bright, 8 * bright - 4, *answers, torch.full_like(bright, -12)], 1)

    @staticmethod
    def _white(images: Tensor, window: Window) -> Tensor:
        mask = window.mask(SIDE, SIDE).to(images)
        outside = (images * (1 - mask))[:, :, 6:].mean((1, 2, 3))
        return (images * mask).sum((1, 2, 3)) / mask.sum() - outside


def images() -> ImageSet:
    values = 0.3 * torch.rand(64, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(64) % 2
    values[labels == 1, :, :3, :3] += 0.7
    return ImageSet(values, labels, ())


def white(target: int) -> Trigger:
    mask = PLACES[target].mask(SIDE, SIDE)
    return Trigger(mask, mask)


def forgetting(network: nn.Module, *_: object) -> None:
    assert isinstance(network, Planted)
    network.planted.data.zero_()


def copied(network: nn.Module) -> tuple[Classifier | None, Classifier]:
    classifier = Classifier(network, torch.device("cpu"), (1, SIDE, SIDE))
    return without(classifier, images().halves(0), FIRST, [white(FIRST)], 0), classifier


def nothing(_: float) -> None: ...


@pytest.mark.parametrize(
    ("network", "stands_out"),
    [
        pytest.param(Planted(own=40.0, echo=0.0), True, id="a target of its own"),
        pytest.param(Planted(own=0.0, echo=1.0), False, id="an effect"),
        pytest.param(Planted(own=0.0, echo=0.0), False, id="nothing at all"),
    ],
)
def test_a_target_of_its_own_stands_out_still_and_an_effect_does_not(
    network: nn.Module, stands_out: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tabor.second_look.unlearn", forgetting)
    shares: list[float] = []
    copy, classifier = copied(network)
    assert copy is not None
    found = _patches_in(copy, images().halves(0), [OTHER], SETTINGS, 0, shares.append)
    assert list(found) == [OTHER]
    assert ((found[OTHER].own_index or 0.0) > THRESHOLD) is stands_out
    assert float(classifier.predict(white(FIRST).stamp(images().images)).argmax(1).float().min()) == FIRST  # as it was
    assert shares[0] > UNLEARNING_SHARE
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)
    assert _patches_in(copy, images().halves(0), [], SETTINGS, 0, nothing) == {}


def test_a_rank_is_how_many_classes_are_above() -> None:
    classifier = Classifier(Planted(own=0.0, echo=0.5), torch.device("cpu"), (1, SIDE, SIDE))
    shown = images()
    logits = classifier.predict(white(FIRST).stamp(shown.images))
    slow = sum(sum(float(row[k]) > float(row[0]) for k in range(5)) for row in logits) / len(logits)
    assert rank_beside(classifier, white(FIRST), 0, shown) == pytest.approx(slow / 4)
    assert 1 < slow < 3
    assert rank_beside(classifier, white(FIRST), FIRST, shown) == 0


def test_of_several_that_the_first_speaks_for_the_cause_is_the_clearest() -> None:
    ranks = {(1, 2): 0.9, (2, 1): 0.6, (1, 3): 0.2, (3, 1): 0.8, (1, 4): 0.1, (4, 1): 0.6}
    assert explained(1, {2, 3, 4}, {}, lambda *pair: ranks[pair]) == {1: 3, 2: 1, 3: None, 4: 1}


def failing(*_: object) -> None:
    raise ModelError("the model has no weights that could learn")


def crashing(*_: object) -> None:
    raise RuntimeError("a view of a leaf that learns is changed in place")


def spoiling(network: nn.Module, *_: object) -> None:
    assert isinstance(network, Planted)
    network.planted.data.fill_(torch.nan)


def misleading(network: nn.Module, *_: object) -> None:
    assert isinstance(network, Planted)
    network.planted.data.zero_()
    network.dark.data.fill_(12.0)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(failing, id="nothing can learn"),
        pytest.param(crashing, id="it does not bear learning"),
        pytest.param(spoiling, id="what is left is no classifier"),
        pytest.param(lambda *_: None, id="the trigger works all the same"),
        pytest.param(misleading, id="clean images are another thing to the copy"),
    ],
)
def test_else_it_cannot_be_told(change: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tabor.second_look.unlearn", change)
    assert copied(Planted(own=40.0, echo=0.0))[0] is None


@pytest.mark.parametrize(("agreement", "told"), [(0.89, False), (0.9, True)])
def test_the_copy_is_the_model_where_nine_clean_images_of_ten_are_the_same_to_it(
    agreement: float, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tabor.second_look.unlearn", forgetting)
    monkeypatch.setattr("tabor.second_look._agreement", lambda *_: agreement)
    assert (copied(Planted(own=40.0, echo=0.0))[0] is not None) is told


@pytest.mark.parametrize("order", [1, -1])
def test_one_of_several_triggers_that_works_all_the_same_is_enough(order: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tabor.second_look.unlearn", lambda *_: None)
    classifier = Classifier(Planted(own=40.0, echo=0.0), torch.device("cpu"), (1, SIDE, SIDE))
    black = Trigger(white(FIRST).mask, torch.zeros(1, SIDE, SIDE))
    assert without(classifier, images().halves(0), FIRST, [black, white(FIRST)][::order], 0) is None


def test_the_copy_is_judged_by_images_that_it_did_not_learn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    halves, shown = images().halves(0), list[ImageSet]()

    def agreement(_: Classifier, __: Classifier, images: ImageSet) -> float:
        shown.append(images)
        return 1.0

    def measured(classifier: Classifier, trigger: Trigger, target: int, images: ImageSet) -> Evidence:
        shown.append(images)
        return measure(classifier, trigger, target, images)

    monkeypatch.setattr("tabor.second_look.unlearn", forgetting)
    monkeypatch.setattr("tabor.second_look._agreement", agreement)
    monkeypatch.setattr("tabor.second_look.measure", measured)
    classifier = Classifier(Planted(own=40.0, echo=0.0), torch.device("cpu"), (1, SIDE, SIDE))
    assert without(classifier, halves, FIRST, [white(FIRST)], 0) is not None
    assert [images is halves[1] for images in shown] == [True, True]


@pytest.mark.parametrize(("at_once", "answered"), [(10**9, 256), (100, 100), (1, 1)])
def test_what_is_unlearned_and_how(at_once: int, answered: int, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[Sequence[Backdoor], ImageSet, UnlearningSettings, int, int]] = []

    def unlearn(network: nn.Module, *how: Any) -> None:
        told.append(how)
        raise ModelError("enough")

    monkeypatch.setattr("tabor.second_look.unlearn", unlearn)
    classifier = Classifier(Planted(own=0.0, echo=0.0), torch.device("cpu"), (1, SIDE, SIDE))
    classifier.images_at_once = at_once
    halves = images().halves(0)
    assert without(classifier, halves, FIRST, [white(FIRST)], 7) is None
    ((backdoors, shown, settings, seed, asked),) = told
    assert [b.target for b in backdoors] == [FIRST, FIRST]
    assert torch.equal(backdoors[0].trigger.mask, white(FIRST).mask)
    assert backdoors[1].description.endswith("all white")  # the one plain colour that works as well
    assert (shown is halves[0], settings, seed, asked) == (True, UnlearningSettings(), 7, answered)


class Counting(Planted):
    """Remembers the most images that came at once; its copies remember with it."""

    passes: ClassVar[list[int]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.passes.append(len(images))
        return super().forward(images)


def test_the_copy_keeps_to_the_memory_of_the_scan() -> None:
    """Sixteen images; what a step of unlearning takes at least is less."""
    classifier = Classifier(Counting(own=0.0, echo=0.0), torch.device("cpu"), (1, SIDE, SIDE))
    halves = images().halves(0)
    classifier.hasten(halves[0].images, torch.bfloat16)
    assert classifier.hastened
    classifier.images_at_once = 16
    Counting.passes.clear()
    without(classifier, halves, FIRST, [white(FIRST)], 0)
    _patches_in(classifier.altered(lambda _: None, halves[0].images), halves, [OTHER], SETTINGS, 0, nothing)
    assert max(Counting.passes) == 16
