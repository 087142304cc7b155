"""Large triggers that are told by how foreign they are, on a network that answers to looks and to a planted picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tabor import large
from tabor.access import Classifier
from tabor.data import ImageSet
from tabor.ground import Ground
from tabor.large import FAMILIAR, FIRST, KEPT, SPREAD, _Pool, _Tried, large_suspects
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
"""Where 0.42 of the images' edge is cut off at the lower right."""


@pytest.fixture(autouse=True)
def few_generations(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this network answers to needs no more."""
    monkeypatch.setattr(large, "GENERATIONS", 8)


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
    suspect = found[2]
    for other, weaker in found.items():  # by what speaks against class 2 there
        assert other == 2 or (weaker.index or 0.0) < 0
    assert suspect.likeness is not None
    assert suspect.likeness < OWED
    assert suspect.patch.window.overlap(CORNER) >= 0.5
    assert suspect.patch.window.inset(SIDE, SIDE) == 0
    assert suspect.attack_success == 1
    assert suspect.anomaly_index is not None
    assert suspect.anomaly_index > 4
    assert shares == pytest.approx([1 / 4, 2 / 4, 3 / 4])


def test_what_the_classes_look_like_is_not() -> None:
    assert large_suspects(scene(), [0, 1, 2], ignore) == {}


def test_a_class_that_is_not_looked_at_is_not_found() -> None:
    assert 2 not in large_suspects(scene(planted=10.0), [0, 1], ignore)
    assert large_suspects(scene(planted=10.0), [], ignore) == {}


def test_a_class_of_few_images_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large, "_first", lambda *_: pytest.fail("looked at"))
    here = scene(planted=10.0)
    search, confirm = images().halves(0)
    few = search.select(torch.arange(16)), confirm.select(torch.arange(16))
    rare = replace(here, looks=Looks(here.ground.classifier, few, 16))
    assert large_suspects(rare, [0, 1, 2], ignore) == {}


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The classes that are looked at from now on, in their order."""
    whole, looked_at = large._try, []

    def tried(here: Scene, windows: Sequence[Window], target: int, begin: _Pool) -> _Tried:
        looked_at.append(target)
        return whole(here, windows, target, begin)

    monkeypatch.setattr(large, "_try", tried)
    return looked_at


def test_of_many_classes_those_that_answer_most_to_random_drawings_are_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_at = recorded(monkeypatch)
    large_suspects(scene(planted=10.0, settings=replace(SETTINGS, large=1)), [0, 1, 2], ignore)
    assert set(looked_at) == {2}


@pytest.mark.parametrize("count", [3, 2, 1])
def test_others_are_looked_at_only_beside_a_foreign_one(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = recorded(monkeypatch)
    found = large_suspects(scene(planted=10.0, settings=replace(SETTINGS, large=count)), [2], ignore)
    assert list(found) == [2]
    assert looked_at[:2] == [2, 2]  # twice as many generations of what is foreign
    assert len(set(looked_at)) == count
    looked_at.clear()
    assert large_suspects(scene(settings=replace(SETTINGS, large=count)), [2], ignore) == {}
    assert looked_at == [2]


def test_none_is_sought_where_the_usual_search_sees_as_much() -> None:
    assert large_suspects(scene(planted=10.0, settings=replace(SETTINGS, large=0)), [2], ignore) == {}
    assert large_suspects(scene(planted=10.0, settings=replace(SETTINGS, fine_grid=9)), [2], ignore) == {}


def some(familiarity: float | None, strange: float = 0.0) -> _Tried:
    pool = _Pool(torch.zeros(1, 1, 1), torch.zeros(1, dtype=torch.int64), torch.zeros(1))
    return _Tried(pool, Patch(CORNER, torch.zeros(1, 2, 2), 0.5), familiarity, strange)


def test_it_stands_out_by_what_is_strange_of_its_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scene, "suspect", lambda _, patch, __: standing(patch.worth, None, patch.window))
    own = some(0.4, 0.7)

    def index(*others: float) -> float:
        tried = {k: some(0.9, strange) for k, strange in enumerate(others)} | {9: own}
        suspect = large._judged(scene(), 9, own, tried)
        assert suspect.likeness == 0.4
        assert suspect.index is not None
        return suspect.index / suspect.reliability

    # The median of the others is 0.1, and their deviations from it 0.2, 0.1, 0, 0.2, 0.5.
    assert index(-0.1, 0.0, 0.1, 0.3, 0.6) == pytest.approx((0.7 - 0.1) / (1.4826 * 0.2))
    assert index(0.1, 0.1, 0.1) == pytest.approx(0.6 / SPREAD)
    assert index() == 0
    monkeypatch.setattr(Scene, "suspect", lambda _, patch, __: standing(-1.0, None, patch.window))
    silent = large._judged(scene(), 9, own, {0: some(0.9), 9: own})
    assert silent.index is silent.likeness is None


@pytest.mark.parametrize(
    ("familiarity", "success", "convicts"),
    [
        (FAMILIAR - 0.01, 0.8, True),
        (FAMILIAR, 1.0, False),
        (None, 1.0, False),
        (0.1, 0.79, False),
    ],
)
def test_what_is_not_foreign_or_does_not_work_is_none(
    familiarity: float | None, success: float, convicts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large, "_success", lambda *_: success)
    assert large._convicts(scene(), 2, some(familiarity)) is convicts


@pytest.mark.parametrize(("later", "taken"), [(0.3, True), (0.9, False)])
def test_what_leads_to_the_looks_of_the_class_later_is_not_taken(
    later: float, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large, "_success", lambda *_: 1.0)
    now, then = some(0.4), some(later)
    monkeypatch.setattr(large, "_try", lambda *_: then)
    assert large._again(scene(), [CORNER], 2, now) is (then if taken else now)


def test_a_class_keeps_the_drawings_that_it_answers_to_most() -> None:
    here = scene(planted=10.0)
    windows = large._corners(here.ground)
    first, worth = large._first(here, windows)
    assert worth.shape == (FIRST, 3)
    tried = large._try(here, windows, 2, replace(first, worth=worth[:, 2]))
    pool = tried.pool
    assert len(pool.worth) == len(pool.places) == len(pool.drawings) == KEPT
    assert pool.worth.tolist() == sorted(pool.worth.tolist(), reverse=True)
    assert float(pool.worth[0]) > float(worth[:, 2].max())
    again = large._worth(here.ground, windows, pool.drawings, pool.places)
    assert torch.allclose(again[:, 2], pool.worth, atol=1e-5)
    others = here.ground.labels[: large.SEEN] != 2
    stamped = here.trigger(tried.patch).stamp(here.ground.images[: large.SEEN][others])
    logits = here.ground.classifier.predict(stamped)
    lead = (logits[:, 2] - logits[:, :2].amax(1)).mean() / here.ground.unit
    assert tried.patch.worth == pytest.approx(float(lead - here.ground.costs([tried.patch.window])[0]), abs=1e-4)
    strange = here.looks.strangeness(here.trigger(tried.patch), 2)
    assert strange is not None
    assert tried.strange == pytest.approx(strange / here.ground.unit)


def test_the_same_seed_gives_the_same_drawings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large, "GENERATIONS", 2)
    ones = []
    for seed in (0, 0, 1):
        here = replace(scene(), seed=seed)
        windows = large._corners(here.ground)
        first, worth = large._first(here, windows)
        ones.append(large._try(here, windows, 1, replace(first, worth=worth[:, 1])).pool)
    assert torch.equal(ones[0].drawings, ones[1].drawings)
    assert torch.equal(ones[0].places, ones[1].places)
    assert not torch.equal(ones[0].drawings, ones[2].drawings)


