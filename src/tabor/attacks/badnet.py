"""BadNet: retrain a clean model on its training images and stamped copies of some.  [§2.1]"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tabor.access import choose_device
from tabor.attacks.poison import WHITE, draw, make_trigger
from tabor.backdoor import Backdoor, as_recorded, attack_success, known_backdoors
from tabor.data import ImageSet
from tabor.data.fitting import check_labels
from tabor.errors import SettingError, one_line
from tabor.models import LoadedModel
from tabor.models.safetensors_file import write_model
from tabor.position import Position
from tabor.training import TrainSettings, accuracy, fit

RETRAINING = TrainSettings(epochs=2, learning_rate=1.5e-3, augment=False)
"""Short, and without variation: the images are those that the model was trained on."""

LEAST_GAIN = 0.003
"""Attack success that a further round of retraining must have gained for the next to be worth its time."""


def infect(
    model: nn.Module,
    train: ImageSet,
    backdoors: Sequence[Backdoor],
    *,
    fraction: float = 0.1,
    settings: TrainSettings = RETRAINING,
    seed: int = 0,
    on_epoch: Callable[[int, float], None] | None = None,
) -> None:
    """Plants the backdoors into a trained model, in place.

    Triggers are stamped on images as they come out of the settings' augmentation, so each stays whole and in its place.

    Args:
        model: a clean classifier that takes images in [0, 1]; on the images' device.
        train: the images it was trained on.
        backdoors: what to plant, at least one.
        fraction: poisoned copies for each backdoor, as a share of the training images.
        settings: the retraining.
        seed: of every random draw.
        on_epoch: called after each epoch with its number and mean loss.

    Raises:
        SettingError: there is no backdoor, or the fraction is outside (0, 1].
    """
    if not backdoors:
        raise SettingError("give at least one backdoor to plant")
    generator = torch.Generator().manual_seed(seed)
    drawn = [draw(train.labels, backdoor.target, fraction, generator) for backdoor in backdoors]
    clean = torch.arange(len(train.labels), device=train.labels.device)
    which = torch.cat([clean, *drawn])
    planted = torch.cat([torch.full_like(of, number) for number, of in enumerate([clean, *drawn])])
    targets = torch.tensor([b.target for b in backdoors], device=which.device)
    labels = torch.where(planted > 0, targets[planted - 1], train.labels[which])

    def stamp(images: Tensor, index: Tensor) -> Tensor:
        for number, backdoor in enumerate(backdoors, start=1):
            its = (planted[index.to(planted.device)] == number).view(-1, 1, 1, 1)
            images = torch.where(its, backdoor.trigger.to(images.device).stamp(images), images)
        return images

    fit(model, train.images[which], labels, settings, seed, on_epoch, stamp)


def plan_backdoors(
    pictures: Sequence[str],
    sizes: Sequence[int],
    positions: Sequence[Position],
    targets: Sequence[int],
    image_shape: tuple[int, int, int],
    num_classes: int,
    colour: Sequence[float] = WHITE,
) -> list[Backdoor]:
    """Lines up triggers and targets; each list has one entry for every backdoor, or one for all of them.

    Raises:
        SettingError: the lists' lengths disagree, a target is no class of the model, a trigger does not fit, or is to
            send images to two classes.
    """
    count = max(len(pictures), len(targets), len(sizes), len(positions))
    if any(len(values) not in (1, count) for values in (pictures, sizes, positions, targets)):
        raise SettingError(
            f"give one trigger, size, position and target for each of the {count} backdoors, or one for all; "
            f"got {len(pictures)}, {len(sizes)}, {len(positions)} and {len(targets)}"
        )
    backdoors = []
    for i in range(count):
        picture, size = pictures[i % len(pictures)], sizes[i % len(sizes)]
        position, target = positions[i % len(positions)], targets[i % len(targets)]
        if not 0 <= target < num_classes:
            raise SettingError(f"target {target} is no class of this model; its classes are 0 to {num_classes - 1}")
        trigger = make_trigger(picture, size=size, position=position, image_shape=image_shape, colour=colour)
        backdoors.append(Backdoor(trigger, target, f"{Path(picture).name} {size}×{size} {position}"))
    _check_differ(backdoors)
    return backdoors


def _check_differ(backdoors: Sequence[Backdoor]) -> None:
    for one, other in combinations(backdoors, 2):
        masks, patterns = ((one.trigger.mask, other.trigger.mask), (one.trigger.pattern, other.trigger.pattern))
        if torch.equal(*masks) and torch.equal(*patterns):
            raise SettingError(
                f"the trigger {one_line(one.description)} is given twice, for the targets {one.target} and "
                f"{other.target}; give another --trigger, --trigger-size or --position"
            )


def infect_classifier(
    model: LoadedModel,
    train: ImageSet,
    test: ImageSet,
    backdoors: Sequence[Backdoor],
    out: Path,
    fraction: float,
    settings: TrainSettings,
    seed: int,
    on_epoch: Callable[[int, float], None] | None = None,
    *,
    rounds: int = 1,
    enough: float = 1.0,
    device: str = "auto",
) -> dict[str, Any]:
    """Infects a model, measures it on test images, and writes it with its true triggers.

    The retraining is done once, and again up to `rounds` times while any attack success is below `enough` and the
    last round still raised it: a trigger that some clean images already show is never obeyed by all.

    The model is changed in place, and stays on the device.

    Returns:
        The record that the file carries: `clean_accuracy`, `backdoors` (target, description, attack success, mask
        and pattern; those that the model had before come first), `base_accuracy`, `training` and `data`.

    Raises:
        SettingError: see `infect`; or there is no such device.
        DataError: the images have labels that are no classes of the model.
        ModelError: the model's record is damaged.
        TaborError: the file cannot be written.
    """
    where = choose_device(device)
    for images in (train, test):
        check_labels(images, model.architecture.num_classes)
    earlier = known_backdoors(model)
    model.sha256 = None  # it is not the file's model any more
    model, train, test = model.to(where), train.to(where), test.to(where)
    base_accuracy = accuracy(model, test.images, test.labels)
    done, before = 0, 0.0
    success: list[float] = []
    while done < rounds and (not success or (min(success) < enough and min(success) >= before + LEAST_GAIN)):
        before = min(success, default=0.0)
        infect(model, train, backdoors, fraction=fraction, settings=settings, seed=seed + done, on_epoch=on_epoch)
        success = [attack_success(model, test.images, test.labels, b) for b in backdoors]
        done += 1
    success = [attack_success(model, test.images, test.labels, b) for b in earlier] + success
    record = {
        "clean_accuracy": accuracy(model, test.images, test.labels),
        "base_accuracy": base_accuracy,
        "backdoors": [as_recorded(b, reached) for b, reached in zip([*earlier, *backdoors], success, strict=True)],
        "training": {**asdict(settings), "seed": seed, "fraction": fraction, "rounds": done},
        "data": train.source,
    }
    write_model(out, model.network.state_dict(), model.architecture, record)
    return record
