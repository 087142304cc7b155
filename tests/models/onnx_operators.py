"""One small model for every operator that is read; loading it compares the answers with onnxruntime's."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper

from .onnx_models import constant, node, weights

Case = tuple[list[Any], list[Any], dict[str, Any]]

TO_FLOAT = {"to": TensorProto.FLOAT}


def alone(op: str, *constants: Any, **settings: Any) -> Case:
    """The operator on the images, and constants as its further inputs."""
    opset = {"opset": settings.pop("opset")} if "opset" in settings else {}
    names = ["images", *(tensor.name for tensor in constants)]
    return [node(op, names, ["features"], **settings)], list(constants), opset


def positive(op: str, **settings: Any) -> Case:
    """The operator on numbers above 0."""
    return [node("Exp", ["images"], ["x"]), node(op, ["x"], ["features"], **settings)], [], {}


def compared(op: str) -> Case:
    """The operator on the images and a number, its answer as a number."""
    nodes = [node(op, ["images", "half"], ["yes"]), node("Cast", ["yes"], ["features"], **TO_FLOAT)]
    return nodes, [constant("half", np.float32(0.5))], {}


def reduced(op: str, *, axes_as_input: bool = False, **settings: Any) -> Case:
    """The operator along the rows, which are then as many as before."""
    axes = [constant("rows", [2])] if axes_as_input else []
    along = {} if axes_as_input else {"axes": [2]}
    made = node(op, ["images", *(tensor.name for tensor in axes)], ["row"], keepdims=1, **along, **settings)
    return [made, node("Add", ["images", "row"], ["features"])], axes, {"opset": 18 if axes_as_input else 12}


def places(op: str) -> Case:
    """Where the extreme is, among the rows."""
    nodes = [
        node(op, ["images"], ["place"], axis=2),
        node("Cast", ["place"], ["number"], **TO_FLOAT),
        node("Add", ["images", "number"], ["features"]),
    ]
    return nodes, [], {}


def logical(op: str) -> Case:
    """Two comparisons put together."""
    nodes = [
        node("Greater", ["images", "half"], ["a"]),
        node("Less", ["images", "more"], ["b"]),
        node(op, ["a", "b"] if op != "Not" else ["a"], ["both"]),
        node("Cast", ["both"], ["features"], **TO_FLOAT),
    ]
    return nodes, [constant("half", np.float32(0.3)), constant("more", np.float32(0.6))], {}


def counted() -> Case:
    """Shapes as numbers: Shape, Size, Range, ConstantOfShape and whole numbers divided, all added to the images."""
    nodes = [
        node("Shape", ["images"], ["shape"], start=1),
        node("ConstantOfShape", ["shape"], ["twos"], value=helper.make_tensor("v", TensorProto.FLOAT, [1], [2.0])),
        node("Size", ["images"], ["size"]),
        node("Constant", [], ["seven"], value_int=7),
        node("Div", ["size", "seven"], ["limit"]),
        node("Mod", ["limit", "seven"], ["rest"]),
        node("Range", ["rest", "limit", "seven"], ["row"]),
        node("Cast", ["row"], ["numbers"], **TO_FLOAT),
        node("ReduceSum", ["numbers"], ["sum"], keepdims=0),
        node("Mul", ["twos", "sum"], ["product"]),
        node("Add", ["images", "product"], ["features"]),
    ]
    return nodes, [], {}


def parted() -> Case:
    """Split in two, and put together the other way round."""
    nodes = [
        node("Split", ["images", "sizes"], ["a", "b"], axis=3),
        node("Concat", ["b", "a"], ["features"], axis=3),
    ]
    return nodes, [constant("sizes", [2, 4])], {}


def convolved(shape: tuple[int, ...], op: str = "Conv", **settings: Any) -> Case:
    """A convolution with random weights, three channels in the end."""
    return alone(op, weights("w", *shape), weights("b", 3), **settings)


def attended() -> Case:
    """Two heads, side by side in rows of numbers."""
    nodes = [
        node("Reshape", ["images", "rows"], ["x"]),
        node("Attention", ["x", "x", "x"], ["y"], q_num_heads=2, kv_num_heads=2),
        node("Reshape", ["y", "before"], ["features"]),
    ]
    return nodes, [constant("rows", [1, -1, 6]), constant("before", [1, 3, 8, 6])], {"opset": 23}


def flattened() -> Case:
    """An axis less, and there again."""
    nodes = [
        node("ReduceMax", ["images", "row"], ["x"], keepdims=1),
        node("Squeeze", ["x", "row"], ["y"]),
        node("Unsqueeze", ["y", "row"], ["features"]),
    ]
    return nodes, [constant("row", [2])], {}


def through(first: Any, second: Any, *constants: Any, **more: Any) -> Case:
    """Two nodes, the first of which computes `x`."""
    return [first, second], list(constants), more


STATISTICS = [
    weights("scale", 3),
    weights("bias", 3),
    weights("mean", 3),
    constant("var", np.array([1, 2, 3], dtype=np.float32)),
]
WINDOW = {"kernel_shape": [3, 3], "strides": [2, 1]}
SHIFTED = constant("pads", [0, 0, 1, 2, 0, 0, 2, 1])

PLAIN = [
    "Abs",
    "Ceil",
    "Cos",
    "Dropout",
    "Erf",
    "Exp",
    "Floor",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "HardSigmoid",
    "HardSwish",
    "Hardmax",
    "Identity",
    "LeakyRelu",
    "LogSoftmax",
    "Mish",
    "Neg",
    "Relu",
    "Round",
    "Selu",
    "Sigmoid",
    "Sign",
    "Sin",
    "Softmax",
    "Softplus",
    "Softsign",
    "Tanh",
]

REDUCING = [
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
]

CASES: dict[str, Case] = {
    **{op: alone(op) for op in PLAIN},
    **{op: alone(op, weights("y", 1, 3, 1, 6)) for op in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean")},
    **{op: positive(op) for op in ("Log", "Sqrt", "Reciprocal")},
    **{op: compared(op) for op in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")},
    **{op: logical(op) for op in ("And", "Or", "Not")},
    **{op: places(op) for op in ("ArgMax", "ArgMin")},
    **{op: reduced(op) for op in REDUCING},
    "ReduceMax, axes as input": reduced("ReduceMax", axes_as_input=True),
    "Attention": attended(),
    "AveragePool": alone("AveragePool", **WINDOW, pads=[1, 1, 1, 1]),
    "AveragePool, border counted": alone("AveragePool", **WINDOW, pads=[1, 1, 1, 1], count_include_pad=1),
    "AveragePool, uneven": alone("AveragePool", **WINDOW, pads=[0, 2, 1, 1]),
    "AveragePool, uneven, border counted": alone("AveragePool", **WINDOW, pads=[0, 2, 1, 1], count_include_pad=1),
    "AveragePool, ceil": alone("AveragePool", kernel_shape=[2, 2], strides=[3, 3], ceil_mode=1),
    "AveragePool, same": alone("AveragePool", **WINDOW, auto_pad="SAME_UPPER"),
    "BatchNormalization": alone("BatchNormalization", *STATISTICS, epsilon=1e-3),
    "Celu": alone("Celu", alpha=0.7),
    "Clip": alone("Clip", constant("low", np.float32(0.2)), constant("high", np.float32(0.7))),
    "Clip, version 6": alone("Clip", min=0.2, max=0.7, opset=10),
    "Conv": convolved((3, 3, 3, 2), strides=[2, 1], dilations=[1, 2], pads=[1, 1, 1, 1]),
    "Conv, uneven": convolved((3, 3, 3, 3), pads=[0, 1, 2, 1]),
    "Conv, same upper": convolved((3, 3, 2, 4), auto_pad="SAME_UPPER"),
    "Conv, same lower": convolved((3, 3, 2, 4), auto_pad="SAME_LOWER", strides=[2, 2]),
    "Conv, valid": convolved((3, 3, 2, 2), auto_pad="VALID"),
    "Conv, by channel": convolved((3, 1, 3, 3), group=3),
    "ConvTranspose": convolved((3, 3, 2, 2), "ConvTranspose", strides=[2, 2], output_padding=[1, 0]),
    "CumSum": alone("CumSum", constant("axis", 2)),
    "DepthToSpace": through(
        node("Tile", ["images", "times"], ["x"]),
        node("DepthToSpace", ["x"], ["features"], blocksize=2),
        constant("times", [1, 4, 1, 1]),
    ),
    "DepthToSpace, CRD": through(
        node("Tile", ["images", "times"], ["x"]),
        node("DepthToSpace", ["x"], ["features"], blocksize=2, mode="CRD"),
        constant("times", [1, 4, 1, 1]),
    ),
    "Einsum": alone("Einsum", weights("w", 3, 3), equation="nchw,cd->ndhw"),
    "Elu": alone("Elu", alpha=0.5),
    "Expand": alone("Expand", constant("shape", [1, 3, 1, 6])),
    "Flatten": through(
        node("Flatten", ["images"], ["x"]),
        node("Reshape", ["x", "shape"], ["features"]),
        constant("shape", [-1, 3, 8, 6]),
    ),
    "Gather": alone("Gather", constant("places", [0, -1, 3]), axis=2),
    "Gather, one place": through(
        node("Gather", ["images", "place"], ["x"], axis=2),
        node("Unsqueeze", ["x", "axis"], ["features"]),
        constant("place", -2),
        constant("axis", [2]),
    ),
    "GatherElements": alone("GatherElements", constant("places", np.full((1, 3, 2, 6), -1)), axis=2),
    "Gelu": alone("Gelu", opset=20),
    "Gelu, tanh": alone("Gelu", approximate="tanh", opset=20),
    "GroupNormalization": alone("GroupNormalization", weights("s", 3), weights("b", 3), num_groups=3, opset=21),
    "GroupNormalization, version 18": alone("GroupNormalization", weights("s", 1), weights("b", 1), num_groups=1),
    "InstanceNormalization": alone("InstanceNormalization", weights("s", 3), weights("b", 3)),
    "LayerNormalization": alone("LayerNormalization", weights("s", 8, 6), weights("b", 8, 6), axis=2),
    "LpNormalization": alone("LpNormalization", axis=2, p=1),
    "LRN": alone("LRN", size=3, alpha=0.1, beta=0.5, bias=2.0),
    "MatMul": alone("MatMul", weights("w", 6, 5)),
    "MaxPool": alone("MaxPool", **WINDOW, pads=[1, 1, 1, 1]),
    "MaxPool, uneven": alone("MaxPool", **WINDOW, pads=[0, 2, 1, 1]),
    "MaxPool, ceil, dilated": alone("MaxPool", **WINDOW, ceil_mode=1, dilations=[2, 1]),
    "Mod, of numbers": alone("Mod", constant("y", np.float32(0.3)), fmod=1),
    "Pad": alone("Pad", SHIFTED, constant("value", np.float32(0.5))),
    "Pad, reflected": alone("Pad", SHIFTED, mode="reflect"),
    "Pad, edge": alone("Pad", SHIFTED, mode="edge"),
    "Pad, version 2": alone("Pad", pads=[0, 0, 1, 2, 0, 0, 2, 1], value=0.5, opset=10),
    "Pow": alone("Pow", constant("y", np.float32(2.0))),
    "PRelu": alone("PRelu", weights("slope", 3, 1, 1)),
    "Reshape": alone("Reshape", constant("shape", [0, 0, 6, -1])),
    "Resize": alone(
        "Resize",
        constant("roi", np.zeros(0, np.float32)),
        constant("scales", np.array([1, 1, 2, 1.5], dtype=np.float32)),
        mode="linear",
    ),
    "Resize, nearest": alone(
        "Resize",
        constant("roi", np.zeros(0, np.float32)),
        constant("scales", np.array([1, 1, 2, 2], dtype=np.float32)),
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    ),
    "Resize, to a size": alone(
        "Resize",
        constant("roi", np.zeros(0, np.float32)),
        constant("none", np.zeros(0, np.float32)),
        constant("size", [1, 3, 5, 9]),
        mode="cubic",
        coordinate_transformation_mode="align_corners",
    ),
    "RMSNormalization": alone("RMSNormalization", weights("s", 6), opset=23),
    "ScatterND": alone("ScatterND", constant("places", [[0, 1]]), weights("new", 1, 8, 6)),
    "Shapes as numbers": counted(),
    "Slice": alone(
        "Slice", constant("s", [1, -1]), constant("e", [9, -6]), constant("a", [2, 3]), constant("t", [2, -1])
    ),
    "Slice, version 1": alone("Slice", starts=[1, 0], ends=[-1, 99], axes=[2, 3], opset=9),
    "Softmax, version 11": alone("Softmax", axis=2, opset=11),
    "SpaceToDepth": through(
        node("SpaceToDepth", ["images"], ["x"], blocksize=2),
        node("Slice", ["x", "s", "e", "a"], ["features"]),
        constant("s", [2]),
        constant("e", [5]),
        constant("a", [1]),
    ),
    "Split": parted(),
    "Squeeze": flattened(),
    "Swish": alone("Swish", alpha=0.7, opset=24),
    "ThresholdedRelu": alone("ThresholdedRelu", alpha=0.4),
    "Tile": alone("Tile", constant("times", [1, 1, 2, 3])),
    "Transpose": alone("Transpose", perm=[0, 1, 3, 2]),
    "Upsample": alone("Upsample", constant("scales", np.array([1, 1, 2, 2], dtype=np.float32)), opset=9),
    "Where": through(
        node("Greater", ["images", "half"], ["yes"]),
        node("Where", ["yes", "images", "half"], ["features"]),
        constant("half", np.float32(0.5)),
    ),
}
