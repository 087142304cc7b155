"""The faster copy of a network, and how the search keeps within its memory."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

from tabor.access import Classifier
from tabor.engine import (
    WORKSPACE,
    best_dtype,
    bytes_per_image,
    folded,
    images_at_once,
    in_parts,
    left_to_the_container,
    product_speed_up,
    room,
)
from tabor.methods.tabor import Tabor
from tabor.models.exported_graph.network import Chunked
from tabor.solver import SolverSettings, solve

from .closed_form import CPU, classifier, dark_images, doorway

IMAGES = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def lively(network: nn.Module) -> nn.Module:
    """Gives every normalisation statistics and weights of its own, so that leaving one out shows."""
    generator = torch.Generator().manual_seed(2)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.running_mean, module.running_var, module.weight, module.bias):
                assert values is not None
                values.data.copy_(0.5 + torch.rand(values.shape, generator=generator))
    return network.eval().requires_grad_(False)


def stack(*layers: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(4)).eval()
    network(IMAGES.clone())
    return lively(network)


class Reused(nn.Module):
    """Looks at a convolution's answer with its normalisation and, with so much weight, without."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.conv, self.norm, self.weight = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), weight

    def forward(self, images: Tensor) -> Tensor:
        before = self.conv(images)
        return torch.cat([self.weight * before.mean((2, 3)), self.norm(before).mean((2, 3))], 1)


class Shared(nn.Module):
    """One convolution under two normalisations."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, images: Tensor) -> Tensor:
        twice: Tensor = self.second(self.conv(self.first(self.conv(images))))
        return twice.mean((2, 3))


def normalisations(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize(
    ("network", "left"),
    [
        pytest.param(lambda: stack(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)), 0, id="one"),
        pytest.param(
            lambda: stack(nn.Conv2d(3, 4, 3, bias=False), BatchNormAct2d(4), nn.Conv2d(4, 5, 3, groups=1)), 0, id="timm"
        ),
        pytest.param(lambda: stack(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)), 1, id="no convolution before it"),
        pytest.param(lambda: stack(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)), 1, id="something between"),
        pytest.param(lambda: lively(Reused(1.0)), 1, id="an answer used twice"),
        pytest.param(lambda: lively(Reused(0.05)), 1, id="an answer used twice, the second time hardly"),
        pytest.param(lambda: lively(Shared()), 2, id="a convolution called twice"),
        pytest.param(lambda: stack(nn.Conv2d(3, 4, 3)), 0, id="none"),
    ],
)
def test_normalisations_become_part_of_convolutions(network: Callable[[], nn.Module], left: int) -> None:
    own = network()
    before, answers = copy.deepcopy(own.state_dict()), own(IMAGES.clone())
    smaller = folded(own, IMAGES[:2])
    assert normalisations(smaller) == left
    torch.testing.assert_close(smaller(IMAGES.clone()), answers)
    torch.testing.assert_close(own.state_dict(), before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in smaller.modules())


def test_a_network_that_cannot_be_looked_at_stays_as_it_is() -> None:
    class Fails(nn.BatchNorm2d):
        def forward(self, input: Tensor) -> Tensor:
            raise RuntimeError("not today")

    network = Fails(3).eval()
    assert folded(network, IMAGES[:2]) is network


@pytest.mark.parametrize(("amx", "avx512"), [(True, False), (False, True), (True, True)])
def test_bfloat16_where_the_processor_has_it(amx: bool, avx512: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr("tabor.engine.product_speed_up", lambda: 2.1)
    assert best_dtype(CPU) == torch.bfloat16
    monkeypatch.setattr("tabor.engine.product_speed_up", lambda: 0.5)  # Intel's without AMX
    assert best_dtype(CPU) == torch.float32


def test_how_much_faster_bfloat16_is_is_told_by_the_best_of_several_products(monkeypatch: pytest.MonkeyPatch) -> None:
    bfloat16, float32 = [3.0, 1.0, 2.0, 2.0, 5.0, 2.0], [9.0, 4.0, 2.5, 3.0, 3.0, 3.0]
    ends = [t for pair in zip(bfloat16, float32, strict=True) for taken in pair for t in (0.0, taken)]
    clock = iter(ends)
    monkeypatch.setattr("tabor.engine.time", SimpleNamespace(perf_counter=lambda: next(clock)))
    assert product_speed_up.__wrapped__() == 2.5
    assert next(clock, None) is None


def test_how_much_faster_bfloat16_is_is_measured_once() -> None:
    assert product_speed_up() == product_speed_up() > 0


def test_float32_where_it_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert best_dtype(CPU) == torch.float32
    assert best_dtype(torch.device("meta")) == torch.float32


class Steep(nn.Module):
    """Tells by a difference that bfloat16 cannot hold which class an image is of."""

    def forward(self, images: Tensor) -> Tensor:
        first = 1000 + images[:, 0].mean((1, 2))
        return torch.stack([first, torch.full_like(first, 1000.5)], 1)


class OneType(nn.Module):
    """Holds a constant of its own type, as networks read from files may."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ torch.ones(images[0].numel(), 2, dtype=torch.float32)


