"""What is concluded from what was found for each class."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tabor.evidence import Evidence
from tabor.examining import Examined, _settled
from tabor.findings import _patch, warnings_of_effects
from tabor.methods.tabor import Tabor
from tabor.patches import Patch
from tabor.result import ClassStatus
from tabor.solver import Candidate
from tabor.suspects import Suspect
from tabor.trigger import Trigger
from tabor.windows import Window

CLASSES = 12
EVIDENCE = Evidence(
    mask_l1=4.0,
    pixels=64,
    edges=56.0,
    mask_smoothness=1.0,
    shape_pixels=4,
    shape_smoothness=1.0,
    attacked=20,
    attacked_of=20,
    cropped_right=20,
    cropped_of=20,
    explained=1,
    explained_of=1,
)


def suspect(index: float | None, shadow_of: int | None = None) -> Suspect:
    patch = Patch(Window(0, 0, 3, 3), torch.ones(1, 3, 3), 2.0)
    return Suspect(patch, EVIDENCE, in_sight=True, index=index, shadow_of=shadow_of)


def examined(suspects: dict[int, Suspect]) -> Examined:
    """Of classes that are all alike but for class 3, whose mask is far smaller than the others'."""
    trigger = Trigger(torch.ones(1, 8, 8), torch.ones(1, 8, 8))
    candidates = [Candidate(target=k, trigger=trigger, status=ClassStatus.CONVERGED, steps=5) for k in range(CLASSES)]
    scores: list[float | None] = [-20.0 if k == 3 else 0.1 * k for k in range(CLASSES)]
    return Examined(candidates, [EVIDENCE] * CLASSES, scores, suspects, peers=range(CLASSES))


def test_a_trigger_works_from_four_images_of_five_on() -> None:
    assert replace(EVIDENCE, attacked=16).works
    assert not replace(EVIDENCE, attacked=15).works


def test_a_patch_that_does_not_work_is_no_trigger() -> None:
    failing = replace(suspect(9.0), evidence=replace(EVIDENCE, attacked=1))
    assert set(examined({3: suspect(9.0)}).patches((3,))) == {3}
    assert examined({3: failing}).patches((3,)) == {}


def test_the_record_of_a_patch_has_its_own_figures() -> None:
    found = _patch(replace(suspect(9.0), evidence=replace(EVIDENCE, attacked=18, cropped_right=5)))
    assert found is not None
    assert (found.attack_success, found.crop_accuracy) == (0.9, 0.25)


def test_a_small_mask_flags_its_class() -> None:
    assert examined({}).decide(Tabor()).targets == (3,)
    assert set(examined({0: suspect(30.0)}).decide(Tabor()).targets) == {0, 3}
    assert set(examined({0: suspect(30.0), 3: suspect(9.0)}).decide(Tabor()).targets) == {0, 3}


def test_a_small_mask_does_not_flag_a_class_whose_patch_is_an_effect_of_a_flagged_one() -> None:
    assert examined({0: suspect(30.0), 3: suspect(9.0, shadow_of=0)}).decide(Tabor()).targets == (0,)


def test_the_effect_of_what_is_not_flagged_is_evidence_all_the_same() -> None:
    assert examined({0: suspect(1.0), 3: suspect(0.5, shadow_of=0)}).decide(Tabor()).targets == (3,)


def test_a_class_that_only_an_effect_keeps_from_being_flagged_is_named() -> None:
    effect, strong = suspect(9.0, shadow_of=7), suspect(20.0)
    told = warnings_of_effects({2: effect, 7: strong}, (7,), 5.0, (), ())
    assert told == [
        "class 2 answers to a trigger too, which is taken for an effect of what was planted for class 7; "
        "unlearn that one and scan again (tabor patch --rescan) to know"
    ]


def test_a_class_that_its_small_mask_would_flag_is_named_whatever_its_patch_says() -> None:
    """Its own patch may have failed, so that nothing but the mask speaks for it."""
    seen = examined({0: suspect(30.0), 3: suspect(None, shadow_of=0)})
    decision = seen.decide(Tabor())
    assert decision.targets == (0,)
    assert seen.by_mask(decision) == {3}
    told = warnings_of_effects(seen.suspects, decision.targets, decision.patch_threshold, seen.by_mask(decision), ())
    assert [warning.split(",")[0] for warning in told] == ["class 3 answers to a trigger too"]


def test_a_mask_that_does_not_work_names_no_class() -> None:
    seen = examined({})
    failing = [replace(EVIDENCE, attacked=1) if k == 3 else EVIDENCE for k in range(CLASSES)]
    assert seen.by_mask(seen.decide(Tabor())) == {3}
    assert replace(seen, evidence=failing).by_mask(seen.decide(Tabor())) == set()


