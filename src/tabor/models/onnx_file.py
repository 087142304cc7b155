"""A classifier in an ONNX file, white box: read by tabor's own table of operators, judged by onnxruntime.

The converters that there are fail on many files, generate code from the graph, or guess what they do not know; so
`onnx_graph` walks the graph itself.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tabor.errors import ModelError, one_line
from tabor.models.build import LARGEST_IMAGE, Architecture
from tabor.models.onnx_graph.network import GraphNetwork
from tabor.models.onnx_graph.plan import Plan, plan
from tabor.models.onnx_graph.proto import Graph, read_graph
from tabor.models.onnx_graph.types import TYPES
from tabor.models.onnx_graph.verify import ELEMENTS, Judge, check_answers
from tabor.models.parts import Given, Parts
from tabor.models.pixels import prepared

BYTES = 2
"""The standard's number for the type of images that are bytes."""

MOST_AT_ONCE = 64
"""Images; a file that takes more at a time is not read."""

PROBES = 2
"""Images at least, of which the answers' spread is measured."""

IMAGE_CHANNELS = (1, 3)

RANGES = {
    "NominalRange_0_255": (0.0, 255.0),
    "Normalized_0_1": (0.0, 1.0),
    "Normalized_1_1": (-1.0, 1.0),
}
"""The standard's names for what black and white are."""


@dataclass(frozen=True)
class ImageInput:
    """How the file takes images.

    Attributes:
        name: of the input.
        element: the type of the numbers, by the standard's number.
        batch: images at a time; None: any number.
        channels, height, width: None where the file leaves them open.
        channels_last: whether it takes (N, H, W, C).
    """

    name: str
    element: int
    batch: int | None
    channels: int | None
    height: int | None
    width: int | None
    channels_last: bool

    def shape(self, channels: int, size: tuple[int, int]) -> tuple[int, ...]:
        """Returns the shape of the images that it takes at once, laid out as it takes them."""
        batch = self.batch or 1
        return (batch, *size, channels) if self.channels_last else (batch, channels, *size)


def read_onnx(path: Path, given: Given) -> Parts:
    """Returns the network of an ONNX file, whose answers are those of onnxruntime.

    Raises:
        ModelError: the extra is not installed, the file is damaged, hostile or no image classifier, an operator is not
            read, or the answers differ.
    """
    graph, where, planned, architecture = _read(path, given)
    try:
        network = GraphNetwork(planned, where.batch or 1, where.channels_last, TYPES[where.element]).eval()
        if not given.rehearsed:
            batches = (where.batch,) if where.batch else (1, PROBES)
            judge = Judge(graph.proto, planned.answer, where.element, where.channels_last, batches)
            check_answers(network, _probes(architecture, where), judge)
    except ModelError as error:
        raise _about(path, error) from None
    return Parts(network, architecture, {"metadata": dict(graph.metadata)} if graph.metadata else {})


def _read(path: Path, given: Given) -> tuple[Graph, ImageInput, Plan, Architecture]:
    _check_installed()
    try:
        if given.arch is not None:
            raise ModelError("it says itself which network it is: leave out --arch")
        graph = read_graph(path)
        where = _image_input(graph)
        channels, size = _image_shape(where, given)
        planned = plan(graph, where.name, where.shape(channels, size))
        if given.num_classes not in (None, planned.num_classes):
            raise ModelError(f"it has {planned.num_classes} classes, not {given.num_classes}")
        fields = {"channels": channels, "size": size, "num_classes": planned.num_classes}
        recorded = _recorded(graph.metadata, channels, where.element)
        return graph, where, planned, Architecture(**{"name": "onnx"} | recorded | given.changes() | fields)
    except ModelError as error:
        raise _about(path, error) from None


def _about(path: Path, error: ModelError) -> ModelError:
    return type(error)(f"{one_line(path)} is an ONNX model that is not read: {error}")


