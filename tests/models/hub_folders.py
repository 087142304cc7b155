"""Small Hugging Face folders as the libraries themselves write them, and what turns them into hostile ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

NAMES = {0: "stop", 1: "\x1b[2J yield", 2: "go"}
PIXELS: dict[str, Any] = {
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.25, 0.3],
    "rescale_factor": 1 / 255,
    "size": {"height": 32, "width": 32},
}

FAMILIES: dict[str, dict[str, Any]] = {
    "resnet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
    "vit": {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "image_size": 32,
        "patch_size": 8,
    },
    "convnext": {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2, "image_size": 32},
    "swin": {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "image_size": 32, "window_size": 4},
    "mobilenet_v2": {"depth_multiplier": 0.25, "image_size": 32},
    "pvt": {
        "hidden_sizes": [8, 8, 8, 8],
        "depths": [1, 1, 1, 1],
        "num_attention_heads": [1, 1, 1, 1],
        "image_size": 32,
    },
    "siglip": {
        "vision_config": {
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "image_size": 32,
            "patch_size": 8,
        }
    },
}
"""Settings of the smallest networks of a few families."""


def transformers_network(family: str, **changes: Any) -> Any:
    """An untrained network of transformers for three classes, with statistics of its own where it normalises."""
    from transformers import CONFIG_MAPPING, AutoModelForImageClassification

    config = CONFIG_MAPPING[family](**(FAMILIES[family] | changes), id2label=NAMES, num_labels=len(NAMES))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = AutoModelForImageClassification.from_config(config).eval()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
                torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
    return network


def write_folder(folder: Path, network: Any, pixels: dict[str, Any] | None = PIXELS, **saving: Any) -> Path:
    """Writes what save_pretrained writes of a network and of an image processor."""
    network.save_pretrained(folder, **saving)
    if pixels is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(pixels))
    return folder


def edit(folder: Path, name: str, **changes: Any) -> None:
    """Changes some fields of a JSON file."""
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def config(**changes: Any) -> Callable[[Path], None]:
    """What changes fields of config.json."""
    return lambda folder: edit(folder, "config.json", **changes)


def pixels(**changes: Any) -> Callable[[Path], None]:
    """What changes fields of preprocessor_config.json."""
    return lambda folder: edit(folder, "preprocessor_config.json", **changes)
