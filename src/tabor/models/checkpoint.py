"""Weights in a checkpoint of `torch.save`: a pickle, of which only tensors and plain values are ever built."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from tabor.errors import ModelError, one_line
from tabor.models.content import Kind, globals_of
from tabor.models.places import NESTED_UNDER, fault, find_weights, unprefixed

HARMLESS = re.compile(
    r"torch\.(\w+Storage|\w*Tensor|Size|device|bool|[a-z]+\d\w*|_utils\._rebuild_\w+|nn\.parameter\.Parameter)"
    r"|torch\._tensor\._rebuild_from_type_v2|collections\.(OrderedDict|Counter)|_codecs\.encode"
)
"""What weights need: no need to name it in a refusal."""

CONVERT = 'whoever trusts it can convert it: safetensors.torch.save_file(model.state_dict(), "model.safetensors")'

WAYS_OUT = {
    Kind.CHECKPOINT: f"{CONVERT}, or let it run: --trust-code (trust_code=True)",
    Kind.OLD_CHECKPOINT: f"{CONVERT}, or let it run: --trust-code (trust_code=True)",
    Kind.TORCHSCRIPT: "whoever trusts it can let it run: --allow-torchscript (allow_torchscript=True)",
}
"""What can be done with a file that is refused; else `CONVERT`."""


class NeedsCodeError(ModelError):
    """A checkpoint holds more than data, so reading it would run something."""


def read_checkpoint(path: Path, kind: Kind) -> dict[str, Tensor]:
    """Returns the weights by name, freed of what training scripts wrap them in.

    Only `torch.load(weights_only=True)` reads the file, which builds tensors and plain values and calls nothing else.

    Raises:
        NeedsCodeError: the file needs more than that.
        ModelError: it is damaged, or holds no weights, or in several places.
    """
    try:
        # Not the path: torch.load believes a name that ends with .safetensors.
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = torch.load(file, map_location="cpu", weights_only=True)
        found = find_weights(loaded, path)
    except pickle.UnpicklingError:
        raise NeedsCodeError(refusal(path, kind)) from None
    except ModelError:
        raise
    except MemoryError:
        raise ModelError(f"{one_line(path)} is {kind.value} that takes more memory than its size warrants") from None
    except Exception as error:  # noqa: BLE001 (a damaged file may break the reader anywhere)
        told = one_line(error, 120) or type(error).__name__
        raise ModelError(f"{one_line(path)} is {kind.value}, damaged ({told})") from None
    return _checked(found, path)


def weights_in(loaded: object, path: Path) -> dict[str, Tensor]:
    """Returns the weights by name in what a checkpoint was found to hold.

    Raises:
        ModelError: it holds none, or in several places, or such as no network here has.
    """
    return _checked(find_weights(loaded, path), path)


def _checked(weights: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    if not weights:
        raise ModelError(f"{one_line(path)} holds no weights, neither at the top nor under {', '.join(NESTED_UNDER)}")
    for name, value in weights.items():
        if wrong := fault(value):
            raise ModelError(f"{one_line(path)} holds {wrong}: {one_line(name, 80)}")
    # A file can hang attributes and hooks on a tensor, even in the place of its methods; `.data` leaves them behind.
    return unprefixed({name: value.data for name, value in weights.items()})


def plain_tensors(stream: IO[bytes]) -> dict[str, Tensor]:
    """Returns the tensors by name that torch.save wrote, where they are all that it wrote.

    Raises:
        ModelError: there is something else, or they are damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = torch.load(stream, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 (a damaged file may break the reader anywhere)
        raise ModelError(f"damaged, or more than tensors: {one_line(error, 120)}") from None
    if not isinstance(loaded, Mapping) or not all(isinstance(v, Tensor) and not fault(v) for v in loaded.values()):
        raise ModelError("something else than plain tensors by name")
    return {str(name): value.data for name, value in loaded.items()}


def refusal(path: Path, kind: Kind) -> str:
    """Returns why a file that holds more than data is not read, naming what it would have called."""
    told = called_by(path, kind)
    why = f"that would call {told}" if told else "which can run code"
    return f"{one_line(path)} is {kind.value} {why}, so it is not opened; {WAYS_OUT.get(kind, CONVERT)}"


def called_by(path: Path, kind: Kind) -> str:
    """Returns the first few of the names that a file would call, beside those that build tensors."""
    wanted = [name for name in globals_of(path, kind) if not HARMLESS.fullmatch(name)]
    return ", ".join(one_line(name, 80) for name in wanted[:3]) + (", …" if len(wanted) > 3 else "")
