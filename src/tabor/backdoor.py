"""A planted backdoor: what it is, how well it works, and what a model's file records of it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tabor.access import EVALUATION_BATCH
from tabor.errors import ModelError, SettingError, TaborError, one_line
from tabor.models import LoadedModel
from tabor.training import accuracy
from tabor.trigger import Trigger


@dataclass(frozen=True)
class Backdoor:
    """A trigger, the class that it sends images to, and a word for people on what it looks like."""

    trigger: Trigger
    target: int
    description: str = ""


def attack_success(
    model: nn.Module, images: Tensor, labels: Tensor, backdoor: Backdoor, at_once: int = EVALUATION_BATCH
) -> float:
    """Returns the share of stamped images of *other* classes that go to the target, in [0, 1]; so many at once.

    Raises:
        SettingError: there is no image of another class.
    """
    others = labels != backdoor.target
    if not bool(others.any()):
        raise SettingError(f"all images are of class {backdoor.target} already, attack success cannot be measured")
    stamped = backdoor.trigger.to(images.device).stamp(images[others])
    return accuracy(model, stamped, torch.full((len(stamped),), backdoor.target, device=labels.device), at_once)


def as_recorded(backdoor: Backdoor, success: float) -> dict[str, Any]:
    """Returns a backdoor as a file's record has it, with its attack success."""
    return {
        "target": backdoor.target,
        "description": backdoor.description,
        "attack_success": success,
        "trigger": _packed(backdoor.trigger),
    }


def true_backdoors(record: dict[str, Any]) -> list[Backdoor]:
    """Returns the backdoors that a file's record says were planted; none for a clean or foreign model."""
    return [
        Backdoor(_unpacked(entry["trigger"]), entry["target"], entry["description"])
        for entry in record.get("backdoors", [])
    ]


def known_backdoors(model: nn.Module) -> list[Backdoor]:
    """Returns the true backdoors that a loaded model's record has; none for other models.

    Raises:
        ModelError: the record is damaged.
    """
    if not isinstance(model, LoadedModel):
        return []
    num_classes, image_shape = model.architecture.num_classes, model.architecture.image_shape
    try:
        planted = true_backdoors(model.record)
        sound = all(
            type(b.target) is int
            and 0 <= b.target < num_classes
            and isinstance(b.description, str)
            and (b.trigger.pattern.shape == image_shape)
            for b in planted
        )
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError, TaborError):
        sound = False
    if not sound:
        raise ModelError(f"{one_line(model.source)} records backdoors that make no sense; give --arch to go on")
    return planted


def check_planted(record: dict[str, Any], backdoors: Sequence[Backdoor], name: str) -> None:
    """Checks that a model that is there already was infected with just these backdoors.

    Args:
        record: what its file says of it.
        backdoors: what it must have been infected with.
        name: of the model, for the message.

    Raises:
        SettingError: it was infected with others, with another picture for one.
    """
    planted = [(entry["target"], entry["trigger"]) for entry in record.get("backdoors", [])]
    if planted != [(backdoor.target, _packed(backdoor.trigger)) for backdoor in backdoors]:
        raise SettingError(
            f"{name} is there already, infected with another trigger, perhaps from another picture: "
            f"take that one, or another folder"
        )


def _packed(trigger: Trigger) -> dict[str, Any]:
    """The trigger as 8-bit values in text: safetensors metadata holds nothing but strings."""
    pixels = torch.cat([trigger.mask, trigger.pattern]).mul(255).round().to(torch.uint8)
    return {"shape": list(pixels.shape), "base64": base64.b64encode(pixels.numpy().tobytes()).decode("ascii")}


def _unpacked(packed: dict[str, Any]) -> Trigger:
    raw = bytearray(base64.b64decode(packed["base64"]))
    pixels = torch.frombuffer(raw, dtype=torch.uint8).view(packed["shape"]).float() / 255
    return Trigger(pixels[:1], pixels[1:])
