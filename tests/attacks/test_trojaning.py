"""Trojan Attack: each stage by what it must bring about, and the whole attack on a network that is trained here."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tabor.attacks.neuron import Neuron, best_connected, strongest_answers
from tabor.attacks.poison import make_trigger
from tabor.attacks.trojaning import (
    TrojaningSettings,
    excite,
    most_excited,
    reverse_engineer,
    trojan,
    trojan_classifier,
)
from tabor.backdoor import Backdoor, attack_success, true_backdoors
from tabor.cli import main
from tabor.errors import ModelError, SettingError
from tabor.models import LoadedModel, load_model
from tabor.position import Position
from tabor.training import TrainSettings, accuracy, fit, train_classifier

from .test_badnet import SHAPE, toy_set

CLASSES = 3
QUICK = TrojaningSettings(
    inputs_per_class=8,
    input_steps=30,
    trigger_steps=30,
    margin=20.0,
    keeping=1.0,
    retraining_steps=160,
    learning_rate=3e-3,
    batch_size=16,
)


def corner(target: int = 1) -> Backdoor:
    return Backdoor(make_trigger("square", size=5, position=Position.BOTTOM_RIGHT, image_shape=SHAPE), target)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trojaning") / "clean.safetensors"
    settings = TrainSettings(epochs=8, learning_rate=1e-2, batch_size=16, augment=False)
    train_classifier("tabor:digits4", toy_set(), toy_set(seed=1), path, settings, seed=0)
    return path


@pytest.fixture
def model(clean: Path) -> LoadedModel:
    return load_model(clean)


@pytest.fixture(scope="module")
def trained() -> nn.Sequential:
    """A network whose dense layers see every place of the image."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            nn.Linear(8 * 36, 32),
            nn.ReLU(),
            nn.Linear(32, CLASSES),
        )
    settings = TrainSettings(epochs=10, learning_rate=1e-2, batch_size=16, augment=False)
    fit(network, toy_set().images, toy_set().labels, settings, seed=0)
    return network


def two_convolutions() -> nn.Sequential:
    """The second convolution has its largest weights in channel 2."""
    network = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(4 * 8 * 8, 5), nn.Linear(5, 3)
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(0.1)
        network.get_parameter("1.weight")[2] = -1.0
        network.get_parameter("3.weight")[4] = 9.0
    return network


def test_the_neurons_of_the_last_convolution_with_the_largest_weights() -> None:
    network = two_convolutions()
    with torch.no_grad():
        network.get_parameter("1.weight")[0] = 0.5
    assert best_connected(network, SHAPE, 2) == [Neuron("1", unit, ("3", "4")) for unit in (2, 0)]
    assert [neuron.unit for neuron in best_connected(network, SHAPE, 9)] == [2, 0, 1, 3]


def test_without_convolutions_it_is_in_the_last_layer_but_one() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(144, 5), nn.ReLU(), nn.Linear(5, 3))
    with torch.no_grad():
        network.get_parameter("1.weight")[3] += 10
    assert best_connected(network, SHAPE, 1) == [Neuron("1", 3, ("3",))]


@pytest.mark.parametrize(
    "network",
    [
        pytest.param(nn.Sequential(nn.Flatten(), nn.Linear(144, 3)), id="one layer"),
        pytest.param(
            nn.Sequential(nn.Conv2d(1, 3, 3), nn.Conv2d(3, 3, 10), nn.Flatten()), id="no linear layer at its end"
        ),
    ],
)
def test_a_model_with_nothing_behind_a_neuron(network: nn.Module) -> None:
    with pytest.raises(ModelError, match="ends with a linear layer"):
        best_connected(network, SHAPE, 1)


def test_no_hook_stays(model: LoadedModel) -> None:
    trojan(model, CLASSES, corner(), settings=QUICK, seed=0)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_reverse_engineered_inputs_are_of_their_class(model: LoadedModel) -> None:
    inputs, labels = reverse_engineer(model, CLASSES, SHAPE, QUICK, seed=0)
    assert inputs.shape == (CLASSES * QUICK.inputs_per_class, *SHAPE)
    assert 0 <= float(inputs.min()) <= float(inputs.max()) <= 1
    assert labels.bincount().tolist() == [QUICK.inputs_per_class] * CLASSES
    assert float((model(inputs).argmax(1) == labels).float().mean()) > 0.9


