"""Which of the classes beside the first are effects: the second look, with what it sees told."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tabor.errors import ModelError
from tabor.evidence import Evidence
from tabor.examined import Examined
from tabor.methods.tabor import Tabor
from tabor.patches import RestoreSettings
from tabor.result import Verdict
from tabor.second_look import settled
from tabor.suspect import Suspect
from tabor.trigger import Trigger

from .test_examined import EVIDENCE, examined, suspect

Left = dict[int, Suspect] | None
HALVES: Any = tuple(SimpleNamespace(shape=(1, 8, 8), half=k) for k in range(2))


class SecondLook:
    """Stands for what `settled` has done with the model: answers as told, and remembers what it was asked.

    Args:
        left: what is left of the others' patches in the copy; None: there is no copy.
        ranks: of each class, whatever other one's patch is stamped; 0.5 where nothing is said.
        success: of the small masks in the copy.
        back: the first one's patch in a copy without another's trigger; None: that copy cannot be made.
    """

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        left: Left,
        ranks: dict[int, float] | None = None,
        success: float = 1.0,
        back: Suspect | None = None,
    ) -> None:
        self.unlearned: list[tuple[int, list[int], int]] = []
        self.looked_at: list[tuple[list[int], RestoreSettings, int]] = []
        self.stamped: list[int] = []
        self.copies = 0
        self.copy = SimpleNamespace(image_passes=100)
        self._left, self._ranks, self._success, self._back = left, ranks or {}, success, back
        for name in ("without", "restore_suspects", "measure", "rank_beside"):
            monkeypatch.setattr(f"tabor.second_look.{name}", getattr(self, name))

    def without(self, _: Any, halves: Any, first: int, triggers: list[Trigger], seed: int) -> Any:
        assert halves == HALVES
        self.unlearned.append((first, [int(trigger.mask.sum()) for trigger in triggers], seed))
        there = (self._back if len(self.unlearned) > 1 else self._left) is not None
        self.copies += there
        return self.copy if there else None

    def restore_suspects(
        self, copy: Any, halves: Any, others: list[int], scores: Any, settings: RestoreSettings, seed: int, *_: Any
    ) -> Left:
        assert (copy, halves, scores) == (self.copy, HALVES, {})
        self.looked_at.append((others, settings, seed))
        return self._left if len(self.unlearned) == 1 else dict.fromkeys(others, self._back or suspect(None))

    def measure(self, copy: Any, _: Trigger, target: int, images: Any) -> Evidence:
        assert (copy, images) == (self.copy, HALVES[1])
        self.stamped.append(target)
        return replace(EVIDENCE, attacked=round(20 * self._success))

    def rank_beside(self, _: Any, __: Trigger, other: int, images: Any) -> float:
        assert images is HALVES[1]
        return self._ranks.get(other, 0.5)

    def settled(self, seen: Examined, method: Tabor | None = None) -> Examined:
        here: Any = SimpleNamespace(device=torch.device("cpu"), image_passes=23)
        again = settled(seen, here, HALVES, method or Tabor(), 7, lambda _: None)
        assert here.image_passes == 23 + 100 * self.copies  # theirs are counted
        return again


def broken(*_: Any) -> Evidence:
    raise ModelError("the model's outputs are not finite numbers")


def effects(seen: Examined) -> dict[int, int | None]:
    return {k: s.effect_of for k, s in seen.suspects.items()}


NATURAL = {0: suspect(30.0), 3: suspect(None), 5: suspect(9.0), 6: suspect(6.0, effect_of=5), 7: suspect(2.0)}
"""Two stand out by their patches and an effect of one of them, class 3 by its mask."""


def test_what_no_longer_stands_out_is_an_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    look = SecondLook(monkeypatch, {5: suspect(None)})
    seen = look.settled(examined(NATURAL))
    assert look.unlearned[0] == (0, [64, 9], 7)  # the small mask of these tests, and the patch
    ((others, settings, seed),) = look.looked_at
    assert (others, settings.by_worth, settings.by_score, seed) == ([5, 6], 2, 0, 7)
    decision = seen.decide(Tabor())
    assert set(seen.flagged(decision)) == {0, 3}
    assert effects(seen) == {0: None, 3: None, 5: 0, 6: 0, 7: None}
    assert seen.explained_away(decision) == {5: 0, 6: 0}
    assert set(seen.settled) == {5, 6}


def test_what_comes_just_to_the_threshold_does_not_stand_out_still(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = SecondLook(monkeypatch, {5: suspect(Tabor().outliers.patch_threshold)}).settled(examined(NATURAL))
    assert seen.suspects[5].effect_of == 0


@pytest.mark.parametrize(("success", "lost"), [(0.45, True), (0.5, False)])
def test_a_small_mask_that_works_no_more_is_an_effect(
    success: float, lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = SecondLook(monkeypatch, {}, success=success)
    seen = look.settled(examined({0: suspect(30.0)}))
    assert [first for first, *_ in look.unlearned] == ([0] if lost else [0, 3])
    assert (look.stamped, look.looked_at) == ([3], [])
    decision = seen.decide(Tabor())
    assert set(seen.flagged(decision)) == ({0} if lost else {0, 3})
    assert seen.explained_away(decision) == ({3: 0} if lost else {})
    assert set(seen.settled) == ({3} if lost else set())


def test_it_is_an_effect_of_what_the_first_is_an_effect_of(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = SecondLook(monkeypatch, {5: suspect(None)}, {5: 0.1}, success=0.0).settled(
        examined({0: suspect(30.0), 5: suspect(9.0)})
    )
    decision = seen.decide(Tabor())
    assert seen.flagged(decision) == (5,)
    assert seen.explained_away(decision) == {0: 5, 3: 5}
    assert not seen.settled  # what was unlearned is not what was planted


@pytest.mark.parametrize(
    ("left", "cause"),
    [
        pytest.param({5: suspect(8.0), 8: suspect(7.0, effect_of=5)}, 5, id="of one that stands out still"),
        pytest.param(
            {8: suspect(7.0, effect_of=5)}, 0, id="of one that does not, and is an effect of the first itself"
        ),
    ],
)
def test_what_stands_out_beside_another_in_the_copy_is_no_effect_of_the_first(
    left: Left, cause: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Class 8 was not settled by unlearning the first class's trigger, nor was class 9, which was an effect of it."""
    assert left is not None
    look = SecondLook(monkeypatch, left)
    seen = look.settled(examined({**NATURAL, 8: suspect(8.0), 9: suspect(5.0, effect_of=8)}))
    assert [seen.suspects[k].effect_of for k in (8, 9)] == [cause, cause]
    assert set(seen.settled) == {5, 6} - set(left)
    flagged = seen.flagged(seen.decide(Tabor()))
    assert set(flagged) == {0, 3} | ({5} & set(left))
    assert (seen.explained_away(seen.decide(Tabor())).get(8) == cause) is (cause in flagged)


