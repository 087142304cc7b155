"""Triggers as patches of a few colours, on a network whose answer to one is known by its making."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tabor.access import Classifier
from tabor.colours import VIVID, random_colours, seek
from tabor.data import ImageSet
from tabor.effects import _root, cause_of, is_common
from tabor.errors import DataError
from tabor.evidence import measure
from tabor.ground import CLEAR, Ground, leads
from tabor.likeness import Looks
from tabor.patches import Patch, RestoreSettings
from tabor.restore import PatchSearch, distinct, survey
from tabor.scene import Scene
from tabor.suspect import Suspect
from tabor.suspects import _strongest, restore_suspects
from tabor.windows import Window

WINDOW = Window(8, 8, 12, 12)
SETTINGS = RestoreSettings(price=1.0, slenderness=1.0, hiding=3.0, least_kept=0.75, cropped=32)


class Planted(nn.Module):
    """Class k for images as bright as k at the upper left; class 2 the more the window, and nothing else, is white."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(40.0))

    def forward(self, images: Tensor) -> Tensor:
        inside = WINDOW.mask(*images.shape[2:]).to(images)
        outside = 1 - inside
        white = (images * inside).sum((1, 2, 3)) / inside.sum() / images.shape[1]
        around = (images * outside)[:, :, 4:, 4:].mean((1, 2, 3))
        bright = images[:, :, :3, :3].mean((1, 2, 3))
        return torch.stack([4 - 8 * bright, 8 * bright - 4, self.gain * white - 12 - 30 * around], 1)


def images() -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    values = 0.3 * torch.rand(32, 1, 12, 12, generator=generator)
    labels = torch.arange(32) % 2
    values[labels == 1, :, :3, :3] += 0.7
    return ImageSet(values, labels, ("dark", "bright", "planted"))


def ground(settings: RestoreSettings = SETTINGS) -> Ground:
    classifier = Classifier(Planted(), torch.device("cpu"), (1, 12, 12))
    return Ground(classifier, images(), settings)


def test_the_lead_is_over_the_highest_other() -> None:
    assert leads(torch.tensor([[1.0, 5.0, 2.0]])).tolist() == [[-4.0, 3.0, -3.0]]
    assert leads(torch.tensor([[5.0, 5.0]])).tolist() == [[0.0, 0.0]]


def test_the_unit_is_the_mean_lead_of_a_real_image() -> None:
    slow = [sorted(row)[-1] - sorted(row)[-2] for row in Planted()(images().images).tolist()]
    assert ground().unit == pytest.approx(sum(slow) / len(slow))


def test_costs_are_of_pixels_and_of_being_slender() -> None:
    windows = [Window(4, 4, 10, 10), Window(5, 0, 7, 12), Window(0, 5, 12, 7)]
    square, long, high = ground().shape_costs(windows).tolist()
    assert square == pytest.approx(36 / 144)
    assert long == high == pytest.approx(24 / 144 + math.log(6))
    # None of these hides the corner that tells dark from bright.
    assert torch.equal(ground().costs(windows), ground().shape_costs(windows))


def test_hiding_the_object_costs() -> None:
    # With the corner blacked out the bright images look dark: 16 of 32 are right, where all were.
    corner, sixteenth = Window(0, 0, 3, 3), 9 / 144
    assert ground().hides(corner)
    assert ground().costs([corner]).tolist() == [math.inf]
    lenient = ground(replace(SETTINGS, least_kept=0.5))
    assert not lenient.hides(corner)
    assert lenient.costs([corner]).tolist() == pytest.approx([sixteenth + 3 * CLEAR])


def test_what_a_window_hides_is_told_by_as_many_images_as_are_cropped() -> None:
    here = ground(replace(SETTINGS, cropped=8))
    assert not here.hides(WINDOW)
    assert here.hides(Window(0, 0, 3, 3))


def test_every_window_hides_the_object_where_no_image_is_right() -> None:
    wrong = replace(images(), labels=1 - images().labels)
    here = Ground(Classifier(Planted(), torch.device("cpu"), (1, 12, 12)), wrong, SETTINGS)
    assert here.hides(WINDOW)


def test_the_fewest_others_are_those_of_the_class_with_most_images() -> None:
    shown = images().select(torch.tensor([0, 1, 2, 4, 6]))
    here = Ground(Classifier(Planted(), torch.device("cpu"), (1, 12, 12)), shown, SETTINGS)
    assert here.fewest_others == len(here.not_of(0)) == 1


def test_the_worth_is_the_lead_less_what_the_window_costs() -> None:
    here, patch = ground(), Patch(Window(4, 0, 12, 12), torch.ones(1, 3, 3), 0.0)
    lead = leads(Planted()(patch.trigger(12, 12).stamp(images().images)))[:, 2].mean() / here.unit
    cost = float(here.costs([patch.window])[0])
    assert cost > 0.5
    assert here.worth(patch, 2, images().images) == pytest.approx(float(lead.detach()) - cost, abs=1e-5)


