from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tabor.data.images import ImageSet, balanced_order
from tabor.errors import DataError

some_labels = st.lists(st.integers(0, 6), min_size=1, max_size=40)
seeds = st.integers(0, 2**31)


def numbered(labels: list[int]) -> ImageSet:
    """Images of one pixel whose value tells which image it is."""
    count = len(labels)
    return ImageSet(torch.arange(count).view(-1, 1, 1, 1) / count, torch.tensor(labels), ())


def numbers(images: ImageSet, count: int) -> list[int]:
    return [round(value) for value in (images.images.flatten() * count).tolist()]


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        pytest.param(torch.zeros(2, 3, 4), torch.zeros(2).long(), r"shape \(N, C, H, W\)", id="no batch"),
        pytest.param(torch.zeros(2, 1, 4, 4).byte(), torch.zeros(2).long(), "float tensor", id="bytes"),
        pytest.param(torch.zeros(0, 1, 4, 4), torch.zeros(0).long(), "there is no image", id="none"),
        pytest.param(torch.zeros(2, 1, 4, 4), torch.zeros(3).long(), r"shape \(2,\)", id="too many labels"),
        pytest.param(torch.zeros(2, 1, 4, 4), torch.zeros(2), "int64", id="float labels"),
        pytest.param(torch.full((1, 1, 2, 2), 1.5), torch.zeros(1).long(), r"\[0, 1\].*1\.5", id="above 1"),
        pytest.param(torch.full((1, 1, 2, 2), -0.5), torch.zeros(1).long(), r"\[0, 1\].*-0\.5", id="below 0"),
        pytest.param(torch.full((1, 1, 2, 2), torch.nan), torch.zeros(1).long(), r"\[0, 1\].*nan", id="nan"),
        pytest.param(torch.zeros(1, 1, 2, 2), torch.tensor([-1]), "not be negative, got -1", id="negative"),
    ],
)
def test_refuses_what_is_not_a_set_of_images(images: Tensor, labels: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        ImageSet(images, labels, ())


@pytest.mark.parametrize("kind", [torch.float16, torch.float64])
def test_other_numbers_become_those_that_are_used(kind: torch.dtype) -> None:
    images = ImageSet(torch.full((2, 1, 2, 2), 0.5, dtype=kind), torch.tensor([0, 1], dtype=torch.uint8), ())
    assert (images.images.dtype, images.labels.dtype) == (torch.float32, torch.int64)
    assert (float(images.images.mean()), images.labels.tolist()) == (0.5, [0, 1])


def test_a_class_without_a_name_is_called_by_its_index() -> None:
    images = ImageSet(torch.zeros(1, 1, 2, 2), torch.tensor([0]), ("stop",))
    assert (images.class_name(0), images.class_name(7)) == ("stop", "7")


def assert_every_prefix_is_balanced(labels: list[int]) -> None:
    taken = dict.fromkeys(labels, 0)
    for label in labels:
        taken[label] += 1
        unfinished = [count for other, count in taken.items() if count < labels.count(other)]
        assert max(taken.values()) - min(unfinished, default=max(taken.values())) <= 1


@given(some_labels, seeds)
def test_every_prefix_of_the_balanced_order_is_balanced(labels: list[int], seed: int) -> None:
    order = balanced_order(torch.tensor(labels), seed).tolist()
    assert sorted(order) == list(range(len(labels)))
    assert_every_prefix_is_balanced([labels[position] for position in order])


@given(some_labels, seeds, st.integers(1, 50))
def test_balanced_takes_the_limit_in_the_balanced_order(labels: list[int], seed: int, limit: int) -> None:
    images = numbered(labels)
    drawn = images.balanced(limit, seed)
    assert numbers(drawn, len(labels)) == balanced_order(images.labels, seed)[:limit].tolist()
    assert drawn.labels.tolist() == [labels[number] for number in numbers(drawn, len(labels))]


def test_the_draw_depends_on_the_seed_and_not_on_the_global_generator() -> None:
    labels = torch.zeros(100).long()
    before = torch.get_rng_state()
    first = balanced_order(labels, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert torch.equal(balanced_order(labels, seed=1), first)
    assert not torch.equal(balanced_order(labels, seed=2), first)


def test_a_huge_label_takes_no_memory_of_its_size() -> None:
    assert sorted(balanced_order(torch.tensor([2**62, 0, 2**62]), seed=0).tolist()) == [0, 1, 2]


def test_each_seed_deals_the_classes_in_an_order_of_its_own() -> None:
    """Of more classes than images, others are left out each time."""
    labels = torch.arange(100)
    drawn = [set(balanced_order(labels, seed)[:50].tolist()) for seed in range(4)]
    assert len(set(map(frozenset, drawn))) == 4
    assert len(set.union(*drawn)) > 80
    first = {numbered(labels.tolist()).halves(seed)[0].labels[0].item() for seed in range(10)}
    assert len(first) > 5


@given(st.lists(st.integers(0, 6), min_size=2, max_size=40), seeds)
def test_halves_share_nothing_lose_nothing_and_are_balanced(labels: list[int], seed: int) -> None:
    first, second = numbered(labels).halves(seed)
    together = numbers(first, len(labels)) + numbers(second, len(labels))
    assert sorted(together) == list(range(len(labels)))
    assert abs(len(first) - len(second)) <= 1
    for label in set(labels):
        assert abs(int((first.labels == label).sum()) - int((second.labels == label).sum())) <= 1
    for half in (first, second):
        assert [labels[number] for number in numbers(half, len(labels))] == half.labels.tolist()
        assert_every_prefix_is_balanced(half.labels.tolist())


def test_one_image_has_no_halves() -> None:
    with pytest.raises(DataError, match="one image cannot be split"):
        numbered([3]).halves(seed=0)
