"""`load_model`: a classifier with its provenance, from a file that is never executed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tabor.errors import ModelError, one_line
from tabor.files import sha256
from tabor.models.build import Architecture, build
from tabor.models.checkpoint import read_checkpoint, refusal
from tabor.models.content import Kind, identify
from tabor.models.safetensors_file import read_record, read_weights, recorded_architecture

PROBE_CLASSES = 1009
"""A class count that no layer width of a real network equals, to see which dimensions depend on it."""


class LoadedModel(nn.Module):
    """A classifier that takes images (N, C, H, W) in [0, 1], and where it came from.

    Attributes:
        architecture: what was built.
        network: the part that holds the file's weights, without normalisation.
        source: the file's name.
        sha256: of the file's bytes.
        record: what the file says about itself (clean accuracy, true triggers); never trusted for a verdict.
    """

    def __init__(
        self,
        architecture: Architecture,
        weights: Mapping[str, Tensor],
        source: str,
        digest: str,
        record: dict[str, Any],
    ) -> None:
        super().__init__()
        # First without memory: a record that lies about the size must not make us allocate it.
        _check_fit(_skeleton(architecture), weights, architecture.name)
        self.model, network = build(architecture)
        network.load_state_dict(dict(weights))
        self.architecture = architecture
        self.source = source
        self.sha256 = digest
        self.record = record
        self.eval()

    @property
    def network(self) -> nn.Module:
        """The part that holds the file's weights."""
        inner = getattr(self.model, "network", self.model)
        assert isinstance(inner, nn.Module)  # noqa: S101
        return inner

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits (N, num_classes)."""
        logits: Tensor = self.model(images)
        return logits


def load_model(
    path: str | Path,
    *,
    arch: str | None = None,
    num_classes: int | None = None,
    channels: int | None = None,
    size: tuple[int, int] | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> LoadedModel:
    """Loads a classifier from a state dict: a safetensors file, or a checkpoint of `torch.save`, told by its content.

    What is given overrides what the file's own record says; a file that `tabor` wrote needs nothing but its path.

    Args:
        path: the file.
        arch: "tabor:gtsrb6", "timm:NAME" or "torchvision:NAME".
        num_classes: number of logits; None: found from the weights' shapes.
        channels: channels of the images, 3 if nobody says.
        size: (H, W) of the images in pixels, (32, 32) if nobody says.
        mean: per-channel mean the network was trained with; None: it takes images in [0, 1].
        std: the standard deviation that goes with it.

    Raises:
        ModelError: no such file, a kind of file that is not read, a file that could run code, an unknown architecture,
            or weights that do not fit it.
    """
    path = Path(path)
    weights, record = _read(path, with_record=arch is None)
    recorded = recorded_architecture(record, path)
    if recorded is None and arch is None:
        raise ModelError(
            f"{one_line(path)} does not say which network its weights belong to; "
            f"give --arch, for example --arch timm:resnet18"
        )
    given = {"num_classes": num_classes, "channels": channels, "size": size, "mean": mean, "std": std}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if recorded is not None:
        architecture = dataclasses.replace(recorded, **changes)
    else:
        probe = Architecture(name=str(arch), **({"num_classes": PROBE_CLASSES} | changes))
        architecture = probe if num_classes else dataclasses.replace(probe, num_classes=_count_classes(probe, weights))
    return LoadedModel(architecture, weights, path.name, sha256(path), record)


def find_architecture(path: str | Path) -> Architecture | None:
    """Returns the architecture that a file says it has, or None; reads no weights.

    Raises:
        ModelError: no such file, a kind of file that is not read, or a record that makes no sense.
    """
    path = Path(path)
    return recorded_architecture(read_record(path), path) if _readable(path) is Kind.SAFETENSORS else None


def _readable(path: Path) -> Kind:
    kind = identify(path)
    if kind in (Kind.PICKLE, Kind.TORCHSCRIPT, Kind.PACKAGE, Kind.EXPORTED, Kind.KERAS, Kind.HDF5):
        raise ModelError(refusal(path, kind))
    if kind not in (Kind.SAFETENSORS, Kind.CHECKPOINT, Kind.OLD_CHECKPOINT):
        raise ModelError(
            f"{one_line(path)} is {kind.value}; tabor reads safetensors files and state dicts of torch.save"
        )
    return kind


def _read(path: Path, *, with_record: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns the weights, and the file's record where it has one and it is asked for."""
    kind = _readable(path)
    if kind is Kind.SAFETENSORS:
        return read_weights(path), read_record(path) if with_record else {}
    return read_checkpoint(path, kind), {}


def _count_classes(probe: Architecture, weights: Mapping[str, Tensor]) -> int:
    """The number of classes: the size, in the file, of the dimension that follows the class count."""
    skeleton = _skeleton(probe)
    counts = {
        weights[name].shape[0]
        for name, tensor in skeleton.items()
        if tensor.ndim and tensor.shape[0] == PROBE_CLASSES and name in weights and weights[name].ndim
    }
    if not counts:  # none of the class layer's weights is there, so the others will hardly be
        _check_fit(skeleton, weights, probe.name)
    if len(counts) != 1:
        raise ModelError(f"cannot tell the number of classes from the weights of {probe.name}; give --num-classes")
    return int(counts.pop())


def _skeleton(architecture: Architecture) -> Mapping[str, Tensor]:
    """The names and shapes of a network's weights, without the weights."""
    try:
        with torch.device("meta"):
            _, network = build(architecture)
    except (RuntimeError, OverflowError, TypeError) as error:
        raise ModelError(f"{one_line(architecture.name)} cannot be built so: {one_line(error, 120)}") from None
    state: Mapping[str, Tensor] = network.state_dict()
    return state


def _check_fit(expected: Mapping[str, Tensor], weights: Mapping[str, Tensor], name: str) -> None:
    missing = [key for key in expected if key not in weights]
    unknown = [key for key in weights if key not in expected]
    misshapen = [
        f"{key} is {tuple(weights[key].shape)} for {tuple(expected[key].shape)}"
        for key in expected
        if key in weights and weights[key].shape != expected[key].shape
    ]
    faults = [("missing", missing), ("unknown", unknown), ("of another shape", misshapen)]
    told = [f"{len(keys)} {fault} ({_some(keys)})" for fault, keys in faults if keys]
    if told:
        raise ModelError(f"the weights do not fit {one_line(name)}: {'; '.join(told)}")


def _some(keys: list[str]) -> str:
    shown = ", ".join(one_line(key, 80) for key in keys[:3])
    return shown + (", …" if len(keys) > 3 else "")