@pytest.mark.parametrize(
    ("effect", "flagged", "threshold"),
    [
        pytest.param(suspect(9.0), (7,), 5.0, id="it is no effect"),
        pytest.param(suspect(4.0, shadow_of=7), (7,), 5.0, id="it would not be flagged"),
        pytest.param(suspect(None, shadow_of=7), (7,), 5.0, id="its patch says nothing"),
        pytest.param(replace(suspect(9.0, shadow_of=7), in_sight=False), (7,), 5.0, id="its patch hides the object"),
        pytest.param(suspect(9.0, shadow_of=7), (), 5.0, id="nor is the other flagged"),
        pytest.param(suspect(9.0, shadow_of=7), (2, 7), 5.0, id="its mask flags it"),
        pytest.param(suspect(9.0, shadow_of=7), (7,), None, id="patches count for nothing"),
    ],
)
def test_no_other_class_is(effect: Suspect, flagged: tuple[int, ...], threshold: float | None) -> None:
    assert warnings_of_effects({2: effect, 7: suspect(20.0)}, flagged, threshold, (), ()) == []


Left = dict[int, Suspect] | None
HALVES: Any = (SimpleNamespace(shape=(1, 8, 8)), SimpleNamespace(shape=(1, 8, 8)))


class SecondLook:
    """Stands for `without` and `rank_beside`: answers as told, and remembers what it was asked.

    Args:
        left: what is left of the others in the copy.
        ranks: of each class, whatever other one's patch is stamped; 0.5 where nothing is said.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, left: Left, ranks: dict[int, float] | None = None) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self._left, self._ranks = left, ranks or {}
        monkeypatch.setattr("tabor.examining.without", self)
        monkeypatch.setattr("tabor.examining.rank_beside", lambda _, __, other, ___: self._ranks.get(other, 0.5))

    def __call__(self, *asked: Any) -> Left:
        self.asked.append(asked)
        return self._left

    @property
    def looks(self) -> list[tuple[int, list[int]]]:
        """Which class was unlearned, and which others were looked at."""
        return [(first, others) for _, _, first, _, others, *_ in self.asked]

    @staticmethod
    def settled(seen: Examined, method: Tabor | None = None) -> Examined:
        here: Any = SimpleNamespace(device=torch.device("cpu"))
        return _settled(seen, here, HALVES, method or Tabor(), 7, lambda _: None)


def effects(seen: Examined) -> dict[int, int | None]:
    return {k: s.shadow_of for k, s in seen.suspects.items()}


NATURAL = {0: suspect(30.0), 3: suspect(None), 5: suspect(9.0), 6: suspect(6.0, shadow_of=5), 7: suspect(2.0)}
"""Two stand out by their patches and an effect of one of them, class 3 by its mask."""


def test_what_no_longer_stands_out_is_an_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    look = SecondLook(monkeypatch, {5: suspect(None)})
    seen = look.settled(examined(NATURAL))
    ((_, halves, first, triggers, others, settings, seed, _),) = look.asked
    assert (halves, first, others, seed) == (HALVES, 0, [5, 6], 7)
    assert settings == Tabor().restoring
    assert [int(trigger.mask.sum()) for trigger in triggers] == [64, 9]  # the small mask of these tests, and the patch
    decision = seen.decide(Tabor())
    assert set(seen.flagged(decision)) == {0, 3}
    assert effects(seen) == {0: None, 3: None, 5: 0, 6: 0, 7: None}
    told = warnings_of_effects(seen.suspects, (0, 3), decision.patch_threshold, (), seen.settled)
    assert told == [
        f"class {k} stood out too, until what was planted for class 0 was unlearned in a copy of the model: it is "
        "taken for an effect of that"
        for k in (5, 6)
    ]


@pytest.mark.parametrize(
    ("left", "cause"),
    [
        pytest.param({5: suspect(8.0), 8: suspect(7.0, shadow_of=5)}, 5, id="of one that stands out still"),
        pytest.param(
            {8: suspect(7.0, shadow_of=5)}, 0, id="of one that does not, and is an effect of the first itself"
        ),
    ],
)
def test_what_stands_out_beside_another_in_the_copy_is_no_effect_of_the_first(
    left: Left, cause: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Class 8 was not settled by unlearning the first class's trigger, nor was class 9, which was an effect of it."""
    assert left is not None
    look = SecondLook(monkeypatch, left)
    seen = look.settled(examined({**NATURAL, 8: suspect(8.0), 9: suspect(5.0, shadow_of=8)}))
    assert [seen.suspects[k].shadow_of for k in (8, 9)] == [cause, cause]
    assert set(seen.settled) == {5, 6} - set(left)
    flagged = seen.flagged(seen.decide(Tabor()))
    assert set(flagged) == {0, 3} | ({5} & set(left))
    told = warnings_of_effects(seen.suspects, flagged, 5.6, (), seen.settled)
    assert f"class 8 answers to a trigger too, which is taken for an effect of what was planted for class {cause};" in (
        " ".join(told)
    )


