"""The weights' schedules against their plain re-computation, class by class."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tabor.errors import SettingError
from tabor.methods.neural_cleanse import Cost, CostSettings, NeuralCleanse
from tabor.methods.tabor import Tabor
from tabor.schedule import AugmentationSettings

from ..closed_form import CPU
from . import equations

# One row a round, one column a class; eighths are exact in float32.
histories = st.integers(1, 4).flatmap(
    lambda classes: st.lists(
        st.lists(st.integers(0, 8).map(lambda n: n / 8), min_size=classes, max_size=classes), min_size=1, max_size=25
    )
)


@settings(max_examples=40)
@given(
    histories,
    st.sampled_from([0.5, 0.75, 1.0]),
    st.sampled_from([1.5, 2.0]),
    st.sampled_from([(12 * 12, 0.2), (32 * 32, 0.2), (64 * 64, 0.05), (32 * 128, 0.05), (224 * 224, 0.2 / 49)]),
)
def test_augmentation(history: list[list[float]], phi: float, step: float, least: tuple[int, float]) -> None:
    method = Tabor(augmentation=AugmentationSettings(initial=0.5, step=step, success=phi, smallest=0.2, largest=20.0))
    pixels, smallest = least
    schedule = method.schedule(len(history[0]), pixels, CPU)
    assert schedule.weight.tolist() == [0.5] * len(history[0])
    columns = zip(*history, strict=True)
    expected = [equations.augmented(0.5, list(column), phi, step, smallest, 20.0) for column in columns]
    for k, successes in enumerate(history):
        schedule.update(torch.tensor(successes))
        assert schedule.weight.tolist() == pytest.approx([column[k] for column in expected], rel=1e-5)


@settings(max_examples=40)
@given(histories, st.integers(1, 3), st.sampled_from([0.5, 0.75, 1.0]))
def test_neural_cleanse(history: list[list[float]], patience: int, threshold: float) -> None:
    cost = CostSettings(initial=0.01, up=3.0, down=5.0, patience=patience, success=threshold)
    schedule = NeuralCleanse(cost=cost).schedule(len(history[0]), 1024, CPU)
    assert schedule.weight.tolist() == [0.0] * len(history[0])
    expected = [
        equations.cleanse_costs(list(column), threshold=threshold, initial=0.01, up=3.0, down=5.0, patience=patience)
        for column in zip(*history, strict=True)
    ]
    for k, successes in enumerate(history):
        schedule.update(torch.tensor(successes))
        assert schedule.weight.tolist() == pytest.approx([column[k] for column in expected], rel=1e-4)


def test_neural_cleanse_by_hand() -> None:
    cost = Cost(CostSettings(initial=1.0, up=2.0, down=4.0, patience=2), 1, CPU)
    weights = []
    for success in (1, 0, 1, 1, 1, 1, 0, 1, 0, 0, 0, 0, 0):
        cost.update(torch.tensor([float(success)]))
        weights.append(float(cost.weight))
    assert weights == [0, 0, 0, 1, 1, 2, 2, 2, 2, 0.5, 0.5, 0.125, 0.125]


@pytest.mark.parametrize("method", [Tabor(), NeuralCleanse()], ids=["tabor", "neural-cleanse"])
def test_classes_that_stay_go_on_as_before(method: Tabor | NeuralCleanse) -> None:
    together, alone = method.schedule(3, 1024, CPU), method.schedule(1, 1024, CPU)
    history = torch.tensor([[0.0, 1, 1], [1, 0, 1], [1, 0, 1], [0, 1, 1], [0, 1, 1], [1, 0, 1]])
    for k, successes in enumerate(history):
        if k == 3:
            together.keep(torch.tensor([2, 0]))
        together.update(successes if k < 3 else successes[[2, 0]])
        alone.update(successes[:1])
    assert len(together.weight) == 2
    assert together.weight[1] == alone.weight[0] != together.weight[0]


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: CostSettings(up=1.0), id="up"),
        pytest.param(lambda: CostSettings(down=0.5), id="down"),
        pytest.param(lambda: CostSettings(success=0.0), id="success of 0"),
        pytest.param(lambda: CostSettings(success=1.5), id="success above 1"),
        pytest.param(lambda: CostSettings(initial=0.0), id="initial"),
        pytest.param(lambda: CostSettings(patience=0), id="patience"),
        pytest.param(lambda: CostSettings(initial=math.nan), id="nan"),
    ],
)
def test_refuses_a_weight_that_cannot_move(make: Callable[[], CostSettings]) -> None:
    with pytest.raises(SettingError, match="weight schedule"):
        make()
