"""Hugging Face folders: what their JSON files say about a network, checked, and that network with its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tabor.errors import ModelError
from tabor.models.build import Architecture
from tabor.models.folder import CONFIG, PREPROCESSOR, file_in, folder_weights, weight_files
from tabor.models.hub import HUB, located
from tabor.models.image_processor import preprocessing
from tabor.models.parts import Given, Parts
from tabor.models.state_dict import fill, filled
from tabor.models.timm_folder import timm_architecture
from tabor.models.transformers_network import checked_config, count_classes, filled_transformer
from tabor.models.untrusted_json import class_names, read_object


@dataclass(frozen=True)
class Recipe:
    """A network as a folder's JSON files describe it; none of its weights have been read.

    Attributes:
        architecture: what it is, and how images in [0, 1] become what it takes.
        filled: builds it with weights by name.
        record: what the files say besides, for people: the classes' names.
        says_pixels: whether they say how images are normalised.
    """

    architecture: Architecture
    filled: Callable[[Mapping[str, Tensor]], nn.Module]
    record: Mapping[str, Any]
    says_pixels: bool = True

    def check(self, given: Given) -> None:
        """Makes sure that somebody says how images are normalised.

        Raises:
            ModelError: neither the files nor the caller do.
        """
        if not self.says_pixels and (given.mean is None or given.std is None):
            raise ModelError(
                f"there is no {PREPROCESSOR}, so how images are normalised is unknown; "
                f"give --mean and --std (0 and 1 for not at all)"
            )


def read_folder(folder: Path, given: Given) -> Parts:
    """Returns the classifier in a folder of config.json, safetensors and, from transformers, preprocessor_config.json.

    Raises:
        ModelError: the folder asks for more than data, something is missing, or the weights do not fit.
    """
    if given.arch is not None:
        return fill_any(folder, folder_weights(folder), {}, given)
    recipe = describe(folder, given)
    recipe.check(given)
    weight_files(folder)  # whether there are any is soon seen, and the rest takes seconds
    return Parts(recipe.filled(folder_weights(folder)), recipe.architecture, recipe.record)


def fill_any(path: Path, weights: Mapping[str, Tensor], record: Mapping[str, Any], given: Given) -> Parts:
    """Does what `fill` does, also for "hub:FOLDER" and "hub:USER/NAME" as the name of the network.

    Raises:
        ModelError: as `fill`, or the model of that name cannot be had or described.
    """
    if not is_hub(given.arch):
        return fill(path, weights, record, given)
    recipe = described(str(given.arch), given)
    recipe.check(given)
    return Parts(recipe.filled(weights), recipe.architecture, recipe.record)


def is_hub(arch: str | None) -> bool:
    """Whether an architecture is that of a Hugging Face folder or repository."""
    return arch is not None and arch.startswith(HUB)


def described(arch: str, given: Given) -> Recipe:
    """Returns the network of "hub:FOLDER" or "hub:USER/NAME"; fetches no weights.

    Raises:
        ModelError: the model cannot be had or described.
    """
    folder, _ = located(arch, weights=False)
    return describe(folder, given)


def describe(folder: Path, given: Given) -> Recipe:
    """Returns what a folder's JSON files say about its network.

    Raises:
        ModelError: they ask for more than data, or make no sense.
    """
    said = read_object(file_in(folder, CONFIG))
    if "architecture" in said:  # timm's word; transformers lists "architectures"
        architecture, builder = timm_architecture(said, folder, given)
        recipe = partial(filled, architecture, builder=builder)
        return Recipe(architecture, recipe, _named(said.get("label_names"), architecture))
    config = checked_config(said, folder, given.num_classes or count_classes(said, folder))
    vision = getattr(config, "vision_config", config)
    channels = given.channels or int(getattr(vision, "num_channels", 3))
    fields: dict[str, Any] = preprocessing(folder, channels, given.size or getattr(vision, "image_size", None))
    fields |= {"num_classes": config.num_labels, "channels": channels}
    architecture = Architecture(name=f"transformers:{config.model_type}", **(fields | given.changes()))
    recipe = partial(filled_transformer, config, architecture)
    says_pixels = file_in(folder, PREPROCESSOR).exists()
    return Recipe(architecture, recipe, _named(said.get("id2label"), architecture), says_pixels)


def _named(names: object, architecture: Architecture) -> dict[str, Any]:
    known = class_names(names, architecture.num_classes)
    return {} if known is None else {"class_names": known}
