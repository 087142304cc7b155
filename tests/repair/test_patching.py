"""`tabor.patch`: the true trigger dies though only one near it is known, and what it refuses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

import tabor
from tabor.backdoor import Backdoor, attack_success
from tabor.data import ImageSet
from tabor.errors import DataError, ModelError, SettingError, TaborError
from tabor.models import LoadedModel
from tabor.repair.patching import Change, _check_answers, check_run, patch, restored_backdoors
from tabor.repair.unlearning import UnlearningSettings
from tabor.result import ScanResult
from tabor.training import accuracy

from .conftest import TARGET, Victim, square

Found = Callable[..., ScanResult]
SHORT = UnlearningSettings(steps=2)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_true_trigger_is_unlearned_and_the_accuracy_kept(victim: Victim, found: Found, seed: int) -> None:
    outcome = patch(victim.load(), found(), victim.images, seed=seed, device="cpu")
    (restored,), (planted,) = outcome.restored, outcome.planted
    assert restored.success.before > 0.8
    assert restored.success.after < 0.05
    assert planted.backdoor.description == "square 4×4 top-left"
    assert planted.success.before > 0.95
    assert planted.success.after < 0.05
    assert outcome.clean_accuracy.after >= outcome.clean_accuracy.before - 0.02
    assert outcome.unlearned
    assert (outcome.images_used, outcome.images_measured) == (60, 60)


def test_what_is_told_is_what_the_model_does_on_images_held_out(victim: Victim, found: Found) -> None:
    model = victim.load()
    outcome = patch(model, found(), victim.images, settings=SHORT, seed=3, device="cpu")
    _, held_out = victim.images.halves(3)
    (planted,) = outcome.planted
    for network, accuracy_told, success_told in (
        (model, outcome.clean_accuracy.before, planted.success.before),
        (outcome.model, outcome.clean_accuracy.after, planted.success.after),
    ):
        assert accuracy_told == pytest.approx(accuracy(network, held_out.images, held_out.labels))
        assert success_told == pytest.approx(attack_success(network, held_out.images, held_out.labels, victim.backdoor))


def test_what_is_held_out_is_not_unlearned_with(victim: Victim, found: Found, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Tensor] = []

    def look(_: object, __: object, images: ImageSet, *___: object) -> list[Backdoor]:
        shown.append(images.images)
        return []

    for name in ("unlearn", "also_plain"):
        monkeypatch.setattr(f"tabor.repair.patching.{name}", look)
    patch(victim.load(), found(), victim.images, seed=3, device="cpu")
    assert len(shown) == 2
    assert all(torch.equal(images, victim.images.halves(3)[0].images) for images in shown)


def test_a_model_in_half_precision_is_patched_in_float32(victim: Victim, found: Found) -> None:
    outcome = patch(victim.load().half(), found(), victim.images, settings=SHORT, device="cpu")
    assert {weight.dtype for weight in outcome.model.parameters()} == {torch.float32}


def test_the_callers_model_is_left_alone_and_the_copy_is_no_longer_the_file(victim: Victim, found: Found) -> None:
    model = victim.load()
    model.train()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    outcome = patch(model, found(), victim.images, settings=SHORT, device="cpu")
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert model.training
    assert all(weight.grad is None for weight in model.parameters())
    patched = outcome.model
    assert isinstance(patched, LoadedModel)
    assert any(not torch.equal(value, weights[name]) for name, value in patched.state_dict().items())
    assert model.sha256 is not None
    assert patched.sha256 is None


@pytest.mark.parametrize("without", [torch.no_grad, torch.inference_mode])
def test_a_caller_that_does_without_gradients_gets_the_same(
    without: Callable[[], AbstractContextManager[Any]], victim: Victim, found: Found
) -> None:
    usual = patch(victim.load(), found(), victim.images, settings=SHORT, device="cpu").model.state_dict()
    with without():
        patched = patch(victim.load(), found(), victim.images, settings=SHORT, device="cpu").model.state_dict()
    assert all(torch.equal(patched[name], usual[name]) for name in usual)


def test_the_same_seed_gives_the_same_weights(victim: Victim, found: Found) -> None:
    first, again, other = (
        patch(victim.load(), found(), victim.images, settings=SHORT, seed=seed, device="cpu").model.state_dict()
        for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_probabilities_are_unlearned_as_their_logits_are(victim: Victim, found: Found) -> None:
    softmax = nn.Sequential(victim.load(), nn.Softmax(1))
    results = [dataclasses.replace(found(), model={**found().model, "sha256": None})] * 2
    logits, probabilities = (
        patch(model, result, victim.images, settings=SHORT, seed=1, device="cpu")
        for model, result in zip((victim.load(), softmax), results, strict=True)
    )
    assert type(probabilities.model) is nn.Sequential
    assert probabilities.clean_accuracy.after == pytest.approx(logits.clean_accuracy.after, abs=0.02)
    one, other = logits.model.state_dict(), probabilities.model[0].state_dict()
    apart = torch.cat([(one[name] - other[name]).abs().flatten() for name in one])
    assert float(apart.mean()) < 1e-4  # AdamW moves a weight without a gradient to speak of either way


def test_any_module_and_tensors_will_do(victim: Victim, found: Found) -> None:
    network = victim.load().network
    outcome = tabor.patch(network, found(), (victim.images.images, victim.images.labels), settings=SHORT, device="cpu")
    assert type(outcome.model) is type(network)
    assert outcome.planted == ()


def test_masks_that_work_and_patches_are_both_unlearned(found: Found) -> None:
    def described(result: ScanResult) -> list[tuple[int, str]]:
        return [(b.target, b.description) for b in restored_backdoors(result)]

    mask, whole = "restored mask", "restored patch"
    assert described(found()) == [(2, mask)]
    assert described(found((2, 0))) == [(2, mask), (0, mask)]
    assert described(found(patch=square(0, 0, 4))) == [(2, mask), (2, whole)]
    assert described(found(patch=square(0, 0, 4), success=0.8)) == [(2, mask), (2, whole)]
    assert described(found(patch=square(0, 0, 4), success=0.5)) == [(2, whole)]
    assert described(found(success=0.5)) == [(2, mask)]


def test_several_scans_are_patched_at_once(victim: Victim, found: Found) -> None:
    several = [found(()), found(), found(mask=square(0, 1, 4), sha256=victim.load().sha256)]
    outcome = patch(victim.load(), several, victim.images, settings=SHORT, device="cpu")
    assert len(outcome.restored) == 2


def test_plain_values_of_an_outcome(victim: Victim, found: Found) -> None:
    told = patch(victim.load(), found(), victim.images, settings=SHORT, seed=5, device="cpu").to_dict()
    assert told["seed"] == 5
    assert told["settings"]["steps"] == 2
    assert told["planted"][0]["target"] == TARGET
    assert set(told["planted"][0]["attack_success"]) == {"before", "after"}
    assert "model" not in told


class Nowhere(nn.Module):
    """Answers without any weights."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([images.mean((1, 2, 3)), images.amax((1, 2, 3)), images[:, 0, 1:5, 1:5].sum((1, 2))], 1)


