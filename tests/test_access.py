from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tabor.access import EVALUATION_BATCH, Classifier, choose_device, gradients
from tabor.errors import ModelError, SettingError, TaborError
from tabor.evidence import measure
from tabor.methods.tabor import Tabor
from tabor.solver import SolverSettings, solve
from tabor.trigger import Trigger

from .closed_form import CPU, classifier, dark_images, doorway

SHAPE = (3, 6, 6)
Output = Callable[[Tensor], Any]


class Answers(nn.Module):
    """Returns whatever the function makes of the images."""

    def __init__(self, answer: Output) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, images: Tensor) -> Any:
        return self.answer(images)


class Views(nn.Module):
    """A convolution flattened by `view`, as in many a tutorial; `early` flattens the images themselves."""

    def __init__(self, early: bool) -> None:
        super().__init__()
        self.first = nn.Identity() if early else nn.Conv2d(3, 3, 3, padding=1)
        self.last = nn.Linear(3 * 6 * 6, 4)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.last(self.first(images).view(len(images), -1))
        return logits


def convolutional() -> nn.Sequential:
    """Everything a scan could disturb: two modes, running statistics, frozen and free weights, hooks, in-place."""
    model = nn.Sequential(
        nn.ReLU(inplace=True),
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(4 * 8 * 8, 3),
    )
    model[2].eval()
    model[1].weight.requires_grad_(False)
    model[5].register_forward_hook(lambda *_: None)
    model[1].register_full_backward_hook(lambda *_: None)
    return model


def state(model: nn.Module) -> dict[str, Any]:
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return {
        "training": [module.training for module in model.modules()],
        "hooks": [
            (len(module._forward_hooks), len(module._forward_pre_hooks), len(module._backward_hooks))
            for module in model.modules()
        ],
        "tensors": [
            (name, t.requires_grad, t.grad, t.dtype, t.device, t.stride(), t.data_ptr(), t.tolist())
            for name, t in tensors
        ],
    }


def scan(model: nn.Module, shape: tuple[int, int, int] = (1, 8, 8)) -> None:
    images, reached = dark_images(), Classifier(model, CPU, shape)
    found = solve(reached, images, [1, 2], Tabor(), SolverSettings(steps=2, round_steps=1), seed=0)
    measure(reached, found[0].trigger, 1, images)


def test_the_callers_model_comes_back_unchanged() -> None:
    torch.manual_seed(0)
    model = convolutional()
    before, rng = state(model), torch.get_rng_state()
    scan(model)
    assert state(model) == before
    assert torch.equal(torch.get_rng_state(), rng)


@pytest.mark.parametrize(
    ("weight", "shape"),
    [
        pytest.param(torch.nan, (1, 8, 8), id="not a number"),
        pytest.param(0.0, (1, 9, 9), id="wrong size"),
        pytest.param(0.0, (3, 8, 8), id="wrong channels"),
    ],
)
def test_the_callers_model_comes_back_unchanged_after_an_error(weight: float, shape: tuple[int, int, int]) -> None:
    model = convolutional()
    nn.init.constant_(list(model.parameters())[-1], weight)
    before = repr(state(model))  # repr, as nan is not itself
    with pytest.raises(ModelError):
        scan(model, shape)
    assert repr(state(model)) == before


def test_a_layer_that_works_in_place_does_not_alter_the_images() -> None:
    model = classifier(nn.Sequential(nn.Threshold(0.5, 7.0, inplace=True), doorway()))
    images = dark_images().images
    before = images.clone()
    # All below 0.5 become 7, so class 2 has 10 · 7.
    assert model.logits(images)[0].tolist() == pytest.approx([2, -9, 70])
    assert model.predict(images)[0].tolist() == pytest.approx([2, -9, 70])
    assert torch.equal(images, before)


def test_the_copy_runs_in_evaluation_mode() -> None:
    model = classifier(nn.Sequential(doorway(), nn.Dropout(0.9)).train())
    images = dark_images().images
    assert torch.equal(model.logits(images), doorway()(images))


@pytest.mark.parametrize("early", [False, True], ids=["after a convolution", "of the images"])
def test_a_model_that_flattens_by_view_can_be_scanned(early: bool) -> None:
    model = Views(early)
    images = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(Classifier(model, CPU, SHAPE).logits(images), model(images))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        pytest.param(lambda x: x, r"\(N, classes\), for 2 images it returned \(2, 3, 6, 6\)", id="images"),
        pytest.param(lambda x: x.mean((1, 2, 3)), r"it returned \(2,\)", id="one number an image"),
        pytest.param(lambda x: x[:1].flatten(1), r"it returned \(1, 108\)", id="one row for two images"),
        pytest.param(lambda x: (x.flatten(1), x), "it returned tuple", id="tuple"),
        pytest.param(lambda x: {"logits": x}, "it returned dict", id="dict"),
        pytest.param(lambda x: None, "it returned NoneType", id="none"),
        pytest.param(lambda x: x.flatten(1)[:, :1], "has 1 class; a backdoor needs at least 2", id="1 class"),
        pytest.param(lambda x: x.flatten(1)[:, :0], "has 0 class", id="no class"),
        pytest.param(lambda x: x @ x.new_zeros(5, 5), r"fails on images of 3×6×6.*--size", id="raises"),
        pytest.param(lambda x: x.flatten(1) * torch.nan, "not finite", id="nan"),
        pytest.param(lambda x: x.flatten(1) / 0, "not finite", id="infinite"),
    ],
)
def test_refuses_what_is_no_classifier(answer: Output, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Classifier(Answers(answer), CPU, SHAPE)


def test_an_answer_that_turns_bad_later_is_refused_too() -> None:
    model = classifier(Answers(lambda x: (x - 0.5).flatten(1)[:, :3].log1p()))
    with pytest.raises(ModelError, match="not finite numbers"):
        model.logits(torch.full((1, 1, 8, 8), -0.5))


class Uncopyable(nn.Module):
    def __deepcopy__(self, memo: object) -> Uncopyable:
        raise TypeError("cannot pickle '_thread.lock' object")


def test_refuses_a_model_that_cannot_be_copied() -> None:
    with pytest.raises(ModelError, match="cannot be copied for the scan: cannot pickle"):
        Classifier(Uncopyable(), CPU, SHAPE)


def test_half_precision_is_computed_in_float32() -> None:
    half = doorway().half()
    assert half.weight.dtype == torch.float16
    model, images = classifier(half), dark_images().images
    logits = model.logits(images)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, doorway()(images))
    assert half.weight.dtype == torch.float16


