"""Folders and repositories that timm writes: a network by its name, with the data config it was trained with."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tabor.errors import ModelError, one_line
from tabor.models.build import Architecture, build
from tabor.models.folder import CONFIG
from tabor.models.image_processor import height_width, per_channel
from tabor.models.parts import Given
from tabor.models.state_dict import Builder
from tabor.models.untrusted_json import LARGEST_NUMBER, is_setting

SIZES = ["img_size", "in_chans", "num_classes", "patch_size", "window_size", "embed_dim", "depth", "num_heads"]
SWITCHES = [
    "class_token",
    "no_embed_class",
    "dynamic_img_size",
    "dynamic_img_pad",
    "strict_img_size",
    "pre_norm",
    "reg_tokens",
]
PARTS = ["global_pool", "fc_norm", "final_norm", "qkv_bias", "qk_norm", "init_values", "act_layer", "norm_layer"]
RATES = ["mlp_ratio", "drop_rate", "pos_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate"]

HARMLESS = frozenset(SIZES + SWITCHES + PARTS + RATES)
"""What `model_args` may hold: nothing that names a file, an address or another model."""


def timm_architecture(said: Mapping[str, Any], folder: Path, given: Given) -> tuple[Architecture, Builder]:
    """Returns what config.json says about a network of timm, and how it is built.

    Raises:
        ModelError: the settings make no sense.
    """
    path = folder / CONFIG
    data = said.get("pretrained_cfg", said)  # at the top in files of old
    if not isinstance(said["architecture"], str) or not isinstance(data, dict):
        raise ModelError(f"{one_line(path)} does not say which network of timm it is for")
    arguments = _arguments(said, path)
    shape = data.get("input_size")
    if not isinstance(shape, list) or len(shape) != 3:
        raise ModelError(f"{one_line(path)} has no input_size (channels, height, width)")
    recorded = arguments.pop("in_chans", shape[0])
    channels = given.channels or recorded
    size = arguments.get("img_size") or shape[1:]
    if type(channels) is not int or not 0 < channels <= LARGEST_NUMBER:
        raise ModelError(f"{one_line(path)} has {one_line(channels, 80)} channels, which makes no sense")
    num_classes = said.get("num_classes", data.get("num_classes"))
    if type(num_classes) is not int or num_classes > LARGEST_NUMBER:
        raise ModelError(f"{one_line(path)} says it has {one_line(num_classes, 80)} classes, which makes no sense")
    fields: dict[str, Any] = {
        "num_classes": num_classes,
        "channels": channels,
        "size": height_width(size, path),
        "mean": per_channel(data.get("mean"), channels, path),
        "std": per_channel(data.get("std"), channels, path),
    }
    name = f"timm:{said['architecture']}"
    return Architecture(name=name, **(fields | given.changes())), partial(build, arguments=arguments)


def _arguments(said: Mapping[str, Any], path: Path) -> dict[str, Any]:
    arguments = said.get("model_args") or {}
    if not isinstance(arguments, dict):
        raise ModelError(f"{one_line(path)} has model_args that are no settings")
    for name, value in arguments.items():
        if name not in HARMLESS or not is_setting(value):
            raise ModelError(
                f"{one_line(path)} builds its network with {one_line(name, 80)}, which is not read; "
                f"give --arch timm:NAME if the network is one of timm's as it is"
            )
    return {name: value for name, value in arguments.items() if name != "num_classes"}  # it stands beside them