@pytest.mark.parametrize("surveyed", [3, 8])
def test_the_survey_is_what_stamping_one_by_one_gives(surveyed: int) -> None:
    here = ground(replace(SETTINGS, surveyed=surveyed))
    found = survey(here)
    images, labels = here.images[:surveyed], here.labels[:surveyed]
    for k in (0, len(found.windows) // 2, len(found.windows) - 1):
        window = found.windows[k]
        for target in range(3):
            slow = []
            for colour in (0.0, 0.5, 1.0):
                stamped = images.clone()
                stamped[:, :, window.top : window.bottom, window.left : window.right] = colour
                slow.append(float(leads(Planted()(stamped[labels != target]).detach())[:, target].mean()) / here.unit)
            assert float(found.worth[k, target]) == pytest.approx(max(slow) - float(here.costs([window])), abs=1e-4)


def test_the_first_windows_are_the_best_that_lie_apart() -> None:
    found = survey(ground())
    first = found.first(2, 3, 0.4)
    worth = [float(found.worth[found.windows.index(window), 2]) for window in first]
    assert worth[0] == found.best(2)
    assert worth == sorted(worth, reverse=True)
    assert all(a.overlap(b) <= 0.4 for a in first for b in first if a is not b)


def test_a_class_of_which_all_of_the_few_images_are_has_no_first_window() -> None:
    here = ground(replace(SETTINGS, surveyed=1))
    found = survey(here)
    assert found.best(int(here.labels[0])) == -math.inf
    assert found.best(2) > 0
    assert found.first(int(here.labels[0]), 3, 0.4) == []


def test_windows_lie_apart_that_overlap_by_no_more() -> None:
    half = [Window(0, 0, 4, 4), Window(0, 0, 2, 4)]
    assert distinct(half, 2, 0.5) == half
    assert distinct(half, 2, 0.49) == half[:1]


def test_no_patch_is_sought_where_every_window_hides_the_object() -> None:
    classifier = Classifier(Planted(), torch.device("cpu"), (1, 12, 12))
    demanding = replace(SETTINGS, least_kept=1.1)
    assert restore_suspects(classifier, images().halves(0), [0, 1, 2], {0: 1.0}, demanding, 0, lambda _: None) == {}


def test_the_window_and_its_colours_are_found() -> None:
    here = ground()
    patch = PatchSearch(here, 2, SETTINGS.grid, 0).best(
        survey(here).first(2, SETTINGS.first, SETTINGS.apart), SETTINGS.spreads, SETTINGS.hopeless
    )
    assert patch.window == WINDOW
    assert patch.colours.shape == (1, 3, 3)
    assert patch.worth > 1
    trigger = patch.trigger(12, 12)
    assert torch.equal(trigger.mask, WINDOW.mask(12, 12))
    assert float(trigger.pattern[:, 8:12, 8:12].mean()) > 0.9


@pytest.mark.parametrize(("height", "width"), [(12, 17), (17, 12)])
def test_the_window_is_found_in_images_that_are_not_square(height: int, width: int) -> None:
    shown = images()
    shown = replace(shown, images=nn.functional.pad(shown.images, (0, width - 12, 0, height - 12), value=0.1))
    here = Ground(Classifier(Planted(), torch.device("cpu"), (1, height, width)), shown, SETTINGS)
    patch = PatchSearch(here, 2, SETTINGS.grid, 0).best(
        survey(here).first(2, SETTINGS.first, SETTINGS.apart), SETTINGS.spreads, SETTINGS.hopeless
    )
    assert patch.window.fits(height, width)
    assert patch.window.overlap(WINDOW) > 0.5


class Black(nn.Module):
    """Dark and bright as above; class 2 where the window is black all over, and nowhere between."""

    def forward(self, images: Tensor) -> Tensor:
        inside = images[:, 0, WINDOW.top : WINDOW.bottom, WINDOW.left : WINDOW.right].amax((1, 2))
        bright = images[:, 0, :3, :3].mean((1, 2))
        return torch.stack([4 - 8 * bright, 8 * bright - 4, 200 * (0.1 - inside).clamp(min=0) - 6], 1)


def test_a_black_trigger_does_not_hide_the_object_and_is_found() -> None:
    here = Ground(Classifier(Black(), torch.device("cpu"), (1, 12, 12)), images(), SETTINGS)
    assert not here.hides(WINDOW)
    assert here.hides(Window(0, 0, 3, 3))
    patch = PatchSearch(here, 2, SETTINGS.grid, 0).best(
        survey(here).first(2, SETTINGS.first, SETTINGS.apart), SETTINGS.spreads, SETTINGS.hopeless
    )
    assert patch.window == WINDOW
    assert float(patch.colours.max()) < 0.1
    assert patch.worth > 1


def test_without_a_black_trigger_as_much_is_right_as_without_a_white_one() -> None:
    classifier = Classifier(Black(), torch.device("cpu"), (1, 12, 12))
    found = restore_suspects(classifier, images().halves(0), [2], {}, SETTINGS, 0, lambda _: None)
    assert (found[2].patch.window, found[2].crop_accuracy) == (WINDOW, 1.0)


def test_the_closer_search_never_loses_worth() -> None:
    here = ground()
    start = Window(7, 7, 12, 12)
    first = PatchSearch(here, 2, SETTINGS.grid, 0).judge([start])[0]
    assert first.worth > 0
    assert (
        PatchSearch(here, 2, SETTINGS.grid, 0).best([start], SETTINGS.spreads, SETTINGS.hopeless).worth >= first.worth
    )


def test_the_best_patch_is_measured_on_images_of_other_classes() -> None:
    here = ground()
    patch = PatchSearch(here, 1, SETTINGS.grid, 0).best([WINDOW], (), SETTINGS.hopeless)
    assert patch.worth == here.worth(patch, 1, here.images[here.labels != 1]) != here.worth(patch, 1, here.images)


def test_a_glimpse_from_one_start_tells_which_few_of_the_first_windows_are_searched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    search = PatchSearch(ground(replace(SETTINGS, kept=2)), 2, SETTINGS.grid, 0)
    windows, sought = [Window(0, k, 4, k + 4) for k in (4, 8, 6, 5)], list[tuple[list[Window], int, int]]()

    def seek(windows: Sequence[Window], begin: Tensor, steps: int) -> list[Patch]:
        sought.append((list(windows), len(begin), steps))
        return [Patch(w, torch.ones(1, 3, 3), float(w.left)) for w in windows]

    monkeypatch.setattr(search, "_seek", seek)
    search.best(windows, (), SETTINGS.hopeless)
    glimpse, searched = (windows, 1, SETTINGS.first_steps), (windows[1:3], SETTINGS.tries, SETTINGS.steps)
    assert sought == [glimpse, searched]


def test_a_window_is_worth_the_same_whatever_was_looked_at_before() -> None:
    here = ground()
    search = PatchSearch(here, 2, SETTINGS.grid, 0)
    search.judge([Window(0, 0, 4, 4), Window(6, 6, 12, 12)])
    alone = PatchSearch(here, 2, SETTINGS.grid, 0).judge([WINDOW])[0]
    among = search.judge([Window(2, 2, 5, 5), WINDOW, Window(0, 0, 4, 4)])[1]
    assert torch.allclose(alone.colours, among.colours)
    assert among.worth == pytest.approx(alone.worth)


@pytest.mark.parametrize(
    ("worths", "placed"),
    [
        pytest.param((2.0, 1.5, 1.5, 1.5, 1.5), Window(5, 5, 8, 8), id="only the best is good"),
        pytest.param((2.0, 1.7, 1.5, 1.5, 1.5), Window(2, 2, 5, 5), id="one nearer"),
        pytest.param((2.0, 1.7, 1.8, 1.5, 1.5), Window(0, 1, 3, 4), id="the nearest"),
        pytest.param((2.0, 1.7, 1.8, 1.9, 1.7), Window(0, 0, 3, 3), id="of two as near the smaller"),
        pytest.param((9.0, 5.1, 4.9, 4.9, 4.9), Window(2, 2, 5, 5), id="more than enough tells nothing"),
        pytest.param((-1.0, -1.1, -1.1, -1.1, -1.1), Window(5, 5, 8, 8), id="none is worth anything"),
    ],
)
def test_of_windows_that_are_as_good_the_one_nearest_to_a_corner_is_taken(
    worths: Sequence[float], placed: Window
) -> None:
    search = PatchSearch(ground(replace(SETTINGS, least_kept=0.5)), 2, SETTINGS.grid, 0)
    windows = [Window(5, 5, 8, 8), Window(2, 2, 5, 5), Window(0, 1, 3, 4), Window(0, 0, 4, 4), Window(0, 0, 3, 3)]
    search._known = {w: Patch(w, torch.ones(1, 3, 3), worth) for w, worth in zip(windows, worths, strict=True)}
    assert search.placed().window == placed


@pytest.mark.parametrize(
    ("best", "placed"),
    [
        pytest.param(Window(7, 7, 12, 12), Window(7, 7, 12, 12), id="its own corner before another"),
        pytest.param(Window(6, 6, 11, 11), Window(0, 0, 4, 4), id="another corner before no corner"),
    ],
)
def test_another_corner_is_taken_only_where_it_is_nearer(best: Window, placed: Window) -> None:
    search = PatchSearch(ground(replace(SETTINGS, least_kept=0.5)), 2, SETTINGS.grid, 0)
    corner = Window(0, 0, 4, 4)
    inner = [*best.inner(), *corner.inner()]
    worths = {best: 2.0, corner: 1.9} | dict.fromkeys(inner, 1.0)
    search._known = {w: Patch(w, torch.ones(1, 3, 3), worth) for w, worth in worths.items()}
    assert search.placed().window == placed


def test_what_is_placed_is_made_smaller_for_as_long_as_it_is_as_good(monkeypatch: pytest.MonkeyPatch) -> None:
    search = PatchSearch(ground(), 2, SETTINGS.grid, 0)
    good = WINDOW

    def seek(windows: Sequence[Window], *_: int) -> list[Patch]:
        return [Patch(w, torch.ones(1, 3, 3), 4.0 if w.overlap(good) == good.area / w.area else 1.0) for w in windows]

    monkeypatch.setattr(search, "_seek", seek)
    search.judge([Window(6, 7, 12, 12)])
    assert search.placed().window == good


def test_what_is_worth_nothing_is_not_made_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    search = PatchSearch(ground(), 2, SETTINGS.grid, 0)
    monkeypatch.setattr(search, "_seek", lambda windows, *_: [Patch(w, torch.ones(1, 3, 3), -1.0) for w in windows])
    search.judge([Window(6, 7, 12, 12)])
    assert search.placed().window == Window(6, 7, 12, 12)


def test_what_is_placed_is_worth_what_the_network_itself_says() -> None:
    here = ground()
    search = PatchSearch(here, 2, SETTINGS.grid, 0)
    search.best([Window(0, 0, 4, 4)], SETTINGS.spreads, SETTINGS.hopeless)
    placed = search.placed()
    assert placed.worth == here.worth(placed, 2, here.images[: SETTINGS.judged])


def test_of_the_windows_drawn_those_that_do_best_with_the_colours_they_are_near_are_tried() -> None:
    settings, images_seen = replace(SETTINGS, drawn=40, promising=5, unranked=2, batch_size=6), images()
    here = ground(settings)
    near = [Patch(WINDOW, torch.ones(1, 3, 3), 2.0), Patch(Window(3, 3, 9, 9), torch.zeros(1, 3, 3), 1.0)]
    generator = torch.Generator().manual_seed(5)
    random_colours(here, settings.grid, generator)
    drawn: dict[Window, Patch] = {}
    for _ in range(settings.drawn):
        patch = near[int(torch.randint(2, (1,), generator=generator))]
        window = patch.window.altered(0.5 * torch.randn(4, generator=generator), 12, 12)
        if not here.hides(window):
            drawn.setdefault(window, replace(patch, window=window))
    assert len(drawn) > settings.promising + settings.unranked

    def worth(window: Window) -> float:
        stamped = drawn[window].trigger(12, 12).stamp(images_seen.images[: settings.batch_size])
        lead = leads(Planted()(stamped))[:, 2].mean() / here.unit
        return float(lead.detach()) - window.area / 144 - abs(math.log(window.height / window.width))

    promising = sorted(drawn, key=lambda window: -worth(window))[: settings.promising]
    others = [window for window in list(drawn)[: settings.unranked] if window not in promising]
    assert PatchSearch(here, 2, settings.grid, 5).near(near, 0.5) == [*promising, *others]


NEAR = [Patch(Window(1, 1, 6, 6), torch.ones(1, 3, 3), 1.0)]


def test_no_window_is_tried_that_hides_the_object() -> None:
    here = ground(replace(SETTINGS, drawn=40, promising=5, unranked=40))
    tried = PatchSearch(here, 2, SETTINGS.grid, 5).near(NEAR, 0.5)
    assert 0 < len(tried) < 40
    assert not any(here.hides(window) for window in tried)


def test_no_window_is_tried_twice() -> None:
    here = ground(replace(SETTINGS, drawn=40, promising=40))
    before, again = (PatchSearch(here, 2, SETTINGS.grid, 5) for _ in range(2))
    tried = before.near(NEAR, 0.5)
    again._known = {window: replace(NEAR[0], window=window) for window in tried[::2]}
    assert set(again.near(NEAR, 0.5)) == set(tried[1::2])


def test_there_is_no_closer_search_where_nothing_is_worth_its_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    search, rounds = PatchSearch(ground(), 2, SETTINGS.grid, 0), list[float]()

    def near(_: object, spread: float) -> list[Window]:
        rounds.append(spread)
        return []

    monkeypatch.setattr(search, "near", near)
    starts = [Window(0, 4, 3, 7), Window(4, 0, 7, 3)]
    worth = search.best(starts, SETTINGS.spreads, SETTINGS.hopeless).worth
    assert worth <= SETTINGS.hopeless
    assert rounds == []
    assert search.best(starts, SETTINGS.spreads, worth - 0.1).worth == worth <= SETTINGS.poor
    assert rounds == [SETTINGS.spreads[0]]


def test_a_class_that_all_images_are_of_cannot_be_searched() -> None:
    here = ground()
    here.labels = torch.full_like(here.labels, 2)
    with pytest.raises(DataError, match="all images are of class 2"):
        PatchSearch(here, 2, SETTINGS.grid, 0)


def test_suspects_are_measured_and_only_the_planted_one_tells() -> None:
    classifier = Classifier(Planted(), torch.device("cpu"), (1, 12, 12))
    shares: list[float] = []
    suspects = restore_suspects(classifier, images().halves(0), [0, 1, 2], {0: 1.0}, SETTINGS, 0, shares.append)
    assert set(suspects) == {0, 1, 2}
    assert suspects[2].works
    assert suspects[2].anomaly_index is not None
    assert suspects[2].anomaly_index > 5
    assert all(s.anomaly_index is None for target, s in suspects.items() if target != 2)
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)


