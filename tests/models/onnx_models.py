"""Small ONNX models made node by node: a classifier of images, with whatever is to be tried put before its head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE, CLASSES = (8, 6), 4


def node(op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> Any:
    """A node; the inputs and outputs by their names."""
    return helper.make_node(op, inputs, outputs, **attributes)


def weights(name: str, *shape: int, seed: int = 0) -> Any:
    """A tensor of random numbers."""
    return constant(name, np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def constant(name: str, values: Any) -> Any:
    """A tensor of these numbers."""
    return numpy_helper.from_array(np.asarray(values), name)


def classifier(
    nodes: Sequence[Any] = (),
    constants: Sequence[Any] = (),
    *,
    features: str = "images",
    shape: Sequence[int | str] = (1, 3, *SIZE),
    element: int = TensorProto.FLOAT,
    channel_axis: int = 1,
    opset: int = 18,
    metadata: dict[str, str] | None = None,
) -> Any:
    """A model whose head takes the mean over the image of `features`, which the nodes compute from `images`.

    Args:
        nodes: before the head.
        constants: for those nodes.
        features: (N, 3, ...) or (N, ..., 3), what the head is given.
        shape: of the input, numbers or names.
        element: type of the input.
        channel_axis: of the features: 1, or 3 where the channels come last.
        opset: version of the operators.
        metadata: what the model says about itself.
    """
    axes = [axis for axis in (1, 2, 3) if axis != channel_axis]
    after_18 = {"inputs": [features, "axes"], "attributes": {}}
    before_18 = {"inputs": [features], "attributes": {"axes": axes}}
    mean: Any = after_18 if opset >= 18 else before_18
    graph = helper.make_graph(
        [
            *nodes,
            node("ReduceMean", mean["inputs"], ["means"], keepdims=0, **mean["attributes"]),
            node("Gemm", ["means", "head.weight", "head.bias"], ["logits"], transB=1),
        ],
        "classifier",
        [helper.make_tensor_value_info("images", element, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [None, CLASSES])],
        [*constants, weights("head.weight", CLASSES, 3), weights("head.bias", CLASSES), constant("axes", axes)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    for key, value in (metadata or {}).items():
        model.metadata_props.add(key=key, value=value)
    return model


def bytes_of(model: onnx.ModelProto) -> bytes:
    """The file's content."""
    return bytes(model.SerializeToString())
