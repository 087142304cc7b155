"""`scan` on models whose answer is known: what it returns, what it refuses, and what it leaves alone."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tabor
from tabor.access import Classifier
from tabor.class_finding import ClassStatus
from tabor.data import ImageSet
from tabor.errors import DataError, ModelError, SettingError, TaborError
from tabor.methods.tabor import Tabor
from tabor.models import Architecture, load_model
from tabor.models.build import initialise
from tabor.models.safetensors_file import write_model
from tabor.patches import RestoreSettings
from tabor.result import ScanResult, Verdict
from tabor.scanning import _reach
from tabor.schema import json_schema
from tabor.solver import SolverSettings
from tabor.stability import StabilitySettings
from tabor.trigger import Trigger

from .scanned import comparable

BACKDOOR = 2
QUICK_PATCHES = RestoreSettings(first=2, kept=1, drawn=4, promising=1, unranked=1, steps=2, first_steps=1)


@pytest.fixture
def few_steps(quick: SolverSettings) -> SolverSettings:
    """For tests that care for anything but the verdict."""
    return dataclasses.replace(quick, steps=4, smallest_steps=4)


@pytest.fixture
def infected(
    cell_model: Callable[..., nn.Module], cell_images: Callable[..., ImageSet], quick: SolverSettings
) -> ScanResult:
    return tabor.scan(cell_model(backdoor=BACKDOOR), cell_images(), solver=quick, device="cpu", seed=3)


@pytest.fixture
def clean(
    cell_model: Callable[..., nn.Module], cell_images: Callable[..., ImageSet], quick: SolverSettings
) -> ScanResult:
    return tabor.scan(cell_model(), cell_images(), solver=quick, device="cpu")


def test_a_backdoor_is_found(
    infected: ScanResult, cell_model: Callable[..., nn.Module], cell_images: Callable[..., ImageSet]
) -> None:
    assert infected.verdict is Verdict.BACKDOORED
    assert infected.targets == (BACKDOOR,)
    trigger = infected.trigger(BACKDOOR)
    dots = torch.zeros_like(trigger.mask)
    dots[:, 12, :6] = trigger.mask[:, 12, :6]
    images, model = cell_images(), cell_model(backdoor=BACKDOOR)
    alone = model(Trigger(dots, trigger.pattern).stamp(images.images)).argmax(1)
    assert set(alone.tolist()) == {BACKDOOR}, "what was restored on the first six pixels below is enough"
    assert infected.finding(BACKDOOR).mask_l1 < 5
    assert infected.finding(BACKDOOR).attack_success == 1.0
    assert infected.score > 0.5


def test_a_clean_model_has_none(clean: ScanResult) -> None:
    assert clean.verdict is Verdict.CLEAN
    assert clean.targets == ()
    assert not any(finding.flagged for finding in clean.classes)
    assert clean.score < 0.5
    assert clean.warnings == ()


def test_the_fields_agree_with_each_other(infected: ScanResult) -> None:
    assert [finding.index for finding in infected.classes] == list(range(9))
    assert [finding.name for finding in infected.classes] == list("abcdefghi")
    assert set(infected.triggers) == set(range(9))
    assert [f.index for f in infected.classes if f.flagged] == sorted(infected.targets)
    for finding in infected.classes:
        trigger = infected.triggers[finding.index]
        assert trigger.mask.shape == (1, 13, 12)
        assert trigger.pattern.shape == (1, 13, 12)
        assert finding.mask_l1 == pytest.approx(float(trigger.mask.sum()), rel=1e-5)
        assert finding.sparsity == pytest.approx(finding.mask_l1 / (13 * 12))
        assert finding.flagged or finding.anomaly_index is None or finding.anomaly_index <= infected.threshold
        assert (finding.score is None) == (finding.status is ClassStatus.NO_TRIGGER)
        assert finding.steps == 60
    assert infected.clean_accuracy == 1.0
    assert infected.data == {"source": "cells", "images": 72, "classes_present": 9}
    assert infected.model == {"source": "memory", "sha256": None, "architecture": "CellModel", "num_classes": 9}
    assert (infected.seed, infected.device, infected.method, infected.preset) == (3, "cpu", "tabor", "standard")
    assert infected.settings["solver"]["steps"] == 60
    assert infected.tabor_version == tabor.__version__
    assert infected.timing["images_per_second"] == pytest.approx(
        infected.timing["image_passes"] / infected.timing["seconds"]
    )


def test_a_flagged_class_has_its_whole_trigger(infected: ScanResult) -> None:
    patch = infected.finding(BACKDOOR).patch
    assert patch is not None
    assert patch.attack_success == 1
    top, left, bottom, right = patch.window
    mask = infected.trigger(BACKDOOR).mask
    assert float(mask.sum()) == float(mask[:, top:bottom, left:right].sum()) == (bottom - top) * (right - left)
    assert bottom > 12, "the six pixels below the cells are the trigger"
    assert infected.patch_threshold is not None


def test_the_result_fits_the_schema_and_the_disk(infected: ScanResult, tmp_path: Path) -> None:
    stored = infected.to_dict()
    jsonschema.validate(stored, json_schema())
    assert stored["targets"] == [BACKDOOR]
    infected.save(tmp_path)
    loaded = ScanResult.load(tmp_path)
    assert loaded.to_dict() == stored
    assert torch.equal(loaded.trigger(BACKDOOR).mask, infected.trigger(BACKDOOR).mask)


def test_attack_success_is_what_the_trigger_does(
    infected: ScanResult, cell_model: Callable[..., nn.Module], cell_images: Callable[..., ImageSet]
) -> None:
    model, confirm = cell_model(backdoor=BACKDOOR), cell_images().halves(seed=3)[1]
    for finding in infected.classes:
        trigger, others = infected.triggers[finding.index], confirm.images[confirm.labels != finding.index]
        sent = (model(trigger.stamp(others)).argmax(1) == finding.index).float().mean()
        right = (model(trigger.crop(confirm.images)).argmax(1) == confirm.labels).float().mean()
        alone = model(trigger.isolate()[None]).argmax(1) == finding.index
        assert finding.attack_success == pytest.approx(float(sent))
        assert finding.crop_accuracy == pytest.approx(float(right))
        assert finding.explanation_accuracy == float(alone)


def test_the_same_seed_gives_the_same_result(
    cell_model: Callable[..., nn.Module],
    cell_images: Callable[..., ImageSet],
    quick: SolverSettings,
    infected: ScanResult,
) -> None:
    torch.rand(7)  # the global generator stands somewhere else
    before = torch.get_rng_state()
    again = tabor.scan(cell_model(backdoor=BACKDOOR), cell_images(), solver=quick, device="cpu", seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert comparable(again) == comparable(infected)
    assert all(torch.equal(again.triggers[k].mask, infected.triggers[k].mask) for k in range(9))
    other = tabor.scan(cell_model(backdoor=BACKDOOR), cell_images(), solver=quick, device="cpu", seed=4)
    assert not torch.equal(other.triggers[0].mask, infected.triggers[0].mask)


def test_tensors_do_as_well_as_an_image_set(
    cell_model: Callable[..., nn.Module], cell_images: Callable[..., ImageSet], few_steps: SolverSettings
) -> None:
    images = cell_images(per_class=2)
    whole = tabor.scan(cell_model(), images, solver=few_steps, device="cpu")
    bare = tabor.scan(cell_model(), (images.images, images.labels), solver=few_steps, device="cpu")
    assert [f.mask_l1 for f in bare.classes] == [f.mask_l1 for f in whole.classes]
    assert [f.name for f in bare.classes] == [str(k) for k in range(9)]
    assert bare.data["source"] == "memory"


def test_some_classes_only(
    cell_model: Callable[..., nn.Module],
    cell_images: Callable[..., ImageSet],
    quick: SolverSettings,
    infected: ScanResult,
) -> None:
    part = tabor.scan(
        cell_model(backdoor=BACKDOOR), cell_images(), classes=[7, BACKDOOR, 0, 7], solver=quick, device="cpu", seed=3
    )
    assert [finding.index for finding in part.classes] == [0, BACKDOOR, 7]
    assert set(part.triggers) == {0, BACKDOOR, 7}
    assert part.targets == (BACKDOOR,)
    for index in part.triggers:
        assert torch.allclose(part.trigger(index).mask, infected.trigger(index).mask, atol=1e-4)
    assert any("with 3 classes an outlier test means little" in warning for warning in part.warnings)
    with pytest.raises(TaborError, match="class 5 was not scanned; scanned were 0, 2, 7"):
        part.trigger(5)


def test_searching_and_confirming_images_do_not_overlap(
    cell_model: Callable[..., nn.Module],
    cell_images: Callable[..., ImageSet],
    few_steps: SolverSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tabor.evidence import measure
    from tabor.solver import solve

    searched, confirmed = [], []

    def spy_solve(classifier: Any, images: ImageSet, *rest: Any) -> Any:
        searched.append(images.images)
        return solve(classifier, images, *rest)

    def spy_measure(classifier: Any, trigger: Any, target: int, images: ImageSet) -> Any:
        confirmed.append(images.images)
        return measure(classifier, trigger, target, images)

    monkeypatch.setattr("tabor.examining.solve", spy_solve)
    monkeypatch.setattr("tabor.examining.measure", spy_measure)
    images = cell_images(per_class=3)
    tabor.scan(cell_model(), images, solver=few_steps, device="cpu")

    def which(tensors: list[Tensor]) -> set[int]:
        """The images seen, by their first pixel, which is different in each."""
        firsts = images.images[:, 0, 0, 0].tolist()
        return {firsts.index(pixel) for tensor in tensors for pixel in tensor[:, 0, 0, 0].tolist()}

    assert which(searched).isdisjoint(which(confirmed))
    assert which(searched) | which(confirmed) == set(range(27))
    assert len(confirmed) == 9


def _count(module: nn.Module, *_: object) -> None:
    module.hooked = int(module.hooked) + 1  # type: ignore[arg-type, assignment]


class Awkward(nn.Module):
    """A model with every kind of state that a scan might disturb, which works on its input in place."""

    def __init__(self, fails: bool) -> None:
        super().__init__()
        self.norm, self.dropout, self.linear = nn.BatchNorm2d(1), nn.Dropout(0.5), nn.Linear(16, 3)
        self.linear.weight.requires_grad_(False)
        self.norm.eval()
        self.hooked = 0
        self.register_forward_hook(_count)
        self.fails = fails

    def forward(self, images: Tensor) -> Tensor:
        images.mul_(2).sub_(1)
        logits: Tensor = self.linear(self.dropout(self.norm(images)).flatten(1))
        if self.fails and len(images) > 2:
            return logits * float("nan")
        return logits


@pytest.mark.parametrize("fails", [False, True], ids=["works", "fails half-way"])
def test_the_caller_s_objects_are_left_alone(fails: bool, few_steps: SolverSettings) -> None:
    model = Awkward(fails)
    state = copy.deepcopy(model.state_dict())
    training = {name: module.training for name, module in model.named_modules()}
    gradients = {name: (p.requires_grad, p.grad) for name, p in model.named_parameters()}
    images = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    labels, copy_of_images = torch.arange(12) % 3, images.clone()
    rng = torch.get_rng_state()
    if fails:
        with pytest.raises(ModelError, match="not finite"):
            tabor.scan(model, (images, labels), solver=few_steps, device="cpu")
    else:
        tabor.scan(model, (images, labels), solver=few_steps, device="cpu")
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert {name: module.training for name, module in model.named_modules()} == training
    assert {name: (p.requires_grad, p.grad) for name, p in model.named_parameters()} == gradients
    assert len(model._forward_hooks) == 1
    assert model.hooked == 0, "the caller's own model was run"
    assert torch.equal(images, copy_of_images)
    assert torch.equal(labels, torch.arange(12) % 3)
    assert torch.equal(torch.get_rng_state(), rng)


class Constant(nn.Module):
    """Gives the same logits, whatever it is shown."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, images: Tensor) -> Tensor:
        return self.logits + 0 * images.flatten(1).sum(1, keepdim=True)


