"""Which classes are searched to the end, and what the verdict makes of the others."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from torch import nn

import tabor
from tabor.access import Classifier
from tabor.anomaly import anomaly_indices
from tabor.class_finding import ClassStatus
from tabor.data import ImageSet
from tabor.errors import SettingError
from tabor.evidence import Evidence, measure
from tabor.methods.tabor import Tabor
from tabor.result import Verdict
from tabor.screening import Screening
from tabor.solver import Candidate, Progress, SolverSettings, solve
from tabor.trigger import Trigger
from tabor.verdict import OutlierSettings

from .class_facts import decide_on
from .closed_form import classifier, row_images, rows

SCREENING = Screening(steps=20, closest=1, others=2)
ALL = SolverSettings(steps=60, smallest_steps=40, batch_size=4)
SOME = replace(ALL, screening=SCREENING)
TARGETS = list(range(5))


def search(settings: SolverSettings, targets: list[int] = TARGETS, **options: object) -> dict[int, Candidate]:
    found = solve(
        classifier(rows()),
        row_images(),
        targets,
        Tabor(),
        settings,
        seed=0,
        **options,  # type: ignore[arg-type]
    )
    return {candidate.target: candidate for candidate in found}


def left_out(found: dict[int, Candidate]) -> set[int]:
    return {target for target, candidate in found.items() if candidate.status is ClassStatus.SCREENED}


@pytest.mark.parametrize("group_images", [4, 12, 256])
def test_those_that_go_on_end_as_they_would_have_without(group_images: int) -> None:
    whole, screened = search(ALL), search(replace(SOME, group_images=group_images))
    peers = SCREENING.peers(TARGETS, 0)
    smallest = min(search(replace(ALL, steps=20, smallest_steps=20)).values(), key=lambda c: c.size).target
    assert left_out(screened) == set(TARGETS) - peers - {smallest}
    assert len(left_out(screened)) in (2, 3)
    for target, candidate in screened.items():
        if target in left_out(screened):
            assert (candidate.steps, candidate.works, candidate.size) == (20, False, math.inf)
        else:
            assert (candidate.status, candidate.steps) == (whole[target].status, whole[target].steps)
            assert candidate.size == pytest.approx(whole[target].size, rel=1e-3)


def test_no_more_than_so_many_go_on() -> None:
    assert left_out(search(SOME, [0, 1, 2])) == set()
    assert len(left_out(search(SOME, [0, 1, 2, 3]))) in (1, 2)


def test_classes_searched_before_leave_the_lots_as_they_were() -> None:
    """An interrupted scan goes on with what is left of its classes."""
    first = search(SOME)
    left = [target for target in TARGETS if target not in left_out(first)]
    assert left_out(search(SOME, left, among=TARGETS)) == set()


def test_what_an_interruption_left_is_screened_though_few_are_left() -> None:
    everyone, left = list(range(100)), [0, 1, 2]
    assert not SCREENING.peers(everyone, 0) & set(left)
    assert len(left_out(search(SOME, left, among=everyone))) == len(left) - SCREENING.closest


def test_progress_never_falls_and_every_class_is_told_once() -> None:
    shares, told = list[float](), list[int]()

    def on_round(at: Progress) -> None:
        shares.append(at.share)

    search(SOME, on_round=on_round, on_class=lambda candidate: told.append(candidate.target))
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    rounds = SCREENING.steps // ALL.round_steps
    assert shares[rounds - 1] == pytest.approx(SCREENING.steps / ALL.steps)  # of three times as many steps
    assert sorted(told) == TARGETS


def test_the_lots_are_drawn_by_the_seed_and_stay_when_classes_are_left_out() -> None:
    screening = Screening(steps=1, closest=1, others=10)
    peers = screening.peers(range(100), 0)
    assert len(peers) == 10
    assert peers == screening.peers(list(reversed(range(100))), 0)
    assert peers != screening.peers(range(100), 1)
    counts = [sum(target in screening.peers(range(100), seed) for seed in range(200)) for target in range(100)]
    assert 5 <= min(counts) < 20 < max(counts) <= 40  # 20 each on average
    assert screening.peers(range(11), 0) == frozenset(range(11))


def test_in_parts_the_same_go_on_as_in_one() -> None:
    sizes = {target: float((7 * target) % 30) for target in range(30)} | {3: math.inf}
    screening = Screening(steps=1, closest=4, others=5)
    peers = screening.peers(range(30), 0)
    whole = screening.stay(sizes, peers)
    waiting: dict[int, float] = {}
    for start in range(0, 30, 7):
        waiting |= {target: sizes[target] for target in range(start, min(start + 7, 30))}
        stay = screening.stay(waiting, peers)
        waiting = {target: size for target, size in waiting.items() if target in stay}
    assert set(waiting) == whole
    assert {0, 13, 26, 9} | peers == whole  # sizes 0, 1, 2, and 3


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"closest": 0}, {"others": 1}])
def test_refuses_what_screens_nothing(wrong: dict[str, int]) -> None:
    with pytest.raises(SettingError, match="a screening needs"):
        Screening(**wrong)


# The verdict


def test_scores_are_held_against_the_peers() -> None:
    """The peers are 10 … 18: median 14, MAD 2.  The suspects beside them move neither."""
    scores = [1.0, 2.0, *range(10, 19), 3.0]
    peers = [False, False, *[True] * 9, False]
    expected = [(14 - score) / (2 * 1.4826) for score in scores]
    assert anomaly_indices(scores, 0.0, peers) == pytest.approx(expected)


def test_few_peers_are_held_against_the_others() -> None:
    """The peers 10, 12, 14: for the suspect all of them, median 12, MAD 2; for 10 the others, median 13, MAD 1.

    The median of three adds π/6 to the variance, that of two a half.
    """
    found = anomaly_indices([1.0, 10.0, 12.0, 14.0], 0.0, [False, True, True, True])
    of_3, of_2 = math.sqrt(1 + math.pi / 6), math.sqrt(1.5)
    assert found == pytest.approx([11 / (2 * 1.4826 * of_3), 3 / (1.4826 * of_2), 0.0, -3 / (1.4826 * of_2)])


def test_without_any_peer_all_are() -> None:
    scores = [1.0, *range(10, 19)]
    assert anomaly_indices(scores, 1.0, [False] * 10) == anomaly_indices(scores, 1.0)


NATURAL = [10.0, 10.4, 10.8, 11.2, 11.6, 12.0, 12.4, 12.8]
SETTINGS = OutlierSettings(spread_floor=0.75)


def test_a_class_screened_out_counts_for_the_threshold_and_for_nothing_else() -> None:
    scores = [*NATURAL, *[None] * 35]
    found = decide_on(scores, SETTINGS, screened=[False] * 8 + [True] * 35, finished=[True] * 8 + [False] * 35)
    assert found.verdict is Verdict.CLEAN
    assert found.threshold == SETTINGS.threshold_for(43)
    assert decide_on(scores, SETTINGS).verdict is Verdict.UNDECIDED, "35 classes without a trigger are something else"


def test_half_of_those_searched_to_the_end_must_have_a_trigger() -> None:
    scores = [*NATURAL[:4], *[None] * 39]
    found = decide_on(scores, SETTINGS, screened=[False] * 9 + [True] * 34)
    assert found.verdict is Verdict.UNDECIDED
    assert "only 4 of 9 classes" in found.reason


def test_a_tenth_of_those_searched_to_the_end_may_be_cut_off() -> None:
    scores = [*NATURAL, *[None] * 35]
    found = decide_on(scores, SETTINGS, screened=[False] * 9 + [True] * 34, finished=[True] * 8 + [False] * 35)
    assert found.verdict is Verdict.UNDECIDED
    assert "for 1 of 9 classes" in found.reason


def test_suspects_that_are_many_do_not_hide_each_other() -> None:
    """Six small scores of fourteen would be the rule, were they not known to be the six smallest of forty-three."""
    scores = [*[4.0] * 6, *NATURAL, *[None] * 29]
    screened = [False] * 14 + [True] * 29
    peers = [False] * 6 + [True] * 8 + [False] * 29
    found = decide_on(scores, SETTINGS, screened=screened, peer=peers)
    assert found.targets == (0, 1, 2, 3, 4, 5)
    assert decide_on(scores, SETTINGS, screened=screened).targets == ()


def test_a_scan_says_which_classes_it_left_out(
    cell_model: Callable[..., nn.Module], cell_images: Callable[..., ImageSet], quick: SolverSettings
) -> None:
    settings = replace(quick, screening=Screening(steps=20, closest=2, others=4))
    result = tabor.scan(cell_model(backdoor=2), cell_images(), solver=settings, device="cpu", seed=3)
    out = [finding for finding in result.classes if finding.status is ClassStatus.SCREENED]
    assert len(out) in (3, 4, 5)
    for finding in out:
        assert (finding.score, finding.anomaly_index, finding.steps) == (None, None, 20)
        assert finding.mask_l1 > 0
        assert not finding.flagged
    assert result.targets == (2,)


def test_a_few_images_tell_what_the_trigger_of_a_class_left_out_does(
    cell_model: Callable[..., nn.Module],
    cell_images: Callable[..., ImageSet],
    quick: SolverSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured: dict[int, int] = {}

    def counted(classifier: Classifier, trigger: Trigger, target: int, images: ImageSet) -> Evidence:
        measured[target] = len(images)
        return measure(classifier, trigger, target, images)

    monkeypatch.setattr("tabor.examining.GLANCE", 4)
    monkeypatch.setattr("tabor.examining.measure", counted)
    settings, images = replace(quick, screening=Screening(steps=20, closest=2, others=4)), cell_images()
    method = Tabor(restoring=None)
    result = tabor.scan(cell_model(backdoor=2), images, method=method, solver=settings, device="cpu", seed=3)
    out = {finding.index for finding in result.classes if finding.status is ClassStatus.SCREENED}
    assert 0 < len(out) < 9
    assert measured == {target: 4 if target in out else len(images) // 2 for target in range(9)}
