"""Each equation against its plain re-computation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tabor.evidence import Evidence, measure, smoothness
from tabor.methods.tabor import (
    ENDLESS,
    Tabor,
    elastic_net,
    outside,
    quality_paper,
    quality_robust,
    r1,
    r2,
    r3,
    r4,
    target_loss,
)
from tabor.trigger import Trigger, crop, isolate, stamp

from ..closed_form import classifier, dark_images, doorway
from . import equations


class Case(NamedTuple):
    images: Tensor  # (K, C, H, W)
    masks: Tensor  # (K, 1, H, W)
    patterns: Tensor  # (K, C, H, W)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Values in [0, 1], some of them exactly 0 or 1."""
    classes, channels, height, width = (draw(st.integers(1, most)) for most in (3, 3, 5, 5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))

    def values(depth: int) -> Tensor:
        drawn = torch.rand(classes, depth, height, width, generator=generator, dtype=torch.float64)
        return (1.6 * drawn - 0.3).clamp(0, 1)

    return Case(values(channels), values(1), values(channels))


each = settings(max_examples=25)


def assert_close(got: Tensor, expected: object) -> None:
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-12)


@each
@given(cases())
def test_views_of_an_image(case: Case) -> None:
    triples = list(zip(case.images.tolist(), case.masks.tolist(), case.patterns.tolist(), strict=True))
    assert_close(stamp(*case), [equations.stamp(x, m, p) for x, m, p in triples])
    assert_close(crop(case.images, case.masks), [equations.crop(x, m) for x, m, _ in triples])
    assert_close(isolate(case.masks, case.patterns), [equations.isolate(m, p) for _, m, p in triples])
    assert_close(outside(case.masks, case.patterns), [equations.outside(m, p) for _, m, p in triples])


@each
@given(cases())
def test_measures_of_size_and_scatter(case: Case) -> None:
    assert_close(elastic_net(case.patterns), [equations.elastic(p) for p in case.patterns.tolist()])
    assert_close(smoothness(case.patterns), [equations.smoothness(p) for p in case.patterns.tolist()])


@each
@given(cases(), st.floats(0, 10), st.floats(0, 10))
def test_r1_and_r2(case: Case, on_mask: float, on_pattern: float) -> None:
    pairs = [(m, equations.outside(m, p)) for m, p in zip(case.masks.tolist(), case.patterns.tolist(), strict=True)]
    assert_close(
        r1(case.masks, case.patterns, on_mask, on_pattern),
        [on_mask * equations.elastic(m) + on_pattern * equations.elastic(d) for m, d in pairs],
    )
    assert_close(
        r2(case.masks, case.patterns, on_mask, on_pattern),
        [on_mask * equations.smoothness(m) + on_pattern * equations.smoothness(d) for m, d in pairs],
    )


@each
@given(st.integers(1, 3), st.integers(1, 4), st.integers(2, 5), st.integers(0, 2**32))
def test_losses_are_means_over_the_images_of_a_class(classes: int, images: int, logits_: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 5 * torch.randn(classes, images, logits_, generator=generator, dtype=torch.float64)
    labels = torch.randint(logits_, (classes, images), generator=generator)
    targets = labels[:, 0]
    expected, aimed, alone = [], [], []
    for k in range(classes):
        of_class = logits[k].tolist()
        losses = [equations.cross_entropy(row, int(labels[k, b])) for b, row in enumerate(of_class)]
        expected.append(0.5 * sum(losses) / images)
        aimed.append(sum(equations.cross_entropy(row, int(targets[k])) for row in of_class) / images)
        alone.append(0.25 * equations.cross_entropy(of_class[0], int(targets[k])))
    assert_close(r3(logits, labels, 0.5), expected)
    assert_close(target_loss(logits, targets), aimed)
    assert_close(r4(logits[:, 0], targets, 0.25), alone)


def test_the_elastic_net_adds_the_norm_and_not_its_square() -> None:
    assert_close(elastic_net(torch.tensor([[[[3.0, -4.0]]]], dtype=torch.float64)), [3 + 4 + 5.0])


def test_smoothness_by_hand() -> None:
    # Right: (1−3)² + (4−8)²; down: (1−4)² + (3−8)².
    assert_close(smoothness(torch.tensor([[[[1.0, 3.0], [4.0, 8.0]]]], dtype=torch.float64)), [4 + 16 + 9 + 25.0])


@each
@given(cases(), st.floats(0, 1))
def test_r2_of_a_constant_mask_is_0(case: Case, value: float) -> None:
    constant = torch.full_like(case.masks, value)
    assert_close(r2(constant, case.patterns, 3.0, 0.0), [0.0] * len(constant))
    assert_close(r2(constant, torch.ones_like(case.patterns), 3.0, 2.0), [0.0] * len(constant))


@pytest.mark.parametrize("term", [r1, r2], ids=["r1", "r2"])
def test_a_term_of_weight_0_is_not_evaluated(term: Callable[[Tensor, Tensor, float, float], Tensor]) -> None:
    broken, whole = torch.full((2, 1, 3, 3), torch.nan), torch.full((2, 1, 3, 3), 0.5)
    assert term(broken, whole, 0.0, 0.0).tolist() == [0.0, 0.0]
    assert term(whole, broken, 1.0, 0.0).isfinite().all()
    assert term(whole, broken, 1.0, 1e-9).isnan().all()


@settings(max_examples=15)
@given(st.integers(3, 6), st.integers(0, 2**32))
def test_eq_8_of_a_measured_trigger(side: int, seed: int) -> None:
    """The last 2×2 pixels are lit, so attack and explanation reach class 2; one label of three is wrong."""
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.rand(1, side, side, generator=generator) > 0.6).float()
    pattern = torch.rand(1, side, side, generator=generator)
    mask[:, 0, 0] = 0
    mask[:, -2:, -2:] = pattern[:, -2:, -2:] = 1
    images = dark_images(3, side)
    images.labels[0] = 1
    evidence = measure(classifier(doorway(side), side=side), Trigger(mask, pattern), 2, images)
    expected = equations.quality(mask.tolist(), pattern.tolist(), 1.0, 2 / 3, 1.0)
    assert quality_paper(evidence) == pytest.approx(expected, abs=1e-12)
    assert Tabor(quality="paper").score(evidence) == quality_paper(evidence)