IMAGES = torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(5))
FOUR = torch.arange(8) % 4


def refused(
    model: nn.Module, labels: Tensor = FOUR, images: Tensor = IMAGES, **options: Any
) -> pytest.ExceptionInfo[TaborError]:
    with pytest.raises(TaborError) as caught:
        tabor.scan(model, (images, labels), **{"device": "cpu", **options})
    assert str(caught.value).isprintable()
    return caught


@pytest.mark.parametrize(
    ("labels", "images", "error", "message"),
    [
        pytest.param(FOUR + 1, IMAGES, DataError, "a label 4, but the model knows only the classes 0 to 3", id="label"),
        pytest.param(0 * FOUR + 1, IMAGES, DataError, "all images are of one class", id="one class"),
        pytest.param(
            torch.tensor([0, 0, 0, 1]), IMAGES[:4], DataError, "half of the images is all of one class", id="one other"
        ),
        pytest.param(
            FOUR[:2],
            IMAGES[:2],
            DataError,
            "one half of the images is all of one class",
            id="two images",
        ),
        pytest.param(
            FOUR[:1], IMAGES[:1], DataError, "one image cannot be split|all images are of one", id="one image"
        ),
        pytest.param(FOUR[:0], IMAGES[:0], DataError, "there is no image", id="no image"),
        pytest.param(FOUR, IMAGES * 255, DataError, r"must lie in \[0, 1\] before normalisation", id="0 to 255"),
        pytest.param(FOUR.bool(), IMAGES, DataError, "labels must be an int64 tensor", id="labels yes or no"),
        pytest.param(FOUR.numpy(), IMAGES, DataError, "labels must be a tensor, got ndarray", id="labels of NumPy"),
        pytest.param(FOUR, IMAGES.numpy(), DataError, "images must be a tensor, got ndarray", id="images of NumPy"),
        pytest.param(FOUR[:7], IMAGES, DataError, r"labels must be an int64 tensor of shape \(8,\)", id="labels short"),
        pytest.param(FOUR, IMAGES[:, 0], DataError, r"shape \(N, C, H, W\)", id="no channels"),
    ],
)
def test_images_that_are_refused(labels: Tensor, images: Tensor, error: type[TaborError], message: str) -> None:
    caught = refused(Constant(0.0, 1.0, 2.0, 3.0), labels, images)
    assert caught.type is error
    caught.match(message)


