"""What is concluded from what was found for each class."""

from __future__ import annotations

import torch

from tabor.evidence import Evidence
from tabor.examining import Examined
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


def test_a_small_mask_flags_its_class() -> None:
    assert examined({}).decide(Tabor()).targets == (3,)
    assert set(examined({0: suspect(30.0)}).decide(Tabor()).targets) == {0, 3}
    assert set(examined({0: suspect(30.0), 3: suspect(9.0)}).decide(Tabor()).targets) == {0, 3}


def test_a_small_mask_does_not_flag_a_class_whose_patch_is_an_effect_of_a_flagged_one() -> None:
    assert examined({0: suspect(30.0), 3: suspect(9.0, shadow_of=0)}).decide(Tabor()).targets == (0,)


def test_the_effect_of_what_is_not_flagged_is_evidence_all_the_same() -> None:
    assert examined({0: suspect(1.0), 3: suspect(0.5, shadow_of=0)}).decide(Tabor()).targets == (3,)
