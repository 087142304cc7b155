"""How far a patch stands out from what other classes make of its window, on a network whose answers are known."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tabor.access import Classifier
from tabor.colours import random_colours
from tabor.contrast import SPREAD, compared, patch_index, standing_out
from tabor.data import ImageSet
from tabor.ground import Ground
from tabor.patches import Patch, RestoreSettings
from tabor.restore import PatchSearch
from tabor.windows import Window

WINDOW = Window(5, 5, 8, 8)
SETTINGS = RestoreSettings(price=1.0, cropped=24)
CLASSES = 6


class Ladder(nn.Module):
    """Class k for images whose first row is as bright as k; besides, each class answers to white in the window."""

    def __init__(self, answers: list[float]) -> None:
        super().__init__()
        self.answers = nn.Parameter(torch.tensor(answers))

    def forward(self, images: Tensor) -> Tensor:
        bright = images[:, 0, 0].mean(1, keepdim=True) * (CLASSES - 1)
        white = images[:, 0, 5:8, 5:8].mean((1, 2))[:, None]
        return -((bright - torch.arange(CLASSES)) ** 2) + self.answers * white


def ground(answers: list[float]) -> Ground:
    generator = torch.Generator().manual_seed(0)
    images = 0.2 * torch.rand(24, 1, 8, 8, generator=generator)
    labels = torch.arange(24) % CLASSES
    images[:, 0, 0] = labels[:, None] / (CLASSES - 1)
    images[:, 0, 5:8, 5:8] = 0
    classifier = Classifier(Ladder(answers), torch.device("cpu"), (1, 8, 8))
    return Ground(classifier, ImageSet(images, labels, tuple("abcdef")), SETTINGS)


@pytest.mark.parametrize("target", [0, 3])
def test_the_index_is_that_of_the_leads_searched_one_by_one(target: int) -> None:
    here = ground([0.0, 5.0, 0.0, 40.0, 0.0, 9.0])
    patch = PatchSearch(here, target, SETTINGS.grid, 7).judge([WINDOW])[0]
    others = [k for k in range(CLASSES) if k != target]
    leads = [PatchSearch(here, k, SETTINGS.grid, 7).judge([WINDOW])[0].worth for k in others]
    middle = median(leads)
    spread = 1.4826 * median(abs(lead - middle) for lead in leads)
    rival = sorted(leads)[-2] if max(leads) > 1 else max(leads)
    slow = (patch.worth - rival) / max(spread, SPREAD)
    assert patch_index(here, patch, target, others, 7) == pytest.approx(slow, abs=1e-4)


def test_other_classes_begin_with_as_many_random_colours_as_the_patch(monkeypatch: pytest.MonkeyPatch) -> None:
    here, patch, begun = ground([0.0] * CLASSES), Patch(WINDOW, torch.ones(1, 8, 8), 1.0), list[Tensor]()

    def seek(_: Ground, windows: Sequence[Window], __: Sequence[int], begin: Tensor, steps: int) -> list[Patch]:
        assert steps == SETTINGS.steps
        begun.append(begin)
        return [patch] * len(windows)

    monkeypatch.setattr("tabor.contrast.seek", seek)
    patch_index(here, patch, 3, [0, 1], 7)
    assert torch.equal(begun[0], random_colours(here, 8, torch.Generator().manual_seed(7)))


def test_what_one_class_answers_to_stands_out_and_what_all_answer_to_does_not() -> None:
    planted, natural = ground([0.0, 0.0, 0.0, 40.0, 0.0, 0.0]), ground([40.0, 39.0, 38.0, 40.0, 41.0, 42.0])
    others = compared(3, CLASSES, 16, 0)
    indices = [
        patch_index(g, PatchSearch(g, 3, SETTINGS.grid, 0).judge([WINDOW])[0], 3, others, 0) for g in (planted, natural)
    ]
    assert indices[0] > 8
    assert indices[1] < 4


@pytest.mark.parametrize(
    ("lead", "others", "index"),
    [
        pytest.param(3.0, [0.5, 0.0, 0.0, 0.0, 0.0], 2.5 / SPREAD, id="the deviation is not less than the floor"),
        pytest.param(3.0, [1.0, 0.0, -1.0, -2.0, 1.0], 2.0 / 1.4826, id="above the highest of the others"),
        pytest.param(3.0, [2.5, 0.0, -1.0, 1.0, 0.5], 2.0 / (1.4826 * 0.5), id="the highest may be planted as well"),
        pytest.param(3.0, [2.5, 2.4, -1.0, 1.0, 0.5], 0.6 / (1.4826 * 1.4), id="but not two others"),
        pytest.param(3.0, [2.5], 0.5 / SPREAD, id="one other class"),
    ],
)
def test_a_lead_is_held_against_the_highest_other_one(lead: float, others: list[float], index: float) -> None:
    assert standing_out(lead, others) == pytest.approx(index)
    assert standing_out(lead, others[::-1]) == pytest.approx(index)


@pytest.mark.parametrize("law", ["exponential", "gumbel", "normal"])
def test_the_index_of_natural_leads_does_not_grow_with_the_number_of_classes(law: str) -> None:
    draws = np.random.default_rng(0)

    def once_in_a_hundred(classes: int) -> float:
        leads = np.sort(getattr(draws, law)(size=(1000, classes)), axis=1)
        return float(np.quantile([standing_out(row[-1], row[:-1]) for row in leads], 0.99))

    assert once_in_a_hundred(200) < 1.1 * once_in_a_hundred(43)


def test_the_second_of_two_backdoors_in_one_place_stands_out_too() -> None:
    leads = [4.0, 3.5, *(0.1 * k for k in range(9))]
    assert standing_out(4.0, leads[1:]) > 7
    assert standing_out(3.5, [leads[0], *leads[2:]]) > 7


def test_a_few_of_the_other_classes_are_drawn_by_lot() -> None:
    drawn = compared(5, 43, 16, 0)
    assert len(set(drawn)) == 16
    assert 5 not in drawn
    assert drawn == compared(5, 43, 16, 0) != compared(5, 43, 16, 1)
    assert compared(1, 4, 16, 0) == [0, 2, 3]
