"""The robust estimates of a spread; the anomaly index by hand stands in test_verdict and test_screening."""

from __future__ import annotations

from itertools import combinations
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabor.anomaly import QN_OF_FEW, SPREADS, anomaly_indices, mad, qn
from tabor.errors import SettingError
from tabor.methods.neural_cleanse import NeuralCleanse
from tabor.methods.tabor import Tabor
from tabor.presets import choose
from tabor.verdict import OutlierSettings

from .class_facts import decide_on


def plain_qn(values: list[float]) -> float:
    """As it is printed: the k-th smallest distance of all pairs, k = (h over 2), h = [n/2] + 1."""
    count = len(values)
    half = count // 2 + 1
    distances = sorted(abs(one - other) for one, other in combinations(values, 2))
    kth = distances[half * (half - 1) // 2 - 1]
    if count in QN_OF_FEW:
        return 2.2191 * QN_OF_FEW[count] * kth
    return 2.2191 * kth * count / (count + (1.4 if count % 2 else 3.8))


@given(st.lists(st.integers(-99, 99).map(float), min_size=2, max_size=30))
def test_qn_against_its_definition(values: list[float]) -> None:
    assert qn(np.array(values)) == pytest.approx(plain_qn(values))


def test_by_hand() -> None:
    five = np.array([0.0, 1.0, 3.0, 6.0, 100.0])  # distances 1 2 3 3 5 6 …, the third; from the median 0 2 3 3 97
    assert qn(five) == pytest.approx(2.2191 * 0.844 * 3)
    assert mad(five) == pytest.approx(1.4826 * 3)


@pytest.mark.parametrize("name", SPREADS)
def test_what_is_alone_or_alike_has_no_spread(name: str) -> None:
    for values in ([], [4.0], [4.0] * 9):
        assert SPREADS[name](np.array(values)) == 0


def test_the_factors_are_those_of_normal_values() -> None:
    normal = NormalDist()
    assert 1 / normal.inv_cdf(0.75) == pytest.approx(1.4826, abs=1e-4)
    assert 1 / (2**0.5 * normal.inv_cdf(0.625)) == pytest.approx(2.2191, abs=1e-4)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 16, 43])
def test_qn_of_normal_values_is_their_deviation_on_average(count: int) -> None:
    drawn = np.random.default_rng(count).normal(3.0, 2.0, (4000, count))
    assert np.mean([qn(values) for values in drawn]) == pytest.approx(2.0, rel=0.04)


@pytest.mark.parametrize("count", [10, 16, 43])
def test_qn_is_less_noisy_than_the_mad(count: int) -> None:
    drawn = np.random.default_rng(count).normal(size=(4000, count))
    found = [[estimate(values) for values in drawn] for estimate in (qn, mad)]
    noise = [np.std(each) / np.mean(each) for each in found]
    assert noise[0] < 0.9 * noise[1]


@pytest.mark.parametrize("count", [10, 11, 43])
def test_fewer_than_half_of_the_values_cannot_spoil_it(count: int) -> None:
    values = np.random.default_rng(0).normal(size=count)
    values[: (count - 1) // 2] -= 1e6
    assert qn(values) < 20


@pytest.mark.parametrize(("classes", "most"), [(10, 0.05), (43, 0.03)])
def test_false_alarms_where_the_spread_is_estimated(classes: int, most: float) -> None:
    """Four and two times as often as promised; by the MAD eleven and five times."""
    scores = np.random.default_rng(5).normal(size=(3000, classes))
    settings = [OutlierSettings(false_alarm_rate=0.01, spread=name) for name in ("qn", "mad")]
    alarms = [np.mean([bool(decide_on(list(row), each).targets) for row in scores]) for each in settings]
    assert 0.01 < alarms[0] < most
    assert alarms[1] > 2 * alarms[0]


def test_few_scores_are_held_against_the_others_by_either() -> None:
    indices = anomaly_indices([1.0, 10.0, 12.0, 14.0], 0.0, estimate=qn)
    others = np.array([10.0, 12.0, 14.0])
    assert indices[0] == pytest.approx(11 / (qn(others) * (1 + np.pi / 6) ** 0.5))


def test_tabor_takes_qn_and_what_is_as_printed_the_mad() -> None:
    assert Tabor().outliers.spread == "qn"
    assert NeuralCleanse().outliers.spread == "mad"
    for method in ("tabor", "neural-cleanse"):
        assert choose(method, "paper", 64)[0].outliers.spread == "mad"


def test_an_unknown_estimate_is_refused() -> None:
    with pytest.raises(SettingError, match="unknown estimate of the spread iqr; use mad or qn"):
        OutlierSettings(spread="iqr")
