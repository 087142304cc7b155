"""Image classifiers of the transformers library, built from settings that were checked and filled with plain weights.

Nothing of a stranger reaches the library but numbers, yes or no, short texts, and tensors: of the settings only those
that the family itself declares are handed on.  So no code is named, no kernel, and no other model to be fetched.
"""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tabor.errors import ModelError, one_line
from tabor.models.build import Architecture
from tabor.models.skeleton import without_memory
from tabor.models.state_dict import refuse_misfits
from tabor.models.untrusted_json import LARGEST_NUMBER, is_setting

NOT_RUN = {
    "auto_map": "code of its own, which is never run",
    "custom_pipelines": "code of its own, which is never run",
    "trust_remote_code": "code of its own, which is never run",
    "quantization_config": "quantised weights; dequantise the model and save it again",
    "backbone": "another model, which would be fetched; save the model with its backbone's own settings",
    "backbone_config": "another model; save the model with its backbone's own settings",
    "use_pretrained_backbone": "another model, which would be fetched; save the model with its backbone's own settings",
}
"""What settings may not ask for, and why."""

UNLIKE_OTHERS = ("imagegpt", "perceiver", "pp_lcnet", "shieldgemma2", "siglip2", "timm_wrapper")
"""Families that take more than images (N, C, H, W), return no logits, or are read as timm's own folders."""

LARGEST_BUFFERS = 2**26
"""Numbers in buffers that are computed and not read, such as the positions within windows."""

WRAPPED = "network."
"""What stands before every name where `PixelValues` was saved."""


class PixelValues(nn.Module):
    """A network of transformers that takes images and returns logits, as all others do."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits (N, num_classes) for images (N, C, H, W)."""
        logits: Tensor = self.network(pixel_values=images).logits
        return logits


def checked_config(said: Mapping[str, Any], folder: Path, num_classes: int) -> Any:
    """Returns transformers' configuration object with the settings that its family declares, all of them plain.

    Args:
        said: the object in config.json.
        folder: for messages.
        num_classes: as `count_classes` tells, or as the caller says.

    Raises:
        ModelError: transformers is not installed or has no such classifier, or the settings ask for more than data.
    """
    config_class = _config_class(said.get("model_type"), folder)
    settings = _settings(config_class, said, folder)
    architectures = said.get("architectures")
    if isinstance(architectures, list) and all(isinstance(name, str) for name in architectures):
        settings["architectures"] = architectures  # some families have more than one classifier
    try:
        with _apart():
            return config_class(**(settings | {"num_labels": num_classes}))
    except Exception as error:  # noqa: BLE001 (a stranger's settings may break the library anywhere)
        raise _unbuildable(folder, error) from None


def _config_class(family: object, folder: Path) -> Any:
    try:
        from transformers import CONFIG_MAPPING
        from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES as CLASSIFIERS
    except ImportError:
        raise ModelError(f"{one_line(folder)} needs transformers: pip install 'tabor[hub]'") from None
    if not isinstance(family, str) or family not in CLASSIFIERS or family in UNLIKE_OTHERS:
        raise ModelError(
            f"{one_line(folder)} is of the type {one_line(family, 80)}, for which transformers has no classifier "
            f"from images to logits"
        )
    return CONFIG_MAPPING[family]


def count_classes(said: Mapping[str, Any], folder: Path) -> int:
    """Returns how many classes the settings speak of: they name them, give their number, or mean two.

    Raises:
        ModelError: that makes no sense.
    """
    names = said.get("id2label")
    count = len(names) if isinstance(names, dict) else said.get("num_labels", 2)
    if type(count) is not int or not 2 <= count <= LARGEST_NUMBER:
        raise ModelError(f"{one_line(folder)} says it has {one_line(count, 80)} classes, which makes no sense")
    return count