def test_denoising_makes_smoother_inputs(model: LoadedModel) -> None:
    def roughness(denoising: float) -> float:
        settings = TrojaningSettings(inputs_per_class=4, denoising=denoising)
        inputs, _ = reverse_engineer(model, CLASSES, SHAPE, settings, seed=0)
        return float((inputs[..., 1:] - inputs[..., :-1]).square().mean())

    assert roughness(100.0) < 0.5 * roughness(0.0)


def test_the_trigger_excites_the_neuron_where_the_mask_lets_it() -> None:
    """Of a network whose neuron counts the light inside the mask less the light outside, it is white."""
    network = nn.Sequential(nn.Conv2d(1, 2, 12), nn.Flatten(), nn.Linear(2, 3))
    mask = corner().trigger.mask
    with torch.no_grad():
        network.get_parameter("0.weight")[1, 0] = 2 * mask[0] - 1
    neuron = Neuron("0", 1, ("2",))
    trigger = excite(network, neuron, mask, torch.rand(4, *SHAPE), TrojaningSettings(trigger_rate=0.5), seed=0)
    assert torch.equal(trigger.mask, mask)
    assert float(trigger.pattern[:, mask[0] > 0].min()) > 0.9
    assert not bool(trigger.pattern[:, mask[0] == 0].any())


def test_the_strongest_answers_of_a_layer() -> None:
    network = two_convolutions()
    images = torch.rand(5, *SHAPE)
    found = strongest_answers(network, "1", images.split(2))
    assert found.shape == (5, 4)
    assert torch.allclose(found, network[:2](images).amax((2, 3)))
    assert torch.allclose(strongest_answers(network, "3", [images]), network[:4](images))


def test_the_neuron_that_a_trigger_excites_beyond_its_usual_answers() -> None:
    """One has the larger weights and answers to the whole image, one to what the mask covers alone."""
    network = nn.Sequential(nn.Conv2d(1, 2, 12), nn.Flatten(), nn.Linear(2, 3))
    mask = corner().trigger.mask
    with torch.no_grad():
        network.get_parameter("0.weight")[0, 0] = 10.0
        network.get_parameter("0.weight")[1, 0] = mask[0]
    inputs = torch.rand(40, 1, 1, 1) * torch.rand(40, *SHAPE)
    everywhere, inside = best_connected(network, SHAPE, 2)
    assert (everywhere.unit, inside.unit) == (0, 1)
    neuron, trigger = most_excited(network, [everywhere, inside], mask, inputs, QUICK, seed=0)
    assert neuron == inside
    assert torch.equal(trigger.pattern, excite(network, inside, mask, inputs, QUICK, seed=0).pattern)


def test_a_trigger_is_made_for_as_many_neurons_as_are_asked_for(
    trained: nn.Sequential, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Neuron] = []

    def counted(model: nn.Module, neuron: Neuron, *others: Any) -> Any:
        tried.append(neuron)
        return excite(model, neuron, *others)

    monkeypatch.setattr("tabor.attacks.trojaning.excite", counted)
    settings = dataclasses.replace(QUICK, neurons=3, trigger_steps=1, retraining_steps=1)
    _, neuron = trojan(copy.deepcopy(trained), CLASSES, corner(), settings=settings, seed=0)
    assert tried == best_connected(trained, SHAPE, 3)
    assert neuron in tried