@pytest.mark.parametrize("images", ["digits", IMAGES, (IMAGES, FOUR, FOUR)], ids=["a word", "no labels", "three"])
def test_images_that_are_no_pair(images: Any) -> None:
    with pytest.raises(DataError, match=r"images are an ImageSet, or a pair of tensors \(images, labels\), got "):
        tabor.scan(Constant(0.0, 1.0, 2.0, 3.0), images)


@pytest.mark.parametrize("model", ["clean.safetensors", Constant, lambda images: images])
def test_a_model_that_is_none(model: Any) -> None:
    assert refused(model).type is ModelError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 3}, "a list of numbers, got 3"),
        ({"classes": ["3"]}, "a class is a whole number, got 3"),
        ({"seed": None}, "a seed is a whole number, got None"),
        ({"seed": 1.5}, r"a seed is a whole number, got 1\.5"),
        ({"memory": "2"}, "a positive number of GiB, up to 1,073,741,824, got 2"),
    ],
)
def test_options_of_another_type(options: dict[str, Any], message: str) -> None:
    caught = refused(Constant(0.0, 1.0, 2.0, 3.0), **options)
    assert caught.type is SettingError
    caught.match(message)


def test_numbers_of_numpy_will_do(few_steps: SolverSettings, tmp_path: Path) -> None:
    options: dict[str, Any] = {"seed": np.int64(3), "classes": np.arange(3), "solver": few_steps, "out": tmp_path}
    tabor.scan(Constant(0.0, 0.0, 0.0, 9.0), (IMAGES, FOUR), **options, device="cpu")
    stored = ScanResult.load(tmp_path)
    assert (stored.seed, [finding.index for finding in stored.classes]) == (3, [0, 1, 2])