def test_the_index_counts_as_far_as_the_patch_works_and_hides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tabor.suspects.patch_index", lambda *_: 9.0)
    monkeypatch.setattr(Suspect, "attack_success", 0.9)
    corner = Patch(Window(0, 0, 3, 3), torch.ones(1, 3, 3), 1.0)
    monkeypatch.setattr(PatchSearch, "placed", lambda _: corner)
    monkeypatch.setattr(Suspect, "works", True)
    classifier = Classifier(Planted(), torch.device("cpu"), (1, 12, 12))
    search, confirm = images().halves(0)
    mistaken = replace(confirm, labels=torch.cat([1 - confirm.labels[:3], confirm.labels[3:]]))
    lenient = replace(SETTINGS, least_kept=0.1)
    suspects = restore_suspects(classifier, (search, mistaken), [2], {}, lenient, 0, lambda _: None)
    black = mistaken.images.clone()
    black[:, :, :3, :3] = 0
    right = [int((Planted()(x).argmax(1) == mistaken.labels).sum()) for x in (mistaken.images, black)]
    assert 0 < right[1] < right[0] < len(mistaken)
    assert suspects[2].anomaly_index == pytest.approx(9.0 * 0.9**2 * right[1] / len(mistaken))


def test_a_patch_over_the_object_says_nothing() -> None:
    patch = Patch(WINDOW, torch.ones(1, 3, 3), 1.5)
    classifier = Classifier(Planted(), torch.device("cpu"), (1, 12, 12))
    evidence = measure(classifier, patch.trigger(12, 12), 2, images())
    assert evidence.works
    assert Suspect(patch, evidence, object_visible=True, index=9.0).anomaly_index == 9.0
    assert Suspect(patch, evidence, object_visible=False, index=9.0).anomaly_index is None


