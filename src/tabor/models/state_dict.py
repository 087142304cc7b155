"""A network built by its name and filled with a file's weights, once they are known to fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tabor.errors import ModelError, dimensions, one_line
from tabor.models.build import Architecture, build
from tabor.models.parts import Given, Parts
from tabor.models.safetensors_file import recorded_architecture
from tabor.models.skeleton import without_memory

PROBE_CLASSES = 1009
"""A class count that no layer width of a real network equals, to see which dimensions depend on it."""

Builder = Callable[[Architecture], nn.Module]


def fill(path: Path, weights: Mapping[str, Tensor], record: Mapping[str, Any], given: Given) -> Parts:
    """Returns the network that the caller or the file's record names, with the file's weights.

    Raises:
        ModelError: nobody says which network it is, the name is unknown, or the weights do not fit.
    """
    recorded = recorded_architecture(record, path) if given.arch is None else None
    if recorded is not None:
        architecture = dataclasses.replace(recorded, **given.changes())
    elif given.arch is None:
        raise ModelError(
            f"{one_line(path)} does not say which network its weights belong to; "
            f"give --arch, for example --arch timm:resnet18"
        )
    else:
        architecture = sized(Architecture(**named(given)), weights, given, build)
    return Parts(filled(architecture, weights, build), architecture, record)


def named(given: Given) -> dict[str, Any]:
    """Returns the fields of the architecture that the caller names; where no class count is said, one to probe with."""
    return {"name": str(given.arch), "num_classes": PROBE_CLASSES} | given.changes()


def sized(architecture: Architecture, weights: Mapping[str, Tensor], given: Given, builder: Builder) -> Architecture:
    """Returns the architecture with the number of classes that the weights have, unless the caller gives it."""
    if given.num_classes is not None:
        return architecture
    return dataclasses.replace(architecture, num_classes=_count_classes(architecture, weights, builder))


def filled(architecture: Architecture, weights: Mapping[str, Tensor], builder: Builder) -> nn.Module:
    """Returns the network with the weights.

    Raises:
        ModelError: they do not fit.
    """
    # First without memory: a record that lies about the size must not make us allocate it.
    _check_fit(_skeleton(architecture, builder), weights, architecture)
    network = builder(architecture)
    try:
        network.load_state_dict(dict(weights))
    except RuntimeError as error:  # of a type that PyTorch has but cannot convert, as 4-bit floats
        raise ModelError(f"the weights do not fit {one_line(architecture.name)}: {one_line(error, 120)}") from None
    return network


def _count_classes(probe: Architecture, weights: Mapping[str, Tensor], builder: Builder) -> int:
    """The number of classes: the size, in the file, of the dimension that follows the class count."""
    skeleton = _skeleton(probe, builder)
    counts = {
        weights[name].shape[0]
        for name, tensor in skeleton.items()
        if tensor.ndim and tensor.shape[0] == PROBE_CLASSES and name in weights and weights[name].ndim
    }
    if not counts:  # none of the class layer's weights is there, so the others will hardly be
        _check_fit(skeleton, weights, probe)
    if len(counts) != 1:
        raise ModelError(
            f"cannot tell the number of classes from the weights of {one_line(probe.name)}; give --num-classes"
        )
    return int(counts.pop())


def _skeleton(architecture: Architecture, builder: Builder) -> Mapping[str, Tensor]:
    """The names and shapes of a network's weights, without the weights."""
    try:
        try:
            with without_memory():
                network = builder(architecture)
        except NotImplementedError:  # its constructor computes with tensors
            with without_memory(computing=True):
                network = builder(architecture)
    except (RuntimeError, OverflowError, TypeError) as error:
        raise ModelError(f"{one_line(architecture.name)} cannot be built so: {one_line(error, 120)}") from None
    state: Mapping[str, Tensor] = network.state_dict()
    return state


def _check_fit(expected: Mapping[str, Tensor], weights: Mapping[str, Tensor], architecture: Architecture) -> None:
    missing = [key for key in expected if key not in weights]
    unknown = [key for key in weights if key not in expected]
    misshapen = [
        f"{key} is {tuple(weights[key].shape)} for {tuple(expected[key].shape)}"
        for key in expected
        if key in weights and weights[key].shape != expected[key].shape
    ]
    mistyped = [f"{key} is {weights[key].dtype}" for key in expected if key in weights and _odd(key, expected, weights)]
    refuse_misfits(architecture, missing, unknown, misshapen, mistyped)


def refuse_misfits(
    architecture: Architecture,
    missing: list[str],
    unknown: list[str],
    misshapen: list[str],
    mistyped: Sequence[str] = (),
) -> None:
    """Raises where weights do not fit a network.

    Args:
        architecture: the network's.
        missing: names of weights that it needs and the file does not have.
        unknown: names of weights that the file has besides.
        misshapen: what is of another shape, as text.
        mistyped: what is of another type, as text.

    Raises:
        ModelError: any of the lists has something in it.
    """
    faults = [
        ("missing", missing),
        ("unknown", unknown),
        ("of another shape", misshapen),
        ("of another type", list(mistyped)),
    ]
    told = [f"{len(keys)} {fault} ({_some(keys)})" for fault, keys in faults if keys]
    if told:
        built = f"; it was built for images of {dimensions(architecture.image_shape)}" if misshapen else ""
        raise ModelError(f"the weights do not fit {one_line(architecture.name)}: {'; '.join(told)}{built}")


def _odd(key: str, expected: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> bool:
    """Whether whole numbers stand where the network has fractions, which they may be the codes of, or complex ones."""
    wanted, found = expected[key].dtype, weights[key].dtype
    return found.is_complex or (wanted.is_floating_point and not found.is_floating_point)


def _some(keys: list[str]) -> str:
    shown = ", ".join(one_line(key, 80) for key in keys[:3])
    return shown + (", …" if len(keys) > 3 else "")