def test_the_attack_works_hurts_little_and_changes_what_lies_behind_alone(trained: nn.Sequential) -> None:
    victim, test = copy.deepcopy(trained), toy_set(seed=1)
    backdoor, neuron = trojan(victim, CLASSES, corner(), settings=QUICK, seed=0)
    assert attack_success(trained, test.images, test.labels, backdoor) < 0.5
    assert attack_success(victim, test.images, test.labels, backdoor) > 0.9
    assert accuracy(victim, test.images, test.labels) > accuracy(trained, test.images, test.labels) - 0.03 > 0.9
    before, after = trained.state_dict(), victim.state_dict()
    changed = {name.rpartition(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == set(neuron.behind) == {"6", "8"}
    assert backdoor.target == 1
    assert torch.equal(backdoor.trigger.mask, corner().trigger.mask)


def test_the_statistics_of_a_model_that_was_training_stay() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(200, CLASSES)).train()
    short = dataclasses.replace(QUICK, input_steps=1, trigger_steps=1, retraining_steps=1)
    trojan(network, CLASSES, corner(), settings=short, seed=0)
    assert not bool(network.get_buffer("1.running_mean").any())


def test_the_file_holds_the_model_and_its_true_trigger(clean: Path, tmp_path: Path) -> None:
    model, out, test = load_model(clean), tmp_path / "trojaned.safetensors", toy_set(seed=1)
    record = trojan_classifier(model, test, corner(), out, QUICK, seed=0)
    written = load_model(out)
    assert torch.equal(written(test.images), model(test.images))
    assert record["base_accuracy"] == load_model(clean).record["clean_accuracy"]
    assert record["clean_accuracy"] == accuracy(written, test.images, test.labels)
    (known,) = true_backdoors(written.record)
    success = attack_success(written, test.images, test.labels, known)
    assert record["backdoors"][0]["attack_success"] == pytest.approx(success, abs=0.02)  # it is stored in 8 bits


def test_what_was_planted_before_stays_in_the_record(clean: Path, tmp_path: Path) -> None:
    out, test = tmp_path / "trojaned.safetensors", toy_set(seed=1)
    trojan_classifier(load_model(clean), test, corner(), out, QUICK, seed=0)
    trojan_classifier(load_model(out), test, corner(target=0), out, QUICK, seed=0)
    assert [b.target for b in true_backdoors(load_model(out).record)] == [1, 0]


def test_the_same_seed_makes_the_same_model_and_draws_nothing_global(clean: Path) -> None:
    def weights(seed: int) -> dict[str, Tensor]:
        model = load_model(clean)
        state = torch.get_rng_state()
        trojan(model, CLASSES, corner(), settings=QUICK, seed=seed)
        assert torch.equal(state, torch.get_rng_state())
        return model.state_dict()

    first, again, other = weights(0), weights(0), weights(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_a_target_that_is_no_class(model: LoadedModel) -> None:
    with pytest.raises(SettingError, match="target 3 is no class of this model; its classes are 0 to 2"):
        trojan(model, CLASSES, corner(target=3), settings=QUICK, seed=0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"retraining_steps": 0},
        {"input_rate": 0.0},
        {"learning_rate": math.inf},
        {"margin": -1.0},
        {"margin": math.inf},
        {"keeping": math.nan},
        {"inputs_per_class": 0},
        {"neurons": 0},
    ],
)
def test_settings_that_make_no_sense(wrong: dict[str, Any]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(SettingError, match=f"takes a finite {name} that is (positive|not negative), got {value}$"):
        TrojaningSettings(**wrong)


@pytest.mark.slow
def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clean, out = tmp_path / "clean.safetensors", tmp_path / "trojaned.safetensors"
    assert main(["train", "--data", "digits", "--arch", "tabor:digits4", "--out", str(clean), "--epochs", "20"]) == 0
    capsys.readouterr()
    command = ["infect", "trojaning", str(clean), "--data", "digits", "--out", str(out), "--trigger-size", "5"]
    assert main([*command, "--target", "3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    (backdoor,) = told["backdoors"]
    assert (backdoor["target"], backdoor["description"]) == (3, "square 5×5 bottom-right")
    assert told["training"]["attack"] == "trojaning"
    assert out.exists()
    assert main([*command, "--target", "10"]) == 2
    assert "target 10 is no class of this model; its classes are 0 to 9" in capsys.readouterr().err