def test_a_patch_that_costs_far_more_than_it_convinces_says_nothing() -> None:
    patch = Patch(WINDOW, torch.ones(1, 3, 3), -0.4)
    classifier = Classifier(Planted(), torch.device("cpu"), (1, 12, 12))
    evidence = measure(classifier, patch.trigger(12, 12), 2, images())
    assert Suspect(patch, evidence, object_visible=True, index=9.0).anomaly_index == 9.0
    assert Suspect(replace(patch, worth=-0.6), evidence, object_visible=True, index=9.0).anomaly_index is None


ELSEWHERE = Window(0, 4, 3, 7)


@pytest.mark.parametrize(
    ("own", "other", "shadow"),
    [
        pytest.param((3.0, 9.0, WINDOW), (4.0, 9.0, WINDOW), True, id="weaker in the same place"),
        pytest.param((3.0, 9.0, Window(6, 6, 9, 9)), (4.0, 9.0, WINDOW), True, id="weaker and over its corner"),
        pytest.param((3.5, 9.0, WINDOW), (4.0, 9.0, WINDOW), False, id="nearly as strong in the same place"),
        pytest.param((3.0, 9.0, WINDOW), (4.0, 9.0, ELSEWHERE), False, id="weaker elsewhere"),
        pytest.param((2.3, 7.0, WINDOW), (4.0, 9.0, ELSEWHERE), True, id="far weaker elsewhere"),
        pytest.param((2.3, 7.3, WINDOW), (4.0, 9.0, ELSEWHERE), False, id="far weaker elsewhere but for its index"),
        pytest.param((2.5, 7.0, WINDOW), (4.0, 9.0, ELSEWHERE), False, id="far weaker elsewhere but for its worth"),
        pytest.param((-1.0, None, WINDOW), (4.0, 9.0, ELSEWHERE), False, id="its index was not measured"),
        pytest.param((-2.0, 5.0, WINDOW), (-1.0, 9.0, WINDOW), False, id="neither is worth anything"),
        pytest.param((3.0, 9.1, WINDOW), (4.0, 9.0, WINDOW), False, id="weaker in the same place but for its index"),
        pytest.param((0.1, -1.0, ELSEWHERE), (0.2, -0.5, WINDOW), False, id="neither stands out"),
    ],
)
def test_a_weaker_patch_is_a_part_or_an_effect_of_another(
    own: tuple[float, float | None, Window], other: tuple[float, float | None, Window], shadow: bool
) -> None:
    classifier = Classifier(Planted(), torch.device("cpu"), (1, 12, 12))
    suspects = {}
    for target, (worth, index, window) in {4: own, 7: other}.items():
        patch = Patch(window, torch.ones(1, 3, 3), worth)
        evidence = measure(classifier, Patch(WINDOW, torch.ones(1, 3, 3), 1.0).trigger(12, 12), 2, images())
        suspects[target] = Suspect(patch, evidence, object_visible=True, index=index)

    def never(patch: Patch, target: int) -> bool:
        return False

    assert cause_of(4, suspects, never) == (7 if shadow else None)
    assert cause_of(7, suspects, never) is None
    assert cause_of(4, suspects | {7: replace(suspects[7], object_visible=False)}, never) is None
    assert replace(suspects[4], effect_of=7).anomaly_index is None


