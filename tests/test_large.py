"""Large triggers that are told by how foreign they are, on a network that answers to looks and to a planted picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tabor import large
from tabor.access import Classifier
from tabor.contrast import standing_out
from tabor.data import ImageSet
from tabor.ground import Ground
from tabor.large import EDGE, GRID, SPREAD, _Tried, large_suspects
from tabor.likeness import Looks
from tabor.patches import Patch, RestoreSettings
from tabor.scene import Scene
from tabor.suspect import OWED
from tabor.suspects import restore_suspects
from tabor.windows import Window

from .closed_form import CPU
from .test_restore import standing

SIDE, COUNT, NOISES = 60, 72, 40
SETTINGS = RestoreSettings(judged=16, cropped=16, surveyed=4, by_worth=0, by_score=0)
CORNER = Window(35, 35, 60, 60)
"""Where `EDGE` of the images' edge is cut off at the lower right."""


def _fixed(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _blocks(seed: int) -> Tensor:
    """A picture of black and white blocks of five pixels all over the image."""
    return _fixed(12, 12, seed=seed).sign().repeat_interleave(5, 0).repeat_interleave(5, 1)


LOOKS = torch.stack([_blocks(1), _blocks(2), _blocks(3)])
PICTURE = _blocks(4) * CORNER.mask(SIDE, SIDE)[0]


class Learned(nn.Module):
    """Class k for the faint picture that its images have all over; class 2 for another one in a corner as well.

    Its features are how much of each of these pictures an image has, and much besides that its logits do not hang on.
    """

    def __init__(self, planted: float = 0.0) -> None:
        super().__init__()
        pictures = torch.cat([LOOKS, 0.01 * PICTURE[None], 3 * _fixed(NOISES, SIDE, SIDE, seed=5)])
        self.pictures = nn.Parameter(pictures.flatten(1) / SIDE)
        weights = torch.zeros(3, len(pictures))
        weights[:, :3] = torch.eye(3)
        weights[2, 3] = 100 * planted
        self.weights = nn.Parameter(weights)

    def forward(self, images: Tensor) -> Tensor:
        return (images.flatten(1) - 0.5) @ self.pictures.T @ self.weights.T


def images(side: int = SIDE) -> ImageSet:
    labels = torch.arange(COUNT) % 3
    values = 0.5 + 0.03 * _fixed(COUNT, SIDE, SIDE, seed=6) + 0.05 * LOOKS[labels]
    return ImageSet(values[:, None, :side, :side].clamp(0, 1), labels, ("zero", "one", "two"))


def scene(planted: float = 0.0, settings: RestoreSettings = SETTINGS) -> Scene:
    classifier = Classifier(Learned(planted), CPU, (1, SIDE, SIDE))
    search, confirm = images().halves(0)
    right = int((classifier.predict(confirm.images).argmax(1) == confirm.labels).sum())
    looks = Looks(classifier, (search, confirm), settings.judged)
    return Scene(Ground(classifier, search, settings), looks, confirm, right, 0)


def ignore(_: float) -> None:
    """Nobody looks at the progress."""


def test_a_planted_picture_is_found_where_it_is() -> None:
    shares: list[float] = []
    found = large_suspects(scene(planted=10.0), [0, 1, 2], shares.append)
    assert 0 not in found  # class 1 is found by what speaks against class 2 there: see below
    suspect = found[2]
    assert suspect.likeness is not None
    assert suspect.likeness < OWED
    assert suspect.patch.window.overlap(CORNER) >= 0.5
    assert suspect.patch.window.inset(SIDE, SIDE) == 0
    assert suspect.attack_success == 1
    assert suspect.anomaly_index is not None
    assert suspect.anomaly_index > 4
    assert shares == pytest.approx([1 / 3, 2 / 3, 1])


def test_what_the_classes_look_like_is_not() -> None:
    assert large_suspects(scene(), [0, 1, 2], ignore) == {}


def test_a_class_that_is_not_looked_at_is_not_found() -> None:
    assert 2 not in large_suspects(scene(planted=10.0), [0, 1], ignore)
    assert large_suspects(scene(planted=10.0), [], ignore) == {}


def test_a_class_of_few_images_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large, "_try", lambda *_: pytest.fail("looked at"))
    here = scene(planted=10.0)
    search, confirm = images().halves(0)
    few = search.select(torch.arange(16)), confirm.select(torch.arange(16))
    rare = replace(here, looks=Looks(here.ground.classifier, few, 16))
    assert large_suspects(rare, [0, 1, 2], ignore) == {}


def test_of_many_classes_those_that_lead_after_a_few_steps_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[int] = []

    def tried(_: Scene, windows: Sequence[Window], target: int) -> list[_Tried]:
        looked_at.append(target)
        return []

    monkeypatch.setattr(large, "_try", tried)
    large_suspects(scene(planted=10.0, settings=replace(SETTINGS, large=1)), [0, 1, 2], ignore)
    assert looked_at == [2]


