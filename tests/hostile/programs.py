"""Strategies that break programs, which a reader makes networks of: those of torch.export, and ONNX models."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import onnx
from hypothesis import strategies as st

from ..models.exporting import MODEL, packed, records, small
from ..models.onnx_models import bytes_of, classifier, constant, node, weights
from .mutations import anything, changed_json, edited, edits

OPERATORS = ["relu", "conv2d", "linear", "view", "add", "mm", "expand", "repeat", "zeros", "full", "cat", "pad", "bmm"]
NODES = ["Relu", "Conv", "Gemm", "Reshape", "Add", "MatMul", "Expand", "Tile", "Concat", "Pad", "Resize", "Loop", "If"]
NUMBERS = st.sampled_from([-(2**63), -1, 0, 1, 2, 3, 4, 9, 64, 4096, 2**20, 2**31, 2**40, 2**63 - 1])


@cache
def onnx_model() -> bytes:
    """A small classifier with a convolution."""
    convolution = node("Conv", ["images", "filters"], ["cells"], strides=[2, 2], pads=[1, 1, 1, 1])
    reshaped = node("Reshape", ["activated", "shape"], ["features"])
    nodes = [convolution, node("Relu", ["cells"], ["activated"]), reshaped]
    return bytes_of(
        classifier(nodes, [weights("filters", 3, 3, 3, 3), constant("shape", [0, 3, -1, 1])], features="features")
    )


def broken_exports(_: Path) -> st.SearchStrategy[bytes]:
    """A program with broken bytes."""
    return edits.map(lambda changes: edited(small(), changes))


def broken_onnx(_: Path) -> st.SearchStrategy[bytes]:
    """A model with broken bytes."""
    return edits.map(lambda changes: edited(onnx_model(), changes))


def _places(value: Any) -> list[list[int]]:
    """All places in a value of JSON, as `changed_json` counts them."""
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return [[], *([index, *rest] for index, one in enumerate(inner) for rest in _places(one))]


@st.composite
def graphs(draw: st.DrawFn) -> bytes:
    """A program whose JSON has other values, or values from elsewhere in it."""
    content = records(small())
    name = draw(st.sampled_from([MODEL, MODEL, *sorted(name for name in content if name.endswith(".json"))]))
    parsed = json.loads(content[name])
    places = _places(parsed)
    operators = st.sampled_from(OPERATORS).map(lambda operator: f"torch.ops.aten.{operator}.default")
    for _ in range(draw(st.integers(1, 4))):
        new = draw(NUMBERS | operators | anything | st.sampled_from(places).map(partial(_at, parsed)))
        parsed = changed_json(parsed, draw(st.sampled_from(places)), new)
    return packed(content | {name: json.dumps(parsed).encode()})


def _at(value: Any, place: list[int]) -> Any:
    for index in place:
        inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
        value = inner[index % len(inner)] if inner else value
    return value


@st.composite
def models(draw: st.DrawFn) -> bytes:
    """An ONNX model with other operators, numbers, names and shapes."""
    model = onnx.ModelProto.FromString(onnx_model())
    for _ in range(draw(st.integers(1, 4))):
        graph, what = model.graph, draw(st.sampled_from(["operator", "numbers", "names", "shape", "input", "more"]))
        chosen = graph.node[draw(st.integers(0, len(graph.node) - 1))]
        if what == "operator":
            chosen.op_type = draw(st.sampled_from(NODES))
        elif what == "numbers":
            name = draw(st.sampled_from(["strides", "pads", "dilations", "kernel_shape", "axis", "group", "transB"]))
            numbers = draw(st.lists(NUMBERS, min_size=1, max_size=4))
            chosen.attribute.append(onnx.helper.make_attribute(name, numbers if draw(st.booleans()) else numbers[0]))
        elif what == "names":
            names = [*chosen.input, *chosen.output, "images", "logits", "shape", ""]
            chosen.input[:] = draw(st.lists(st.sampled_from(names), max_size=4))
        elif what == "shape":
            tensor = graph.initializer[draw(st.integers(0, len(graph.initializer) - 1))]
            tensor.dims[:] = draw(st.lists(NUMBERS, max_size=4))
        elif what == "input":
            sizes = graph.input[0].type.tensor_type.shape.dim
            sizes[draw(st.integers(0, 3))].dim_value = draw(NUMBERS)
        else:
            numbers = draw(st.lists(NUMBERS, max_size=4))
            graph.initializer.append(constant("shape", numbers))
    return bytes_of(model)


PROGRAMS: dict[str, Callable[[Path], st.SearchStrategy[bytes]]] = {
    "bytes, exported": broken_exports,
    "graphs, exported": lambda _: graphs(),
    "bytes, ONNX": broken_onnx,
    "graphs, ONNX": lambda _: models(),
}
"""As `mutations.TARGETS`; they need the packages of the extra `onnx`."""
