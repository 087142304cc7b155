"""Training and testing: it learns, it is repeatable, and it leaves the global generator alone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tabor.data import ImageSet
from tabor.errors import DataError, ModelError, SettingError, TaborError
from tabor.models import Architecture, load_model
from tabor.models.build import initialise
from tabor.training import TrainSettings, accuracy, fit, long_enough, mirrored, train_classifier, zoomed

QUICK = TrainSettings(epochs=16, learning_rate=5e-3, batch_size=16)


def toy_set(count: int = 96, seed: int = 0, channels: int = 1) -> ImageSet:
    """Three classes of 12 × 12 images: the upper, the middle or the lower third is bright."""
    labels = torch.arange(count) % 3
    images = 0.3 * torch.rand(count, channels, 12, 12, generator=torch.Generator().manual_seed(seed))
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, 4 * label : 4 * label + 4] += 0.7
    return ImageSet(images, labels, ("up", "middle", "down"), "toy")


def fresh(seed: int = 0) -> nn.Module:
    return initialise(Architecture(name="tabor:digits4", num_classes=3, channels=1, size=(12, 12)), seed)


class Always(nn.Module):
    """Says class 1, whatever it is shown."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.tensor([0.0, 1.0, 0.0]).expand(len(images), 3)


def test_it_learns_a_separable_set() -> None:
    train, test, model = toy_set(), toy_set(30, seed=9), fresh()
    losses: list[tuple[int, float]] = []
    fit(model, train.images, train.labels, QUICK, 0, lambda epoch, loss: losses.append((epoch, loss)))
    assert accuracy(model, test.images, test.labels) > 0.95
    assert [epoch for epoch, _ in losses] == list(range(1, 17))
    assert losses[-1][1] < losses[0][1] / 2
    assert losses[0][1] == pytest.approx(math.log(3), rel=0.3)
    assert not model.training


def test_it_learns_as_well_in_a_fast_number_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tabor.training.best_dtype", lambda _device: torch.bfloat16)
    train, test, model = toy_set(), toy_set(30, seed=9), fresh()
    seen = set()
    next(m for m in model.modules() if isinstance(m, nn.Conv2d)).register_forward_hook(
        lambda _module, _inputs, output: seen.add(output.dtype)
    )
    with torch.autocast("cpu", torch.bfloat16):  # a caller's own keeps converted weights, which must not be used again
        fit(model, train.images, train.labels, QUICK, 0)
    assert seen == {torch.bfloat16}
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert accuracy(model, test.images, test.labels) > 0.95


@pytest.mark.parametrize("augment", [True, False])
def test_the_same_seed_gives_the_same_weights(augment: bool) -> None:
    train = toy_set()
    settings = TrainSettings(epochs=1, batch_size=16, augment=augment)
    models = [fresh() for _ in range(3)]
    for model, seed in zip(models, (4, 4, 5), strict=True):
        torch.rand(seed)  # the global generator stands somewhere else each time
        fit(model, train.images, train.labels, settings, seed)
    first, again, other = (model.state_dict() for model in models)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_the_global_generator_and_the_images_are_left_alone() -> None:
    train, before = toy_set(), torch.get_rng_state()
    images, labels = train.images.clone(), train.labels.clone()
    fit(fresh(), train.images, train.labels, TrainSettings(epochs=1), 0)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(train.images, images)
    assert torch.equal(train.labels, labels)


def test_the_generators_of_other_devices_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    train = toy_set()
    fit(fresh(), train.images, train.labels, TrainSettings(epochs=1), 0)
    assert seeds == []


