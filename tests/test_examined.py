"""What is concluded from what was found for each class."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tabor.class_finding import ClassStatus
from tabor.evidence import Evidence
from tabor.examined import Examined
from tabor.findings import _patch, warnings_of_effects
from tabor.methods.tabor import Tabor
from tabor.patches import Patch
from tabor.solver import Candidate
from tabor.suspect import Suspect
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


def suspect(index: float | None, effect_of: int | None = None) -> Suspect:
    patch = Patch(Window(0, 0, 3, 3), torch.ones(1, 3, 3), 2.0)
    return Suspect(patch, EVIDENCE, object_visible=True, index=index, effect_of=effect_of)


def examined(suspects: dict[int, Suspect]) -> Examined:
    """Of classes that are all alike but for class 3, whose mask is far smaller than the others'."""
    trigger = Trigger(torch.ones(1, 8, 8), torch.ones(1, 8, 8))
    candidates = [Candidate(target=k, trigger=trigger, status=ClassStatus.CONVERGED, steps=5) for k in range(CLASSES)]
    scores: list[float | None] = [-20.0 if k == 3 else 0.1 * k for k in range(CLASSES)]
    evidence = [replace(EVIDENCE, mask_l1=1.0) if k == 3 else EVIDENCE for k in range(CLASSES)]
    return Examined(candidates, evidence, scores, suspects, peers=range(CLASSES))


def test_a_trigger_works_from_four_images_of_five_on() -> None:
    assert replace(EVIDENCE, attacked=16).works
    assert not replace(EVIDENCE, attacked=15).works


def test_a_patch_that_says_nothing_is_no_trigger() -> None:
    failing = replace(suspect(9.0), evidence=replace(EVIDENCE, attacked=1))
    assert set(examined({3: suspect(9.0)}).patches((3,))) == {3}
    assert examined({3: failing}).patches((3,)) == {}
    assert examined({3: replace(suspect(9.0), object_visible=False)}).patches((3,)) == {}


def test_the_record_of_a_patch_has_its_own_figures() -> None:
    found = _patch(replace(suspect(9.0), evidence=replace(EVIDENCE, attacked=18, cropped_right=5)))
    assert found is not None
    assert (found.attack_success, found.crop_accuracy) == (0.9, 0.25)


def test_a_small_mask_flags_its_class() -> None:
    assert examined({}).decide(Tabor()).targets == (3,)
    assert set(examined({0: suspect(30.0)}).decide(Tabor()).targets) == {0, 3}
    assert set(examined({0: suspect(30.0), 3: suspect(9.0)}).decide(Tabor()).targets) == {0, 3}


def test_a_score_does_not_flag_a_class_whose_mask_is_as_large_as_any() -> None:
    seen = replace(examined({}), evidence=[EVIDENCE] * CLASSES)
    decision = seen.decide(Tabor())
    assert (decision.targets, seen.by_mask(decision)) == ((), set())


def test_a_small_mask_does_not_flag_a_class_whose_patch_is_an_effect_of_a_flagged_one() -> None:
    assert examined({0: suspect(30.0), 3: suspect(9.0, effect_of=0)}).decide(Tabor()).targets == (0,)


def test_the_effect_of_what_is_not_flagged_is_evidence_all_the_same() -> None:
    assert examined({0: suspect(1.0), 3: suspect(0.5, effect_of=0)}).decide(Tabor()).targets == (3,)


def test_a_class_that_only_an_effect_keeps_from_being_flagged_is_named() -> None:
    seen = examined({2: suspect(9.0, effect_of=7), 7: suspect(20.0)})
    decision = seen.decide(Tabor())
    assert seen.explained_away(decision) == {2: 7}
    assert warnings_of_effects({2: 7}, ()) == [
        "class 2 answers to a trigger too, which is taken for an effect of what was planted for class 7; "
        "unlearn that one and scan again (tabor patch --rescan) to know"
    ]
    assert warnings_of_effects({2: 7}, {2}) == [
        "class 2 stood out too, until what was planted for class 7 was unlearned in a copy of the model: it is taken "
        "for an effect of that"
    ]


def test_a_class_that_its_small_mask_would_flag_is_named_whatever_its_patch_says() -> None:
    """Its own patch may have failed, so that nothing but the mask speaks for it."""
    seen = examined({0: suspect(30.0), 3: suspect(None, effect_of=0)})
    decision = seen.decide(Tabor())
    assert decision.targets == (0,)
    assert seen.by_mask(decision) == {3}
    assert seen.explained_away(decision) == {3: 0}