class Whole(nn.Module):
    """Integer weights, as an exported quantised layer has them: logits (Σ x, 2·Σ x)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[1], [2]], dtype=torch.int8), requires_grad=False)
        self.register_buffer("scale", torch.tensor(3))

    def forward(self, images: Tensor) -> Tensor:
        assert self.weight.dtype == torch.int8
        return images.flatten(1).sum(1, keepdim=True) @ self.weight.to(images.dtype).T


def test_integer_weights_stay_integers() -> None:
    torch.testing.assert_close(classifier(Whole()).logits(torch.full((1, 1, 8, 8), 0.5)), torch.tensor([[32.0, 64.0]]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_logits_are_float32_whatever_the_model_returns(dtype: torch.dtype) -> None:
    model = classifier(Answers(lambda x: x.flatten(1)[:, :3].to(dtype)))
    assert model.num_classes == 3
    assert model.logits(torch.rand(2, 1, 8, 8)).dtype == torch.float32


def test_every_image_is_counted_once_and_batches_keep_their_order() -> None:
    seen: list[int] = []

    def brightness(images: Tensor) -> Tensor:
        seen.append(len(images))
        return images.flatten(1)[:, :2]

    model = classifier(Answers(brightness))
    assert model.image_passes == 0
    count = EVALUATION_BATCH + 3
    images = torch.arange(count).view(-1, 1, 1, 1).expand(-1, 1, 8, 8) / count
    assert torch.equal(model.predict(images), images.flatten(1)[:, :2])
    assert seen[1:] == [EVALUATION_BATCH, 3]  # the first call is the probe
    assert model.image_passes == count
    model.logits(images[:5])
    assert model.image_passes == count + 5


def test_gradients_flow_to_the_images_only_where_asked() -> None:
    model = classifier(doorway())
    images = dark_images().images.clone().requires_grad_()
    assert model.logits(images).requires_grad
    assert not model.predict(images).requires_grad
    model.logits(images)[:, 2].sum().backward()
    assert images.grad is not None
    assert images.grad[0, 0, -1, -1] == 2.5  # 10 · ¼
    assert images.grad[0, 0, 0, 0] == 0


def test_gradients_that_are_not_finite_are_told_of_as_such() -> None:
    with pytest.raises(ModelError, match="gradients of the model's outputs are not finite"):
        gradients(lambda m, p: (m - m).sqrt().sum((1, 2, 3)), torch.ones(1, 1, 2, 2), torch.ones(1, 3, 2, 2))


def test_gradients_of_a_quadratic_by_hand() -> None:
    # Class k: (k+1)·Σ m² + Σ m·p, so ∂m = 2(k+1)·m + Σ_c p and ∂p = m.
    mask = torch.tensor([[[[1.0, 2.0]]], [[[3.0, 4.0]]]])
    pattern = torch.tensor([[[[1.0, 0.0]], [[5.0, 2.0]]], [[[0.0, 0.0]], [[0.0, 1.0]]]])
    calls = []

    def losses(m: Tensor, p: Tensor) -> Tensor:
        calls.append(1)
        return torch.tensor([1.0, 2.0]) * m.square().sum((1, 2, 3)) + (m * p).sum((1, 2, 3))

    by_mask, by_pattern = gradients(losses, mask, pattern)
    assert by_mask.tolist() == [[[[2 + 6.0, 4 + 2.0]]], [[[12.0, 16 + 1.0]]]]
    assert by_pattern.tolist() == [[[[1.0, 2.0]], [[1.0, 2.0]]], [[[3.0, 4.0]], [[3.0, 4.0]]]]
    assert len(calls) == 1
    assert not mask.requires_grad
    assert not pattern.requires_grad


def test_choose_device() -> None:
    assert choose_device("cpu") == CPU
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["toaster", "", "cuda:99", "cpu:x", "a\nb", "meta"])
def test_refuses_a_device_that_is_not_here(name: str) -> None:
    with pytest.raises(SettingError, match="cannot use the device") as caught:
        choose_device(name)
    assert "\n" not in str(caught.value)


def test_errors_are_one_family() -> None:
    assert issubclass(ModelError, TaborError)
    assert issubclass(ModelError, ValueError)


def test_a_copy_is_private() -> None:
    model = doorway()
    reached, before = classifier(model), copy.deepcopy(model)
    nn.init.zeros_(model.weight)
    images = Trigger(torch.ones(1, 8, 8), torch.ones(1, 8, 8)).stamp(dark_images().images)
    assert torch.equal(reached.logits(images), before(images))
