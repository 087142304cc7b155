"""Writing a model: whole or not at all, with its record; reading it back."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from tabor.errors import TaborError
from tabor.models.build import Architecture, initialise
from tabor.models.safetensors_file import read_record, read_weights, recorded_architecture, write_model


def test_round_trip_of_weights_and_record(tiny: Architecture, tmp_path: Path) -> None:
    path = tmp_path / "new" / "folders" / "model.safetensors"
    weights = initialise(tiny, seed=0).state_dict()
    write_model(path, weights, tiny, {"clean_accuracy": 0.5, "words": "é ⊙", "nested": {"list": [1, None]}})
    read, record = read_weights(path), read_record(path)
    assert read.keys() == weights.keys()
    assert all(torch.equal(read[key], weights[key]) for key in weights)
    assert recorded_architecture(record, path) == tiny
    del record["architecture"]
    assert record == {"clean_accuracy": 0.5, "words": "é ⊙", "nested": {"list": [1, None]}}


def test_tensors_may_be_strided_views_that_need_gradients(tiny: Architecture, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    tensor = torch.arange(6.0, requires_grad=True).view(2, 3).t()
    write_model(path, {"weight": tensor}, tiny, {})
    assert torch.equal(read_weights(path)["weight"], torch.tensor([[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]))


def test_weights_that_layers_share_are_written_for_each(tiny: Architecture, tmp_path: Path) -> None:
    path, weight = tmp_path / "model.safetensors", torch.rand(4, 3, 2, 2)
    weights = {"one": weight, "another": weight, "a part": weight[1:], "turned": weight.permute(0, 2, 3, 1)}
    write_model(path, weights, tiny, {})
    read = read_weights(path)
    assert read.keys() == weights.keys()
    assert all(torch.equal(read[name], weights[name]) for name in weights)


def test_a_file_of_ours_is_replaced(written: Path, tiny: Architecture) -> None:
    write_model(written, {"weight": torch.ones(1)}, tiny, {})
    assert list(read_weights(written)) == ["weight"]
    assert list(written.parent.iterdir()) == [written]


def test_a_record_with_nan_is_not_written(tiny: Architecture, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_model(tmp_path / "model.safetensors", {"weight": torch.ones(1)}, tiny, {"accuracy": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_parent_that_is_a_file(tiny: Architecture, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    with pytest.raises(TaborError, match=r"cannot write .*model.safetensors: (Not a directory|File exists)"):
        write_model(tmp_path / "file" / "model.safetensors", {"weight": torch.ones(1)}, tiny, {})
    assert (tmp_path / "file").read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_in_the_way(tiny: Architecture, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(TaborError, match=r"cannot write .*model.safetensors: Is a directory"):
        write_model(tmp_path / "model.safetensors", {"weight": torch.ones(1)}, tiny, {})
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """What a full disk looks like to this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_old_file(written: Path, tiny: Architecture) -> None:
    before = written.read_bytes()
    weights = {"weight": torch.ones(1_000_000)}
    with pytest.raises(TaborError, match=r"cannot write .*tiny.safetensors"), no_file_larger_than(100_000):
        write_model(written, weights, tiny, {})
    assert written.read_bytes() == before
    assert list(written.parent.iterdir()) == [written]
