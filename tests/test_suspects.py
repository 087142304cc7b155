"""Which classes are looked at closely, and what one says beside the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tabor.access import Classifier
from tabor.effects import cause_of, is_common
from tabor.ground import Ground
from tabor.patches import Patch, RestoreSettings
from tabor.restore import PatchSearch, survey
from tabor.suspect import FOREIGN, Suspect
from tabor.suspects import restore_suspects
from tabor.windows import Window

from .closed_form import CPU
from .test_examined import suspect
from .test_restore import BOARD, SETTINGS, WINDOW, Chequered, Planted, images, standing

NATURAL = standing(0.9, 9.0, WINDOW)
"""Says something, and is worth less than a real image."""


def looked_at(
    monkeypatch: pytest.MonkeyPatch,
    found: Mapping[int, Suspect],
    *,
    network: nn.Module | None = None,
    settings: RestoreSettings = SETTINGS,
    scores: Mapping[int, float] | None = None,
) -> dict[int, Suspect]:
    """What comes of these suspects, which nobody has to seek."""
    monkeypatch.setattr("tabor.suspects._look_closely", lambda _, target, *__: found[target])
    classifier = Classifier(network or Planted(), CPU, (1, 12, 12))
    halves = images().halves(0)
    return restore_suspects(classifier, halves, list(found), scores or {}, settings, 0, lambda _: None)


def test_the_best_window_and_the_smallest_score_make_suspects(monkeypatch: pytest.MonkeyPatch) -> None:
    """`Planted` answers to a patch of class 2."""
    few = replace(SETTINGS, by_worth=1, by_score=1)
    found = looked_at(monkeypatch, dict.fromkeys(range(3), NATURAL), settings=few, scores={0: 5.0, 1: -5.0})
    assert list(found) == [2, 1]


@pytest.mark.parametrize("apart", [0.1, 0.3, 0.6])
def test_the_first_windows_of_a_suspect_lie_apart(apart: float, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[list[Window]] = []

    def look(_: Ground, target: int, first: list[Window], *__: object) -> Suspect:
        begun.append(first)
        return NATURAL

    monkeypatch.setattr("tabor.suspects._look_closely", look)
    classifier, halves = Classifier(Planted(), CPU, (1, 12, 12)), images().halves(0)
    restore_suspects(classifier, halves, [2], {}, replace(SETTINGS, apart=apart), 0, lambda _: None)
    found = survey(Ground(classifier, halves[0], SETTINGS))
    assert begun == [found.first(2, SETTINGS.first, apart)]
    assert len({len(found.first(2, SETTINGS.first, other)) for other in (0.1, 0.3, 0.6)}) == 3


def test_of_several_the_one_that_stands_out_most_casts_an_effect() -> None:
    found = {4: standing(1.0, 2.0, WINDOW), 7: standing(4.0, 9.0, WINDOW), 9: standing(4.0, 20.0, WINDOW)}
    assert cause_of(4, found, lambda *_: False) == 9


@pytest.mark.parametrize(
    ("found", "common"),
    [
        pytest.param([NATURAL] * 3, True, id="all three have one"),
        pytest.param([NATURAL, *[replace(NATURAL, effect_of=0)] * 4], False, id="one backdoor and its effects"),
        pytest.param([standing(-0.1, 9.0, WINDOW)] * 3, False, id="worth nothing"),
        pytest.param([NATURAL] * 2, False, id="only two"),
        pytest.param([NATURAL, *[standing(2.0, 4.6, WINDOW)] * 2], True, id="the others stand out half as far"),
        pytest.param([NATURAL, *[standing(2.0, 4.4, WINDOW)] * 2], False, id="no other stands out nearly as far"),
        pytest.param([*[NATURAL] * 3, *[standing(2.0, 1.0, WINDOW)] * 3], False, id="half of the classes have one"),
    ],
)
def test_what_most_classes_have_is_natural(found: Sequence[Suspect], common: bool) -> None:
    assert is_common(found[0], found) == common


def test_one_that_stands_out_further_than_most_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a planted one does beside natural ones."""
    far, near = standing(0.4, 9.0, Window(9, 9, 12, 12)), standing(0.9, 2.0, WINDOW)
    found = looked_at(monkeypatch, {0: far, 1: near, 2: near})
    assert {target: one.anomaly_index for target, one in found.items()} == {0: 9.0, 1: None, 2: None}


def test_what_is_natural_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = looked_at(monkeypatch, dict.fromkeys(range(3), NATURAL))
    assert [one.anomaly_index for one in found.values()] == [None] * 3