def import_onnx() -> bool:
    """Imports what reading a file needs, which takes a second; returns whether it is installed."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import torch.fx.experimental.symbolic_shapes  # noqa: F401 (which the shapes of convolutions need)
    except ImportError:
        return False
    return True


def _check_installed() -> None:
    if not import_onnx():
        raise ModelError("ONNX models need the packages onnx and onnxruntime: pip install 'tabor[onnx]'") from None


def _image_input(graph: Graph) -> ImageInput:
    if len(graph.inputs) != 1:
        names = ", ".join(one_line(name, 40) for name in list(graph.inputs)[:4])
        raise ModelError(f"a classifier has one input, the images; this one has {len(graph.inputs)}: {names}")
    ((name, (sizes, element)),) = graph.inputs.items()
    if len(sizes) != 4 or element not in ELEMENTS:
        raise ModelError(
            f"its input {one_line(name, 40)} has the shape {sizes} and type {element}; images are (N, C, H, W) or "
            f"(N, H, W, C), floating-point numbers or bytes"
        )
    batch, first, second, last = sizes
    if batch is not None and batch > MOST_AT_ONCE:
        raise ModelError(f"it takes {batch:,} images at a time; export it for one, or for any number")
    if last in IMAGE_CHANNELS and first not in IMAGE_CHANNELS:
        return ImageInput(name, element, batch, last, first, second, channels_last=True)
    return ImageInput(name, element, batch, first, second, last, channels_last=False)


def _image_shape(where: ImageInput, given: Given) -> tuple[int, tuple[int, int]]:
    if given.channels and where.channels and given.channels != where.channels:
        raise ModelError(f"it takes images of {where.channels} channels, not {given.channels}")
    height, width = given.size or (where.height, where.width)
    if height is None or width is None:
        raise ModelError("it takes images of any size; give the size it was trained on with --size")
    if where.height not in (None, height) or where.width not in (None, width):
        raise ModelError(f"it takes images of {where.height or 'any'}×{where.width or 'any'}, not {height}×{width}")
    channels = where.channels or given.channels or 3
    if max(channels, height, width) > LARGEST_IMAGE:
        raise ModelError(f"images of more than {LARGEST_IMAGE} channels or pixels a side make no sense")
    return channels, (height, width)


def _recorded(metadata: Mapping[str, str], channels: int, element: int) -> dict[str, Any]:
    """What the metadata says about the images, by the names of `Architecture`'s fields.

    Read are the standard's `Image.BitmapPixelFormat` and `Image.NominalPixelRange`, and `mean` and `std`, which some
    writers add: numbers, in a JSON list or with commas between them.
    """
    said: dict[str, Any] = {"bgr": metadata.get("Image.BitmapPixelFormat") == "Bgr8" and channels == 3}
    pixels = metadata.get("Image.NominalPixelRange", "")
    if element == BYTES or pixels in RANGES:
        said["value_range"] = RANGES.get(pixels, (0.0, 255.0))
    mean, std = (_numbers(metadata.get(name, "")) for name in ("mean", "std"))
    if len(mean) == len(std) == channels:
        said |= {"mean": mean, "std": std}
    return said


def _numbers(text: str) -> tuple[float, ...]:
    """The numbers in a text, or none where it is anything else."""
    if len(text) > 1000:
        return ()
    try:
        values = json.loads(text if text.startswith("[") else f"[{text}]")
        numbers = tuple(float(value) for value in values)
    except (ValueError, TypeError, RecursionError):
        return ()
    return numbers if all(math.isfinite(number) for number in numbers) else ()


def _probes(architecture: Architecture, where: ImageInput) -> torch.Tensor:
    """Random images as the network takes them: numbers that the type of its input can hold."""
    batch = where.batch or PROBES
    count = batch * -(-PROBES // batch)
    images = torch.rand(count, *architecture.image_shape, generator=torch.Generator().manual_seed(0))
    taken: torch.Tensor = prepared(nn.Identity(), architecture)(images)
    if where.element == BYTES:
        return taken.round().clamp(0, 255)
    return taken.to(TYPES[where.element]).float()
