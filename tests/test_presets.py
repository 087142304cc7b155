from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tabor.errors import SettingError
from tabor.methods.neural_cleanse import CostSettings, NeuralCleanse
from tabor.methods.tabor import Tabor
from tabor.presets import METHODS, PRESETS, choose
from tabor.solver import SolverSettings
from tabor.verdict import OutlierSettings


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", METHODS)
def test_each_name_gives_the_method_of_that_name(name: str, preset: str) -> None:
    method, solver = choose(name, preset, images=100)
    assert (method.name, type(method)) == (name, METHODS[name])
    assert solver.batch_size <= 100


def test_masks_alone_are_tested_at_the_whole_rate() -> None:
    both, alone = Tabor(), Tabor(restoring=None)
    assert both.outliers.patches is not None
    assert alone.outliers == dataclasses.replace(both.outliers, patches=None)
    assert alone.outliers.threshold_for(43) < both.outliers.threshold_for(43)


@pytest.mark.parametrize("name", METHODS)
def test_thorough_is_the_defaults(name: str) -> None:
    assert choose(name, "thorough", images=100) == (METHODS[name](), SolverSettings())


@pytest.mark.parametrize("name", METHODS)
def test_fast_takes_less_and_is_the_same_otherwise(name: str) -> None:
    method, solver = choose(name, "fast", images=100)
    standard_method, standard = choose(name, "standard", images=100)
    assert method == standard_method
    assert solver.steps < standard.steps < SolverSettings().steps
    assert solver.smallest_steps < standard.smallest_steps < SolverSettings().smallest_steps
    if name == "neural-cleanse":
        assert solver.screening is standard.screening is None
    else:
        assert solver.screening is not None
        assert standard.screening is not None
        assert solver.screening.closest < standard.screening.closest
        assert solver.screening.others < standard.screening.others
    for shorter in (solver, standard):
        rest = dataclasses.replace(shorter, steps=1, smallest_steps=1, screening=None)
        assert rest == SolverSettings(steps=1, smallest_steps=1)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", METHODS)
def test_a_method_with_settings_of_its_own_is_solved_like_the_one_of_its_name(name: str, preset: str) -> None:
    own = Tabor(crop_share=0.5) if name == "tabor" else NeuralCleanse(cost=CostSettings(initial=0.1))
    method, solver = choose(own, preset, images=100)
    assert method is own
    assert solver == choose(name, preset, images=100)[1]


def test_paper_is_table_3() -> None:
    method, _ = choose("tabor", "paper", images=100)
    assert isinstance(method, Tabor)
    # λ2 by 255 and λ4 by 255², as our patterns lie in [0, 1] and not in 0…255.
    assert dataclasses.astuple(method.lambdas) == pytest.approx((1e-6, 2.55e-3, 1e-7, 6.5025e-4, 1e-6, 1e-2))
    assert (method.quality, method.crop_share, method.mask_dropout, method.image_shift) == ("paper", 1.0, 0.0, 0.0)
    assert method.outliers == OutlierSettings(threshold=2.0)
    assert method.schedule(2, 1024, torch.device("cpu")).weight.tolist() == pytest.approx([1.0, 1.0])


def test_paper_of_the_baseline_has_the_constants_of_its_public_code() -> None:
    method, solver = choose("neural-cleanse", "paper", images=100)
    assert method == NeuralCleanse(cost=CostSettings(initial=1e-3, up=2.0, down=2.0**1.5, patience=5, success=0.99))
    assert (solver.batch_size, solver.learning_rate, solver.betas, solver.success) == (32, 0.2, (0.5, 0.9), 0.99)
    assert not solver.clipped


@pytest.mark.parametrize(
    ("images", "batch", "epoch"),
    [
        pytest.param(320, 32, 10, id="whole batches"),
        pytest.param(321, 32, 11, id="one image over"),
        pytest.param(20, 20, 1, id="less than a batch"),
        pytest.param(1, 1, 1, id="one image"),
    ],
)
def test_paper_runs_500_epochs(images: int, batch: int, epoch: int) -> None:
    _, solver = choose("tabor", "paper", images)
    assert (solver.batch_size, solver.round_steps, solver.steps) == (batch, epoch, 500 * epoch)
    assert (solver.learning_rate, solver.betas, solver.clipped) == (1e-3, (0.9, 0.999), True)
    assert solver.smallest_steps <= solver.steps


@pytest.mark.parametrize(
    ("method", "preset", "message"),
    [
        pytest.param("tabour", "fast", "unknown method tabour; use tabor or neural-cleanse", id="method"),
        pytest.param("tabor", "slow", "unknown preset slow; use fast, standard, thorough, paper", id="preset"),
        pytest.param("tabour", "paper", "unknown method tabour", id="method with paper"),
        pytest.param("a\nb", "fast", r"unknown method a\\nb;", id="two lines"),
        pytest.param("tabor", "", "unknown preset ;", id="empty"),
    ],
)
def test_refuses_an_unknown_name(method: str, preset: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        choose(method, preset, images=100)


@pytest.mark.parametrize("make", [Tabor, NeuralCleanse], ids=["tabor", "neural-cleanse"])
def test_a_method_describes_every_setting_as_plain_values(make: Callable[[], Tabor | NeuralCleanse]) -> None:
    method = make()
    described: dict[str, Any] = method.describe()
    assert set(described) == {field.name for field in dataclasses.fields(method)}
    assert described["outliers"] == dataclasses.asdict(method.outliers)
