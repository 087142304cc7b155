"""The networks by their names: the paper's layers, output shapes, normalisation, and what cannot be built."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tabor.errors import ModelError
from tabor.models.build import Architecture, build, initialise
from tabor.models.skeleton import without_memory


@pytest.mark.parametrize(
    ("name", "convolutions", "poolings"),
    [
        pytest.param("gtsrb6", 6, 2, id="Fig. 11"),
        pytest.param("gtsrb10", 10, 5, id="Fig. 12"),
        pytest.param("digits4", 4, 2, id="the demonstration's"),
    ],
)
def test_layers_of_our_networks(name: str, convolutions: int, poolings: int) -> None:
    model = build(Architecture(name=f"tabor:{name}", num_classes=43))
    kinds = [type(module) for module in model.modules()]
    assert (kinds.count(nn.Conv2d), kinds.count(nn.MaxPool2d)) == (convolutions, poolings)
    assert all(m.kernel_size == (3, 3) for m in model.modules() if isinstance(m, nn.Conv2d))
    assert all(m.kernel_size == 2 for m in model.modules() if isinstance(m, nn.MaxPool2d))


def test_gtsrb6_has_the_documented_number_of_weights() -> None:
    model = build(Architecture(name="tabor:gtsrb6", num_classes=43))
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(1.4, abs=0.05)


@pytest.mark.parametrize(
    ("name", "classes", "channels", "size"),
    [
        ("tabor:gtsrb6", 43, 3, (32, 32)),
        ("tabor:gtsrb6", 2, 1, (18, 40)),
        ("tabor:gtsrb10", 43, 3, (32, 32)),
        ("tabor:gtsrb10", 5, 1, (64, 33)),
        ("tabor:digits4", 10, 1, (10, 10)),
        ("timm:resnet10t", 7, 1, (32, 32)),
        ("torchvision:squeezenet1_1", 7, 3, (32, 48)),
    ],
)
def test_output_shape(name: str, classes: int, channels: int, size: tuple[int, int]) -> None:
    model = build(Architecture(name=name, num_classes=classes, channels=channels, size=size))
    assert model.eval()(torch.rand(2, channels, *size)).shape == (2, classes)


@pytest.mark.parametrize(
    ("name", "size"),
    [("gtsrb6", (20, 17)), ("gtsrb10", (31, 32)), ("digits4", (9, 32))],
)
def test_images_too_small_for_the_network(name: str, size: tuple[int, int]) -> None:
    with pytest.raises(ModelError, match=f"{size[0]}×{size[1]} are too small"):
        build(Architecture(name=f"tabor:{name}", num_classes=4, size=size))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param("gtsrb6", "unknown architecture gtsrb6; use tabor:gtsrb6", id="no family"),
        pytest.param("tabor:gtsrb7", "unknown architecture tabor:gtsrb7; use tabor:gtsrb6", id="none of ours"),
        pytest.param("timm:", "unknown architecture timm:", id="no name"),
        pytest.param("os:system", "unknown architecture os:system", id="another family"),
        pytest.param("timm:resnet10", r"timm has no model resnet10; did you mean .*resnet10t", id="misspelt timm"),
        pytest.param("timm:no such network", "timm has no model no such network$", id="nothing close"),
        pytest.param(
            "torchvision:mobilenet_v3_smal",
            "no classifier .*did you mean .*mobilenet_v3_small",
            id="misspelt torchvision",
        ),
        pytest.param(
            "torchvision:fasterrcnn_resnet50_fpn", "torchvision has no classifier fasterrcnn", id="no classifier"
        ),
    ],
)
def test_unknown_names(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        build(Architecture(name=name, num_classes=4))


def test_torchvision_needs_three_channels() -> None:
    with pytest.raises(ModelError, match="take 3 channels, the images have 1"):
        build(Architecture(name="torchvision:squeezenet1_1", num_classes=4, channels=1))


def test_a_strangers_name_becomes_one_printable_line() -> None:
    with pytest.raises(ModelError) as caught:
        build(Architecture(name="timm:\x1b[2J\nforged" + "x" * 5000, num_classes=4))
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 400


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"num_classes": 1}, "at least 2 classes, got num_classes 1", id="one class"),
        pytest.param({"num_classes": -3}, "at least 2 classes, got num_classes -3", id="negative classes"),
        pytest.param({"channels": 0}, "at least one channel and one pixel", id="no channel"),
        pytest.param({"size": (32, 0)}, "at least one channel and one pixel", id="no pixel"),
        pytest.param({"mean": (0.5,) * 3}, "mean and std belong together", id="mean alone"),
        pytest.param({"mean": 0.5, "std": 0.5}, "takes a tuple of numbers", id="no tuple"),
        pytest.param({"std": (0.5,) * 3}, "mean and std belong together", id="std alone"),
        pytest.param({"mean": (0.5,) * 2, "std": (0.5,) * 3}, "2 values for images of 3 channels", id="too few values"),
        pytest.param({"mean": (0.5,) * 3, "std": (0.5, 0.0, 0.5)}, "std must be positive", id="std of zero"),
        pytest.param({"bgr": True, "channels": 1}, "BGR needs 3 channels", id="grey BGR"),
        pytest.param({"bgr": "yes"}, "a yes or no to BGR", id="BGR as text"),
        pytest.param({"value_range": (1.0, 1.0)}, "the smaller one first", id="empty range"),
        pytest.param({"value_range": (0.0, float("inf"))}, "two finite numbers", id="endless range"),
        pytest.param({"value_range": (0.0,)}, "a range of two numbers", id="half a range"),
    ],
)
def test_refused_architectures(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Architecture(name="tabor:gtsrb6", **({"num_classes": 4} | changes))


@pytest.mark.parametrize("name", ["tabor:digits4", "timm:resnet10t", "torchvision:squeezenet1_1"])
def test_initialise_is_seeded_and_leaves_the_global_generator(name: str) -> None:
    architecture = Architecture(name=name, num_classes=4)
    before = torch.get_rng_state()
    first, again, other = (initialise(architecture, seed).state_dict() for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_one_number_stands_for_every_channel() -> None:
    architecture = Architecture(name="tabor:gtsrb6", num_classes=4, mean=(0.4,), std=(0.2,))
    assert (architecture.mean, architecture.std) == ((0.4,) * 3, (0.2,) * 3)


def test_constructors_that_compute_make_no_weights() -> None:
    network = build(Architecture(name="torchvision:regnet_y_400mf", num_classes=3))
    with without_memory(computing=True):
        skeleton = build(Architecture(name="torchvision:regnet_y_400mf", num_classes=2**40))
    assert {weight.device.type for weight in skeleton.parameters()} == {"meta"}
    shapes = [{name: tuple(w.shape) for name, w in n.state_dict().items()} for n in (network, skeleton)]
    last = {"fc.weight": (2**40, 440), "fc.bias": (2**40,)}
    assert shapes[1] == shapes[0] | last


def test_images_of_many_channels_or_of_many_pixels_but_not_of_both() -> None:
    for channels, size in ((1024, (64, 64)), (4, (1024, 1024))):
        assert Architecture(name="tabor:gtsrb6", num_classes=3, channels=channels, size=size).channels == channels
    with pytest.raises(ModelError, match="4,194,304 values"):
        Architecture(name="tabor:gtsrb6", num_classes=3, channels=1024, size=(64, 65))