def evidence(
    *, shape_pixels: int = 4, shape_smoothness: float = 4.0, attacked: int = 3, cropped: int = 5, explained: int = 1
) -> Evidence:
    return Evidence(
        mask_l1=4.0,
        pixels=16,
        edges=12.0,
        mask_smoothness=4.0,
        shape_pixels=shape_pixels,
        shape_smoothness=shape_smoothness,
        attacked=attacked,
        attacked_of=4,
        cropped_right=cropped,
        cropped_of=10,
        explained=explained,
        explained_of=1,
    )


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        # log(4/16) + log(4/12) − log(3/4) − log(5/10) − log(1)
        pytest.param(evidence(), math.log(1 / 4 * 1 / 3 / (3 / 4) / (1 / 2)), id="by hand"),
        pytest.param(evidence(attacked=0), ENDLESS, id="never attacks"),
        pytest.param(evidence(cropped=0), ENDLESS, id="never right when cropped"),
        pytest.param(evidence(explained=0), ENDLESS, id="not its own explanation"),
        pytest.param(evidence(shape_pixels=0, shape_smoothness=0), -ENDLESS, id="empty shape"),
        pytest.param(evidence(shape_pixels=16, shape_smoothness=0), -ENDLESS, id="covers the image"),
        pytest.param(evidence(shape_pixels=0, attacked=0), ENDLESS, id="empty and never attacks"),
    ],
)
def test_eq_8_and_its_edges(given_: Evidence, expected: float) -> None:
    assert quality_paper(given_) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        # Chances 4/6, 6/12 and 2/3 by Laplace; size 4/16, smoothness 4/12; the odds of 6/12 are 1.
        pytest.param(evidence(), math.log(1 / 4 * 1 / 3 / (2 / 3) / (2 / 3) / 1), id="by hand"),
        pytest.param(evidence(cropped=8), math.log(1 / 12 / (4 / 9) / 3), id="hides little: odds of 9 to 3"),
        pytest.param(evidence(explained=0), math.log(1 / 12 / (2 / 3 * 1 / 3)), id="not its own explanation"),
        pytest.param(evidence(attacked=0), math.log(1 / 12 / (1 / 6 * 2 / 3)), id="never attacks"),
    ],
)
def test_the_robust_quality(given_: Evidence, expected: float) -> None:
    assert quality_robust(given_) == pytest.approx(expected, abs=1e-12)
    assert Tabor().score(given_) == quality_robust(given_)


@given(st.builds(evidence, attacked=st.integers(0, 3), cropped=st.integers(0, 9), explained=st.just(0)))
def test_the_robust_quality_is_finite_and_grades(given_: Evidence) -> None:
    """Anything that speaks for a planted trigger lowers it: smaller, smoother, more effective, hiding less."""
    better = [
        dataclasses.replace(given_, mask_l1=0.0),
        dataclasses.replace(given_, mask_smoothness=0.0),
        dataclasses.replace(given_, attacked=4),
        dataclasses.replace(given_, cropped_right=10),
        dataclasses.replace(given_, explained=1),
    ]
    scores = [quality_robust(one) for one in better]
    assert all(map(math.isfinite, scores))
    assert max(scores) < quality_robust(given_)
