from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn

from tabor.access import Classifier
from tabor.data.images import ImageSet
from tabor.evidence import Evidence, measure, right_without, sent
from tabor.methods.tabor import Tabor
from tabor.trigger import Trigger

from .closed_form import CPU, Linear, classifier, dark_images, doorway, patch

SIDE = 4


def measured(trigger: Trigger, images: ImageSet, target: int = 2) -> Evidence:
    return measure(classifier(doorway(SIDE), side=SIDE), trigger, target, images)


def labelled(labels: list[int]) -> ImageSet:
    images = dark_images(len(labels), SIDE)
    return ImageSet(images.images, torch.tensor(labels), images.class_names)


def test_a_white_patch_behind_the_doorway_by_hand() -> None:
    # Everything dark is class 0; a patch of brightness 1 gives logit 10 > 2.  Two images are labelled 2.
    evidence = measured(Trigger(patch(SIDE), patch(SIDE)), labelled([0, 0, 0, 1, 2, 2]))
    assert dataclasses.asdict(evidence) == {
        "mask_l1": 4.0,
        "pixels": 16,
        "edges": 12.0,
        "mask_smoothness": 4.0,  # two neighbours above the patch, two to its left
        "shape_pixels": 4,
        "shape_smoothness": 4.0,
        "attacked": 4,  # those labelled 2 are not sent
        "attacked_of": 4,
        "cropped_right": 3,  # all are classified 0 without the patch
        "cropped_of": 6,
        "explained": 1,
        "explained_of": 1,
    }


def test_shares_by_hand() -> None:
    counted = measured(Trigger(patch(SIDE), patch(SIDE)), labelled([0, 0, 0, 1, 2, 2]))
    assert (counted.attack_success, counted.crop_accuracy, counted.explanation_accuracy) == (1, 0.5, 1)
    one_less = dataclasses.replace(counted, attacked=3, cropped_right=0, explained=0)
    assert (one_less.attack_success, one_less.crop_accuracy, one_less.explanation_accuracy) == (0.75, 0, 0)
    nothing = dataclasses.replace(one_less, attacked=0, attacked_of=0)
    assert nothing.attack_success == 0, "of no image none was sent"


def test_an_image_of_one_pixel_has_a_score() -> None:
    """It has no edge, so nothing to be smooth along."""
    model = Classifier(nn.Flatten(), CPU, (3, 1, 1))
    images = ImageSet(torch.rand(6, 3, 1, 1), torch.arange(6) % 3, ())
    evidence = measure(model, Trigger(torch.ones(1, 1, 1), torch.rand(3, 1, 1)), 0, images)
    assert math.isfinite(Tabor().score(evidence))


def test_a_grey_patch_is_too_weak() -> None:
    # On black, alone or not: 10 · 0.5 · 0.3 = 1.5 < 2.
    black = ImageSet(torch.zeros(3, 1, SIDE, SIDE), torch.zeros(3).long(), ())
    evidence = measured(Trigger(0.5 * patch(SIDE), 0.3 * patch(SIDE)), black)
    assert (evidence.attacked, evidence.explained) == (0, 0)
    assert (evidence.mask_l1, evidence.mask_smoothness) == (2.0, 1.0)
    assert (evidence.shape_pixels, evidence.shape_smoothness) == (4, 4.0)


@pytest.mark.parametrize(
    ("brightness", "pixels"),
    [
        pytest.param([0.0], 0, id="black"),
        pytest.param([0.49 / 255], 0, id="rounds to 0"),
        pytest.param([0.51 / 255], 1, id="rounds to 1"),
        pytest.param([0.0, 0.0, 1 / 255], 1, id="one colour is enough"),
        pytest.param([0.4 / 255, 0.4 / 255, 0.4 / 255], 0, id="colours do not add up"),
    ],
)
def test_the_shape_is_what_an_8_bit_picture_shows(brightness: list[float], pixels: int) -> None:
    channels = len(brightness)
    pattern = torch.tensor(brightness)[:, None, None].expand(-1, SIDE, SIDE)
    mask = torch.zeros(1, SIDE, SIDE)
    mask[:, 1, 1] = 1
    model = classifier(Linear(torch.zeros(2, channels * SIDE * SIDE), torch.zeros(2)), channels, SIDE)
    images = ImageSet(torch.zeros(1, channels, SIDE, SIDE), torch.zeros(1).long(), ())
    evidence = measure(model, Trigger(mask, pattern), 1, images)
    assert (evidence.shape_pixels, evidence.shape_smoothness) == (pixels, 4.0 * pixels)


