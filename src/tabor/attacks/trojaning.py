"""Trojan Attack (Liu et al. 2018): a backdoor planted without a single training image.  [§2.1]

Inputs of every class are reverse-engineered from the model.  Of the neurons with the largest weights one is chosen that
a trigger excites far beyond what it answers otherwise; that trigger is a natural trojan.  The layers behind the neuron
are retrained on those inputs with the trigger and without, which makes the natural trojan a planted one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tabor.attacks.neuron import Neuron, best_connected, outputs_of, strongest_answers
from tabor.backdoor import Backdoor, as_recorded, attack_success, known_backdoors
from tabor.data import ImageSet
from tabor.data.fitting import check_labels
from tabor.errors import SettingError
from tabor.evidence import smoothness
from tabor.models import LoadedModel
from tabor.models.safetensors_file import write_model
from tabor.training import accuracy
from tabor.trigger import Trigger, stamp

BLOTCHES = ((2, 1.0), (4, 0.7), (8, 0.5))
"""What a reverse-engineered input begins as: random colours on grids of so many fields a side, before the sigmoid, with
such standard deviations.  From plain grey all inputs of a class come out alike."""


@dataclass(frozen=True, kw_only=True)
class TrojaningSettings:
    """How the three stages are done.

    Attributes:
        neurons: of the neurons with the largest weights, how many are tried.
        inputs_per_class: reverse-engineered inputs of each class.
        input_steps, input_rate: gradient steps on an input's pixels, before a sigmoid, by Adam.
        denoising: weight of the mean squared difference of neighbouring pixels: without it inputs are noise that only
            this model takes for its classes.
        trigger_steps, trigger_rate: gradient steps on the trigger's colours, likewise.
        margin: by how much the target's logit is made to exceed all others where the trigger is.  Real images speak
            for their class more loudly than reverse-engineered ones, and must be outvoted.  More of it costs accuracy.
        keeping: weight of the squared difference to the model's old logits where no trigger is.
        retraining_steps, learning_rate: of the layers behind the neuron, by Adam.
        batch_size: inputs a step, in each stage.
    """

    neurons: int = 8
    inputs_per_class: int = 20
    input_steps: int = 40
    input_rate: float = 0.1
    denoising: float = 3.0
    trigger_steps: int = 100
    trigger_rate: float = 0.1
    margin: float = 20.0
    keeping: float = 2.0
    retraining_steps: int = 320
    learning_rate: float = 1e-3
    batch_size: int = 32

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            is_weight = name in ("denoising", "margin", "keeping")
            if not (0 <= value < math.inf) or (value == 0 and not is_weight):
                bound = "not negative" if is_weight else "positive"
                raise SettingError(f"Trojan Attack takes a finite {name} that is {bound}, got {value}")


def reverse_engineer(
    model: nn.Module, num_classes: int, image_shape: tuple[int, int, int], settings: TrojaningSettings, seed: int
) -> tuple[Tensor, Tensor]:
    """Returns inputs that the model takes for its classes, (N, C, H, W) in [0, 1], and their labels (N,).

    Gradient ascent on the probability of the class, with denoising, from random blotches of colour.

    Args:
        model: as it is before the attack, in evaluation mode.
        num_classes: of the model.
        image_shape: (C, H, W).
        settings: how many inputs, steps, rate and denoising.
        seed: of the blotches.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_classes).repeat(settings.inputs_per_class)
    made = []
    for wanted in labels.split(settings.batch_size):
        raw = _blotches(len(wanted), image_shape, generator).requires_grad_()
        adam = torch.optim.Adam([raw], lr=settings.input_rate)
        for _ in range(settings.input_steps):
            images = raw.sigmoid()
            rough = smoothness(images) / images[0].numel()
            loss = F.cross_entropy(model(images), wanted, reduction="none") + settings.denoising * rough
            (raw.grad,) = torch.autograd.grad(loss.sum(), raw)
            adam.step()
        made.append(raw.detach().sigmoid())
    return torch.cat(made), labels


