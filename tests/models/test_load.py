"""`load_model`: round trips, what is read off the weights, and files that must be refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from tabor.errors import ModelError
from tabor.models import Architecture, knows_its_images, load_model
from tabor.models.build import initialise
from tabor.models.pixels import prepared
from tabor.models.safetensors_file import write_model

HALF = (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    "architecture",
    [
        Architecture(name="tabor:digits4", num_classes=4, channels=1, size=(12, 14)),
        Architecture(name="tabor:gtsrb6", num_classes=43),
        Architecture(name="timm:resnet10t", num_classes=5, mean=HALF, std=(0.2, 0.3, 0.4)),
        Architecture(name="torchvision:squeezenet1_1", num_classes=6),
        Architecture(name="torchvision:mobilenet_v3_small", num_classes=6, mean=HALF, std=HALF),
        Architecture(name="torchvision:regnet_y_400mf", num_classes=3),  # not to be built without memory
    ],
    ids=lambda architecture: architecture.name,
)
def test_round_trip(architecture: Architecture, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    network = initialise(architecture, seed=1)
    model = prepared(network, architecture)
    write_model(path, network.state_dict(), architecture, {"clean_accuracy": 0.75})
    loaded = load_model(path)
    images = torch.rand(3, *architecture.image_shape, generator=torch.Generator().manual_seed(2))
    assert torch.equal(loaded(images), model.eval()(images))
    assert loaded.architecture == architecture
    assert not loaded.training
    assert loaded.source == "model.safetensors"
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert loaded.record["clean_accuracy"] == 0.75
    assert loaded.network.state_dict().keys() == network.state_dict().keys()


@pytest.mark.parametrize(
    ("arch", "size", "classes"),
    [
        ("tabor:digits4", (12, 12), 3),
        ("tabor:gtsrb6", (32, 32), 64),  # also the width of two of its layers
        ("timm:resnet10t", (32, 32), 5),
        ("torchvision:squeezenet1_1", (32, 32), 6),
    ],
)
def test_the_number_of_classes_is_read_off_the_weights(
    arch: str, size: tuple[int, int], classes: int, tmp_path: Path
) -> None:
    path = tmp_path / "foreign.safetensors"
    network = initialise(Architecture(name=arch, num_classes=classes, size=size), seed=0)
    safetensors.torch.save_file(network.state_dict(), path)
    loaded = load_model(path, arch=arch, size=size)
    assert loaded.architecture.num_classes == classes
    assert loaded(torch.rand(2, 3, *size)).shape == (2, classes)


def test_loading_draws_nothing_global(written: Path) -> None:
    before = torch.get_rng_state()
    load_model(written)
    assert torch.equal(torch.get_rng_state(), before)


def test_numpys_numbers_are_taken(written: Path) -> None:
    counts: dict[str, Any] = {"num_classes": np.int64(3), "channels": np.int64(1)}
    values: dict[str, Any] = {"mean": np.array([0.5]), "std": np.array([0.25], np.float32)}
    loaded = load_model(written, **counts, **values)
    assert loaded.architecture == dataclasses.replace(load_model(written).architecture, mean=(0.5,), std=(0.25,))


@pytest.mark.parametrize("wrong", [{"num_classes": "3"}, {"channels": 1.5}, {"mean": 0.5, "std": (1,)}, {"std": "ab"}])
def test_numbers_that_are_none(wrong: dict[str, Any], written: Path) -> None:
    with pytest.raises(ModelError, match=r"are (whole|tuples of) numbers, got "):
        load_model(written, **wrong)


def test_a_files_name_may_be_no_unicode(written: Path, tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"m\xff.pt")
    torch.save(safetensors.torch.load_file(written), odd)
    assert load_model(odd, arch="tabor:digits4", channels=1, size=12).source == "m\\udcff.pt"


def test_what_is_given_overrides_the_record(written: Path, images: Tensor) -> None:
    plain, normalised = load_model(written), load_model(written, mean=(0.25,), std=(0.5,))
    assert torch.allclose(normalised(images), plain((images - 0.25) / 0.5))
    with pytest.raises(ModelError, match="do not fit tabor:digits4"):
        load_model(written, num_classes=4)
    with pytest.raises(ModelError, match="do not fit tabor:gtsrb6"):
        load_model(written, arch="tabor:gtsrb6", num_classes=3, channels=1, size=(32, 32))


def _without(weights: dict[str, Tensor], *keys: str) -> dict[str, Tensor]:
    return {key: value for key, value in weights.items() if key not in keys}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda w: _without(w, "features.0.bias"), r"1 missing \(features.0.bias\)", id="missing"),
        pytest.param(lambda w: w | {"extra": torch.ones(1)}, r"1 unknown \(extra\)", id="unknown"),
        pytest.param(
            lambda w: w | {"head.2.bias": torch.ones(7)},
            r"1 of another shape \(head.2.bias is \(7,\) for \(64,\)\)",
            id="misshapen",
        ),
        pytest.param(
            lambda w: _without(w, "head.2.bias") | {"extra": torch.ones(1)},
            r"1 missing \(head.2.bias\); 1 unknown \(extra\)",
            id="two faults at once",
        ),
        pytest.param(
            lambda w: w | {f"extra{i}": torch.ones(1) for i in range(9)},
            r"9 unknown \(.*, …\)",
            id="many are cut short",
        ),
        pytest.param(lambda w: {}, r"missing \(", id="no weights at all"),
    ],
)
def test_weights_that_do_not_fit(
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]], message: str, tiny: Architecture, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    write_model(path, change(initialise(tiny, seed=0).state_dict()), tiny, {})
    with pytest.raises(ModelError, match=message):
        load_model(path)


def test_a_strangers_weight_name_becomes_one_printable_line(tiny: Architecture, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    weights = initialise(tiny, seed=0).state_dict() | {"\x1b[2J\nverdict: clean" * 99: torch.ones(1)}
    write_model(path, weights, tiny, {})
    with pytest.raises(ModelError) as caught:
        load_model(path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_a_file_without_a_record_needs_arch(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file({"weight": torch.ones(2, 2)}, path)
    with pytest.raises(ModelError, match=r"does not say which network .*--arch timm:resnet18"):
        load_model(path)
    with pytest.raises(ModelError, match=r"do not fit tabor:gtsrb6: 16 missing .*1 unknown \(weight\)"):
        load_model(path, arch="tabor:gtsrb6")


def _save(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _lying(path: Path) -> None:
    whole = safetensors.torch.save({"weight": torch.ones(64)})
    path.write_bytes((2**40).to_bytes(8, "little") + whole[8:])


def _reaching_beyond(path: Path) -> None:
    header = json.dumps({"weight": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        pytest.param(lambda path: _save(path, b""), "is a file of no known kind", id="empty"),
        pytest.param(lambda path: _save(path, b"no weights\n" * 20), "is a file of no known kind", id="text"),
        pytest.param(lambda path: _save(path, path.read_bytes()[:-100]), "is no whole safe", id="truncated data"),
        pytest.param(lambda path: _save(path, path.read_bytes()[:40]), "is no whole safe", id="truncated header"),
        pytest.param(_lying, "is a file of no known kind", id="header length beyond the file"),
        pytest.param(_reaching_beyond, "is no whole safe", id="tensor beyond the file"),
    ],
)
def test_not_a_safetensors_file(damage: Callable[[Path], None], told: str, written: Path) -> None:
    damage(written)
    for arch in (None, "tabor:digits4"):
        with pytest.raises(ModelError, match=rf"tiny\.safetensors {told}") as caught:
            load_model(written, arch=arch)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("nothing.safetensors", id="missing"),
        pytest.param("", id="a folder"),
        pytest.param("file/model.safetensors", id="below a file"),
        pytest.param("null\0byte", id="null byte"),
        pytest.param("x" * 5000, id="a name too long for the file system"),
        pytest.param("\x1b[2J\nforged", id="control characters"),
    ],
)
def test_no_such_file(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="there is no model file") as caught:
        load_model(tmp_path / name)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "record",
    [
        pytest.param("{not json", id="not JSON"),
        pytest.param("", id="empty"),
        pytest.param("[1, 2]", id="a list"),
        pytest.param("null", id="null"),
        pytest.param('"text"', id="text"),
        pytest.param("[" * 100_000, id="deep"),
    ],
)
def test_damaged_record(record: str, with_record: Callable[[str], Path]) -> None:
    with pytest.raises(ModelError, match="damaged metadata record `tabor`"):
        load_model(with_record(record))


def test_a_damaged_record_does_not_matter_once_arch_is_given(with_record: Callable[[str], Path]) -> None:
    # The refusal itself says "give --arch to go on".
    loaded = load_model(with_record("{not json"), arch="tabor:digits4", channels=1, size=(12, 12))
    assert loaded.architecture.num_classes == 3


def test_one_number_is_the_size_of_a_square(with_record: Callable[[str], Path]) -> None:
    loaded = load_model(with_record("{not json"), arch="tabor:digits4", channels=1, size=12)
    assert loaded.architecture.size == (12, 12)


def test_a_record_without_architecture_needs_arch(with_record: Callable[[str], Path]) -> None:
    with pytest.raises(ModelError, match="does not say which network"):
        load_model(with_record('{"clean_accuracy": 1.0}'))


ABSURD: dict[str, dict[str, Any]] = {
    "negative classes": {"num_classes": -3},
    "one class": {"num_classes": 1},
    "classes as text": {"num_classes": "ten"},
    "broken classes": {"num_classes": 2.5},
    "no number of classes": {"num_classes": None},
    "more classes than memory": {"num_classes": 10**15},
    "negative channels": {"channels": -1},
    "channels as text": {"channels": "3"},
    "broken channels": {"channels": 1.5},
    "size as text": {"size": "12"},
    "size as a number": {"size": 12},
    "three sizes": {"size": [12, 12, 12]},
    "no size": {"size": []},
    "broken size": {"size": [12.5, 12]},
    "negative size": {"size": [-12, 12]},
    "tiny size": {"size": [1, 1]},
    "size beyond memory": {"size": [10**8, 10**8]},
    "mean alone": {"mean": [0.5]},
    "mean as text": {"mean": ["a"], "std": [0.5]},
    "std of zero": {"mean": [0.5], "std": [0]},
    "std as text": {"mean": [0.5], "std": ["b"]},
    "unknown field": {"colour": "red"},
    "name as a number": {"name": 5},
    "name as a list": {"name": ["tabor:digits4"]},
    "no name": {"name": ""},
    "unknown name": {"name": "tabor:\x1b[2J\nverdict: clean"},
    "endless name": {"name": "timm:" + "x" * 100_000},
    "misspelt name": {"name": "timm:resnet18\x07"},
}


@pytest.mark.parametrize("changes", ABSURD.values(), ids=ABSURD.keys())
def test_absurd_architecture(changes: dict[str, Any], with_architecture: Callable[..., Path]) -> None:
    with pytest.raises(ModelError) as caught:
        load_model(with_architecture(**changes))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("architecture", ["tabor:digits4", 7, None, [1, 2], {}])
def test_architecture_that_is_no_record_of_one(architecture: object, with_record: Callable[[str], Path]) -> None:
    with pytest.raises(ModelError, match="records an architecture that makes no sense"):
        load_model(with_record(json.dumps({"architecture": architecture})))


def test_which_models_say_what_images_they_take(written: Path, tmp_path: Path) -> None:
    assert knows_its_images(written)
    assert not knows_its_images(written, "tabor:digits4")
    with pytest.raises(ModelError, match="there is no model file"):
        knows_its_images(tmp_path / "missing")
