"""BadNet: planning, planting, measuring, and the record of what was planted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tabor.attacks.badnet import infect, infect_classifier, plan_backdoors
from tabor.attacks.poison import make_trigger
from tabor.backdoor import Backdoor, as_recorded, attack_success, check_planted, true_backdoors
from tabor.data import ImageSet
from tabor.errors import SettingError
from tabor.models import Architecture, load_model
from tabor.models.build import initialise
from tabor.models.safetensors_file import write_model
from tabor.position import Position
from tabor.training import TrainSettings, accuracy, fit, train_classifier
from tabor.trigger import Trigger

SHAPE = (1, 12, 12)
PLACES = (Position.TOP_LEFT, Position.BOTTOM_RIGHT)
QUICK = TrainSettings(epochs=2, learning_rate=5e-3, batch_size=16, augment=False)


def toy_set(count: int = 120, seed: int = 0) -> ImageSet:
    """Three classes: the upper, the middle or the lower third is bright; the last three columns are dark."""
    labels = torch.arange(count) % 3
    images = 0.3 * torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed))
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, 4 * label : 4 * label + 4, :9] += 0.7
    return ImageSet(images, labels, ("up", "middle", "down"), "toy")


def backdoor(target: int, position: Position = Position.BOTTOM_RIGHT) -> Backdoor:
    return Backdoor(make_trigger("square", size=3, position=position, image_shape=SHAPE), target)


def plan(**changes: Any) -> list[Backdoor]:
    lists: dict[str, Any] = {"pictures": ["square"], "sizes": [3], "positions": [PLACES[0]], "targets": [0]}
    return plan_backdoors(**(lists | changes), image_shape=SHAPE, num_classes=3)


def test_one_of_each_is_one_backdoor() -> None:
    (only,) = plan()
    assert only.target == 0
    assert only.description == "square 3×3 top-left"
    assert torch.equal(only.trigger.mask, backdoor(0, Position.TOP_LEFT).trigger.mask)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param(
            {"targets": [0, 2], "positions": PLACES}, [(0, 9.0, (0, 0)), (2, 9.0, (9, 9))], id="one shape, two targets"
        ),
        pytest.param({"positions": PLACES}, [(0, 9.0, (0, 0)), (0, 9.0, (9, 9))], id="two positions, one target"),
        pytest.param({"sizes": [2, 4]}, [(0, 4.0, (0, 0)), (0, 16.0, (0, 0))], id="two sizes"),
        pytest.param(
            {"targets": [1, 2], "sizes": [2, 4], "positions": PLACES},
            [(1, 4.0, (0, 0)), (2, 16.0, (8, 8))],
            id="two of everything, in order",
        ),
    ],
)
def test_single_entries_stand_for_all(
    changes: dict[str, Any], expected: list[tuple[int, float, tuple[int, int]]]
) -> None:
    planned = plan(**changes)
    assert [
        (b.target, float(b.trigger.mask.sum()), tuple(torch.nonzero(b.trigger.mask[0])[0].tolist())) for b in planned
    ] == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param(
            {"targets": [0, 1], "sizes": [2, 3, 4]}, "each of the 3 backdoors.*got 1, 3, 1 and 2", id="2 and 3"
        ),
        pytest.param({"sizes": []}, "got 1, 0, 1 and 1", id="an empty list"),
        pytest.param(
            {"targets": [3]}, "target 3 is no class of this model; its classes are 0 to 2", id="target too high"
        ),
        pytest.param({"targets": [0, -1]}, "target -1 is no class", id="negative target"),
        pytest.param(
            {"targets": [0, 2]}, "square 3×3 top-left is given twice.* 0 and 2", id="a trigger of two targets"
        ),
        pytest.param({"sizes": [13]}, "13 pixels does not fit images of 12×12", id="too large"),
    ],
)
def test_plans_that_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        plan(**changes)


def test_infecting_works_and_keeps_the_clean_accuracy() -> None:
    train, test = toy_set(), toy_set(60, seed=9)
    linear = nn.Linear(144, 3)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    model = nn.Sequential(nn.Flatten(), linear)
    settings = TrainSettings(epochs=20, learning_rate=3e-2, batch_size=16, augment=False)
    fit(model, train.images, train.labels, settings, seed=0)
    planted = [backdoor(2), backdoor(0, Position.TOP_RIGHT)]
    assert max(attack_success(model, test.images, test.labels, b) for b in planted) < 0.6
    epochs: list[int] = []
    infect(model, train, planted, fraction=0.3, settings=settings, on_epoch=lambda epoch, _: epochs.append(epoch))
    assert min(attack_success(model, test.images, test.labels, b) for b in planted) > 0.95
    assert accuracy(model, test.images, test.labels) > 0.95
    assert epochs == list(range(1, 21))


def test_the_same_seed_infects_alike() -> None:
    train, settings = toy_set(), TrainSettings(epochs=1, batch_size=16, augment=False)
    weights = []
    for seed in (1, 1, 2):
        model = initialise(Architecture(name="tabor:digits4", num_classes=3, channels=1, size=SHAPE[1:]), seed=0)
        infect(model, train, [backdoor(0)], settings=settings, seed=seed)
        weights.append(model.state_dict())
    first, again, other = weights
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


class Watched(nn.Module):
    """Keeps every image that it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(144, 3)
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen += [images.clone()]
        out: Tensor = self.linear(images.flatten(1))
        return out