def test_the_global_generator_is_left_alone_when_training_fails() -> None:
    train, before = toy_set(), torch.get_rng_state()

    def stop(epoch: int, loss: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(fresh(), train.images, train.labels, TrainSettings(epochs=1), 0, stop)
    assert torch.equal(torch.get_rng_state(), before)


def test_half_of_the_images_are_mirrored_each_whole() -> None:
    images = torch.rand(200, 2, 3, 5, generator=torch.Generator().manual_seed(0))
    made = mirrored(images, torch.Generator().manual_seed(1))
    turned = (made == images.flip(3)).flatten(1).all(1)
    assert torch.equal(turned, ~(made == images).flatten(1).all(1))
    assert 80 <= int(turned.sum()) <= 120


def test_zooming_shows_a_part_of_each_image() -> None:
    """Across a ramp, pixels 1 to 7 of 9 span 0.75 of the part's edge; the outermost may lie half outside the image."""
    ramp = torch.linspace(0, 1, 9).expand(50, 1, 9, 9)
    images = torch.cat([ramp, ramp.mT], 1)
    made = zoomed(images, 0.5, torch.Generator().manual_seed(0))
    wide, high = (made[:, 0, 4, 7] - made[:, 0, 4, 1]) / 0.75, (made[:, 1, 7, 4] - made[:, 1, 1, 4]) / 0.75
    assert 0.5 <= float(wide.min()) < 0.55
    assert 0.95 < float(wide.max()) <= 1.0
    torch.testing.assert_close(high, wide)
    assert set((made[:, 0, 4, 4] > 0.5).tolist()) == set((made[:, 1, 4, 4] > 0.5).tolist()) == {True, False}
    torch.testing.assert_close(zoomed(images, 1.0, torch.Generator()), images)


@pytest.mark.parametrize("change", [{"mirror": True}, {"zoom": 0.5}], ids=str)
def test_mirroring_and_zooming_change_the_training(change: dict[str, Any]) -> None:
    train = toy_set()
    models = [fresh(), fresh()]
    for model, changed in zip(models, ({}, change), strict=True):
        fit(model, train.images, train.labels, TrainSettings(epochs=1, batch_size=16, **changed), 0)
    plain, other = (model.state_dict() for model in models)
    assert any(not torch.equal(plain[key], other[key]) for key in plain)


def test_weights_decay() -> None:
    """Black images say nothing of the first layer's weights, so that nothing else moves them."""
    black, labels = torch.zeros(8, 1, 4, 4), torch.arange(8) % 3

    def shrunk(weight_decay: float) -> Tensor:
        torch.manual_seed(0)
        layer = nn.Linear(16, 3)
        before = layer.weight.detach().clone()
        settings = TrainSettings(epochs=2, batch_size=4, learning_rate=0.1, weight_decay=weight_decay)
        fit(nn.Sequential(nn.Flatten(), layer), black, labels, settings, 0)
        shares = layer.weight.detach() / before
        torch.testing.assert_close(shares, shares[0, 0].expand_as(shares))
        return shares[0, 0]

    none, some, more = (float(shrunk(weight_decay)) for weight_decay in (0.0, 0.1, 0.5))
    assert none == 1.0
    assert 0 < more < some < 1


def test_a_batch_larger_than_the_set() -> None:
    train, model = toy_set(6), fresh()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    fit(model, train.images, train.labels, TrainSettings(epochs=1, batch_size=128), 0)
    assert any(not torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("labels", "expected"),
    [([1, 1, 1, 1], 1.0), ([0, 2, 0, 0], 0.0), ([1, 0, 2, 1], 0.5), ([1] * 300 + [0] * 100, 0.75)],
    ids=["all right", "none right", "half", "more than a batch"],
)
def test_accuracy_of_a_known_model(labels: list[int], expected: float, training: bool) -> None:
    model = Always().train(training)
    assert accuracy(model, torch.zeros(len(labels), 1, 2, 2), torch.tensor(labels)) == expected
    assert model.training is training


def test_accuracy_puts_the_training_flag_back_when_the_model_fails() -> None:
    model = nn.Linear(3, 2)
    with pytest.raises(RuntimeError):
        accuracy(model, torch.zeros(2, 1, 2, 2), torch.zeros(2, dtype=torch.int64))
    assert model.training


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 0},
        {"epochs": -1},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"learning_rate": -1.0},
        {"learning_rate": math.inf},
    ],
    ids=str,
)
def test_refused_settings(changes: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match="positive epochs, batch size and learning rate"):
        TrainSettings(**changes)


@pytest.mark.parametrize("weight_decay", [-1.0, math.nan, math.inf])
def test_refused_weight_decay(weight_decay: float) -> None:
    with pytest.raises(SettingError, match="a finite weight decay that is not negative"):
        TrainSettings(weight_decay=weight_decay)