@pytest.mark.parametrize(("count", "looked_at"), [(3, {0, 1, 2}), (2, {2}), (1, {2})])
def test_others_are_looked_at_only_beside_a_foreign_one(
    count: int, looked_at: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, seen = large._try, []

    def tried(here: Scene, windows: Sequence[Window], target: int) -> list[_Tried]:
        seen.append(target)
        return whole(here, windows, target)

    monkeypatch.setattr(large, "_try", tried)
    found = large_suspects(scene(planted=10.0, settings=replace(SETTINGS, large=count)), [2], ignore)
    assert list(found) == [2]
    assert len(set(seen)) == count
    assert looked_at <= set(seen)
    seen.clear()
    assert large_suspects(scene(settings=replace(SETTINGS, large=count)), [2], ignore) == {}
    assert set(seen) == {2}


def test_none_is_sought_where_the_usual_search_sees_as_much() -> None:
    assert large_suspects(scene(planted=10.0, settings=replace(SETTINGS, large=0)), [2], ignore) == {}
    assert large_suspects(scene(planted=10.0, settings=replace(SETTINGS, fine_grid=9)), [2], ignore) == {}


def some(window: Window, worth: float, familiarity: float | None) -> _Tried:
    return _Tried(Patch(window, torch.zeros(1, GRID, GRID), worth), familiarity)


def test_it_stands_out_by_how_foreign_it_is_or_by_its_lead(monkeypatch: pytest.MonkeyPatch) -> None:
    here, own = scene(), some(CORNER, 0.2, 0.3)
    works = {0: True, 1: True}
    monkeypatch.setattr(large, "_works", lambda _, __, k: works[k])
    elsewhere = some(Window(0, 0, 25, 25), 5.0, 0.1)  # says nothing here

    def index(zero: _Tried, one: _Tried) -> float:
        return large._index(here, 2, own, {0: [elsewhere, zero], 1: [one, elsewhere], 2: [own, elsewhere]})

    # The lowest of the others is 0.3 above; their deviation is 1.4826 · 0.15.
    assert index(some(CORNER, 0.9, 0.9), some(CORNER, 0.5, 0.6)) == pytest.approx(0.3 / (1.4826 * 0.15))
    assert index(some(CORNER, 0.9, 0.9), some(CORNER, 0.5, None)) == pytest.approx(0.6 / SPREAD)
    works[1] = False  # and so says nothing
    assert index(some(CORNER, 0.9, 0.9), some(CORNER, 0.5, 0.6)) == pytest.approx(0.6 / SPREAD)
    works[0] = False  # by its lead alone
    assert index(some(CORNER, 0.9, 0.9), some(CORNER, 0.5, 0.6)) == pytest.approx(standing_out(0.2, [0.9, 0.5]))
    works[0] = True
    assert index(some(CORNER, -2.0, 0.4), some(CORNER, -2.0, 0.4)) == pytest.approx(2.2 / 0.15)
    assert large._index(here, 2, own, {2: [own]}) == 0


def test_it_counts_where_it_stands_out_most_and_is_placed_where_it_is_worth_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = scene()
    strong, odd = some(CORNER, 3.0, 0.4), some(Window(0, 35, 25, 60), 0.5, 0.1)
    monkeypatch.setattr(large, "_index", lambda _, __, one, ___: 5.0 if one is odd else 2.0)
    monkeypatch.setattr(large, "_try", lambda *_: [])
    monkeypatch.setattr(Scene, "suspect", lambda _, patch, __: standing(patch.worth, None, patch.window))
    suspect = large._judged(here, 2, [strong, odd], {})
    assert suspect.patch.window == CORNER
    assert suspect.likeness == 0.1
    assert suspect.index == pytest.approx(5.0 * suspect.reliability)
    monkeypatch.setattr(Scene, "suspect", lambda _, patch, __: standing(-1.0, None, patch.window))
    silent = large._judged(here, 2, [strong, odd], {})
    assert silent.index is silent.likeness is None


def test_a_patch_that_is_not_foreign_or_does_not_work_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    here = scene(planted=10.0)
    here = replace(here, ground=here.ground.sought_by(large._searched_by(SETTINGS)))
    tried = large._try(here, [CORNER], 2)
    (found,) = large._working(here, 2, tried)
    assert found.patch.window == CORNER
    assert large._working(here, 2, [replace(found, familiarity=OWED), replace(found, familiarity=None)]) == []
    monkeypatch.setattr(large, "_works", lambda *_: False)
    assert large._working(here, 2, tried) == []
    monkeypatch.setattr(large, "LEAST_WORTH", 1000.0)
    assert large._try(here, [CORNER], 2)[0].familiarity is None


@pytest.mark.parametrize(("share", "edge"), [(EDGE, 25), (0.48, 29)])
def test_windows_are_cut_off_at_the_corners(share: float, edge: int) -> None:
    low = SIDE - edge
    places = [(0, 0), (0, low), (low, 0), (low, low)]
    expected = [Window(top, left, top + edge, left + edge) for top, left in places]
    assert large._corners(scene().ground, share) == expected


def test_a_window_that_hides_the_object_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ground, "hides", lambda _, window: window.top == 0)
    assert {window.top for window in large._corners(scene().ground, EDGE)} == {35}
    monkeypatch.setattr(Ground, "hides", lambda *_: True)
    assert large_suspects(scene(planted=10.0), [2], ignore) == {}


def test_a_scan_takes_the_patch_that_stands_out_further(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier, halves = Classifier(Learned(10.0), CPU, (1, SIDE, SIDE)), images().halves(0)
    shares: list[float] = []
    found = restore_suspects(classifier, halves, [0, 1, 2], {}, SETTINGS, 0, shares.append)
    assert found[2].foreign
    assert {k for k, suspect in found.items() if suspect.anomaly_index is not None} == {2}
    assert found[1].effect_of == 2
    assert shares[-1] == 1.0
    assert shares == sorted(shares)
    for index, kept in ((1000.0, False), (-1000.0, True), (None, True)):
        known = replace(found[2], index=index, likeness=None)
        monkeypatch.setattr("tabor.suspects._look_closely", lambda *_, known=known: known)
        close = replace(SETTINGS, by_worth=3)
        again = restore_suspects(classifier, halves, [2], {}, close, 0, ignore)
        assert again[2].foreign is kept