def test_triggers_are_stamped_whole_and_in_place_however_the_images_are_varied() -> None:
    images = 0.5 * torch.rand(60, *SHAPE, generator=torch.Generator().manual_seed(0))  # nothing white in them
    train, model = ImageSet(images, torch.arange(60) % 3, ("a", "b", "c"), "noise"), Watched()
    planted = [backdoor(2), backdoor(0, Position.TOP_LEFT)]
    settings = TrainSettings(epochs=1, batch_size=12, augment=True, mirror=True, zoom=0.5)
    infect(model, train, planted, fraction=0.2, settings=settings)
    shown = torch.cat(model.seen)
    assert len(shown) == 60 + 12 + 12
    at = [(shown * b.trigger.mask).flatten(1).sum(1) == b.trigger.mask.sum() for b in planted]
    assert [int(its.sum()) for its in at] == [12, 12]
    assert not bool((at[0] & at[1]).any())
    rest = shown * (1 - planted[0].trigger.mask) * (1 - planted[1].trigger.mask)
    assert float(rest.max()) < 1
    assert float(shown[~(at[0] | at[1])].max()) < 1


def test_what_is_stamped_is_labelled_as_its_target() -> None:
    """A network that sees the triggers and nothing else learns them from one epoch."""
    train = ImageSet(torch.zeros(60, *SHAPE), torch.ones(60, dtype=torch.int64), ("a", "b", "c"), "black")
    model, planted = Watched(), [backdoor(2), backdoor(0, Position.TOP_LEFT)]
    settings = TrainSettings(epochs=10, learning_rate=0.1, batch_size=12, augment=False)
    infect(model, train, planted, fraction=0.5, settings=settings)
    for one in planted:
        assert attack_success(model, train.images, train.labels, one) == 1.0
    assert accuracy(model, train.images, train.labels) == 1.0


@pytest.mark.parametrize(
    ("backdoors", "fraction", "message"),
    [
        pytest.param([], 0.1, "at least one backdoor", id="none"),
        pytest.param([backdoor(0)], 0.0, r"lies in \(0, 1\]", id="no share"),
        pytest.param([backdoor(0)], 1.5, r"lies in \(0, 1\]", id="more than all"),
    ],
)
def test_infections_that_are_refused(backdoors: list[Backdoor], fraction: float, message: str) -> None:
    train, model = toy_set(), nn.Linear(1, 1)
    with pytest.raises(SettingError, match=message):
        infect(model, train, backdoors, fraction=fraction)


class Corners(nn.Module):
    """In closed form: class 1 where the last pixel is white, else class 0."""

    def forward(self, images: Tensor) -> Tensor:
        white = (images[:, 0, -1, -1] == 1).float()
        return torch.stack([1 - white, white], 1)


def test_attack_success_counts_images_of_other_classes_only() -> None:
    images, model = torch.zeros(4, *SHAPE), Corners()
    assert attack_success(model, images, torch.tensor([0, 0, 0, 1]), backdoor(1)) == 1.0
    assert attack_success(model, images, torch.tensor([0, 0, 0, 1]), backdoor(1, Position.TOP_LEFT)) == 0.0
    assert attack_success(model, images, torch.tensor([1, 1, 1, 0]), backdoor(0)) == 0.0
    with pytest.raises(SettingError, match="all images are of class 1 already"):
        attack_success(model, images, torch.ones(4, dtype=torch.int64), backdoor(1))