@pytest.mark.parametrize("zoom", [0.0, -0.5, 1.01])
def test_refused_zoom(zoom: float) -> None:
    with pytest.raises(SettingError, match=r"a share of an image in \(0, 1\]"):
        TrainSettings(zoom=zoom)


def test_train_classifier_writes_what_it_measured(tmp_path: Path) -> None:
    out, test = tmp_path / "toy.safetensors", toy_set(30, seed=9)
    record = train_classifier("tabor:digits4", toy_set(), test, out, QUICK, seed=3)
    loaded = load_model(out)
    assert record == {key: value for key, value in loaded.record.items() if key != "architecture"}
    assert record["clean_accuracy"] == accuracy(loaded, test.images, test.labels) > 0.95
    assert record["training"]["seed"] == 3
    assert record["training"]["epochs"] == 16
    assert record["data"] == "toy"
    assert loaded.architecture == Architecture(name="tabor:digits4", num_classes=3, channels=1, size=(12, 12))


@pytest.mark.parametrize(
    ("images", "epochs"),
    [
        pytest.param(100_000, 2, id="enough as they are"),
        pytest.param(400, 10, id="4 steps an epoch"),
        pytest.param(399, 14, id="of 3, as the last images make no whole batch"),
        pytest.param(7, 40, id="fewer than a batch"),
    ],
)
def test_few_images_are_shown_more_often(images: int, epochs: int) -> None:
    settings = TrainSettings(epochs=2, batch_size=100)
    assert long_enough(settings, images, 40) == TrainSettings(epochs=epochs, batch_size=100)


def test_networks_that_are_not_ours_are_normalised(tmp_path: Path) -> None:
    out, train = tmp_path / "toy.safetensors", toy_set(32, channels=3)
    train_classifier("timm:resnet10t", train, train, out, TrainSettings(epochs=1, batch_size=16), seed=0)
    architecture = load_model(out).architecture
    assert architecture.mean == architecture.std == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_what_a_convolution_leaves_as_gradients_of_padding_spoils_nothing(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    monkeypatch.setattr("tabor.training.best_dtype", lambda _device: dtype)
    train = toy_set(32)
    convolution = nn.Conv2d(1, 3, 3, 2, 1)
    network, weight = nn.Sequential(nn.AdaptiveAvgPool2d(1), convolution, nn.Flatten()), convolution.weight
    weight.register_hook(lambda gradient: gradient.index_fill(3, torch.tensor([0]), math.nan))  # touches padding alone
    fit(network, train.images, train.labels, TrainSettings(epochs=1, batch_size=16), 0)
    assert bool(weight.isfinite().all()) == (dtype == torch.bfloat16)  # else it is no such leftover, and is to be seen


def test_classes_without_an_image_are_counted_too(tmp_path: Path) -> None:
    train = toy_set()
    named = ImageSet(train.images, train.labels, ("up", "middle", "down", "never", "seen"))
    train_classifier("tabor:digits4", named, named, tmp_path / "m.safetensors", TrainSettings(epochs=1), seed=0)
    assert load_model(tmp_path / "m.safetensors").architecture.num_classes == 5


def test_training_and_test_images_must_agree(tmp_path: Path) -> None:
    train = toy_set()
    small = ImageSet(train.images[:, :, :10, :10], train.labels, ())
    more = ImageSet(train.images, train.labels + 1, ())
    for test in (small, more):
        with pytest.raises(DataError, match="differ in size or classes"):
            train_classifier("tabor:digits4", train, test, tmp_path / "m.safetensors", QUICK, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_a_device_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="cannot use the device toaster"):
        train_classifier("tabor:digits4", toy_set(), toy_set(), tmp_path / "m.safetensors", QUICK, 0, device="toaster")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_when_it_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    quickest = TrainSettings(epochs=1)
    with pytest.raises(ModelError, match="unknown architecture"):
        train_classifier("nothing", toy_set(), toy_set(), tmp_path / "m.safetensors", quickest, seed=0)
    with pytest.raises(TaborError, match="cannot write"):
        train_classifier("tabor:digits4", toy_set(), toy_set(), tmp_path / "file" / "m", quickest, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
