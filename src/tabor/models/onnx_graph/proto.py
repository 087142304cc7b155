"""From a file's bytes to a graph that is known to be whole, self-contained and of plain parts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tabor.errors import ModelError, one_line
from tabor.models.onnx_graph.external import Beside, read_external
from tabor.models.onnx_graph.node import Attribute, Node
from tabor.models.onnx_graph.wire import check_fields

LARGEST_FILE = 2**31 - 1
"""Bytes; protobuf's own limit."""

MOST_NODES = 10_000

STANDARD = ("", "ai.onnx")
"""The names of the standard's own domain of operators."""

OLDEST_OPSET = 7
"""Before it, shapes were broadcast in another way."""

ITEM_BYTES = {1: 4, 2: 1, 3: 1, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 16: 2}
"""The types of numbers that are read, by the standard's numbers for them, and their sizes."""


@dataclass(frozen=True)
class Graph:
    """What a file says, in plain values.

    Attributes:
        nodes: in the order in which they are computed.
        constants: the weights and other numbers, by name, in the file's types.
        inputs: the shapes of what is fed in, by name, and its type; a size is None where the file leaves it open.
        outputs: the names of what comes out.
        metadata: what the file says about itself.
        proto: the same as a message that holds nothing else, for onnxruntime.
    """

    nodes: tuple[Node, ...]
    constants: Mapping[str, Tensor]
    inputs: Mapping[str, tuple[tuple[int | None, ...], int]]
    outputs: tuple[str, ...]
    metadata: Mapping[str, str]
    proto: Any


def read_graph(path: Path) -> Graph:
    """Returns the graph of an ONNX file.

    Raises:
        ModelError: it is damaged, needs more than the standard's operators, or holds what no classifier needs.
    """
    import onnx

    size = path.stat().st_size
    if size > LARGEST_FILE:
        raise ModelError(f"its {size:,} bytes are more than ONNX can hold in one file")
    data = path.read_bytes()
    check_fields(data, onnx.ModelProto.DESCRIPTOR)
    try:
        model = onnx.ModelProto.FromString(data)
    except Exception as error:  # noqa: BLE001 (whatever the parser of protobuf raises)
        raise ModelError(f"it is damaged: {one_line(error, 120)}") from None
    del data
    opset = _check_plain(model)
    beside = Beside(path)
    constants = {tensor.name: _tensor(tensor, beside) for tensor in model.graph.initializer}
    return Graph(
        nodes=tuple(_node(node, opset) for node in model.graph.node),
        constants=constants,
        inputs={value.name: _input(value) for value in model.graph.input if value.name not in constants},
        outputs=tuple(value.name for value in model.graph.output),
        metadata={entry.key: entry.value for entry in model.metadata_props},
        proto=_stripped(model, opset),
    )


def _check_plain(model: Any) -> int:
    """Refuses what is not read at all; returns the version of the operators."""
    graph = model.graph
    if model.training_info or model.functions or graph.sparse_initializer:
        raise ModelError(
            "it holds functions of its own, sparse weights or steps of training, which tabor does not read; "
            "export it again for inference, with functions inlined"
        )
    if graph.quantization_annotation:
        raise ModelError("it is quantised; tabor needs the network before its quantisation, for its gradients")
    if len(graph.node) > MOST_NODES:
        raise ModelError(f"it has {len(graph.node):,} nodes, more than the {MOST_NODES:,} that tabor reads")
    for node in graph.node:
        if node.domain not in STANDARD:
            raise ModelError(
                f"it needs the operator {one_line(node.op_type, 60)} of {one_line(node.domain, 60)}, "
                f"which is not one of the standard's; whoever made it can export it without"
            )
    names = [tensor.name for tensor in graph.initializer]
    if len(set(names)) < len(names):
        raise ModelError("it has two weights of the same name")
    versions = [entry.version for entry in model.opset_import if entry.domain in STANDARD]
    if len(versions) != 1 or versions[0] < OLDEST_OPSET:
        raise ModelError(f"it needs operators of version {OLDEST_OPSET} or newer, and says {one_line(versions, 60)}")
    return int(versions[0])