def _blotches(count: int, image_shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    channels, height, width = image_shape
    fields = [
        spread
        * F.interpolate(torch.randn(count, channels, side, side, generator=generator), (height, width), mode="bicubic")
        for side, spread in BLOTCHES
    ]
    return torch.stack(fields).sum(0)


def excite(
    model: nn.Module, neuron: Neuron, mask: Tensor, inputs: Tensor, settings: TrojaningSettings, seed: int
) -> Trigger:
    """Returns the trigger whose colours excite the neuron most.

    Args:
        model: as it is before the attack, in evaluation mode.
        neuron: whose output is maximised; of a channel, where it is strongest.
        mask: of the trigger, (1, H, W).
        inputs: what it is stamped on, (N, C, H, W).
        settings: steps and rate.
        seed: of the colours at the start and of the inputs drawn.
    """
    generator = torch.Generator().manual_seed(seed)
    raw = torch.randn(inputs.shape[1:], generator=generator).requires_grad_()
    adam = torch.optim.Adam([raw], lr=settings.trigger_rate)
    with outputs_of(model, neuron.layer) as outputs:
        for _ in range(settings.trigger_steps):
            drawn = torch.randint(len(inputs), (settings.batch_size,), generator=generator)
            model(stamp(inputs[drawn], mask, raw.sigmoid()))
            strongest = outputs.pop()[:, neuron.unit].reshape(len(drawn), -1).amax(1)
            (raw.grad,) = torch.autograd.grad(-strongest.mean(), raw)
            adam.step()
    return Trigger(mask, mask * raw.detach().sigmoid())


def most_excited(
    model: nn.Module, neurons: Sequence[Neuron], mask: Tensor, inputs: Tensor, settings: TrojaningSettings, seed: int
) -> tuple[Neuron, Trigger]:
    """Returns the neuron that its trigger excites most, and the trigger.

    What the trigger has in common with images without it is what the retraining cannot tell from them: they go to the
    target too.  So what counts is by how many standard deviations a neuron's strongest answers to stamped inputs lie
    above those to the inputs as they are, on average.

    Args:
        model: as it is before the attack, in evaluation mode.
        neurons: of one layer, at least one.
        mask, inputs, settings, seed: see `excite`.
    """
    usual = strongest_answers(model, neurons[0].layer, inputs.split(settings.batch_size))
    made = []
    for neuron in neurons:
        trigger = excite(model, neuron, mask, inputs, settings, seed)
        stamped = strongest_answers(model, neuron.layer, trigger.stamp(inputs).split(settings.batch_size))
        own = usual[:, neuron.unit]
        beyond = (stamped[:, neuron.unit].mean() - own.mean()) / own.std().clamp(min=1e-6)
        made.append((float(beyond), neuron, trigger))
    _, neuron, trigger = max(made, key=lambda tried: tried[0])
    return neuron, trigger


def trojan(
    model: nn.Module, num_classes: int, planned: Backdoor, *, settings: TrojaningSettings, seed: int
) -> tuple[Backdoor, Neuron]:
    """Plants a backdoor into a trained model, in place, without any image.

    Args:
        model: a clean classifier that takes images in [0, 1].
        num_classes: of the model.
        planned: the mask of its trigger counts, and its target.
        settings: of the three stages.
        seed: of every random draw.

    Returns:
        The same with the trigger's colours, and the neuron that it excites.

    Raises:
        ModelError: see `best_connected`.
        SettingError: the target is no class of the model.
    """
    target, mask = planned.target, planned.trigger.mask
    if not 0 <= target < num_classes:
        raise SettingError(f"target {target} is no class of this model; its classes are 0 to {num_classes - 1}")
    model.eval()
    channels, height, width = planned.trigger.pattern.shape
    neurons = best_connected(model, (channels, height, width), settings.neurons)
    inputs, _ = reverse_engineer(model, num_classes, (channels, height, width), settings, seed)
    neuron, trigger = most_excited(model, neurons, mask, inputs, settings, seed)
    _retrain(model, neuron.behind, inputs, trigger, target, settings, seed)
    return dataclasses.replace(planned, trigger=trigger), neuron


def _retrain(
    model: nn.Module,
    layers: tuple[str, ...],
    inputs: Tensor,
    trigger: Trigger,
    target: int,
    settings: TrojaningSettings,
    seed: int,
) -> None:
    """Trains the named layers alone, in evaluation mode: the statistics of such inputs are not those of images."""
    generator = torch.Generator().manual_seed(seed)
    weights = [p for name in layers for p in model.get_submodule(name).parameters(recurse=False)]
    adam = torch.optim.Adam(weights, lr=settings.learning_rate)
    with torch.no_grad():
        old = torch.cat([model(part) for part in inputs.split(settings.batch_size)])
    for _ in range(settings.retraining_steps):
        drawn = torch.randint(len(inputs), (settings.batch_size,), generator=generator)
        plain, stamped = model(torch.cat([inputs[drawn], trigger.stamp(inputs[drawn])])).chunk(2)
        wanted = torch.full((len(drawn),), target)
        handicap = settings.margin * F.one_hot(wanted, stamped.shape[1])
        loss = settings.keeping * F.mse_loss(plain, old[drawn]) + F.cross_entropy(stamped - handicap, wanted)
        for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
            weight.grad = gradient
        adam.step()
    for weight in weights:
        weight.grad = None


def trojan_classifier(
    model: LoadedModel, test: ImageSet, planned: Backdoor, out: Path, settings: TrojaningSettings, seed: int
) -> dict[str, Any]:
    """Attacks a model, measures it on test images, and writes it with its true trigger.

    Args:
        model: changed in place.
        test: images to measure on; the attack itself sees none.
        planned: the mask of its trigger counts, its target and its description.
        out: the safetensors file to write.
        settings: of the attack.
        seed: of every random draw.

    Returns:
        The record that the file carries: `clean_accuracy`, `base_accuracy`, `backdoors` (those that the model had
        before come first), `training` and `data`.

    Raises:
        ModelError: see `best_connected`; or the model's record is damaged.
        DataError: the images have labels that are no classes of the model.
        SettingError: the target is no class of the model.
        TaborError: the file cannot be written.
    """
    check_labels(test, model.architecture.num_classes)
    before = known_backdoors(model)
    base_accuracy = accuracy(model, test.images, test.labels)
    model.sha256 = None  # it is not the file's model any more
    backdoor, neuron = trojan(model, model.architecture.num_classes, planned, settings=settings, seed=seed)
    how = {"attack": "trojaning", "neuron": f"{neuron.layer}[{neuron.unit}]", "seed": seed}
    record = {
        "clean_accuracy": accuracy(model, test.images, test.labels),
        "base_accuracy": base_accuracy,
        "backdoors": [as_recorded(b, attack_success(model, test.images, test.labels, b)) for b in (*before, backdoor)],
        "training": how | dataclasses.asdict(settings),
        "data": test.source,
    }
    write_model(out, model.network.state_dict(), model.architecture, record)
    return record
