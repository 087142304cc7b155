"""Weights in a safetensors file, a format that holds tensors and text and nothing that could run.

Files written by `tabor train` and `tabor infect` carry a JSON record under the metadata key `tabor`: the
architecture, and what is known of the model (clean accuracy, and for an infected one the true triggers).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from tabor.errors import ModelError, SettingError, one_line
from tabor.files import check_writable, replacing
from tabor.models.build import Architecture

METADATA_KEY = "tabor"

OTHER_FORMATS = frozenset({".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pt2", ".onnx", ".h5", ".keras"})
"""Suffixes by which other tools tell a file's format."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """Returns the file's tensors.

    Raises:
        ModelError: the file is missing or is no safetensors file.
    """
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)


def read_record(path: Path) -> dict[str, Any]:
    """Returns the file's JSON record, empty where it carries none; reads no weights.

    Raises:
        ModelError: the file is missing or is no safetensors file, or its record is no JSON object.
    """
    with _opened(path) as file:
        metadata = file.metadata() or {}
    return _record(metadata, path)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        found = path.is_file()
    except OSError:  # a name that no file can have
        found = False
    if not found:
        raise ModelError(f"there is no model file {one_line(path)}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            yield file
    except Exception as error:  # noqa: BLE001 (a shape that no tensor can have is a TypeError, for one)
        raise ModelError(f"{one_line(path)} is no whole safetensors file ({one_line(error, 120)})") from None


def _record(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    if METADATA_KEY not in metadata:
        return {}
    try:
        record = json.loads(metadata[METADATA_KEY])
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise ModelError(f"{one_line(path)} has a damaged metadata record `{METADATA_KEY}`; give --arch to go on")
    return record


def recorded_architecture(record: Mapping[str, Any], path: Path) -> Architecture | None:
    """Returns the architecture that the record names, or None where there is none.

    Raises:
        ModelError: the record has one that makes no sense.
    """
    if "architecture" not in record:
        return None
    try:
        fields = dict(record["architecture"])
        for name in ("size", "mean", "std", "value_range"):
            if fields.get(name) is not None:
                fields[name] = tuple(fields[name])
        return Architecture(**fields)
    except (TypeError, ValueError, OverflowError) as error:
        raise ModelError(
            f"{one_line(path)} records an architecture that makes no sense ({one_line(error, 120)}); give --arch"
        ) from None


def check_model_out(path: Path) -> None:
    """Finds out before hours of work whether a model can be written there.

    Raises:
        SettingError: the name is that of another format.
        TaborError: the file cannot be written.
    """
    if path.suffix.lower() in OTHER_FORMATS:
        raise SettingError(f"a model is written as a safetensors file; name it {one_line(path.stem)}.safetensors")
    check_writable(path)


def write_model(
    path: Path, weights: Mapping[str, Tensor], architecture: Architecture, record: Mapping[str, Any]
) -> None:
    """Writes the weights with the architecture and the record, whole or not at all.

    Raises:
        TaborError: the file cannot be written.
    """
    full = {**record, "architecture": dataclasses.asdict(architecture)}
    with replacing(path) as temporary:
        safetensors.torch.save_file(separate(weights), temporary, {METADATA_KEY: json.dumps(full, allow_nan=False)})


def separate(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns copies that a safetensors file can hold: each in a memory of its own, though layers may share one."""
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in weights.items()
    }