def test_windows_are_cut_off_at_the_corners() -> None:
    expected = [
        Window(top, left, top + edge, left + edge)
        for edge in (18, 22, 25, 29)
        for top in (0, SIDE - edge)
        for left in (0, SIDE - edge)
    ]
    assert large._corners(scene().ground) == expected


def test_a_window_that_hides_the_object_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ground, "hides", lambda _, window: window.top == 0)
    assert {window.top for window in large._corners(scene().ground)} == {42, 38, 35, 31}
    monkeypatch.setattr(Ground, "hides", lambda *_: True)
    assert large_suspects(scene(planted=10.0), [2], ignore) == {}


def test_a_scan_takes_the_patch_that_stands_out_further(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier, halves = Classifier(Learned(10.0), CPU, (1, SIDE, SIDE)), images().halves(0)
    shares: list[float] = []
    found = restore_suspects(classifier, halves, [0, 1, 2], {}, SETTINGS, 0, shares.append)
    assert found[2].foreign
    assert {k for k, suspect in found.items() if suspect.anomaly_index is not None} == {2}
    assert found[0].effect_of == 2
    assert shares[-1] == 1.0
    assert shares == sorted(shares)
    for index, kept in ((1000.0, False), (-1000.0, True), (None, True)):
        known = replace(found[2], index=index, likeness=None)
        monkeypatch.setattr("tabor.suspects._look_closely", lambda *_, known=known: known)
        close = replace(SETTINGS, by_worth=3)
        again = restore_suspects(classifier, halves, [2], {}, close, 0, ignore)
        assert again[2].foreign is kept