def _settings(config_class: Any, said: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What the family declares, of what is said."""
    from transformers import PretrainedConfig

    for name, why in NOT_RUN.items():
        if said.get(name):
            raise ModelError(f"{one_line(folder)} has {name}, which asks for {why}")
    shared = {field.name for field in dataclasses.fields(PretrainedConfig)}
    declared = {field.name for field in dataclasses.fields(config_class)} - shared
    settings = {name: said[name] for name in sorted(declared & said.keys())}
    parts = {
        name: _settings(part, settings.pop(name), folder)
        for name, part in config_class.sub_configs.items()
        if isinstance(settings.get(name), dict) and issubclass(part, PretrainedConfig)
    }
    for name, value in settings.items():
        if not is_setting(value):
            raise ModelError(f"{one_line(folder)} has a setting that makes no sense: {name} is {one_line(value, 80)}")
    return settings | parts


def filled_transformer(config: Any, architecture: Architecture, weights: Mapping[str, Tensor]) -> nn.Module:
    """Returns the network with the weights, which have to fit it: none missing, none left over, no other shape.

    The library renames what older versions of it saved under other names, leaves out what it computes itself
    (positions), and ties what is tied; beyond that nothing is forgiven.

    Raises:
        ModelError: they do not fit, or the network cannot be built.
    """
    if weights and all(name.startswith(WRAPPED) for name in weights):
        weights = {name.removeprefix(WRAPPED): value for name, value in weights.items()}
    network_class = _check_size(config, architecture, weights)
    try:
        with _apart():
            network, report = network_class.from_pretrained(
                None,
                config=config,
                state_dict=dict(weights),
                dtype=torch.float32,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # it is in the report, which is not ignored
            )
    except Exception as error:  # noqa: BLE001 (a stranger's settings may break the library anywhere)
        raise _unbuildable(architecture.name, error) from None
    misshapen = [f"{name} is {tuple(got)} for {tuple(wanted)}" for name, got, wanted in report["mismatched_keys"]]
    refuse_misfits(architecture, sorted(report["missing_keys"]), sorted(report["unexpected_keys"]), misshapen)
    return PixelValues(network)


def _check_size(config: Any, architecture: Architecture, weights: Mapping[str, Tensor]) -> Any:
    """Returns the network's class, once it is known that it takes no more memory than the weights."""
    from transformers import AutoModelForImageClassification

    try:
        with _apart(), without_memory():
            skeleton = AutoModelForImageClassification.from_config(config)
    except ModelError:
        raise
    except Exception as error:  # noqa: BLE001 (a stranger's settings may break the library anywhere)
        raise _unbuildable(architecture.name, error) from None
    there = sum(value.numel() for value in weights.values())
    needed = sum(value.numel() for value in skeleton.parameters())
    if needed > there:
        raise ModelError(
            f"the weights do not fit {one_line(architecture.name)}: it has {needed:,} numbers, the file {there:,}"
        )
    if sum(value.numel() for value in skeleton.buffers()) > there + LARGEST_BUFFERS:
        raise ModelError(f"{one_line(architecture.name)} would compute more numbers in advance than make sense")
    return type(skeleton)


def _unbuildable(name: object, error: Exception) -> ModelError:
    return ModelError(f"transformers cannot build {one_line(name)}: {type(error).__name__}: {one_line(error, 200)}")


@contextmanager
def _apart() -> Iterator[None]:
    """Keeps the library off the network, as HF_HUB_OFFLINE does, and off the terminal: it would print names raw."""
    from huggingface_hub import constants
    from transformers.utils import logging as library

    log, bars = logging.getLogger("transformers"), library.is_progress_bar_enabled()
    level, offline = log.level, constants.HF_HUB_OFFLINE
    log.setLevel(logging.CRITICAL + 1)
    library.disable_progress_bar()
    constants.HF_HUB_OFFLINE = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
        constants.HF_HUB_OFFLINE = offline
        if bars:
            library.enable_progress_bar()
