"""What stands before a network, against the formula written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tabor.models.build import Architecture, build
from tabor.models.pixels import Prepared, prepared


def _images() -> torch.Tensor:
    return torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("bgr", [False, True], ids=["rgb", "bgr"])
@pytest.mark.parametrize("value_range", [(0.0, 1.0), (0.0, 255.0), (-1.0, 1.0)], ids=str)
@pytest.mark.parametrize("normalised", [False, True], ids=["as it is", "normalised"])
def test_against_the_formula(bgr: bool, value_range: tuple[float, float], normalised: bool) -> None:
    mean, std = ((10.0, 20.0, 30.0), (2.0, 3.0, 4.0)) if normalised else (None, None)
    architecture = Architecture(
        name="x", num_classes=2, size=(4, 5), mean=mean, std=std, bgr=bgr, value_range=value_range
    )
    images, (low, high) = _images(), value_range
    expected = torch.empty_like(images)
    for channel in range(3):
        seen = low + images[:, 2 - channel if bgr else channel] * (high - low)
        expected[:, channel] = (seen - mean[channel]) / std[channel] if mean and std else seen
    assert torch.allclose(prepared(nn.Identity(), architecture)(images), expected, atol=1e-4, rtol=1e-6)


def test_a_network_that_takes_images_as_they_are_stays_itself() -> None:
    network = nn.Identity()
    assert prepared(network, Architecture(name="x", num_classes=2)) is network


@pytest.mark.parametrize("change", [{"mean": (0.5,) * 3, "std": (0.5,) * 3}, {"bgr": True}, {"value_range": (0, 255)}])
def test_preprocessing_is_not_among_the_weights(change: dict[str, Any]) -> None:
    architecture = Architecture(name="tabor:gtsrb6", num_classes=4, **change)
    network = build(architecture)
    model = prepared(network, architecture)
    assert isinstance(model, Prepared)
    assert model.network is network
    assert set(model.state_dict()) == {f"network.{key}" for key in network.state_dict()}
