from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tabor.errors import TaborError
from tabor.fidelity import fidelity
from tabor.trigger import Trigger, cover

from .closed_form import patch

MASK, PATTERN = torch.zeros(1, 2, 3), torch.zeros(3, 2, 3)


def noise(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


seeds = st.integers(0, 2**32)


@settings(max_examples=40)
@given(seeds, st.integers(1, 3))
def test_an_empty_mask_changes_nothing_and_a_full_one_leaves_the_pattern(seed: int, channels: int) -> None:
    images, pattern = noise(seed, 4, channels, 3, 5), noise(seed + 1, channels, 3, 5)
    empty, full = Trigger(torch.zeros(1, 3, 5), pattern), Trigger(torch.ones(1, 3, 5), pattern)
    assert torch.equal(empty.stamp(images), images)
    assert torch.equal(empty.crop(images), images)
    assert torch.equal(empty.isolate(), torch.zeros_like(pattern))
    assert torch.equal(full.stamp(images), pattern.expand_as(images))
    assert torch.equal(full.crop(images), torch.zeros_like(images))
    assert torch.equal(full.isolate(), pattern)


@settings(max_examples=40)
@given(seeds)
def test_stamped_images_stay_in_range_and_the_originals_stay_as_they_were(seed: int) -> None:
    images = noise(seed, 4, 3, 3, 5)
    before = images.clone()
    stamped = Trigger(noise(seed + 1, 1, 3, 5), noise(seed + 2, 3, 3, 5)).stamp(images)
    assert torch.equal(images, before)
    assert float(stamped.min()) >= 0
    assert float(stamped.max()) <= 1 + 1e-6


def test_stamp_crop_cover_and_isolate_by_hand() -> None:
    trigger = Trigger(torch.tensor([[[0.25, 1.0]]]), torch.tensor([[[1.0, 0.5]], [[0.0, 0.5]]]))
    images = torch.tensor([[[[0.5, 0.5]], [[0.5, 0.5]]]])
    assert trigger.stamp(images).tolist() == [[[[0.625, 0.5]], [[0.375, 0.5]]]]
    assert trigger.crop(images).tolist() == [[[[0.375, 0.0]], [[0.375, 0.0]]]]
    assert cover(images, trigger.mask, 0.75).tolist() == [[[[0.5625, 0.75]], [[0.5625, 0.75]]]]
    assert trigger.isolate().tolist() == [[[0.25, 0.5]], [[0.0, 0.5]]]


def test_binarise_keeps_what_is_above_the_threshold() -> None:
    trigger = Trigger(torch.tensor([[[0.0, 0.5, 0.51, 1.0]]]), torch.full((3, 1, 4), 0.25))
    assert trigger.binarise().mask.tolist() == [[[0, 0, 1, 1]]]
    assert trigger.binarise(0.6).mask.tolist() == [[[0, 0, 0, 1]]]
    assert torch.equal(trigger.binarise().pattern, trigger.pattern)
    assert trigger.to("cpu").binarise().mask.dtype == torch.float32


@pytest.mark.parametrize(
    ("mask", "pattern", "message"),
    [
        pytest.param(torch.zeros(2, 3), PATTERN, r"\(1, H, W\).*got \(2, 3\)", id="mask without a channel"),
        pytest.param(torch.zeros(3, 2, 3), PATTERN, r"\(1, H, W\)", id="mask of three channels"),
        pytest.param(MASK[None], PATTERN, r"\(1, H, W\)", id="batch of masks"),
        pytest.param(MASK, PATTERN[0], r"\(C, H, W\)", id="pattern without a channel"),
        pytest.param(MASK, torch.zeros(3, 3, 2), r"mask is \(2, 3\) pixels and the pattern \(3, 2\)", id="two sizes"),
        pytest.param(MASK + 1.01, PATTERN, "mask has values outside", id="mask above 1"),
        pytest.param(MASK - 0.01, PATTERN, "mask has values outside", id="mask below 0"),
        pytest.param(MASK, PATTERN + 1.01, "pattern has values outside", id="pattern above 1"),
        pytest.param(MASK, PATTERN - 0.01, "pattern has values outside", id="pattern below 0"),
        pytest.param(MASK + torch.nan, PATTERN, "mask has values outside", id="mask nan"),
        pytest.param(MASK, PATTERN + torch.nan, "pattern has values outside", id="pattern nan"),
        pytest.param(MASK, PATTERN + torch.inf, "pattern has values outside", id="pattern infinite"),
    ],
)
def test_refuses_what_is_no_trigger(mask: Tensor, pattern: Tensor, message: str) -> None:
    with pytest.raises(TaborError, match=message):
        Trigger(mask, pattern)


BOTH = noise(7, 4, 5, 6)


@pytest.mark.parametrize(
    ("mask", "pattern"),
    [
        pytest.param(noise(1, 1, 5, 6), noise(2, 3, 5, 6), id="plain"),
        pytest.param(noise(1, 1, 6, 5).mT, noise(2, 3, 6, 5).mT, id="not contiguous"),
        pytest.param(BOTH[:1], BOTH[1:], id="parts of one tensor"),
        pytest.param(BOTH[:1], BOTH[:1], id="one tensor as both"),
        pytest.param(torch.zeros(1, 5, 6), torch.ones(3, 5, 6), id="bounds"),
    ],
)
def test_what_is_saved_is_loaded(mask: Tensor, pattern: Tensor, tmp_path: Path) -> None:
    Trigger(mask, pattern).save(tmp_path / "trigger.safetensors")
    loaded = Trigger.load(tmp_path / "trigger.safetensors")
    assert torch.equal(loaded.mask, mask)
    assert torch.equal(loaded.pattern, pattern)
    assert [path.name for path in tmp_path.iterdir()] == ["trigger.safetensors"]


def test_half_precision_is_loaded_as_float32(tmp_path: Path) -> None:
    safetensors.torch.save_file({"mask": patch(4).half(), "pattern": patch(4).half() / 2}, tmp_path / "t")
    loaded = Trigger.load(tmp_path / "t")
    assert (loaded.mask.dtype, loaded.pattern.dtype) == (torch.float32, torch.float32)
    assert torch.equal(loaded.pattern, patch(4) / 2)


def test_refuses_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(TaborError, match=r"there is no file .*nothing"):
        Trigger.load(tmp_path / "nothing")


@pytest.mark.parametrize("content", [b"", b"\x00", b"no trigger" * 20, b"\xff" * 8 + b"{}"], ids=range(4))
def test_refuses_a_damaged_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(content)
    with pytest.raises(TaborError, match="t is no trigger file"):
        Trigger.load(tmp_path / "t")


def test_refuses_a_file_that_is_too_large_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Trigger(patch(), patch()).save(tmp_path / "t")
    monkeypatch.setattr("tabor.trigger.LARGEST_FILE", 20)
    with pytest.raises(TaborError, match="t is no trigger file: t has more than 20 bytes"):
        Trigger.load(tmp_path / "t")


def test_refuses_half_a_file(tmp_path: Path) -> None:
    Trigger(patch(), patch()[[0, 0, 0]]).save(tmp_path / "whole")
    (tmp_path / "t").write_bytes((tmp_path / "whole").read_bytes()[:-40])
    with pytest.raises(TaborError, match="t is no trigger file"):
        Trigger.load(tmp_path / "t")


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        pytest.param({"mask": MASK}, "no trigger file: 'pattern'", id="no pattern"),
        pytest.param({"weight": MASK}, "no trigger file: 'mask'", id="a model"),
        pytest.param({"mask": PATTERN, "pattern": PATTERN}, r"\(1, H, W\)", id="shape"),
        pytest.param({"mask": MASK + torch.nan, "pattern": PATTERN}, "outside", id="nan"),
        pytest.param({"mask": MASK, "pattern": PATTERN + 2}, "outside", id="range"),
    ],
)
def test_refuses_a_file_with_something_else(tensors: dict[str, Tensor], message: str, tmp_path: Path) -> None:
    safetensors.torch.save_file({name: tensor.clone() for name, tensor in tensors.items()}, tmp_path / "t")
    with pytest.raises(TaborError, match=message):
        Trigger.load(tmp_path / "t")


def test_refuses_a_folder(tmp_path: Path) -> None:
    with pytest.raises(TaborError, match="no trigger file"):
        Trigger.load(tmp_path)


def test_precision_is_of_what_was_restored_and_recall_of_what_was_planted() -> None:
    two, one = torch.zeros(1, 4, 4), torch.zeros(1, 4, 4)
    two[..., :2], one[..., :1] = 1, 1
    compared = fidelity(two, one)
    assert (compared.precision, compared.recall) == (0.5, 1.0)


def test_triggers_can_be_compared_and_are_what_they_are() -> None:
    one, other = (Trigger(torch.ones(1, 2, 2), torch.ones(1, 2, 2)) for _ in range(2))
    assert one == one
    assert one != other