def _tensor(tensor: Any, beside: Beside | None) -> Tensor:
    """Returns a tensor's numbers; those in another file are first taken into the message.

    Args:
        tensor: the message.
        beside: other files; None: there can be none.
    """
    import onnx

    shown, dims = one_line(tensor.name, 80), tuple(tensor.dims)
    if tensor.data_type not in ITEM_BYTES:
        raise ModelError(f"its {shown} is of a type that tabor does not read: text, complex or quantised numbers")
    if any(size < 0 for size in dims) or tensor.HasField("segment"):
        raise ModelError(f"its {shown} has a shape that makes no sense: {one_line(dims, 80)}")
    count = math.prod(dims)
    if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
        _take_in(tensor, beside, count * ITEM_BYTES[tensor.data_type])
    held = _held(tensor)
    if held != count:
        raise ModelError(f"its {shown} claims {count:,} numbers and holds {held:,}")
    try:
        return _plain(onnx.numpy_helper.to_array(tensor))
    except (ValueError, TypeError) as error:
        raise ModelError(f"its {shown} is damaged: {one_line(error, 120)}") from None


def _plain(array: Any) -> Tensor:
    """The same numbers in memory of their own."""
    if array.dtype.kind not in "iufb":  # bfloat16, which NumPy does not know by itself
        return torch.from_numpy(array.astype("float32")).to(torch.bfloat16)
    return torch.from_numpy(array.copy())


def _take_in(tensor: Any, beside: Beside | None, size: int) -> None:
    if beside is None or tensor.raw_data:
        raise ModelError(f"its {one_line(tensor.name, 80)} has external data where there can be none")
    if size > LARGEST_FILE:
        raise ModelError(f"its {one_line(tensor.name, 80)} claims {size:,} bytes of external data")
    tensor.raw_data = read_external(beside, {entry.key: entry.value for entry in tensor.external_data}, size)
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")


def _held(tensor: Any) -> int:
    """How many numbers a tensor's message really has."""
    if tensor.HasField("raw_data"):
        whole, rest = divmod(len(tensor.raw_data), ITEM_BYTES[tensor.data_type])
        return -1 if rest else whole
    return sum(len(field) for field in (tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data))


def _node(node: Any, opset: int) -> Node:
    attributes = {attribute.name: _attribute(attribute, node.op_type) for attribute in node.attribute}
    return Node(node.op_type, tuple(node.input), tuple(node.output), attributes, opset)


def _attribute(attribute: Any, op: str) -> Attribute:
    from onnx import AttributeProto as Kinds

    if attribute.type == Kinds.FLOAT:
        return float(attribute.f)
    if attribute.type == Kinds.INT:
        return int(attribute.i)
    if attribute.type == Kinds.STRING:
        return str(attribute.s.decode("utf-8", "replace"))
    if attribute.type == Kinds.TENSOR:
        return _tensor(attribute.t, None)
    if attribute.type == Kinds.FLOATS:
        return tuple(float(value) for value in attribute.floats)
    if attribute.type == Kinds.INTS:
        return tuple(int(value) for value in attribute.ints)
    raise ModelError(f"its {one_line(op, 60)} holds a graph of its own, or a setting that tabor does not read")


def _input(value: Any) -> tuple[tuple[int | None, ...], int]:
    kind = value.type.tensor_type
    sizes = (size.dim_value if size.HasField("dim_value") else None for size in kind.shape.dim)
    # A size of 0 or less stands for an open one in files of some writers.
    return tuple(int(size) if size is not None and size > 0 else None for size in sizes), int(kind.elem_type)


def _stripped(model: Any, opset: int) -> Any:
    """The message without anything that was not looked at."""
    import onnx

    graph = model.graph
    _keep(model, "ir_version", "graph")
    model.opset_import.append(onnx.helper.make_opsetid("", opset))
    _keep(graph, "node", "initializer", "input", "output")
    graph.name = "graph"
    for node in graph.node:
        _keep(node, "op_type", "input", "output", "attribute")
    return model


def _keep(message: Any, *names: str) -> None:
    for field in message.DESCRIPTOR.fields:
        if field.name not in names:
            message.ClearField(field.name)