@pytest.mark.parametrize(
    ("model", "dtype"),
    [
        pytest.param(stack(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), torch.bfloat16, id="answers alike"),
        pytest.param(Steep(), torch.float32, id="answers otherwise"),
        pytest.param(OneType(), torch.float32, id="knows one type"),
    ],
)
def test_a_faster_copy_is_used_where_it_answers_alike(model: nn.Module, dtype: torch.dtype) -> None:
    reached = Classifier(model, CPU, (3, 8, 8))
    before = reached.logits(IMAGES)
    reached.hasten(IMAGES, torch.bfloat16)
    assert reached.dtype == dtype
    assert torch.equal(reached.predict(IMAGES), before)
    assert reached.logits(IMAGES).dtype == torch.float32
    assert torch.equal(reached.logits(IMAGES), before) == (dtype == torch.float32)


def test_a_copy_that_is_too_coarse_is_used_in_float32_where_that_takes_fewer_operations() -> None:
    same = nn.Conv2d(3, 3, 1, bias=False)
    nn.init.dirac_(same.weight)
    reached = Classifier(nn.Sequential(same, nn.BatchNorm2d(3), Steep()), CPU, (3, 8, 8))
    reached.hasten(IMAGES, torch.bfloat16)
    assert (reached.dtype, reached.hastened) == (torch.float32, True)