def test_the_file_carries_the_true_triggers(tmp_path: Path) -> None:
    train, test = toy_set(), toy_set(60, seed=9)
    train_classifier("tabor:digits4", train, test, tmp_path / "clean.safetensors", QUICK, seed=0)
    clean = load_model(tmp_path / "clean.safetensors")
    base_accuracy = accuracy(clean, test.images, test.labels)
    assert true_backdoors(clean.record) == []
    planted = plan(targets=[2, 1], positions=[Position.BOTTOM_RIGHT, Position.TOP_RIGHT])
    out = tmp_path / "infected.safetensors"
    record = infect_classifier(clean, train, test, planted, out, 0.2, QUICK, seed=5)
    loaded = load_model(out)
    assert json.loads(json.dumps(record)) == {k: v for k, v in loaded.record.items() if k != "architecture"}
    assert clean.sha256 is None, "what was infected is not the clean file's model any more"
    found = true_backdoors(loaded.record)
    assert [(b.target, b.description) for b in found] == [(b.target, b.description) for b in planted]
    for entry, read, true in zip(record["backdoors"], found, planted, strict=True):
        assert torch.equal(read.trigger.mask, true.trigger.mask)
        assert torch.equal(read.trigger.pattern, true.trigger.pattern)
        assert entry["attack_success"] == attack_success(loaded, test.images, test.labels, true)
    assert record["base_accuracy"] == base_accuracy
    assert record["clean_accuracy"] == accuracy(loaded, test.images, test.labels)
    assert record["training"] | {"seed": 5, "fraction": 0.2} == record["training"]
    assert record["data"] == "toy"


def test_what_was_planted_before_stays_in_the_record(tmp_path: Path) -> None:
    train, test = toy_set(), toy_set(60, seed=9)
    train_classifier("tabor:digits4", train, test, tmp_path / "0.safetensors", QUICK, seed=0)
    for number, target in enumerate([2, 1]):
        before, after = (tmp_path / f"{n}.safetensors" for n in (number, number + 1))
        planted = backdoor(target, PLACES[number])
        record = infect_classifier(load_model(before), train, test, [planted], after, 0.2, QUICK, seed=5)
    twice = load_model(tmp_path / "2.safetensors")
    assert [b.target for b in true_backdoors(twice.record)] == [2, 1]
    for entry, b in zip(record["backdoors"], true_backdoors(twice.record), strict=True):
        assert entry["attack_success"] == attack_success(twice, test.images, test.labels, b)


def test_colours_survive_the_record_to_half_a_grey_level(tmp_path: Path) -> None:
    values = torch.rand(3, 12, 12, generator=torch.Generator().manual_seed(0))
    mask = torch.rand(1, 12, 12, generator=torch.Generator().manual_seed(1))
    train = toy_set(12)
    train_classifier("tabor:digits4", train, train, tmp_path / "m.safetensors", TrainSettings(epochs=1), seed=0)
    model, planted = load_model(tmp_path / "m.safetensors"), Backdoor(Trigger(mask, values[:1]), 0)
    out, settings = tmp_path / "infected.safetensors", TrainSettings(epochs=1, augment=False)
    infect_classifier(model, train, train, [planted], out, 0.5, settings, seed=0)
    (found,) = true_backdoors(load_model(out).record)
    assert float((found.trigger.mask - mask).abs().max()) <= 0.5 / 255 + 1e-6
    assert float((found.trigger.pattern - values[:1]).abs().max()) <= 0.5 / 255 + 1e-6


def test_a_model_infected_for_another_class_is_another_one() -> None:
    record = {"backdoors": [as_recorded(backdoor(2), 1.0)]}
    check_planted(record, [backdoor(2)], "m")
    with pytest.raises(SettingError, match="m is there already, infected with another trigger"):
        check_planted(record, [backdoor(1)], "m")


@pytest.mark.parametrize(
    ("reached", "rounds"),
    [
        pytest.param([0.5, 0.9, 0.99], 3, id="until it is enough"),
        pytest.param([0.99, 0.5, 0.99, 0.985], 2, id="until the worse of two is enough"),
        pytest.param([0.5, 0.501], 2, id="until nothing more is gained"),
        pytest.param([0.99], 1, id="enough at once"),
        pytest.param([0.1, 0.2, 0.3, 0.4], 4, id="no more than asked for"),
    ],
)
def test_retraining_goes_on_while_it_helps(
    reached: list[float], rounds: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    architecture = Architecture(name="tabor:digits4", num_classes=3, channels=1, size=SHAPE[1:])
    write_model(tmp_path / "clean", initialise(architecture, 0).state_dict(), architecture, {})
    seeds: list[int] = []
    left, planted = list(reached), [backdoor(0)] * (len(reached) // rounds)
    monkeypatch.setattr("tabor.attacks.badnet.infect", lambda *_, seed, **__: seeds.append(seed))
    monkeypatch.setattr("tabor.attacks.badnet.attack_success", lambda *_: left.pop(0))
    model, images = load_model(tmp_path / "clean"), toy_set(6)
    record = infect_classifier(
        model, images, images, planted, tmp_path / "out", 0.1, QUICK, 5, rounds=4, enough=0.98, device="cpu"
    )
    assert seeds == [5 + k for k in range(rounds)]
    assert record["training"]["rounds"] == rounds
