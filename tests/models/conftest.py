"""Small model files, whole and damaged."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from tabor.models.build import Architecture, initialise
from tabor.models.safetensors_file import METADATA_KEY, write_model


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' own files are read without a rehearsal, which costs seconds each; tests/hostile/ has those."""
    monkeypatch.setattr("tabor.models.load.REHEARSED", ())


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever opens a connection fails the test."""

    def refuse(*arguments: object, **named: object) -> None:
        pytest.fail("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


TINY: dict[str, Any] = {"name": "tabor:digits4", "num_classes": 3, "channels": 1, "size": (12, 12)}


@pytest.fixture(scope="session")
def tiny() -> Architecture:
    """The smallest network there is, for three classes of grey images of 12 × 12."""
    return Architecture(**TINY)


@pytest.fixture
def written(tmp_path: Path, tiny: Architecture) -> Path:
    """A file with the tiny network, as `tabor train` writes it."""
    path = tmp_path / "tiny.safetensors"
    write_model(path, initialise(tiny, seed=0).state_dict(), tiny, {"clean_accuracy": 0.5})
    return path


@pytest.fixture
def with_record(tmp_path: Path, tiny: Architecture) -> Callable[[str], Path]:
    """Writes the tiny network's weights with any text as their metadata record."""

    def write(record: str) -> Path:
        path = tmp_path / "recorded.safetensors"
        weights = initialise(tiny, seed=0).state_dict()
        safetensors.torch.save_file(weights, path, {METADATA_KEY: record})
        return path

    return write


@pytest.fixture
def with_architecture(with_record: Callable[[str], Path]) -> Callable[..., Path]:
    """Writes the tiny network's weights with a record whose architecture has some fields changed."""

    def write(**changes: object) -> Path:
        return with_record(json.dumps({"architecture": TINY | changes}))

    return write


@pytest.fixture
def images() -> torch.Tensor:
    """Five grey images for the tiny network."""
    return torch.rand(5, 1, 12, 12, generator=torch.Generator().manual_seed(3))
