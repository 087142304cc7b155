"""Networks that people really use, untrained: each is read from both kinds of weight files and answers as it did."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from tabor.errors import ModelError
from tabor.models import Architecture, load_model
from tabor.models.build import build, initialise

NETWORKS: list[tuple[str, int, tuple[int, int]]] = [
    ("timm:resnet18", 1, (28, 28)),
    ("timm:resnet18", 3, (48, 32)),
    ("timm:vit_tiny_patch16_224", 3, (32, 48)),
    ("timm:vit_tiny_patch16_224", 1, (64, 64)),
    ("timm:swin_tiny_patch4_window7_224", 3, (56, 84)),
    ("timm:convnext_atto", 3, (64, 40)),
    ("timm:efficientnet_b0", 1, (64, 64)),
    ("timm:mobilenetv3_small_050", 3, (32, 56)),
    ("timm:mobilenetv3_small_050", 3, (384, 384)),
    ("timm:regnetx_002", 1, (32, 32)),
    ("timm:densenet121", 3, (32, 32)),
    ("timm:vgg11", 3, (32, 32)),
    ("timm:levit_128s", 3, (224, 224)),
    ("torchvision:resnet18", 3, (32, 48)),
    ("torchvision:vit_b_32", 3, (64, 64)),
    ("torchvision:mobilenet_v3_small", 3, (28, 28)),
    ("torchvision:shufflenet_v2_x0_5", 3, (64, 64)),
    ("torchvision:googlenet", 3, (64, 64)),
    ("torchvision:inception_v3", 3, (96, 80)),
]
SMALL = [row for row in NETWORKS if row[0] not in ("torchvision:vit_b_32", "torchvision:inception_v3", "timm:vgg11")]


def named(row: tuple[str, int, tuple[int, int]]) -> str:
    name, channels, (height, width) = row
    return f"{name} {channels}x{height}x{width}"


@pytest.mark.parametrize("row", SMALL, ids=named)
def test_read_from_both_kinds_of_files(row: tuple[str, int, tuple[int, int]], tmp_path: Path) -> None:
    name, channels, size = row
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        network = initialise(Architecture(name=name, num_classes=7, channels=channels, size=size), seed=0).eval()
    images = torch.rand(2, channels, *size, generator=torch.Generator().manual_seed(1), requires_grad=True)
    with torch.no_grad():
        wanted = network(images)
    as_tensors, as_checkpoint = tmp_path / "weights.safetensors", tmp_path / "weights.pt"
    safetensors.torch.save_file(network.state_dict(), as_tensors)
    torch.save({"state_dict": network.state_dict()}, as_checkpoint)
    for path in (as_tensors, as_checkpoint):
        loaded = load_model(path, arch=name, channels=channels, size=size)
        assert loaded.architecture.num_classes == 7
        answers = loaded(images)
        assert torch.allclose(answers, wanted, atol=1e-6)
    (gradient,) = torch.autograd.grad(answers.square().sum(), images)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("row", [row for row in NETWORKS if row not in SMALL], ids=named)
def test_large_ones_are_built(row: tuple[str, int, tuple[int, int]]) -> None:
    name, channels, size = row
    with torch.device("meta"):
        network = build(Architecture(name=name, num_classes=7, channels=channels, size=size)).eval()
        assert network(torch.empty(2, channels, *size)).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "size", "reason"),
    [
        ("timm:vit_tiny_patch16_224", (8, 8), "fails on images of 3×8×8|cannot build"),
        ("timm:mvitv2_tiny", (64, 96), "timm cannot build mvitv2_tiny so, for images of 64×96: AssertionError"),
        ("timm:nest_tiny", (64, 96), "Model only handles square inputs"),
        ("timm:efficientformer_l1", (128, 128), "fails on images of 3×128×128"),
        ("torchvision:vit_b_32", (64, 96), "takes square images, not 64×96"),
        ("torchvision:vit_b_32", (65, 65), "torchvision cannot build vit_b_32 so"),
    ],
)
def test_images_that_a_network_cannot_take(name: str, size: tuple[int, int], reason: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    try:
        weights: dict[str, Any] = initialise(Architecture(name=name, num_classes=7, size=size), seed=0).state_dict()
    except ModelError:
        weights = {"weight": torch.ones(2)}
    safetensors.torch.save_file(weights, path)
    with pytest.raises(ModelError, match=reason) as caught:
        load_model(path, arch=name, size=size)
    assert str(caught.value).isprintable()


def test_weights_for_images_of_another_size_do_not_fit(tmp_path: Path) -> None:
    name, path = "timm:vit_tiny_patch16_224", tmp_path / "weights.safetensors"
    network: nn.Module = initialise(Architecture(name=name, num_classes=7, size=(64, 64)), seed=0)
    safetensors.torch.save_file(network.state_dict(), path)
    with pytest.raises(ModelError, match=r"pos_embed is \(1, 17, 192\) for \(1, 5, 192\)"):
        load_model(path, arch=name, size=(32, 32))