def test_the_same_picture_elsewhere_is_an_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by stamping it on images, not by what it is worth."""
    rows, columns = torch.meshgrid(torch.arange(5), torch.arange(5), indexing="ij")
    board = ((rows + columns) % 2).float()[None]
    elsewhere = standing(4.5, 5.0, Window(0, 4, 5, 9), board)
    found = looked_at(monkeypatch, {0: elsewhere, 2: standing(4.0, 9.0, BOARD)}, network=Chequered())
    assert {target: one.effect_of for target, one in found.items()} == {0: 2, 2: None}


class Five(Chequered):
    """With two classes more, which no image goes to."""

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        return torch.cat([logits, torch.full_like(logits[:, :2], -12.0)], 1)


def test_nothing_is_an_effect_of_what_is_natural(monkeypatch: pytest.MonkeyPatch) -> None:
    """Class 0 has the picture of class 2 in another place, and three classes have such patches."""
    rows, columns = torch.meshgrid(torch.arange(5), torch.arange(5), indexing="ij")
    board = ((rows + columns) % 2).float()[None]
    natural = {2: standing(0.9, 9.0, BOARD), 3: standing(0.9, 8.0, WINDOW), 4: standing(0.9, 8.0, WINDOW)}
    found = {0: standing(1.6, 7.0, Window(0, 4, 5, 9), board), **natural}
    seen = looked_at(monkeypatch, found, network=Five(), settings=replace(SETTINGS, by_worth=4))
    assert {k: s.anomaly_index for k, s in seen.items()} == {0: 7.0, 2: None, 3: None, 4: None}
    assert seen[0].effect_of is None


@pytest.mark.parametrize(
    ("window", "wrong_labels"),
    [
        pytest.param(Window(0, 0, 3, 3), False, id="it hides what tells the classes"),
        pytest.param(WINDOW, True, id="no image is right without it"),
    ],
)
def test_a_patch_that_leaves_nothing_right_is_not_in_sight(
    window: Window, wrong_labels: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PatchSearch, "placed", lambda _: Patch(window, torch.ones(1, 3, 3), 1.0))
    search, confirm = images().halves(0)
    if wrong_labels:
        confirm = replace(confirm, labels=1 - confirm.labels)
    classifier = Classifier(Planted(), CPU, (1, 12, 12))
    found = restore_suspects(classifier, (search, confirm), [2], {}, SETTINGS, 0, lambda _: None)
    assert not found[2].object_visible


def test_sight_is_held_against_what_is_right_without_the_patch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PatchSearch, "placed", lambda _: Patch(WINDOW, torch.ones(1, 3, 3), 1.0))
    search, confirm = images().halves(0)
    mistaken = replace(confirm, labels=torch.cat([1 - confirm.labels[:6], confirm.labels[6:]]))
    classifier = Classifier(Planted(), CPU, (1, 12, 12))
    assert restore_suspects(classifier, (search, mistaken), [2], {}, SETTINGS, 0, lambda _: None)[2].object_visible


@pytest.mark.parametrize(("object_visible", "likeness"), [(True, 0.25), (False, None)])
@pytest.mark.parametrize("outline", [None, torch.tensor([[[0.0, 1.0], [0.5, 1.0]]])])
def test_what_was_measured_is_read_as_it_was(
    object_visible: bool, likeness: float | None, outline: Tensor | None
) -> None:
    one = replace(suspect(9.0), object_visible=object_visible, likeness=likeness)
    one = replace(one, patch=replace(one.patch, colours=torch.rand(1, 2, 2), outline=outline))
    again = Suspect.from_measured(one.measured(), CPU)
    assert torch.equal(again.patch.colours, one.patch.colours)
    if outline is None or again.patch.outline is None:
        assert again.patch.outline is outline
    else:
        assert torch.equal(again.patch.outline, outline)
    assert (again.object_visible, again.index, again.likeness) == (object_visible, 9.0, likeness)
    assert again.evidence == one.evidence


@pytest.mark.parametrize(
    ("likeness", "index"),
    [
        pytest.param(0.49, 9.0 + FOREIGN, id="little is owed to how the class looks"),
        pytest.param(0.5, 9.0, id="half is"),
        pytest.param(None, 9.0, id="it cannot be told"),
    ],
)
def test_a_patch_that_is_foreign_to_its_class_stands_out_further(likeness: float | None, index: float) -> None:
    one = replace(standing(2.0, 9.0, WINDOW), likeness=likeness)
    assert one.anomaly_index == index
    assert replace(one, object_visible=False).anomaly_index is None
    assert replace(one, effect_of=3).anomaly_index is None


def test_to_be_foreign_counts_for_as_much_as_the_patch_is_reliable() -> None:
    """Not in full: in half-learned networks natural patches may be foreign, and those work on fewer images."""
    one = replace(standing(2.0, 3.0, WINDOW), likeness=0.4)
    evidence = replace(one.evidence, attacked=9, attacked_of=10, cropped_right=3, cropped_of=4)
    assert replace(one, evidence=evidence).anomaly_index == pytest.approx(3.0 + FOREIGN * 0.9**2 * 0.75)


def test_effects_and_what_is_natural_are_told_by_how_far_they_stand_out_in_their_window() -> None:
    """A patch of another class that is foreign as well is an effect all the same."""
    strong, weak = standing(4.0, 9.0, WINDOW), replace(standing(1.0, 7.0, Window(9, 9, 12, 12)), likeness=0.1)
    assert cause_of(1, {0: strong, 1: weak}, lambda *_: False) == 0
    foreign = replace(NATURAL, index=4.0, likeness=0.1)
    assert not is_common(NATURAL, [NATURAL, foreign, foreign])
