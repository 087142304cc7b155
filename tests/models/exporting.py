"""Programs of torch.export, made on the spot, and the same with changes that torch.export would never make."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from ..hostile.makers import archive

Json = dict[str, Any]

MODEL, WEIGHTS, CONSTANTS = (
    "models/model.json",
    "data/weights/model_weights_config.json",
    "data/constants/model_constants_config.json",
)


class Small(nn.Module):
    """A classifier of grey images 32 × 32 with three classes, with one of each: parameters, buffers, a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 4, 3, stride=8)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(64, 3)
        self.shifts = torch.linspace(-1, 1, 3)  # no buffer: torch.export calls it a constant

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits (N, 3)."""
        cells = torch.relu(self.norm(self.convolution(images)))
        logits: Tensor = self.head(cells.view(images.shape[0], 64)) + self.shifts
        return logits


def exported(network: nn.Module, images: Tensor, *, dynamic: bool = False, decomposed: bool = False) -> bytes:
    """What torch.export writes for a network that is given these images, or any number of them."""
    shapes = ({0: torch.export.Dim("batch", min=1)},) if dynamic else None
    program = torch.export.export(network, (images,), dynamic_shapes=shapes)
    if decomposed:
        program = program.run_decompositions()
    stream = io.BytesIO()
    torch.export.save(program, stream)
    return stream.getvalue()


@cache
def small(dynamic: bool = False) -> bytes:
    """`Small`, exported."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return exported(Small().eval(), torch.zeros(2 if dynamic else 1, 1, 32, 32), dynamic=dynamic)


def records(content: bytes) -> dict[str, bytes]:
    """The records of an archive, by their names without the folder."""
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        return {name.partition("/")[2]: file.read(name) for name in file.namelist()}


def packed(content: dict[str, bytes]) -> bytes:
    """An archive of such records."""
    return archive({f"archive/{name}": record for name, record in content.items()})


def altered(record: str, change: Callable[[Json], object], *, dynamic: bool = False) -> bytes:
    """`Small`, with a change to one of its JSON records."""
    content = records(small(dynamic))
    parsed = json.loads(content[record])
    change(parsed)
    return packed(content | {record: json.dumps(parsed).encode()})


def regraphed(change: Callable[[Json], object]) -> bytes:
    """`Small`, with a change to its graph."""
    return altered(MODEL, lambda program: change(program["graph_module"]["graph"]))


def node(program_or_graph: Json, target: str) -> Json:
    """The first node that calls an operator whose name has this in it."""
    graph = program_or_graph.get("graph_module", {"graph": program_or_graph})["graph"]
    found: Json = next(node for node in graph["nodes"] if target in node["target"])
    return found