class Altered(nn.Module):
    """A network whose answers are altered on the way out."""

    def __init__(self, network: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.change = network, change

    def forward(self, images: Tensor) -> Tensor:
        return self.change(self.network(images))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(lambda answers: answers.softmax(1), lambda answers: answers.log_softmax(1), id="probabilities"),
        pytest.param(lambda answers: answers.log_softmax(1), lambda answers: answers.log_softmax(1), id="logarithms"),
        pytest.param(lambda answers: answers, lambda answers: answers, id="logits"),
    ],
)
def test_probabilities_are_searched_by_their_logarithms(
    change: Callable[[Tensor], Tensor],
    expected: Callable[[Tensor], Tensor],
    cell_model: Callable[..., nn.Module],
    cell_images: Callable[..., ImageSet],
) -> None:
    model, images = cell_model(backdoor=2), cell_images(per_class=4)
    reached = _reach(Altered(model, change), images, "cpu", "exact", None)
    with torch.no_grad():
        assert torch.allclose(reached.predict(images.images), expected(model.eval()(images.images)), atol=1e-4)


@pytest.mark.parametrize(("precision", "hastened"), [("auto", True), ("exact", False)])
def test_an_exact_scan_runs_on_the_network_itself(
    precision: str, hastened: bool, cell_images: Callable[..., ImageSet]
) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 11 * 10, 9)).eval()
    assert _reach(model, cell_images(per_class=1), "cpu", precision, None).hastened is hastened


