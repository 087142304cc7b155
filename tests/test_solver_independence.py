"""A class's search depends on the seed and the class, and on nothing that runs beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from tabor.access import Classifier
from tabor.data.images import ImageSet
from tabor.methods.base import Batch, Objective
from tabor.methods.neural_cleanse import NeuralCleanse
from tabor.methods.tabor import Tabor
from tabor.solver import Candidate, SolverSettings, solve
from tabor.stability import StabilitySettings

from .closed_form import classifier, row_images, rows

METHODS = [pytest.param(Tabor(), id="tabor"), pytest.param(NeuralCleanse(), id="neural-cleanse")]
CLASSES = range(5)


def search(
    method: Tabor | NeuralCleanse,
    targets: Sequence[int] = CLASSES,
    group_images: int = 256,
    seed: int = 0,
    on_class: Callable[[Candidate], None] | None = None,
) -> list[Candidate]:
    """Stability is easy and the classes are not equally so: they leave at different times, one without a trigger."""
    settings = SolverSettings(
        steps=60,
        batch_size=4,
        round_steps=5,
        smallest_steps=15,
        success=0.95,
        stability=StabilitySettings(tolerance=0.3, memory=0.0, rounds=1),
        group_images=group_images,
    )
    return solve(classifier(rows()), row_images(), targets, method, settings, seed, on_class=on_class)


def assert_same(got: Sequence[Candidate], expected: Sequence[Candidate], within: float = 1e-4) -> None:
    assert [(c.target, c.status, c.steps) for c in got] == [(c.target, c.status, c.steps) for c in expected]
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one.trigger.mask, other.trigger.mask, rtol=0, atol=within)
        torch.testing.assert_close(one.trigger.pattern, other.trigger.pattern, rtol=0, atol=within)


@pytest.mark.parametrize("method", METHODS)
def test_of_the_order_of_the_classes(method: Tabor | NeuralCleanse) -> None:
    order = [3, 0, 4, 1, 2]
    plain = search(method)
    assert len({candidate.steps for candidate in plain}) > 1  # else nobody left early, and this shows less
    assert_same(search(method, order), [plain[k] for k in order])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("target", CLASSES)
def test_of_the_classes_beside_it(method: Tabor | NeuralCleanse, target: int) -> None:
    assert_same(search(method, [target]), search(method)[target : target + 1])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("group_images", [1, 8], ids=["one a group", "two a group"])
def test_of_the_group(method: Tabor | NeuralCleanse, group_images: int) -> None:
    assert_same(search(method, group_images=group_images), search(method))


@pytest.mark.parametrize("method", METHODS)
def test_of_the_global_generator_which_stays_as_it_was(method: Tabor | NeuralCleanse) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = search(method)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert_same(search(method), first, within=0.0)


@pytest.mark.parametrize("seed", [1, -1, 2**40])
def test_another_seed_is_another_search(seed: int) -> None:
    plain, other = search(Tabor()), search(Tabor(), seed=seed)
    for one, two in zip(plain, other, strict=True):
        assert not torch.allclose(one.trigger.mask, two.trigger.mask, atol=1e-2)


def test_classes_start_from_different_noise_and_draw_in_different_orders() -> None:
    batches: list[Batch] = []

    class Recording(Tabor):
        def objective(self, model: Classifier, batch: Batch, *rest: Tensor) -> Objective:
            batches.append(batch)
            return super().objective(model, batch, *rest)

    images = ImageSet(row_images().images, torch.zeros(20).long(), ())  # no class has images to leave out
    settings = SolverSettings(steps=5, batch_size=4, round_steps=5, learning_rate=1e-6)
    found = solve(classifier(rows()), images, [1, 2], Recording(), settings, seed=0)
    assert not torch.allclose(found[0].trigger.mask, found[1].trigger.mask, atol=1e-2)
    assert not torch.allclose(found[0].trigger.pattern, found[1].trigger.pattern, atol=1e-2)
    drawn = torch.cat([batch.images for batch in batches], 1)
    assert not torch.equal(drawn[0], drawn[1])


def test_a_class_given_twice_is_found_twice() -> None:
    told: list[Candidate] = []
    search(Tabor(), [3, 3], on_class=told.append)
    one, two = told
    assert one is not two
    assert_same([one], [two], within=0.0)