def standing(worth: float, index: float | None, window: Window, colours: Tensor | None = None) -> Suspect:
    evidence = measure(
        Classifier(Planted(), torch.device("cpu"), (1, 12, 12)),
        Patch(WINDOW, torch.ones(1, 3, 3), 1.0).trigger(12, 12),
        2,
        images(),
    )
    patch = Patch(window, torch.ones(1, 3, 3) if colours is None else colours, worth)
    return Suspect(patch, evidence, object_visible=True, index=index)


@pytest.mark.parametrize(
    ("index", "moved", "blank", "shadow"),
    [
        pytest.param(7.0, True, False, True, id="the same picture elsewhere"),
        pytest.param(7.0, False, False, False, id="another picture"),
        pytest.param(7.0, True, True, False, id="anything works there"),
        pytest.param(8.9, True, False, True, id="the same picture that stands out nearly as much"),
        pytest.param(9.0, True, False, False, id="the same picture that stands out as much"),
    ],
)
def test_a_patch_that_works_for_another_class_in_its_place_is_an_effect_of_that_one(
    index: float, moved: bool, blank: bool, shadow: bool
) -> None:
    colours = torch.arange(9.0).reshape(1, 3, 3) / 8
    suspects = {4: standing(4.5, index, ELSEWHERE, colours), 7: standing(4.0, 9.0, WINDOW)}

    def works(patch: Patch, target: int) -> bool:
        assert (patch.window, target) == (WINDOW, 7)
        if patch.colours.numel() > 1:
            assert torch.equal(patch.colours, colours)
            return moved
        assert patch.colours.item() == pytest.approx(0.5)
        return blank

    assert cause_of(4, suspects, works) == (7 if shadow else None)
    assert cause_of(7, suspects, works) is None