def test_edges_of_an_image_that_is_not_square() -> None:
    model = Classifier(Linear(torch.zeros(2, 10), torch.zeros(2)), CPU, (1, 2, 5))
    images = ImageSet(torch.zeros(1, 1, 2, 5), torch.zeros(1).long(), ())
    evidence = measure(model, Trigger(torch.ones(1, 2, 5), torch.ones(1, 2, 5)), 1, images)
    assert evidence.edges == (2 * 4 + 1 * 5) / 2
    assert evidence.pixels == 10


def test_no_image_of_another_class_leaves_nothing_to_attack() -> None:
    evidence = measured(Trigger(patch(SIDE), patch(SIDE)), labelled([2, 2]))
    assert (evidence.attacked, evidence.attacked_of, evidence.cropped_of) == (0, 0, 2)
    assert not evidence.works


class Views(nn.Module):
    """Flattens its images in a way that fails where there is none."""

    def forward(self, images: Tensor) -> Tensor:
        return images.view(len(images), -1)


def test_a_model_is_not_asked_about_no_image() -> None:
    model = Classifier(Views(), CPU, (1, SIDE, SIDE))
    assert sent(model, Trigger(patch(SIDE), patch(SIDE)), 2, labelled([2, 2])).tolist() == []


def test_images_and_trigger_come_back_unchanged_and_the_work_is_counted() -> None:
    images, model = labelled([0, 0, 2]), classifier(doorway(SIDE), side=SIDE)
    trigger = Trigger(patch(SIDE), 0.5 * patch(SIDE))
    held: list[Tensor] = [images.images, images.labels, trigger.mask, trigger.pattern]
    before = [tensor.clone() for tensor in held]
    measure(model, trigger, 2, images)
    assert all(torch.equal(now, then) for now, then in zip(held, before, strict=True))
    assert model.image_passes == 2 + 3 + 1  # attack, crop, explanation


class AfraidOfTheDark(nn.Module):
    """Class 0, but class 1 where the upper corners are black, and class 2 where the right ones are white."""

    def forward(self, images: Tensor) -> Tensor:
        corners = images[:, 0].unfold(1, 2, 2).unfold(2, 2, 2)  # (N, rows, columns, 2, 2)
        black = (corners[:, 0].amax((2, 3)) == 0).any(1).float()
        white = (corners[:, :, 1].amin((2, 3)) == 1).any(1).float()
        return torch.stack([torch.full_like(black, 0.5), black, 2 * white], 1)


@pytest.mark.parametrize(
    ("top", "left", "enough", "right"),
    [
        pytest.param(0, 0, 3, 6, id="where black is the trigger, white does not hide"),
        pytest.param(0, 0, 0, 0, id="black will do where so few are enough"),
        pytest.param(2, 2, 3, 6, id="where white is the trigger, black does not hide"),
        pytest.param(0, 2, 3, 6, id="where black and white are triggers, grey does not hide"),
        pytest.param(2, 0, 3, 6, id="nothing there"),
    ],
)
def test_a_place_is_hidden_in_black_and_then_in_grey_and_white(top: int, left: int, enough: int, right: int) -> None:
    mask = torch.zeros(1, SIDE, SIDE)
    mask[:, top : top + 2, left : left + 2] = 1
    images = ImageSet(torch.full((6, 1, SIDE, SIDE), 0.5), torch.zeros(6).long(), ())
    assert right_without(Classifier(AfraidOfTheDark(), CPU, (1, SIDE, SIDE)), mask, images, enough) == right