def test_an_exact_search_is_the_network_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tabor.access.best_dtype", lambda _: torch.bfloat16)
    model = stack(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    reached = Classifier(model, CPU, (3, 8, 8))
    assert torch.equal(reached.logits(IMAGES), reached.predict(IMAGES))
    reached.hasten(IMAGES)
    assert reached.dtype == torch.bfloat16


class Squares(nn.Module):
    """Keeps each image once for the way back, and nothing else that grows with their number."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes = list[int]()

    def forward(self, images: Tensor) -> Tensor:
        self.sizes.append(len(images))
        return images.square().flatten(1)[:, :5]


def test_the_memory_of_an_image_more_is_counted() -> None:
    assert bytes_per_image(Squares(), IMAGES[:1]) == 3 * 8 * 8 * 4


def test_what_a_network_keeps_once_whatever_it_is_shown_is_not_counted_for_each_image() -> None:
    class Keeps(Squares):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) + images[:1].repeat(50, 1, 1, 1).exp().sum()

    assert bytes_per_image(Keeps(), IMAGES[:1]) == 3 * 8 * 8 * 4


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 5, 8, 16])
def test_the_memory_of_an_image_is_counted_where_a_fixed_number_of_them_is_filled_up(batch: int) -> None:
    counted = bytes_per_image(Chunked(Squares(), batch), IMAGES[:1])
    once = 3 * 8 * 8 * 4
    assert once <= counted < 2 * once
    assert counted == once or batch in (3, 5)


def test_the_memory_of_an_image_is_counted_where_a_weight_is_sparse() -> None:
    class Sparse(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weight", torch.eye(192).to_sparse())

        def forward(self, images: Tensor) -> Tensor:
            return torch.sparse.mm(self.get_buffer("weight"), images.flatten(1).T).T.square()

    assert bytes_per_image(Sparse(), IMAGES[:1]) == 192 * 4


def test_a_network_that_keeps_nothing_is_asked_about_few_images() -> None:
    network, sizes = nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), list[int]()
    network.requires_grad_(False)[0].register_forward_hook(lambda _module, inputs, _: sizes.append(len(inputs[0])))
    assert bytes_per_image(network, IMAGES[:1]) == 1
    assert sizes == [2, 4]


@pytest.mark.parametrize("at_once", [1, 4, 6, 100])
def test_parts_answer_as_the_whole(at_once: int) -> None:
    network, images = Squares(), IMAGES.clone().requires_grad_()
    answers = in_parts(network, images, at_once)
    assert torch.equal(answers, Squares()(images))
    assert torch.equal(torch.autograd.grad(answers.sum(), images)[0][:, 0, 0, :5], 2 * IMAGES[:, 0, 0, :5])
    assert max(network.sizes) <= at_once
    parts = -(-len(IMAGES) // at_once)
    assert len(network.sizes) == (2 * parts if parts > 1 else 1)  # once more on the way back


def test_parts_without_a_way_back_run_once() -> None:
    network = Squares()
    in_parts(network, IMAGES, 4)
    assert network.sizes == [4, 2]


def test_networks_that_work_in_place_run_in_parts() -> None:
    network, images = nn.Sequential(nn.ReLU(inplace=True), nn.Flatten()), (IMAGES - 0.5).requires_grad_()
    gradient = torch.autograd.grad(in_parts(network, images, 4).sum(), images)[0]
    assert torch.equal(gradient, (IMAGES > 0.5).float())


def test_the_room_is_what_the_limit_leaves() -> None:
    little, much = room(CPU, 0), room(CPU, 2**50)
    assert little == 0
    assert 2**48 < much < 2**50
    assert room(CPU, None) > 2**20


@pytest.mark.parametrize(
    ("each", "left", "on_a_cpu", "on_a_gpu"),
    [
        pytest.param(2**20, 2**34, 512, 2**14, id="half a GiB"),
        pytest.param(2**26, 2**34, 16, 256, id="large images"),
        pytest.param(2**26, 2**29, 8, 8, id="no more than fit"),
        pytest.param(2**30, 2**29, 1, 1, id="one at least"),
    ],
)
def test_a_pass_on_a_cpu_is_no_larger_than_goes_fast(
    each: int, left: int, on_a_cpu: int, on_a_gpu: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tabor.engine.room", lambda device, limit: left)
    assert images_at_once(CPU, None, each) == on_a_cpu
    assert images_at_once(torch.device("cuda"), None, each) == on_a_gpu


def test_half_of_what_is_free_is_taken_however_much_this_process_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2**20))
    assert room(CPU, None) == 2**18  # as much again as what is kept goes to gradients and buffers


@pytest.mark.parametrize("at_once", [1, 5, 32])
def test_a_search_in_parts_finds_the_same(at_once: int) -> None:
    settings = SolverSettings(steps=20, smallest_steps=20)

    def search(limited: bool) -> list[Tensor]:
        reached = classifier(doorway())
        if limited:
            reached.images_at_once = at_once
        found = solve(reached, dark_images(), [1, 2], Tabor(mask_dropout=0.0), settings, seed=0)
        return [candidate.trigger.mask for candidate in found]

    torch.testing.assert_close(search(limited=True), search(limited=False))


def test_a_limit_that_leaves_nothing_still_runs() -> None:
    reached = Classifier(stack(nn.Conv2d(3, 4, 3)), CPU, (3, 8, 8))
    reached.limit_memory(1)
    assert reached.images_at_once == 1
    assert reached.predict(IMAGES).shape == (6, 4)
    reached.limit_memory(None)
    assert reached.images_at_once > 100


@pytest.mark.parametrize(
    ("limit", "left"),
    [
        pytest.param("8000", 8000 - 5000 + 1500, id="cached files are given back"),
        pytest.param("1000", 0, id="more than it may"),
        pytest.param("max", sys.maxsize, id="no limit"),
        pytest.param(None, sys.maxsize, id="no container"),
    ],
)
def test_a_containers_limit_counts(limit: str | None, left: int, tmp_path: Path) -> None:
    if limit is not None:
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "memory.current").write_text("5000\n")
        (tmp_path / "memory.stat").write_text("anon 3500\nactive_file 500\ninactive_file 1000\n")
    assert left_to_the_container(tmp_path) == left


def test_what_is_free_is_no_more_than_the_container_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tabor.engine.left_to_the_container", lambda: 2**20)
    assert room(torch.device("cpu"), None) == 2**20 // 2 // WORKSPACE


def test_an_altered_copy_is_as_fast_and_the_model_stays_as_it_was() -> None:
    pictures = dark_images().images
    plain, fast = classifier(doorway()), classifier(doorway())
    fast.hasten(pictures, torch.bfloat16)
    for own in (plain, fast):
        own.images_at_once = 17
        before = own.predict(pictures)
        passes = own.image_passes

        def blinded(network: nn.Module) -> None:
            for weight in network.parameters():
                weight.data.zero_()

        altered = own.altered(blinded, pictures)
        assert torch.equal(altered.predict(pictures), torch.zeros_like(before))
        assert torch.equal(own.predict(pictures), before)
        assert (own.image_passes, altered.images_at_once) == (passes + len(pictures), 17)
    assert not plain.altered(lambda _: None, pictures).hastened
    copied = fast.altered(lambda _: None, pictures)
    assert copied.hastened
    assert copied.dtype == fast.dtype == torch.bfloat16


def test_measuring_the_products_draws_nothing_global() -> None:
    before = torch.get_rng_state()
    product_speed_up.__wrapped__()
    assert torch.equal(torch.get_rng_state(), before)
