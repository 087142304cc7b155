"""The files of a Hugging Face folder: the weights in one safetensors file or in several, and nothing outside it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from tabor.errors import ModelError, one_line
from tabor.files import sha256
from tabor.models.safetensors_file import read_weights
from tabor.models.untrusted_json import read_object

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD = re.compile(r"model[\w.-]{0,100}\.safetensors")
MOST_SHARDS = 1000

ADAPTER = "adapter_config.json"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
CONVERT = "whoever trusts it can convert it: from_pretrained(FOLDER).save_pretrained(FOLDER), as transformers does it"


def file_in(folder: Path, name: str) -> Path:
    """Returns the path of a folder's file, which may lie in the hub's own cache but nowhere else outside.

    Raises:
        ModelError: it is a link to somewhere else.
    """
    path = folder / name
    try:
        home, target = folder.resolve(), path.resolve()
    except (OSError, RuntimeError):  # a link to itself
        raise ModelError(f"{one_line(path)} is a link that leads nowhere") from None
    # In huggingface_hub's cache, snapshots/COMMIT/ holds links to ../../blobs/.
    cached = home.parent.name == "snapshots" and target.is_relative_to(home.parents[1] / "blobs")
    if not target.is_relative_to(home) and not cached:
        raise ModelError(f"{one_line(path)} is a link to a file outside its folder; copy that file into the folder")
    if target.exists() and not target.is_file():  # a pipe would be waited for
        raise ModelError(f"{one_line(path)} is no plain file")
    return path


def settings_files(folder: Path) -> list[Path]:
    """Returns the JSON files that describe a folder's network and its images."""
    return [path for name in (CONFIG, PREPROCESSOR) if (path := file_in(folder, name)).exists()]


def weight_files(folder: Path) -> list[Path]:
    """Returns the safetensors files that hold the folder's weights, in their order.

    Raises:
        ModelError: there are none, or the index names files that it should not.
    """
    if file_in(folder, ADAPTER).exists():
        raise ModelError(
            f"{one_line(folder)} holds an adapter for another network; merge it into that one and save both"
        )
    whole = file_in(folder, WEIGHTS)
    if whole.exists():
        return [whole]
    if file_in(folder, INDEX).exists():
        return [file_in(folder, name) for name in _shards(folder)]
    pickled = [name for name in PICKLES if (folder / name).exists()]
    found = f"its {pickled[0]} is a pickle, which can run code; {CONVERT}" if pickled else "nothing else is read"
    raise ModelError(f"{one_line(folder)} has no {WEIGHTS}: {found}")


def _shards(folder: Path) -> list[str]:
    names = read_object(folder / INDEX).get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise ModelError(f"{one_line(folder / INDEX)} does not say which file holds which weights")
    shards = sorted(set(names.values()))
    if odd := [name for name in shards if not SHARD.fullmatch(name)]:
        raise ModelError(f"{one_line(folder / INDEX)} names a file that is no shard: {one_line(odd[0], 80)}")
    if len(shards) > MOST_SHARDS:
        raise ModelError(f"{one_line(folder / INDEX)} names {len(shards)} files, which no model needs")
    return shards


def folder_weights(folder: Path) -> dict[str, Tensor]:
    """Returns the tensors of all the folder's weight files.

    Raises:
        ModelError: a file is missing or is no safetensors file, or two hold a tensor of one name.
    """
    weights: dict[str, Tensor] = {}
    for path in weight_files(folder):
        part = read_weights(path)
        if twice := weights.keys() & part.keys():
            raise ModelError(f"two files of {one_line(folder)} hold {one_line(min(twice), 80)}")
        weights |= part
    return weights


def fingerprint(files: Sequence[Path]) -> str:
    """Returns the hexadecimal SHA-256 of the file that holds a model's weights: of the files' digests, if several."""
    digests = [sha256(file) for file in files]
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()