@pytest.mark.parametrize("ranks", [{5: 0.0}, {0: 0.0}])
def test_what_stands_out_still_is_a_target(ranks: dict[int, float], monkeypatch: pytest.MonkeyPatch) -> None:
    look = SecondLook(monkeypatch, {5: suspect(7.0), 6: suspect(6.0, effect_of=5)}, ranks)
    seen = look.settled(examined(NATURAL))
    assert [others for others, *_ in look.looked_at] == [[5, 6]]
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
    assert seen.explained_away(decision) == {0: 5, 6: 5}


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
    seen = examined({0: suspect(30.0), 5: suspect(9.0, effect_of=0)})
    again = SecondLook(monkeypatch, {5: suspect(left)}, ranks).settled(seen)
    assert again.suspects == seen.suspects
    assert set(again.settled) == settled


@pytest.mark.parametrize(("ranks", "target"), [({}, 3), ({5: 0.0}, 5)])
def test_the_first_may_stand_out_by_its_mask_alone(
    ranks: dict[int, float], target: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = SecondLook(monkeypatch, {}, ranks)
    seen = look.settled(examined({5: suspect(6.0)}))
    assert [first for first, *_ in look.unlearned] == [3]
    assert seen.flagged(seen.decide(Tabor())) == (target,)


def test_the_cause_may_be_what_stands_out_by_its_mask_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Either may be the first; what the restored triggers speak for tells, patches or masks."""
    ranked: list[tuple[int, int]] = []

    def rank(_: Any, trigger: Trigger, other: int, __: Any) -> float:
        ranked.append((int(trigger.mask.sum()), other))
        return {0: 0.6, 3: 0.1}[other]

    look = SecondLook(monkeypatch, {}, success=0.0)
    monkeypatch.setattr("tabor.second_look.rank_beside", rank)
    seen = look.settled(examined({0: suspect(30.0)}))
    assert ranked == [(64, 0), (9, 3)]  # class 3's mask, class 0's patch
    decision = seen.decide(Tabor())
    assert seen.flagged(decision) == (3,)
    assert seen.explained_away(decision) == {0: 3}


def test_the_verdict_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """As too few classes have a trigger, none is flagged by its mask, but for what a patch says."""
    few = examined({5: suspect(6.0)})
    scores = [score if k in (2, 3, 4) else None for k, score in enumerate(few.scores)]
    seen = replace(few, scores=scores)
    assert seen.decide(Tabor()).verdict is Verdict.BACKDOORED
    look = SecondLook(monkeypatch, {5: suspect(None)})
    assert look.settled(seen) is seen
    assert look.looked_at


@pytest.mark.parametrize(
    ("back", "targets"),
    [
        pytest.param(suspect(3.4), (5,), id="the first is gone without it"),
        pytest.param(suspect(8.0), (0, 5), id="both remain: two backdoors"),
        pytest.param(None, (0, 5), id="it cannot be unlearned"),
    ],
)
def test_what_remains_without_the_first_is_its_cause_if_that_does_not_remain(
    back: Suspect | None, targets: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    look = SecondLook(monkeypatch, {5: suspect(9.6)}, back=back)
    alike = examined({0: suspect(10.6), 5: suspect(9.6)})
    seen = look.settled(replace(alike, scores=[0.1 * k for k in range(len(alike.scores))]))
    assert [first for first, *_ in look.unlearned] == [0, 5]
    assert [others for others, *_ in look.looked_at] == ([[5], [0]] if back else [[5]])
    decision = seen.decide(Tabor())
    assert seen.flagged(decision) == targets
    assert (seen.explained_away(decision), set(seen.settled)) == (({0: 5}, {0}) if targets == (5,) else ({}, set()))


def test_what_is_an_effect_of_the_first_in_the_copy_is_not_looked_at_as_its_cause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Class 8 stands out still, but beside class 5, which is gone with the first: no two are each other's effects."""
    look = SecondLook(monkeypatch, {5: suspect(None), 8: suspect(7.0, effect_of=5)}, back=suspect(3.4))
    seen = examined({0: suspect(30.0), 5: suspect(9.0), 8: suspect(8.0)})
    again = look.settled(replace(seen, scores=[0.1 * k for k in range(len(seen.scores))]))
    assert [first for first, *_ in look.unlearned] == [0]
    assert effects(again) == {0: None, 5: 0, 8: 0}


def test_the_first_by_its_mask_is_looked_at_by_its_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    look = SecondLook(monkeypatch, {5: suspect(9.6)}, success=0.1, back=suspect(None))
    seen = look.settled(examined({5: suspect(6.0)}))
    assert [first for first, *_ in look.unlearned] == [3, 5]
    assert look.stamped == [3]
    assert seen.flagged(seen.decide(Tabor())) == (5,)


def test_a_copy_that_does_not_answer_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    look = SecondLook(monkeypatch, {})
    monkeypatch.setattr("tabor.second_look.without", broken)
    seen = examined(NATURAL)
    assert look.settled(seen) is seen


@pytest.mark.parametrize(
    ("suspects", "method"),
    [
        pytest.param({3: suspect(30.0), 5: suspect(2.0)}, Tabor(), id="the patch and the mask of one class"),
        pytest.param({5: suspect(9.0, effect_of=0)}, Tabor(), id="none but a mask"),
        pytest.param(NATURAL, Tabor(restoring=None), id="patches count for nothing"),
    ],
)
def test_there_is_no_second_look_without_a_second_class(
    suspects: dict[int, Suspect], method: Tabor, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = SecondLook(monkeypatch, {})
    seen = examined(suspects)
    assert look.settled(seen, method) is seen
    assert look.unlearned == []