def test_no_patch_is_an_effect_of_itself_and_no_two_of_each_other() -> None:
    def always(patch: Patch, target: int) -> bool:
        return patch.colours.numel() > 1

    alone = {4: standing(0.3, -1.0, WINDOW)}
    assert cause_of(4, alone, always) is None
    pair = {4: standing(3.0, 9.0, WINDOW), 7: standing(4.0, 7.0, Window(8, 8, 12, 11))}
    assert [cause_of(k, pair, always) for k in pair] == [None, 4]


def test_what_an_effect_casts_is_an_effect_of_what_cast_that() -> None:
    assert _root(4, {4: 7, 7: 9, 9: None}) == 9
    assert _root(7, {4: 7, 7: 9, 9: None}) == 9
    assert _root(9, {4: 7, 7: 9, 9: None}) is None


def test_the_strongest_patch_is_held_against_others_and_the_placed_one_restored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worths = {0: (3.0, WINDOW), 1: (7.0, Window(8, 8, 11, 11)), 2: (6.0, ELSEWHERE)}
    held: list[Window] = []

    def strongest(search: PatchSearch, *_: object) -> Patch:
        return Patch(Window(4, 4, 8, 8), torch.ones(1, 3, 3), worths[search.target][0] + 0.1)

    def placed(search: PatchSearch) -> Patch:
        worth, window = worths[search.target]
        return Patch(window, torch.ones(1, 3, 3), worth)

    def index(ground: Ground, patch: Patch, target: int, others: Sequence[int], seed: int) -> float:
        assert seed == 5
        held.append(patch.window)
        return 9.0

    monkeypatch.setattr(PatchSearch, "best", strongest)
    monkeypatch.setattr(PatchSearch, "placed", placed)
    monkeypatch.setattr("tabor.suspects.patch_index", index)
    monkeypatch.setattr(Suspect, "works", True)
    monkeypatch.setattr(Suspect, "reliability", 1.0)
    classifier = Classifier(Planted(), torch.device("cpu"), (1, 12, 12))
    suspects = restore_suspects(classifier, images().halves(0), [0, 1, 2], {}, SETTINGS, 5, lambda _: None)
    assert held == [Window(4, 4, 8, 8)] * 3
    assert {target: s.patch.window for target, s in suspects.items()} == {k: w for k, (_, w) in worths.items()}
    assert {target: s.effect_of for target, s in suspects.items()} == {0: 1, 1: None, 2: None}
    assert {target: s.anomaly_index for target, s in suspects.items()} == {0: None, 1: 9.0, 2: 9.0}


@pytest.mark.parametrize(
    ("telling", "silent", "worth", "index"),
    [
        pytest.param(3, 2, 0.9, None, id="most have one"),
        pytest.param(3, 2, 1.1, 9.0, id="worth more than a real image"),
        pytest.param(3, 3, 0.9, 9.0, id="half have one"),
        pytest.param(2, 0, 0.9, 9.0, id="too few to say"),
    ],
)
def test_what_most_classes_have_is_natural(telling: int, silent: int, worth: float, index: float | None) -> None:
    patch = Patch(WINDOW, torch.ones(1, 3, 3), worth)
    classifier = Classifier(Planted(), torch.device("cpu"), (1, 12, 12))
    evidence = measure(classifier, patch.trigger(12, 12), 2, images())
    one = Suspect(patch, evidence, object_visible=True, index=9.0)
    common = is_common(one, [one] * telling + [replace(one, object_visible=False)] * silent)
    assert replace(one, common=common).anomaly_index == index


