"""The complete objective (Eq. 10 and 11): its values, its gradient, and the work it saves where a λ is 0."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tabor.access import Classifier
from tabor.errors import SettingError
from tabor.methods.base import Batch
from tabor.methods.neural_cleanse import NeuralCleanse
from tabor.methods.tabor import Lambdas, Tabor

from . import equations

LOGITS = 4
ALL_ON = Lambdas(
    mask_size=0.3, pattern_size=0.2, mask_smoothness=0.5, pattern_smoothness=0.4, crop=0.7, explanation=0.6
)
ALL_OFF = Lambdas(mask_size=0, pattern_size=0, mask_smoothness=0, pattern_smoothness=0, crop=0, explanation=0)


class Smooth:
    """Logit k = Σ_p cos(k·P + p)·tanh(2·pixel p), in float64, which `Classifier` would turn into float32."""

    def __init__(self, pixels: int) -> None:
        self.weight = [[math.cos(k * pixels + p) for p in range(pixels)] for k in range(LOGITS)]
        self.image_passes = 0

    def logits(self, images: Tensor) -> Tensor:
        self.image_passes += len(images)
        return (2 * images.flatten(1)).tanh() @ torch.tensor(self.weight, dtype=images.dtype).T

    def by_hand(self, image: equations.Image) -> list[float]:
        pixels = [value for channel in image for row in channel for value in row]
        return [sum(w * math.tanh(2 * x) for w, x in zip(row, pixels, strict=True)) for row in self.weight]


def problem(
    classes: int, images: int, shape: tuple[int, int, int], kept: bool, seed: int = 0
) -> tuple[Smooth, Batch, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def uniform(*sizes: int) -> Tensor:
        return torch.rand(sizes, generator=generator, dtype=torch.float64)

    batch = Batch(
        uniform(classes, images, *shape),
        torch.randint(LOGITS, (classes, images), generator=generator),
        torch.randint(LOGITS, (classes,), generator=generator),
        uniform(images, 1, *shape[1:]) > 0.4 if kept else None,
    )
    mask = 0.1 + 0.8 * uniform(classes, 1, *shape[1:])
    pattern = 0.1 + 0.8 * uniform(classes, *shape)
    return Smooth(math.prod(shape)), batch, mask, pattern, 0.5 + uniform(classes)


@settings(max_examples=40)
@given(
    classes=st.integers(1, 3),
    images=st.integers(1, 5),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)),
    kept=st.booleans(),
    share=st.sampled_from([0.25, 0.5, 1.0]),
    on=st.tuples(*[st.booleans()] * 6),
    seed=st.integers(0, 2**32),
)
def test_eq_10_and_11(
    classes: int,
    images: int,
    shape: tuple[int, int, int],
    kept: bool,
    share: float,
    on: tuple[bool, ...],
    seed: int,
) -> None:
    model, batch, mask, pattern, weight = problem(classes, images, shape, kept, seed)
    lambdas = [value if switch else 0.0 for value, switch in zip(dataclasses.astuple(ALL_ON), on, strict=True)]
    method = Tabor(lambdas=Lambdas(**dict(zip(dataclasses.asdict(ALL_ON), lambdas, strict=True))), crop_share=share)
    got = method.objective(cast(Classifier, model), batch, mask, pattern, weight)
    cropped = max(1, round(share * images))
    for k in range(classes):
        target, m, p = int(batch.targets[k]), mask[k].tolist(), pattern[k].tolist()
        views = batch.images[k].tolist()
        keeps = None if batch.kept is None else batch.kept.double().tolist()
        loss, success = equations.attack(model.by_hand, views, target, m, p, keeps)
        terms = equations.regularisers(
            model.by_hand, views[:cropped], batch.labels[k, :cropped].tolist(), target, m, p, lambdas
        )
        assert float(got.loss[k]) == pytest.approx(loss + float(weight[k]) * sum(terms), rel=1e-10)
        assert float(got.success[k]) == pytest.approx(success)
        evaluated = terms[:2] + [term for term, switch in zip(terms[2:], on[4:], strict=True) if switch]
        assert got.terms[k].tolist() == pytest.approx(evaluated, rel=1e-10, abs=1e-14)


@settings(max_examples=15)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(0, 2**32))
def test_neural_cleanse(classes: int, images: int, seed: int) -> None:
    model, batch, mask, pattern, weight = problem(classes, images, (2, 3, 4), kept=False, seed=seed)
    got = NeuralCleanse().objective(cast(Classifier, model), batch, mask, pattern, weight)
    for k in range(classes):
        m, p = mask[k].tolist(), pattern[k].tolist()
        size = sum(sum(row) for row in m[0])
        loss, success = equations.attack(model.by_hand, batch.images[k].tolist(), int(batch.targets[k]), m, p, None)
        assert float(got.loss[k]) == pytest.approx(loss + float(weight[k]) * size, rel=1e-10)
        assert float(got.success[k]) == pytest.approx(success)
        assert got.terms[k].tolist() == pytest.approx([size])


@pytest.mark.parametrize("kept", [False, True], ids=["whole masks", "kept masks"])
@pytest.mark.parametrize(
    "method",
    [
        pytest.param(Tabor(lambdas=ALL_ON, crop_share=0.5), id="tabor"),
        pytest.param(Tabor(lambdas=ALL_ON, crop_share=1.0), id="tabor, crop all"),
        pytest.param(NeuralCleanse(), id="neural-cleanse"),
    ],
)
def test_gradient(method: Tabor | NeuralCleanse, kept: bool) -> None:
    model, batch, mask, pattern, weight = problem(2, 3, (2, 3, 3), kept)

    def loss(mask: Tensor, pattern: Tensor) -> Tensor:
        return method.objective(cast(Classifier, model), batch, mask, pattern, weight).loss

    assert torch.autograd.gradcheck(loss, (mask.requires_grad_(), pattern.requires_grad_()))


def test_success_and_terms_carry_no_gradient() -> None:
    model, batch, mask, pattern, weight = problem(2, 3, (1, 3, 3), kept=False)
    at = Tabor(lambdas=ALL_ON).objective(cast(Classifier, model), batch, mask.requires_grad_(), pattern, weight)
    assert at.loss.requires_grad
    assert not at.success.requires_grad
    assert not at.terms.requires_grad


K, B = 3, 8


@pytest.mark.parametrize(
    ("lambdas", "share", "passes"),
    [
        pytest.param(ALL_OFF, 0.5, K * B, id="neither view"),
        pytest.param(dataclasses.replace(ALL_ON, crop=0, explanation=0), 0.5, K * B, id="R1 and R2 cost no pass"),
        pytest.param(dataclasses.replace(ALL_OFF, crop=1), 0.5, K * B + K * 4, id="half of the crops"),
        pytest.param(dataclasses.replace(ALL_OFF, crop=1), 0.01, K * B + K, id="at least one crop"),
        pytest.param(dataclasses.replace(ALL_OFF, explanation=1), 0.5, K * B + K, id="explanation"),
        pytest.param(ALL_ON, 1.0, K * B + K * B + K, id="all"),
    ],
)
def test_views_of_weight_0_do_not_go_through_the_network(lambdas: Lambdas, share: float, passes: int) -> None:
    model, batch, mask, pattern, weight = problem(K, B, (1, 3, 3), kept=False)
    Tabor(lambdas=lambdas, crop_share=share).objective(cast(Classifier, model), batch, mask, pattern, weight)
    assert model.image_passes == passes


def test_the_weight_scales_the_regularisers_and_not_the_terms() -> None:
    model, batch, mask, pattern, _ = problem(1, 3, (1, 3, 3), kept=False)

    def at(weight: float) -> tuple[float, list[float]]:
        got = Tabor(lambdas=ALL_ON).objective(
            cast(Classifier, model), batch, mask, pattern, torch.tensor([weight], dtype=torch.float64)
        )
        return float(got.loss), got.terms[0].tolist()

    (plain, terms), (once, same), (thrice, _) = at(0), at(1), at(3)
    assert terms == same
    assert once - plain == pytest.approx(sum(terms))
    assert thrice - plain == pytest.approx(3 * sum(terms))


@pytest.mark.parametrize("value", [-1e-9, math.nan, math.inf], ids=str)
@pytest.mark.parametrize("name", dataclasses.asdict(ALL_ON))
def test_refuses_a_lambda_that_is_no_weight(name: str, value: float) -> None:
    with pytest.raises(SettingError, match="λ"):
        Lambdas(**{name: value})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda: Tabor(crop_share=0.0), "crop_share", id="no crop"),
        pytest.param(lambda: Tabor(crop_share=1.1), "crop_share", id="more crops than images"),
        pytest.param(lambda: Tabor(mask_dropout=-0.1), "mask_dropout", id="negative dropout"),
        pytest.param(lambda: Tabor(mask_dropout=1.0), "mask_dropout", id="all dropped"),
        pytest.param(lambda: Tabor(image_shift=-0.1), "image_shift", id="negative shift"),
        pytest.param(lambda: Tabor(image_shift=1.0), "image_shift", id="moved out of sight"),
        pytest.param(lambda: Tabor(quality=cast(Any, "best")), "'robust' or 'paper', got 'best'", id="quality"),
    ],
)
def test_refuses_settings_out_of_range(make: Callable[[], Tabor], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        make()
