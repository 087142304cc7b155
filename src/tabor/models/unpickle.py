"""The process that unpickles what needs code, and writes what it found as data: `python -m tabor.models.unpickle`.

It reads an `Order` from standard input as JSON, and leaves the weights in a safetensors file and an `Answer` beside it.
"""

from __future__ import annotations

import json
import resource
import sys
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from tabor.errors import ModelError, one_line, out_of_memory
from tabor.files import write_text
from tabor.models.checkpoint import weights_in
from tabor.models.constructors import recognised
from tabor.models.pickled import ANSWER_FILE, MODEL_FILE, Answer, Order
from tabor.models.places import NESTED_UNDER, find_weights
from tabor.models.safetensors_file import separate, write_model

LIMITS = {resource.RLIMIT_DATA: None, resource.RLIMIT_FSIZE: None, resource.RLIMIT_CORE: 0}
"""What this process may not go beyond, in bytes; None: the memory that is ordered.  macOS keeps no limit on memory."""

UNCOMPARED = "it cannot be run by the versions of its library installed here, so only the weights' names and shapes fit"


def convert(order: Order) -> Answer:
    """Unpickles the checkpoint, writes its weights, and says what it holds."""
    path, out = Path(order.path), Path(order.folder, MODEL_FILE)
    loaded = torch.load(path, map_location="cpu", weights_only=False)
    find_weights(loaded, path)  # which refuses several, networks among them
    network = _network_in(loaded)
    if network is None:
        safetensors.torch.save_file(separate(weights_in(loaded, path)), out)
        return Answer()
    network = network.float().eval()
    holds = f"{type(network).__module__}.{type(network).__qualname__}"
    reason = ""
    if order.name_wanted:
        try:
            same, architecture, compared = recognised(network, (order.channels, *order.size))
            write_model(out, same.state_dict(), architecture, {})
            return Answer(holds=holds, doubt="" if compared else UNCOMPARED)
        except ModelError as error:
            reason = str(error)
    safetensors.torch.save_file(separate(weights_in(network.state_dict(), path)), out)
    return Answer(holds=holds, reason=reason)


def main() -> None:
    """Does what standard input orders."""
    given = json.load(sys.stdin)
    order = Order(**(given | {"size": tuple(given["size"])}))
    for limit, most in LIMITS.items():
        _limit(limit, order.memory if most is None else most)
    warnings.simplefilter("ignore")
    try:
        answer = convert(order)
    except BaseException as error:  # noqa: BLE001 (a stranger's code may raise anything, to end the process too)
        answer = Answer(error=_told(error, order.memory))
    write_text(Path(order.folder, ANSWER_FILE), json.dumps(asdict(answer)))


def _limit(limit: int, most: int) -> None:
    hard = resource.getrlimit(limit)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(limit, (most, most))


def _network_in(loaded: object) -> nn.Module | None:
    """The network at the top or in a known place below it, freed of what training wraps it in."""
    if isinstance(loaded, Mapping):
        loaded = next((loaded[name] for name in NESTED_UNDER if isinstance(loaded.get(name), nn.Module)), None)
    while isinstance(loaded, nn.DataParallel | nn.parallel.DistributedDataParallel):
        loaded = loaded.module
    return loaded if isinstance(loaded, nn.Module) else None


def _told(error: BaseException, memory: int) -> str:
    if out_of_memory(error):
        return f"it takes more than {memory:,} bytes of memory"
    if isinstance(error, ModuleNotFoundError):
        return f"{one_line(error)}; if you have it, PYTHONPATH names the folder that holds it"
    return one_line(f"{type(error).__name__}: {error}" if not isinstance(error, ModelError) else error)


if __name__ == "__main__":
    main()