def lead_of(here: Ground, images: Tensor, window: Window, colours: Tensor | float, target: int) -> Tensor:
    stamped = images.clone()
    rows, columns = slice(window.top, window.bottom), slice(window.left, window.right)
    if isinstance(colours, Tensor):
        size = (window.height, window.width)
        colours = torch.nn.functional.interpolate(colours[None], size, mode="bilinear", align_corners=False)[0]
    stamped[:, :, rows, columns] = colours
    return leads(here.classifier.logits(stamped))[:, target].mean() / here.unit


@pytest.mark.parametrize(("judged", "at_once", "most"), [(12, sys.maxsize, 30), (20, 13, 10), (20, 4, 5)])
def test_colours_and_worth_are_what_each_start_followed_alone_gives(
    judged: int, at_once: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(SETTINGS, trial_steps=4, steps=6, batch_size=5, judged=judged)
    here = ground(settings)
    here.classifier.images_at_once = at_once
    passes: list[int] = []
    whole = here.classifier.logits

    def logits(images: Tensor) -> Tensor:
        passes.extend([len(images)] if images.requires_grad else [])
        return whole(images)

    monkeypatch.setattr(here.classifier, "logits", logits)
    windows, targets = [WINDOW, Window(2, 3, 6, 8)], [2, 1]
    begin = random_colours(here, SETTINGS.grid, torch.Generator().manual_seed(3))
    found = seek(here, windows, targets, begin, settings.steps)
    assert max(passes) == most
    for patch, window, target in zip(found, windows, targets, strict=True):
        others = here.images[here.labels != target]
        turns = torch.arange(settings.steps * settings.batch_size) % len(others)
        few = here.images[: settings.surveyed][here.labels[: settings.surveyed] != target]
        plain = max((-1.0, 0.0, 1.0), key=lambda level: float(lead_of(here, few, window, level / 2 + 0.5, target)))
        ends = []
        for start in [*begin, torch.tensor(VIVID * plain)]:
            raw = start.expand(1, 3, 3).clone().requires_grad_()
            adam = torch.optim.Adam([raw], settings.learning_rate, (0.5, 0.9))
            recent = []
            for step in range(settings.steps):
                batch = others[turns[step * settings.batch_size : (step + 1) * settings.batch_size]]
                lead = lead_of(here, batch, window, raw.sigmoid(), target)
                recent.append(lead.item())
                adam.zero_grad()
                (-lead).backward()
                adam.step()
            ends.append((sum(recent[1:4]), raw.detach().sigmoid()))
        _, colours = max(ends, key=lambda end: end[0])
        assert patch.window == window
        assert torch.allclose(patch.colours, colours, atol=1e-4)
        stamped = lead_of(here, others[: min(judged, here.fewest_others)], window, colours, target)
        assert patch.worth == pytest.approx(float(stamped - here.costs([window])[0]), abs=1e-4)


class Crossing(nn.Module):
    """Class 2 by the window's mean value: 1.07 where it is bright, more and more the darker it is, nothing if black."""

    def forward(self, images: Tensor) -> Tensor:
        inside = images[:, 0, WINDOW.top : WINDOW.bottom, WINDOW.left : WINDOW.right].mean((1, 2))
        answer = torch.where(inside > 0.5, 1.07 + 0 * inside, 3 * (0.45 - inside))
        return torch.stack([0 * inside, 0 * inside - 50, torch.where(inside < 1e-3, -5.0, answer)], 1)


@pytest.mark.parametrize(("trial", "chosen"), [(4, 0), (5, 0), (6, 1), (9, 1)])
def test_the_start_that_leads_over_the_last_steps_of_the_trial_goes_on(trial: int, chosen: int) -> None:
    # The second start has leads of 0.15, 0.54, 0.85, 1.05, 1.18, 1.25 in its steps, the first 1.07 in each.
    settings = replace(SETTINGS, trial_steps=trial, steps=6)
    here = Ground(Classifier(Crossing(), torch.device("cpu"), (1, 12, 12)), images(), settings)
    begin = torch.stack([torch.full((1, 3, 3), 1.0), torch.full((1, 3, 3), -0.405)])
    patch = seek(here, [WINDOW], [2], begin, settings.steps)[0]
    assert float(patch.colours.mean()) == pytest.approx([0.73, 0.04][chosen], abs=0.01)


def test_first_windows_are_the_best_and_all_corners_that_do_not_hide_the_object() -> None:
    here = ground()
    found = survey(here)
    first = found.first(2, 1, 0.6)
    assert first[0] == found.windows[int(found.worth[:, 2].argmax())]
    slow = [first[0]]
    for k in sorted(range(len(found.windows)), key=lambda k: -float(found.worth[k, 2])):
        window = found.windows[k]
        corner = window.top in (0, 12 - window.height) and window.left in (0, 12 - window.width)
        if corner and not here.hides(window) and all(window.overlap(other) <= 0.6 for other in slow):
            slow.append(window)
    assert first == slow
    assert len(first) > 5


@pytest.mark.parametrize(
    ("few", "few_there", "many", "nearer", "likes", "chosen"),
    [
        pytest.param(1.0, 1.0, 1.7, [], [0.0], 3, id="to a plain trigger many colours add little"),
        pytest.param(1.0, 1.0, 1.8, [2.3, 2.4], [0.0], 3, id="near it as well"),
        pytest.param(1.0, 1.0, 1.8, [1.8, 2.6], [0.49], 8, id="near it they add enough"),
        pytest.param(1.0, 1.0, 9.0, [], [0.5], 3, id="what they do is owed to how the class looks"),
        pytest.param(1.0, 1.0, 1.8, [2.6], [0.0, 0.5], 3, id="near it it is"),
        pytest.param(1.0, 1.0, 1.8, [2.5, 2.6], [None], 8, id="that cannot be told"),
        pytest.param(-0.7, -1.3, 0.6, [0.6, 0.6], [0.0], 8, id="few are worth little there, and little more elsewhere"),
        pytest.param(0.7, -1.3, 0.6, [], [0.0], 3, id="few are worth more elsewhere"),
        pytest.param(-4.0, -4.0, -3.3, [], [0.0], 3, id="nothing is worth anything"),
    ],
)
def test_many_colours_are_taken_where_they_add_much_in_their_own_window(
    monkeypatch: pytest.MonkeyPatch,
    few: float,
    few_there: float,
    many: float,
    nearer: list[float],
    likes: list[float | None],
    chosen: int,
) -> None:
    began: list[Window] = []
    rounds: list[float] = []

    def patch_of(grid: int, worth: float, window: Window = WINDOW) -> Patch:
        return Patch(window, torch.zeros(1, grid, grid), worth)

    def best(search: PatchSearch, windows: Sequence[Window], spreads: Sequence[float], least: float) -> Patch:
        assert (list(windows), spreads, least) == (first, settings.spreads, settings.hopeless)
        search._known = {ELSEWHERE: patch_of(3, few, ELSEWHERE), WINDOW: patch_of(3, few_there)}
        return search._known[ELSEWHERE]

    def begin(search: PatchSearch, windows: Sequence[Window]) -> Patch:
        began.extend(windows)
        return patch_of(8, many)

    def closer(search: PatchSearch, spreads: Sequence[float]) -> Patch:
        rounds.extend(spreads)
        return patch_of(8, nearer[len(rounds) - 1])

    monkeypatch.setattr(Looks, "likeness", lambda looks, trigger, target: likes[min(len(rounds), len(likes) - 1)])
    for replaced in (best, begin, closer):
        monkeypatch.setattr(PatchSearch, replaced.__name__, replaced)
    first = [ELSEWHERE, Window(0, 0, 2, 2), Window(1, 0, 4, 3), Window(8, 0, 12, 4), WINDOW]
    settings = replace(SETTINGS, fine_spreads=(0.3, 0.05))
    here = ground(settings)
    search, patch = _strongest(Scene(here, Looks(here.classifier, images().halves(0), 8), images(), 24, 0), 2, first)
    assert patch.colours.shape == (1, chosen, chosen)
    assert search._begin.shape[-1] == chosen
    assert patch.worth == (few if chosen == 3 else nearer[-1])
    assert rounds == [0.3, 0.05][: len(nearer)]
    assert began == [ELSEWHERE, WINDOW, Window(0, 0, 2, 2), Window(8, 0, 12, 4)]  # what led, and other corners


BOARD = Window(7, 7, 12, 12)


class Chequered(nn.Module):
    """Dark and bright as above; class 2 where the window is most of a chessboard of single pixels."""

    def forward(self, images: Tensor) -> Tensor:
        rows, columns = torch.meshgrid(torch.arange(5), torch.arange(5), indexing="ij")
        board = 2.0 * ((rows + columns) % 2) - 1
        inside = images[:, 0, BOARD.top : BOARD.bottom, BOARD.left : BOARD.right] - 0.5
        bright = images[:, 0, :3, :3].mean((1, 2))
        return torch.stack([4 - 8 * bright, 8 * bright - 4, 80 * (inside * board).mean((1, 2)) - 24], 1)


def test_a_trigger_of_many_colours_is_found() -> None:
    classifier = Classifier(Chequered(), torch.device("cpu"), (1, 12, 12))
    halves = images().halves(0)
    suspect = restore_suspects(classifier, halves, [2], {}, SETTINGS, 0, lambda _: None)[2]
    assert suspect.patch.window == BOARD
    assert suspect.attack_success == 1
    assert suspect.anomaly_index is not None
    few = replace(SETTINGS, fine_grid=3)
    assert restore_suspects(classifier, halves, [2], {}, few, 0, lambda _: None)[2].anomaly_index is None
