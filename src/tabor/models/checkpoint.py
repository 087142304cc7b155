"""Weights in a checkpoint of `torch.save`: a pickle, of which only tensors and plain values are ever built."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from tabor.errors import ModelError, one_line
from tabor.models.content import Kind, globals_of

NESTED_UNDER = ("state_dict", "model_state_dict", "model", "net", "weights", "params")
"""Where training scripts put the weights beside the optimiser's state; the first that is there counts."""

PREFIXES = ("_orig_mod.", "module.", "_orig_mod.")
"""What torch.compile and nn.DataParallel put before every name, in the order in which they are taken off."""

DEEPEST = 4
"""Places within places that are looked into."""

HARMLESS = ("torch.", "collections.OrderedDict")

CONVERT = 'whoever trusts it can convert it: safetensors.torch.save_file(model.state_dict(), "model.safetensors")'


def read_checkpoint(path: Path, kind: Kind) -> dict[str, Tensor]:
    """Returns the weights by name, freed of what training scripts wrap them in.

    Only `torch.load(weights_only=True)` reads the file, which builds tensors and plain values and calls nothing else.

    Raises:
        ModelError: the file needs more than that, is damaged, or holds no weights.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ModelError(refusal(path, kind)) from None
    except Exception as error:  # noqa: BLE001 (a damaged file may break the reader anywhere)
        raise ModelError(f"{one_line(path)} is {kind.value}, damaged ({one_line(error, 120)})") from None
    weights = _find_weights(loaded)
    if not weights:
        raise ModelError(f"{one_line(path)} holds no weights, neither at the top nor under {', '.join(NESTED_UNDER)}")
    if odd := [name for name, value in weights.items() if not _is_plain(value)]:
        raise ModelError(f"{one_line(path)} holds sparse, quantised or complex weights: {one_line(odd[0], 80)}")
    return _unprefixed(weights)


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
    if not isinstance(loaded, Mapping) or not all(isinstance(v, Tensor) and _is_plain(v) for v in loaded.values()):
        raise ModelError("something else than plain tensors by name")
    return {str(name): value for name, value in loaded.items()}


def refusal(path: Path, kind: Kind) -> str:
    """Returns why a file that holds more than data is not read, naming what it would have called."""
    wanted = [name for name in globals_of(path, kind) if not name.startswith(HARMLESS)]
    told = ", ".join(one_line(name, 80) for name in wanted[:3]) + (", …" if len(wanted) > 3 else "")
    why = f"that would call {told}" if wanted else "which can run code"
    return f"{one_line(path)} is {kind.value} {why}, so it is not opened; {CONVERT}"


def _find_weights(loaded: object) -> dict[str, Tensor]:
    """The tensors at the top, or in the first known place below it; a file may hold itself, so not for ever."""
    for _ in range(DEEPEST):
        if not isinstance(loaded, Mapping):
            return {}
        inner = [loaded[name] for name in NESTED_UNDER if isinstance(loaded.get(name), Mapping)]
        if not inner:
            return {str(name): value for name, value in loaded.items() if isinstance(value, Tensor)}
        loaded = inner[0]
    return {}


def _is_plain(value: Tensor) -> bool:
    dense = value.layout is torch.strided and value.device.type == "cpu" and not value.is_nested
    return dense and not value.is_quantized and not value.is_complex()


def _unprefixed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights
