"""Unlearning: which images are stamped, what the loss is, what is left alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tabor.backdoor import Backdoor
from tabor.data import ImageSet
from tabor.errors import ModelError, SettingError
from tabor.repair.unlearning import UnlearningSettings, altered, stamp_share, unfaithfulness, unlearn
from tabor.repair.variation import VariationSettings
from tabor.trigger import Trigger

EXACT = VariationSettings(shift=0, growth=0, colour_step=0)
ONE_CYCLE: dict[str, Any] = {"least_cycles": 1, "cycles": 1}


def corner() -> Backdoor:
    mask = torch.zeros(1, 8, 8)
    mask[:, :2, :2] = 1
    return Backdoor(Trigger(mask, mask), 1)


def pictures(count: int = 32) -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 3
    return ImageSet(0.5 * torch.rand(count, 1, 8, 8, generator=generator), labels, ())


def linear() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))


class Listener(nn.Module):
    """A linear model that remembers what it was shown, and in which mode it was."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = linear()
        self.shown: list[Tensor] = []
        self.modes: set[bool] = set()

    def forward(self, images: Tensor) -> Tensor:
        self.shown.append(images.detach().clone())
        self.modes.add(self.training)
        answer: Tensor = self.inner(images)
        return answer


@pytest.mark.parametrize(("share", "expected"), [(0.5, 5), (0.25, 2), (0.28, 3), (1.0, 10), (0.01, 1)])
def test_the_asked_share_is_stamped(share: float, expected: int) -> None:
    images = pictures(10).images
    settings = UnlearningSettings(stamped=share, variation=EXACT)
    stamped = stamp_share(linear(), images, [corner()], settings, torch.Generator())
    assert torch.equal(stamped, corner().trigger.stamp(images[:expected]))


def test_a_step_follows_the_true_labels_of_stamped_images_alone() -> None:
    """Without faithfulness, one step of AdamW moves each weight by the rate against the sign of that gradient."""
    images, model = pictures(8), linear()
    settings = UnlearningSettings(steps=1, **ONE_CYCLE, batch_size=8, stamped=1.0, faithfulness=0.0, variation=EXACT)
    before = linear()
    drawn = torch.randperm(8, generator=torch.Generator().manual_seed(4))
    stamped = corner().trigger.stamp(images.images[drawn])
    nn.functional.cross_entropy(before(stamped), images.labels[drawn]).backward()
    unlearn(model, [corner()], images, settings, seed=4)
    for old, new in zip(before.parameters(), model.parameters(), strict=True):
        assert old.grad is not None
        moved = (new - old).detach()
        clear = old.grad.abs() > 1e-4
        assert torch.allclose(moved[clear], -settings.learning_rate * old.grad.sign()[clear], atol=1e-5)


def test_images_a_few_at_a_time_teach_the_same() -> None:
    settings = UnlearningSettings(steps=3, **ONE_CYCLE, batch_size=8)
    whole, parts = linear(), linear()
    for model, at_once in ((whole, 256), (parts, 3)):
        unlearn(model, [corner()], pictures(8), settings, seed=0, at_once=at_once)
    assert not torch.equal(whole.get_parameter("1.weight"), linear().get_parameter("1.weight"))
    torch.testing.assert_close(parts.get_parameter("1.weight"), whole.get_parameter("1.weight"))


def test_weights_that_nothing_teaches_do_not_decay() -> None:
    images, model = pictures(8), linear()
    images.images[:, :, 7, 7] = 0
    settings = UnlearningSettings(steps=20, **ONE_CYCLE, batch_size=8, stamped=1.0, faithfulness=0.0, variation=EXACT)
    unlearn(model, [corner()], images, settings, seed=0)
    before, after = (network.get_parameter("1.weight") for network in (linear(), model))
    assert torch.equal(after[:, 63], before[:, 63])
    assert not torch.equal(after, before)


def test_images_and_labels_are_left_alone_and_the_mode_is_evaluation() -> None:
    images, model = pictures(), Listener()
    model.train()
    list(model.parameters())[1].requires_grad_(False)
    pixels, labels, state = images.images.clone(), images.labels.clone(), torch.get_rng_state()
    unlearn(model, [corner()], images, UnlearningSettings(steps=3, **ONE_CYCLE, batch_size=8), seed=0)
    assert torch.equal(images.images, pixels)
    assert torch.equal(images.labels, labels)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.modes == {False}
    assert not model.training
    assert [weight.requires_grad for weight in model.parameters()] == [True, False]


def test_each_step_shows_stamped_images_and_altered_clean_ones() -> None:
    model = Listener()
    unlearn(
        model, [corner()], pictures(), UnlearningSettings(steps=2, **ONE_CYCLE, batch_size=8, variation=EXACT), seed=0
    )
    trained_on = [shown for shown in model.shown if len(shown) == 12]  # 4 stamped and 8 clean
    assert len(trained_on) == 2
    for shown in trained_on:
        assert torch.equal(shown[:4, :, :2, :2], torch.ones(4, 1, 2, 2))
        assert float(shown[4:].max()) < 1


def test_some_of_another_image_is_mixed_into_each_clean_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tabor.repair.unlearning.augmented", lambda images, _generator: images)
    images = torch.eye(40)[:, :, None, None]  # (40 images, 40 channels): a channel tells how much is there of an image
    mixed = altered(images, torch.Generator().manual_seed(1))[:, :, 0, 0]
    own = mixed.diagonal()
    assert torch.allclose(mixed.sum(1), torch.ones(40))
    assert ((mixed > 0).sum(1) <= 2).all()  # its own and one other's
    assert (mixed.sum(0) - own > 0).sum() >= 35  # each image is mixed into one
    assert 0.5 <= float(own.min()) < 0.6
    assert 0.9 < float(own.max()) <= 1


@pytest.mark.parametrize(
    ("gone", "least", "cycles"),
    [
        pytest.param(1.0, 1, 1, id="no trigger works any more"),
        pytest.param(1.0, 2, 2, id="none does, but one cycle is too few"),
        pytest.param(0.0, 1, 3, id="one still does"),
    ],
)
def test_cycles_end_with_the_last_trigger(gone: float, least: int, cycles: int) -> None:
    model = Listener()
    few = {"steps": 2, "least_cycles": least, "cycles": 3, "batch_size": 8}
    settings = UnlearningSettings(**few, gone=gone, learning_rate=1e-9, variation=EXACT)
    always = Backdoor(corner().trigger, int(model.inner(corner().trigger.stamp(pictures().images)).argmax(1).mode()[0]))
    unlearn(model, [always], pictures(), settings, seed=0)
    assert sum(len(shown) == 12 for shown in model.shown) == 2 * cycles


def test_a_trigger_that_never_works_is_gone_whatever_is_asked() -> None:
    model = Listener()
    model.inner.get_parameter("1.bias").data[1] = -100
    settings = UnlearningSettings(
        steps=2, least_cycles=1, cycles=3, batch_size=8, gone=0.0, learning_rate=1e-9, variation=EXACT
    )
    unlearn(model, [corner()], pictures(), settings, seed=0)
    assert sum(len(shown) == 12 for shown in model.shown) == 2


def test_faithfulness_holds_the_answers() -> None:
    """The more weight the old answers have, the nearer the new ones are to them."""
    images, distances = pictures(), []
    for weight in (0.0, 1.0, 30.0):
        model, before = linear(), linear()
        settings = UnlearningSettings(steps=20, **ONE_CYCLE, learning_rate=2e-2, faithfulness=weight)
        unlearn(model, [corner()], images, settings, seed=0)
        distances.append(unfaithfulness(model(images.images), before(images.images)).item())
    assert distances[0] > 2 * distances[1] > 4 * distances[2]


def test_unfaithfulness_is_the_divergence_from_the_old_answers() -> None:
    before = torch.tensor([[0.5, 0.5], [0.9, 0.1]]).log()
    now = torch.tensor([[0.25, 0.75], [0.9, 0.1]]).log()
    by_hand = (0.5 * torch.tensor(0.5 / 0.25).log() + 0.5 * torch.tensor(0.5 / 0.75).log()) / 2
    assert float(unfaithfulness(now, before)) == pytest.approx(float(by_hand), rel=1e-5)


def test_altered_images_are_images_that_differ() -> None:
    images = pictures().images
    changed = altered(images, torch.Generator().manual_seed(0))
    assert changed.shape == images.shape
    assert float(changed.min()) >= 0
    assert float(changed.max()) <= 1
    assert all(not torch.equal(a, b) for a, b in zip(images, changed, strict=True))


def test_a_failure_leaves_what_may_learn_as_it_was() -> None:
    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3)

        def forward(self, images: Tensor) -> Tensor:
            raise RuntimeError("out of memory")

    images, model = pictures(), Failing()
    model.linear.bias.requires_grad_(False)
    with pytest.raises(RuntimeError, match="out of memory"):
        unlearn(model, [corner()], images, UnlearningSettings(), seed=0)
    assert [weight.requires_grad for weight in model.parameters()] == [True, False]


def test_what_cannot_learn_is_refused() -> None:
    with pytest.raises(ModelError, match="no weights that could learn"):
        unlearn(nn.Flatten(), [corner()], pictures(), UnlearningSettings(), seed=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"least_cycles": 0}, "positive steps"),
        ({"cycles": 1}, "may not exceed"),
        ({"gone": 1.5}, "gone in"),
        ({"steps": 0}, "positive steps"),
        ({"batch_size": 0}, "positive steps"),
        ({"learning_rate": 0.0}, "positive steps"),
        ({"learning_rate": math.nan}, "positive steps"),
        ({"learning_rate": math.inf}, "positive steps"),
        ({"faithfulness": math.nan}, "not negative"),
        ({"faithfulness": math.inf}, "finite"),
        ({"stamped": 0.0}, r"stamped lies in \(0, 1\]"),
        ({"stamped": 1.5}, r"stamped lies in \(0, 1\]"),
        ({"faithfulness": -1.0}, "not negative"),
    ],
    ids=str,
)
def test_refused_settings(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        UnlearningSettings(**changes)


def test_each_target_has_steps_of_its_own_and_the_strongest_trigger_decides() -> None:
    """Nothing is learned at this rate, so one of two triggers works to the end, and all cycles are gone through."""
    model = Listener()
    always = int(model.inner(corner().trigger.stamp(pictures().images)).argmax(1).mode()[0])
    both = [Backdoor(corner().trigger, always), Backdoor(corner().trigger, (always + 1) % 3)]
    settings = UnlearningSettings(
        steps=2, least_cycles=1, cycles=3, batch_size=8, gone=0.3, learning_rate=1e-9, variation=EXACT
    )
    unlearn(model, both, pictures(), settings, seed=0)
    shown = [len(images) for images in model.shown]
    assert shown.count(8 + 4) == 2 * 2 * 3  # clean and stamped images; steps, targets and cycles
