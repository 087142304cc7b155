from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from tabor.errors import SettingError
from tabor.stability import Stability, StabilitySettings


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: StabilitySettings(tolerance=0.0), id="tolerance of 0"),
        pytest.param(lambda: StabilitySettings(tolerance=1.0), id="tolerance of 1"),
        pytest.param(lambda: StabilitySettings(memory=-0.1), id="negative memory"),
        pytest.param(lambda: StabilitySettings(memory=1.0), id="memory of 1"),
        pytest.param(lambda: StabilitySettings(rounds=0), id="no round"),
        pytest.param(lambda: StabilitySettings(tolerance=math.nan), id="nan"),
    ],
)
def test_refuses_a_stability_that_cannot_work(make: Callable[[], StabilitySettings]) -> None:
    with pytest.raises(SettingError, match="stability needs"):
        make()


def stable_rounds(settings: StabilitySettings, rounds: list[list[list[float]]]) -> list[list[bool]]:
    watch = Stability(settings)
    return [watch.update(torch.tensor(terms)).tolist() for terms in rounds]


def test_stable_after_as_many_still_rounds_as_asked() -> None:
    # One class, one term: changes of 0, 0, 50 %, 0, 0, 0.
    rounds = [[[value]] for value in (2.0, 2.0, 2.0, 4.0, 4.0, 4.0, 4.0)]
    settings = StabilitySettings(tolerance=0.1, memory=0.0, rounds=2)
    assert stable_rounds(settings, rounds) == [[False], [False], [True], [False], [False], [True], [True]]


def test_the_change_is_of_the_average_and_relative_to_the_sum_of_the_terms() -> None:
    # memory ½: averages (10, 10) → (11, 10): a change of 1 in 21, which is 0.0476.
    rounds = [[[10.0, 10.0]], [[12.0, 10.0]]]
    assert stable_rounds(StabilitySettings(tolerance=0.048, memory=0.5, rounds=1), rounds)[-1] == [True]
    assert stable_rounds(StabilitySettings(tolerance=0.047, memory=0.5, rounds=1), rounds)[-1] == [False]


def test_one_moving_term_is_enough_to_be_unstable() -> None:
    rounds = [[[1.0, 1.0], [1.0, 1.0]], [[1.0, 1.0], [1.0, 2.0]]]
    assert stable_rounds(StabilitySettings(tolerance=0.1, memory=0.0, rounds=1), rounds)[-1] == [True, False]


def test_the_term_that_changes_most_counts_and_not_all_of_them_together() -> None:
    rounds = [[[10.0, 10.0]], [[11.0, 11.0]]]  # by 1 in 22 each
    assert stable_rounds(StabilitySettings(tolerance=0.05, memory=0.0, rounds=1), rounds)[-1] == [True]


def test_terms_below_0_are_as_stable_as_those_above() -> None:
    assert stable_rounds(StabilitySettings(rounds=1), [[[-1.0, 1.0]], [[-1.0, 1.0]]])[-1] == [True]
    moving = [[[-1.0, 1.0]], [[-1.01, 1.0]]]
    assert stable_rounds(StabilitySettings(tolerance=0.01, memory=0.0, rounds=1), moving)[-1] == [True]


def test_terms_of_0_are_stable() -> None:
    assert stable_rounds(StabilitySettings(rounds=1), [[[0.0]], [[0.0]]])[-1] == [True]


def test_the_terms_given_are_not_altered() -> None:
    watch, terms = Stability(StabilitySettings()), torch.tensor([[1.0]])
    watch.update(terms)
    watch.update(torch.tensor([[5.0]]))
    assert terms.tolist() == [[1.0]]


def test_what_becomes_of_the_terms_later_does_not_matter() -> None:
    watch, terms = Stability(StabilitySettings(rounds=1)), torch.tensor([[1.0]])
    watch.update(terms)
    terms.fill_(5.0)
    assert watch.update(torch.tensor([[1.0]])).tolist() == [True]


def test_classes_that_stay_go_on_as_before() -> None:
    watch = Stability(StabilitySettings(tolerance=0.1, memory=0.0, rounds=2))
    watch.keep(torch.tensor([0]))  # nothing seen yet, nothing to forget
    watch.update(torch.tensor([[1.0], [2.0], [3.0]]))
    watch.update(torch.tensor([[9.0], [2.0], [3.0]]))
    watch.keep(torch.tensor([2, 0]))
    assert watch.update(torch.tensor([[3.0], [9.0]])).tolist() == [True, False]