class TwoClasses(nn.Module):
    """Knows two classes only."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((1, 3))[:, :2]


def images_of(victim: Victim, **changes: Any) -> ImageSet:
    return dataclasses.replace(victim.images, **changes)


def one_of_another(labels: Tensor) -> Tensor:
    """The places of all images of class 1 and of one of class 0."""
    return torch.cat([torch.nonzero(labels == 1).flatten(), torch.nonzero(labels == 0).flatten()[:1]])


Refusal = tuple[Callable[[Victim, Found], object], type[Exception], str]
REFUSED: dict[str, Refusal] = {
    "nothing flagged": (lambda v, f: patch(v.load(), f(()), v.images), TaborError, "flagged no class"),
    "no scan": (lambda v, f: patch(v.load(), [], v.images), TaborError, "flagged no class"),
    "another model's run": (
        lambda v, f: patch(v.load(), f(sha256="ab" * 32), v.images),
        TaborError,
        "the run is of another model",
    ),
    "another image size": (
        lambda v, f: patch(v.load(), f(), images_of(v, images=v.images.images[..., :8])),
        DataError,
        "triggers are for images of 1×16×16 .* the data has 1×16×8",
    ),
    "one class": (lambda v, f: patch(v.load(), f(), v.images.select(v.images.labels == 1)), DataError, "of one class"),
    "a half of one class": (
        lambda v, f: patch(v.load(), f(), v.images.select(one_of_another(v.images.labels))),
        DataError,
        "one half of the images is all of one class",
    ),
    "too many classes": (
        lambda v, f: patch(v.load(), f(), images_of(v, labels=v.images.labels + 1)),
        DataError,
        "a label 3",
    ),
    "a trigger that does nothing": (
        lambda v, f: patch(v.load(), f(mask=square(12, 12, 1)), v.images),
        TaborError,
        "do not work on this model",
    ),
    "no weights": (
        lambda v, f: patch(Nowhere(), f(), v.images, settings=SHORT, device="cpu"),
        ModelError,
        "no weights that could learn",
    ),
    "a target that was not scanned": (
        lambda v, f: patch(v.load(), dataclasses.replace(f(), targets=(2, 7)), v.images),
        TaborError,
        "class 7 was not scanned",
    ),
    "a target beyond the classes": (
        lambda v, f: patch(TwoClasses(), f(), v.images.select(v.images.labels < 2), device="cpu"),
        TaborError,
        "flags class 2, but the model knows only the classes 0 to 1",
    ),
    "a file's name": (lambda v, f: patch(cast(Any, "m"), f(), v.images), ModelError, "a torch.nn.Module, got str"),
    "no such seed": (lambda v, f: patch(v.load(), f(), v.images, seed=-1), SettingError, "a seed lies between 0"),
    "no such device": (lambda v, f: patch(v.load(), f(), v.images, device="toaster"), SettingError, "toaster"),
}


@pytest.mark.parametrize(("attempt", "error", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(
    attempt: Callable[[Victim, Found], object], error: type[Exception], message: str, victim: Victim, found: Found
) -> None:
    with pytest.raises(error, match=message):
        attempt(victim, found)


@pytest.mark.parametrize(
    "backdoors",
    [
        5,
        ["square"],
        [{"target": 2}],
        [{"target": 2, "description": "", "trigger": {"shape": [2, 16, 16], "base64": "AAAA"}}],
        [{"target": 2, "description": "", "trigger": {"shape": [2, 1, 1], "base64": "AAA="}}],
        [{"target": "2", "description": "", "trigger": {"shape": [2, 16, 16], "base64": "A" * 684 + "=="}}],
        [{"target": 2, "description": "", "trigger": {"shape": "ab", "base64": None}}],
    ],
    ids=["a number", "a word", "no trigger", "too short", "too small", "target in words", "no shape"],
)
def test_a_record_that_makes_no_sense_is_refused(backdoors: object, victim: Victim, found: Found) -> None:
    model = victim.load()
    model.record["backdoors"] = backdoors
    with pytest.raises(ModelError, match="records backdoors that make no sense"):
        patch(model, found(), victim.images, settings=SHORT, device="cpu")


def test_triggers_that_work_on_less_than_half_of_the_images_are_another_model_s(
    victim: Victim, found: Found, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tabor.repair.patching._measured", lambda *_: (1.0, [0.49]))
    with pytest.raises(TaborError, match=r"do not work on this model \(attack success 49% at most\)"):
        patch(victim.load(), found(), victim.images, settings=SHORT, device="cpu")


def test_triggers_of_which_one_works_on_half_of_the_images_are_this_model_s() -> None:
    _check_answers([0.1, 0.5])


def test_a_run_of_a_file_may_be_of_a_model_whose_file_nobody_knows(found: Found) -> None:
    check_run("the model", None, [found(sha256="ab" * 32)])


def test_plain_colours_that_work_too_are_unlearned(
    victim: Victim, found: Found, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trigger is a white square; restored was a light one."""
    shown: list[Backdoor] = []
    monkeypatch.setattr("tabor.repair.patching.unlearn", lambda _, backdoors, *__: shown.extend(backdoors))
    outcome = patch(victim.load(), found(), victim.images, device="cpu")
    assert float(shown[0].trigger.pattern.max()) == pytest.approx(0.9)
    assert "restored mask, all white" in [backdoor.description for backdoor in shown[1:]]
    effects = (*outcome.restored, *outcome.plain)
    assert [effect.backdoor.description for effect in effects] == [backdoor.description for backdoor in shown]
    assert len(outcome.restored) == 1
    told = outcome.to_dict()["plain"]
    assert [effect["description"] for effect in told] == [backdoor.description for backdoor in shown[1:]]
    assert all(effect["attack_success"]["before"] > 0.4 for effect in told), "at least half of the other images do"