def test_a_faster_copy_is_compared_on_many_images_of_all_classes(
    cell_model: Callable[..., nn.Module], cell_images: Callable[..., ImageSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, compared = cell_images(per_class=40), list[Tensor]()
    monkeypatch.setattr(Classifier, "hasten", lambda _, shown: compared.append(shown))
    _reach(cell_model(), images, "cpu", "auto", None)
    (shown,) = compared
    counts = torch.bincount(cell_model()(shown).argmax(1), minlength=9)
    assert (len(shown), int(counts.min()), int(counts.max())) == (256, 28, 29)


def test_a_model_that_answers_all_images_alike_needs_no_gradients() -> None:
    model = Returns(lambda images: torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(len(images), 1))
    assert _reach(model, ImageSet(IMAGES, FOUR, ()), "cpu", "exact", None).num_classes == 4


@pytest.mark.parametrize(
    "change",
    [Tensor.detach, lambda answers: nn.functional.one_hot(answers.argmax(1), 9).float()],
    ids=["detached", "hard"],
)
def test_a_model_without_gradients_is_told_before_the_search(
    change: Callable[[Tensor], Tensor], cell_model: Callable[..., nn.Module], cell_images: Callable[..., ImageSet]
) -> None:
    images, rounds = cell_images(per_class=4), list[object]()
    with pytest.raises(ModelError, match="the model gives no gradients"):
        tabor.scan(Altered(cell_model(backdoor=2), change), images, device="cpu", on_progress=rounds.append)
    assert rounds == []


@pytest.mark.parametrize(
    ("classes", "message"),
    [([4], "class 4 cannot be scanned; give 0 to 3"), ([0, -1], "class -1 cannot"), ([], r"class \(none\) cannot")],
    ids=["too high", "negative", "none"],
)
def test_classes_outside_the_range(classes: list[int], message: str) -> None:
    caught = refused(Constant(0.0, 1.0, 2.0, 3.0), classes=classes)
    assert caught.type is SettingError
    caught.match(message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "slow"}, "unknown preset slow; use fast, standard, thorough, paper"),
        ({"method": "magic"}, "unknown method magic; use tabor or neural-cleanse"),
        ({"device": "toaster"}, "cannot use the device toaster"),
        ({"precision": "half"}, "unknown precision half; use auto or exact"),
        ({"memory": 0.0}, r"the memory is a positive number of GiB, up to 1,073,741,824, got 0\.0"),
        ({"memory": 1e300}, r"the memory is a positive number of GiB, .* got 1e\+300"),
        ({"memory": 10**400}, r"the memory is a positive number of GiB, .* got 10{400}"),
    ],
    ids=["preset", "method", "device", "precision", "no memory", "endless memory", "more than a float"],
)
def test_unknown_names(options: dict[str, Any], message: str) -> None:
    caught = refused(Constant(0.0, 1.0, 2.0, 3.0), **options)
    assert caught.type is SettingError
    caught.match(message)