@pytest.mark.parametrize("ranks", [{5: 0.0}, {0: 0.0}])
def test_what_stands_out_still_is_a_target(ranks: dict[int, float], monkeypatch: pytest.MonkeyPatch) -> None:
    look = SecondLook(monkeypatch, {5: suspect(7.0), 6: suspect(6.0, shadow_of=5)}, ranks)
    seen = look.settled(examined(NATURAL))
    assert look.looks == [(0, [5, 6])]
    assert set(seen.flagged(seen.decide(Tabor()))) == {0, 3, 5}
    assert effects(seen) == {0: None, 3: None, 5: None, 6: 5, 7: None}
    assert not seen.settled


def test_where_nothing_can_be_unlearned_all_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = SecondLook(monkeypatch, None, {5: 0.0}).settled(examined(NATURAL))
    assert (seen.suspects, set(seen.settled)) == (NATURAL, set())


@pytest.mark.parametrize("effect_of", [None, 0])
def test_the_first_is_an_effect_of_what_its_patch_speaks_for(
    effect_of: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where that one was taken for an effect of it: natural patches may stand out more than the planted one."""
    suspects = {0: suspect(30.0), 3: suspect(None), 5: suspect(9.0, effect_of), 6: suspect(7.0, 0), 7: suspect(2.0, 0)}
    look = SecondLook(monkeypatch, {5: suspect(1.7), 6: suspect(None)}, {5: 0.25, 6: 0.28})
    seen = look.settled(examined(suspects))
    assert effects(seen) == {0: 5, 3: None, 5: None, 6: 5, 7: 5}
    assert not seen.settled  # what was unlearned is not what was planted
    decision = seen.decide(Tabor())
    assert set(seen.flagged(decision)) == {3, 5}
    told = warnings_of_effects(seen.suspects, (3, 5), decision.patch_threshold, (), seen.settled)
    assert told[0].startswith(
        "class 0 answers to a trigger too, which is taken for an effect of what was planted for class 5"
    )


@pytest.mark.parametrize(
    ("left", "ranks", "settled"),
    [
        pytest.param(9.0, {5: 0.0}, set(), id="it stands out still"),
        pytest.param(1.7, {5: 0.35}, {5}, id="each speaks about as much for the other"),
        pytest.param(1.7, {0: 0.1}, {5}, id="its patch speaks for the first"),
    ],
)
def test_else_an_effect_stays_one(
    left: float, ranks: dict[int, float], settled: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = examined({0: suspect(30.0), 5: suspect(9.0, shadow_of=0)})
    again = SecondLook(monkeypatch, {5: suspect(left)}, ranks).settled(seen)
    assert again.suspects == seen.suspects
    assert set(again.settled) == settled


def test_the_first_may_stand_out_by_its_mask_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    look = SecondLook(monkeypatch, {}, {5: 0.0})
    seen = look.settled(examined({5: suspect(6.0)}))
    assert look.looks == [(3, [5])]
    assert seen.suspects[5].shadow_of == 3  # whatever it speaks for, which has no patch


@pytest.mark.parametrize(
    ("suspects", "method"),
    [
        pytest.param({0: suspect(30.0), 5: suspect(2.0)}, Tabor(), id="one patch and one mask"),
        pytest.param({0: suspect(30.0), 3: suspect(2.0)}, Tabor(), id="that stands out by its mask alone"),
        pytest.param({5: suspect(9.0, shadow_of=0)}, Tabor(), id="none but a mask"),
        pytest.param(NATURAL, Tabor(restoring=None), id="patches count for nothing"),
    ],
)
def test_there_is_no_second_look_without_a_second_patch(
    suspects: dict[int, Suspect], method: Tabor, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = SecondLook(monkeypatch, {})
    seen = examined(suspects)
    assert look.settled(seen, method) is seen
    assert look.asked == []


def test_what_was_restored_is_what_works() -> None:
    seen = examined({0: suspect(30.0)})
    assert [int(trigger.mask.sum()) for trigger in seen.restored(0)] == [64, 9]
    assert [int(trigger.mask.sum()) for trigger in seen.restored(1)] == [64]
    failing = [replace(EVIDENCE, attacked=1)] * CLASSES
    assert [int(trigger.mask.sum()) for trigger in replace(seen, evidence=failing).restored(0)] == [9]


def test_the_record_of_a_patch_says_of_which_class_it_is_an_effect() -> None:
    found = [_patch(suspect(9.0, shadow_of=k)) for k in (7, None)]
    assert [(p.effect_of, p.anomaly_index) for p in found if p is not None] == [(7, None), (None, 9.0)]