def test_each_trigger_has_its_own_success(victim: Victim, found: Found, monkeypatch: pytest.MonkeyPatch) -> None:
    def success(backdoor: Backdoor) -> float:
        return 0.5 + len(backdoor.description) / 100

    monkeypatch.setattr("tabor.repair.patching.unlearn", lambda *_: None)
    monkeypatch.setattr("tabor.repair.patching._measured", lambda _, __, of: (1.0, [success(b) for b in of]))
    outcome = patch(victim.load(), found(), victim.images, device="cpu")
    effects = (*outcome.restored, *outcome.plain, *outcome.planted)
    assert len({effect.success.before for effect in effects}) >= 3
    assert all(effect.success == Change(*2 * [success(effect.backdoor)]) for effect in effects)


def test_a_plain_colour_that_still_works_is_not_unlearned(victim: Victim, found: Found) -> None:
    outcome = patch(victim.load(), found(), victim.images, device="cpu")
    assert outcome.unlearned
    plain = dataclasses.replace(outcome.plain[0], success=Change(1.0, 0.8))
    assert not dataclasses.replace(outcome, plain=(plain,)).unlearned


def test_one_trigger_that_does_nothing_beside_one_that_works_is_no_other_model(victim: Victim, found: Found) -> None:
    patch(victim.load(), [found(), found(mask=square(12, 12, 1))], victim.images, settings=SHORT, device="cpu")