class Returns(nn.Module):
    """Answers with anything at all."""

    def __init__(self, answer: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, images: Tensor) -> Any:
        return self.answer(images)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        pytest.param(Constant(0.0, float("nan"), 2.0, 3.0), "outputs are not finite numbers", id="NaN"),
        pytest.param(Constant(0.0, float("inf"), 2.0, 3.0), "outputs are not finite numbers", id="infinity"),
        pytest.param(Constant(0.0), "has 1 class; a backdoor needs at least 2", id="one class"),
        pytest.param(Returns(lambda x: x), r"for 2 images it returned \(2, 1, 4, 4\)", id="images"),
        pytest.param(Returns(lambda x: x.mean()), r"it returned \(\)", id="a number"),
        pytest.param(Returns(lambda x: {"logits": x}), "it returned dict", id="a dictionary"),
        pytest.param(Returns(lambda x: x.flatten(1)[:1]), r"it returned \(1, 16\)", id="one row"),
        pytest.param(nn.Linear(5, 4), "fails on images of 1×4×4", id="another size"),
    ],
)
def test_models_that_are_refused(model: nn.Module, message: str) -> None:
    caught = refused(model)
    assert caught.type is ModelError
    caught.match(message)


def test_both_sizes_are_named(tmp_path: Path) -> None:
    architecture = Architecture(name="tabor:digits4", num_classes=4, channels=1, size=(12, 14))
    write_model(tmp_path / "m.safetensors", initialise(architecture, 0).state_dict(), architecture, {})
    caught = refused(load_model(tmp_path / "m.safetensors"))
    assert caught.type is DataError
    caught.match(r"takes images of 1×12×14 .*the data has 1×4×4.* size=\(12, 14\), .* model with size=\(4, 4\)")