@pytest.mark.parametrize("suspects", [{0: suspect(30.0)}, {0: suspect(30.0), 3: suspect(2.0)}])
def test_a_mask_that_is_an_effect_does_not_flag_its_class_whether_or_not_it_was_looked_at(
    suspects: dict[int, Suspect],
) -> None:
    seen = replace(examined(suspects), mask_effects={3: 0})
    decision = seen.decide(Tabor())
    assert decision.targets == (0,)
    assert seen.explained_away(decision) == {3: 0}
    assert replace(seen, mask_effects={3: 5}).decide(Tabor()).targets == (0, 3)  # the effect of what is not flagged


def test_a_mask_that_does_not_work_names_no_class() -> None:
    seen = examined({})
    failing = [replace(EVIDENCE, attacked=1) if k == 3 else EVIDENCE for k in range(CLASSES)]
    assert seen.by_mask(seen.decide(Tabor())) == {3}
    assert replace(seen, evidence=failing).by_mask(seen.decide(Tabor())) == set()


def test_what_is_just_at_its_threshold_does_not_stand_out() -> None:
    seen = examined({0: suspect(9.0)})
    decision = seen.decide(Tabor())
    index = decision.anomaly_indices[3]
    assert index is not None
    assert (seen.by_mask(decision), seen.by_patch(decision)) == ({3}, {0})
    at = replace(decision, threshold=index, patch_threshold=9.0)
    assert (seen.by_mask(at), seen.by_patch(at)) == (set(), set())


@pytest.mark.parametrize(
    "effect",
    [
        pytest.param(suspect(9.0), id="it is no effect"),
        pytest.param(suspect(4.0, effect_of=0), id="it would not be flagged"),
        pytest.param(suspect(None, effect_of=0), id="its patch says nothing"),
        pytest.param(replace(suspect(9.0, effect_of=0), object_visible=False), id="its patch hides the object"),
        pytest.param(suspect(9.0, effect_of=7), id="the other is not flagged"),
    ],
)
def test_no_other_class_is(effect: Suspect) -> None:
    seen = examined({0: suspect(30.0), 2: effect})
    assert seen.explained_away(seen.decide(Tabor())) == {}


def test_nor_is_it_where_its_mask_flags_it_all_the_same() -> None:
    seen = examined({7: suspect(30.0), 3: suspect(9.0, effect_of=7)})
    decision = replace(seen, suspects={7: suspect(30.0)}).decide(Tabor())
    assert set(decision.targets) == {3, 7}
    assert seen.explained_away(decision) == {}


def test_patches_do_not_stand_out_where_they_count_for_nothing() -> None:
    seen = examined({0: suspect(30.0), 2: suspect(9.0, effect_of=3)})
    decision = seen.decide(Tabor(restoring=None))
    assert decision.targets == (3,)
    assert (seen.by_patch(decision), seen.explained_away(decision)) == (set(), {})
    assert seen.by_patch(seen.decide(Tabor())) == {0, 2}


def test_what_was_restored_is_what_works() -> None:
    seen = examined({0: suspect(30.0)})
    assert [int(trigger.mask.sum()) for trigger in seen.restored(0)] == [64, 9]
    assert [int(trigger.mask.sum()) for trigger in seen.restored(1)] == [64]
    failing = [replace(EVIDENCE, attacked=1)] * CLASSES
    assert [int(trigger.mask.sum()) for trigger in replace(seen, evidence=failing).restored(0)] == [9]


def test_the_record_of_a_patch_says_of_which_class_it_is_an_effect() -> None:
    found = [_patch(suspect(9.0, effect_of=k)) for k in (7, None)]
    assert [(p.effect_of, p.anomaly_index) for p in found if p is not None] == [(7, None), (None, 9.0)]


def test_the_record_of_a_patch_says_how_much_is_owed_to_how_its_class_looks() -> None:
    found = [_patch(replace(suspect(9.0), likeness=like)) for like in (0.25, 0.75, None)]
    assert [(p.likeness, p.anomaly_index) for p in found if p is not None] == [(0.25, 13.0), (0.75, 9.0), (None, 9.0)]
