"""One network, written in every format that is read as data: the same logits, and the same verdict."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

from tabor import scan
from tabor.access import Classifier
from tabor.data import ImageSet
from tabor.features import features
from tabor.methods.tabor import Tabor
from tabor.models import Architecture, LoadedModel, load_model
from tabor.models.build import initialise
from tabor.models.pixels import prepared
from tabor.models.safetensors_file import write_model
from tabor.result import ScanResult
from tabor.solver import SolverSettings

from .exporting import exported

NETWORK = Architecture(
    name="timm:resnet10t", num_classes=5, channels=3, size=(32, 40), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.2)
)
SAID: dict[str, Any] = {"arch": NETWORK.name, "size": NETWORK.size, "mean": NETWORK.mean, "std": NETWORK.std}
TOLERANCE = 1e-5
"""Of the largest logit: ONNX is run by operators of our own, in float32 as the rest."""


def clean_images() -> ImageSet:
    """Noise on a colour of each class's own."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(60) % NETWORK.num_classes
    colours = torch.rand(NETWORK.num_classes, 3, 1, 1, generator=generator)
    noise = torch.rand(60, *NETWORK.image_shape, generator=generator)
    return ImageSet(0.7 * colours[labels] + 0.3 * noise, labels, tuple("abcde"))


def network() -> nn.Module:
    """Untrained but for its last layer, which is fitted to the images by least squares."""
    made: Any = initialise(NETWORK, seed=0).eval()
    images = clean_images()
    with torch.no_grad():
        head, made.fc = made.fc, nn.Identity()
        features = prepared(made, NETWORK)(images.images)
        made.fc = head
        wanted = 10 * nn.functional.one_hot(images.labels, NETWORK.num_classes).float()
        centre = features.mean(0)
        fitted = torch.linalg.lstsq(features - centre, wanted - wanted.mean(0), driver="gelsd", rcond=1e-3).solution
        head.weight.copy_(fitted.T)
        head.bias.copy_(wanted.mean(0) - centre @ fitted)
    return made


def files(folder: Path) -> dict[str, LoadedModel]:
    """Writes the network in every format, and loads each as a user would."""
    made = network()
    whole, images = prepared(made, NETWORK).eval(), torch.rand(2, 3, *NETWORK.size)
    write_model(folder / "a.safetensors", made.state_dict(), NETWORK, {})
    torch.save({"state_dict": {f"module.{k}": v for k, v in made.state_dict().items()}}, folder / "a.pth")
    (folder / "a.pt2").write_bytes(exported(whole, images, dynamic=True))
    torch.onnx.export(
        whole, (images,), folder / "a.onnx", dynamo=True, dynamic_shapes=({0: "batch"},), external_data=False
    )
    used = {"input_size": NETWORK.image_shape, "mean": NETWORK.mean, "std": NETWORK.std}
    timm.models.save_for_hf(made, str(folder / "a"), safe_serialization=True, data_config=used)
    return {
        "safetensors": load_model(folder / "a.safetensors"),
        "checkpoint": load_model(folder / "a.pth", **SAID),
        "torch.export": load_model(folder / "a.pt2"),
        "ONNX": load_model(folder / "a.onnx"),
        "Hugging Face folder": load_model(folder / "a"),
    }


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_same_network_in_every_format(tmp_path: Path) -> None:
    models = files(tmp_path)
    images = clean_images()
    with torch.no_grad():
        wanted = models["safetensors"](images.images)
        for name, model in models.items():
            assert float((model(images.images) - wanted).abs().max() / wanted.abs().max()) <= TOLERANCE, name
    seen = {
        name: features(Classifier(model, torch.device("cpu"), images.shape), images.images)
        for name, model in models.items()
    }
    like = seen["safetensors"]
    assert like is not None
    for name, one in seen.items():
        assert one is not None, name
        for found, same in ((one.seen, like.seen), (one.weights, like.weights)):
            assert float((found - same).abs().max() / same.abs().max()) <= 10 * TOLERANCE, name
    settings = SolverSettings(steps=20, smallest_steps=10, batch_size=4, success=0.6)
    # In float32: bfloat16, where a processor has it, rounds as the operations stand, which differ between the formats.
    results: dict[str, ScanResult] = {
        name: scan(model, images, method=Tabor(restoring=None), solver=settings, precision="exact")
        for name, model in models.items()
    }
    first = results["safetensors"]
    assert any(finding.anomaly_index is not None for finding in first.classes)
    for name, result in results.items():
        assert (result.verdict, result.targets) == (first.verdict, first.targets), name
        for mine, other in zip(result.classes, first.classes, strict=True):
            indices = [math.nan if f.anomaly_index is None else f.anomaly_index for f in (mine, other)]
            assert indices[0] == pytest.approx(indices[1], rel=0.05, abs=0.05, nan_ok=True), name