def test_nothing_is_written_when_the_model_is_refused(tmp_path: Path) -> None:
    refused(Constant(0.0, float("nan"), 2.0, 3.0), out=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_told_before_the_search(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    rounds: list[object] = []
    caught = refused(Constant(0.0, 1.0, 2.0, 3.0), out=tmp_path / "file" / "run", on_progress=rounds.append)
    caught.match("cannot write")
    assert rounds == []


@pytest.mark.parametrize(
    ("logits", "warned"), [((9.0, 0.0, 0.0, 0.0), True), ((9.0, 0.0), False)], ids=["a quarter right", "half right"]
)
def test_low_accuracy_is_warned_of(logits: tuple[float, ...], warned: bool, few_steps: SolverSettings) -> None:
    labels = torch.arange(8) % len(logits)
    result = tabor.scan(Constant(*logits), (IMAGES, labels), solver=few_steps, device="cpu")
    assert result.clean_accuracy == 1 / len(logits)
    assert any("is right on only 25% of the clean images" in warning for warning in result.warnings) == warned


def test_what_is_taken_for_an_effect_is_warned_of(few_steps: SolverSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tabor.scanning.warnings_of_effects", lambda *_: ["an effect"])
    result = tabor.scan(Constant(0.0, 0.0, 0.0, 9.0), (IMAGES, FOUR), solver=few_steps, device="cpu")
    assert "an effect" in result.warnings


def test_missing_and_few_classes_are_warned_of(few_steps: SolverSettings) -> None:
    result = tabor.scan(Constant(0.0, 0.0, 0.0, 0.0, 9.0), (IMAGES, FOUR), solver=few_steps, device="cpu")
    assert "only 4 of 5 classes have an image" in result.warnings
    assert any(warning.startswith("with 5 classes an outlier test means little") for warning in result.warnings)
    assert result.data["classes_present"] == 4
    assert len(result.classes) == 5


@pytest.mark.parametrize(
    ("how", "against"),
    [
        ({}, "the others and the spread of clean models"),
        ({"method": "neural-cleanse"}, "the others"),
        ({"preset": "paper"}, "the others"),
    ],
    ids=["tabor", "neural-cleanse", "paper"],
)
def test_the_spread_of_clean_models_is_named_where_a_method_knows_it(
    how: dict[str, Any], against: str, few_steps: SolverSettings
) -> None:
    result = tabor.scan(Constant(0.0, 0.0, 0.0, 9.0), (IMAGES, FOUR), solver=few_steps, device="cpu", **how)
    assert f"with 4 classes an outlier test means little; each class was held against {against}" in result.warnings


def test_undecided_when_no_trigger_works(few_steps: SolverSettings) -> None:
    # Whatever is stamped on an image, this model says 0.
    result = tabor.scan(Constant(9.0, 0.0, 0.0, 0.0), (IMAGES, FOUR), solver=few_steps, device="cpu")
    assert result.verdict is Verdict.UNDECIDED
    assert result.reason.startswith("a working trigger was found for only 1 of 4 classes")
    assert [finding.status is ClassStatus.NO_TRIGGER for finding in result.classes] == [False, True, True, True]
    assert [finding.attack_success for finding in result.classes] == [1.0, 0.0, 0.0, 0.0]
    jsonschema.validate(result.to_dict(), json_schema())


def test_undecided_when_nothing_converges(
    cell_model: Callable[..., nn.Module], cell_images: Callable[..., ImageSet], quick: SolverSettings
) -> None:
    never = dataclasses.replace(quick, stability=StabilitySettings(tolerance=1e-9, rounds=1000))
    result = tabor.scan(cell_model(), cell_images(), solver=never, device="cpu")
    assert result.verdict is Verdict.UNDECIDED
    assert "did not come to its end for 9 of 9 classes" in result.reason
    assert {finding.status for finding in result.classes} == {ClassStatus.UNFINISHED}


def test_progress_goes_from_start_to_end(
    cell_model: Callable[..., nn.Module], cell_images: Callable[..., ImageSet], quick: SolverSettings
) -> None:
    told: list[Any] = []
    by_twos = dataclasses.replace(quick, group_images=8)
    tabor.scan(cell_model(2), cell_images(2), solver=by_twos, device="cpu", on_progress=told.append)
    shares = [at.share for at in told]
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] == 1.0
    assert (told[-1].finished, told[-1].classes) == (4, 4)
    assert told[-1].smallest_mask is not None


@pytest.mark.parametrize("method", ["tabor", "neural-cleanse"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_models_of_any_precision(
    method: str,
    dtype: torch.dtype,
    cell_model: Callable[..., nn.Module],
    cell_images: Callable[..., ImageSet],
    few_steps: SolverSettings,
) -> None:
    model = cell_model(2).to(dtype)
    result = tabor.scan(model, cell_images(2), method=method, solver=few_steps, device="cpu")
    assert result.method == method
    assert result.clean_accuracy == 1.0
    assert next(model.parameters()).dtype is dtype


@pytest.mark.parametrize("without", [torch.no_grad, torch.inference_mode])
def test_a_caller_that_does_without_gradients_gets_the_same(
    without: Callable[[], AbstractContextManager[Any]],
    cell_model: Callable[..., nn.Module],
    cell_images: Callable[..., ImageSet],
    few_steps: SolverSettings,
) -> None:
    options: dict[str, Any] = {"solver": few_steps, "method": Tabor(restoring=QUICK_PATCHES), "device": "cpu"}
    usual = tabor.scan(cell_model(2, backdoor=BACKDOOR), cell_images(2), **options)
    with without():  # the weights and the images are made without as well
        found = tabor.scan(cell_model(2, backdoor=BACKDOOR), cell_images(2), **options)
        assert not torch.is_grad_enabled()
    assert comparable(found) == comparable(usual)
    assert all(torch.equal(found.triggers[k].mask, usual.triggers[k].mask) for k in range(4))


@pytest.mark.parametrize("preset", ["fast", "standard", "thorough", "paper"])
def test_the_preset_is_recorded(
    preset: str, cell_model: Callable[..., nn.Module], cell_images: Callable[..., ImageSet], few_steps: SolverSettings
) -> None:
    result = tabor.scan(cell_model(2), cell_images(2), preset=preset, solver=few_steps, device="cpu")
    assert result.preset == preset
    assert result.settings["solver"]["steps"] == 4
    assert set(result.settings) == {"solver", "tabor", "precision"}
    jsonschema.validate(result.to_dict(), json_schema())


def test_the_memory_limit_holds_from_the_start_and_counts_what_was_copied_since(
    cell_model: Callable[..., nn.Module],
    cell_images: Callable[..., ImageSet],
    few_steps: SolverSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order: list[str | int | None] = []
    halves, limit, hasten = ImageSet.halves, Classifier.limit_memory, Classifier.hasten

    def copied(images: ImageSet, seed: int) -> tuple[ImageSet, ImageSet]:
        order.append("copied")
        return halves(images, seed)

    def limited(classifier: Classifier, most: int | None) -> None:
        order.append(most)
        limit(classifier, most)

    def hastened(classifier: Classifier, images: Tensor) -> None:
        order.append("compared")
        hasten(classifier, images)

    monkeypatch.setattr(ImageSet, "halves", copied)
    monkeypatch.setattr(Classifier, "hasten", hastened)
    monkeypatch.setattr(Classifier, "limit_memory", limited)
    tabor.scan(cell_model(2), cell_images(2), method=Tabor(restoring=None), solver=few_steps, device="cpu", memory=0.5)
    assert order == [2**29, "compared", "copied", 2**29]


def test_a_scan_in_little_memory_finds_the_same(
    cell_model: Callable[..., nn.Module], cell_images: Callable[..., ImageSet], few_steps: SolverSettings
) -> None:
    """The limit is far below what Python takes alone, so images go through the network one by one."""
    settings = dataclasses.replace(few_steps, group_images=few_steps.batch_size)
    whole, little = (
        tabor.scan(
            cell_model(2),
            cell_images(2),
            method=Tabor(restoring=None),
            solver=settings,
            device="cpu",
            precision="exact",
            memory=memory,
        )
        for memory in (None, 1e-3)
    )
    assert whole.settings["precision"] == "float32"
    for target, trigger in whole.triggers.items():
        torch.testing.assert_close(little.triggers[target].mask, trigger.mask)
    assert not any("memory" in warning for warning in whole.warnings)
    assert any("more than the 0.001 GiB of memory asked for is taken already" in warning for warning in little.warnings)
