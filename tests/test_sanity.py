"""A model that is wrong about the clean images: the warning, and the preprocessing that it names."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tabor.data import ImageSet
from tabor.models import Architecture, LoadedModel
from tabor.models.parts import Parts
from tabor.models.pixels import prepared
from tabor.sanity import COMMON, accuracy_warning

CLASSES = 6


class _Nearest(nn.Module):
    """Knows one image a class by heart, as preprocessed; what is none of them is of the class after the last."""

    def __init__(self, known: Tensor) -> None:
        super().__init__()
        self.register_buffer("known", known)

    def forward(self, images: Tensor) -> Tensor:
        far = (images[:, None] - self.get_buffer("known")).flatten(2).norm(dim=2)
        return -torch.cat([far, torch.full((len(images), 1), 1e-3)], 1)


def _images() -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(CLASSES, 3, 4, 4, generator=generator) ** 3
    return ImageSet(pictures, torch.arange(CLASSES), ())


def _model(trained_with: dict[str, Any], used_with: dict[str, Any]) -> LoadedModel:
    plain = Architecture(name="x", num_classes=CLASSES + 1, size=(4, 4))
    known = prepared(nn.Identity(), dataclasses.replace(plain, **trained_with))(_images().images)
    return LoadedModel(Parts(_Nearest(known), dataclasses.replace(plain, **used_with)), "m", "0")


@pytest.mark.parametrize("options", [o for o in COMMON if "--range" in o or "--mean" in o])
def test_the_right_preprocessing_is_named(options: str) -> None:
    wrong: dict[str, Any] = {"value_range": (5.0, 6.0)}
    told = accuracy_warning(_model(COMMON[options], wrong), _images(), 0.1, 128)
    assert told is not None
    assert told.endswith(f"; with {options} it would be right on 100%")


def test_a_preprocessing_too_many_is_named() -> None:
    told = accuracy_warning(_model({}, {"value_range": (0.0, 255.0)}), _images(), 0.1, 128)
    assert told is not None
    assert "with no --mean, --std, --bgr and --range it would be right on 100%" in told


def test_the_callers_model_stays_as_it_is_whatever_it_is_in() -> None:
    model = _model({}, {"value_range": (0.0, 255.0)})
    model.train().half()
    assert accuracy_warning(model, _images(), 0.1, 128) is not None
    assert model.network.training
    assert model.network.get_buffer("known").dtype == torch.float16


def test_nothing_is_named_where_nothing_helps() -> None:
    images = _images()
    strange = dataclasses.replace(images, labels=(images.labels + 1) % CLASSES)
    told = accuracy_warning(_model({}, {}), strange, 0.0, 128)
    assert told is not None
    assert told.endswith("the verdict means little (class folders are numbered in sorted order)")
    named = dataclasses.replace(strange, class_names=("church", "dog", "te\x1bnch", "van"))
    told = accuracy_warning(_model({}, {}), named, 0.0, 128)
    assert told is not None
    assert told.endswith(r"(class folders are numbered in sorted order: church = 0, dog = 1, te\x1bnch = 2)")
    assert accuracy_warning(nn.Identity(), images, 0.2, 128) is not None


@pytest.mark.parametrize("accuracy", [0.5, 0.62, 0.749])
def test_a_model_that_learned_half_is_told_so_and_no_preprocessing_is_blamed(accuracy: float) -> None:
    told = accuracy_warning(_model({}, {"value_range": (0.0, 255.0)}), _images(), accuracy, 128)
    assert told is not None
    assert told.startswith(f"the model is right on only {accuracy:.0%} of the clean images: what was learned half")
    assert "--" not in told


def test_nothing_is_said_of_a_model_that_is_right() -> None:
    assert accuracy_warning(_model({}, {}), _images(), 0.75, 128) is None


def test_images_sorted_by_class_are_not_judged_by_the_first_of_them() -> None:
    """The first class is one that the model never gets right."""
    known = _images()
    strange = torch.full((300, 3, 4, 4), 0.5)
    others = torch.arange(1, CLASSES).repeat_interleave(40)
    images = ImageSet(
        torch.cat([strange, known.images[others]]), torch.cat([torch.zeros(300, dtype=torch.int64), others]), ()
    )
    told = accuracy_warning(_model({}, {"value_range": (0.0, 255.0)}), images, 0.1, 128)
    assert told is not None
    assert "with no --mean, --std, --bgr and --range it would be right on 8" in told


def test_no_more_images_than_may_be_go_through_the_network_together() -> None:
    model, seen = _model({}, {"value_range": (0.0, 255.0)}), list[int]()
    model.network.register_forward_pre_hook(lambda _network, inputs: seen.append(len(inputs[0])))
    told = accuracy_warning(model, _images(), 0.1, 4)
    assert told == accuracy_warning(_model({}, {"value_range": (0.0, 255.0)}), _images(), 0.1, 128)
    assert set(seen) == {4, 2}
