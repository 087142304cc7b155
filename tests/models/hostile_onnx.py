"""ONNX files that nobody should open, made on the spot: each with what the refusal says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from .onnx_models import bytes_of, classifier, constant, node, weights

MANY = 2**40


def before_the_head(*nodes: Any, constants: Sequence[Any] = (), **settings: Any) -> bytes:
    """A classifier with these nodes between the images and its head; the last computes `features`."""
    return bytes_of(classifier(nodes, constants, features="features", **settings))


def added(name: str = "kept") -> Any:
    """A node that makes features of `kept`, so that what computes it is needed."""
    return node("Add", ["images", name], ["features"])


def external(folder: Path, location: str, **entries: str) -> bytes:
    """A classifier whose weights lie in another file, of which there is one with 64 bytes in the folder."""
    (folder / "weights.bin").write_bytes(bytes(64))
    model = classifier()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in ({"location": location} | entries).items():
        tensor.external_data.add(key=key, value=value)
    return bytes_of(model)


def named_the_wrong_way_round(folder: Path) -> bytes:
    """The name of the other file stands before what it is, which protobuf allows."""
    written, key, value = external(folder, "weights.bin"), _field(1, b"location"), _field(2, b"weights.bin")
    assert key + value in written
    return written.replace(key + value, value + key)


def behind_a_link(folder: Path) -> bytes:
    """The other file is a link to one outside."""
    (folder.parent / "outside.bin").write_bytes(bytes(64))
    (folder / "link.bin").symlink_to(folder.parent / "outside.bin")
    return external(folder, "link.bin")


def in_a_linked_folder(folder: Path) -> bytes:
    """The other file lies in a folder that is a link to one outside."""
    (folder.parent / "outside").mkdir()
    (folder.parent / "outside" / "weights.bin").write_bytes(bytes(64))
    (folder / "link").symlink_to(folder.parent / "outside")
    return external(folder, "link/weights.bin")


def a_pipe(folder: Path) -> bytes:
    """The other file would be waited for."""
    import os

    os.mkfifo(folder / "pipe")
    return external(folder, "pipe")


def claiming(*dims: int, held: bytes = bytes(16)) -> bytes:
    """Weights that claim more than they hold."""
    model = classifier()
    tensor = model.graph.initializer[0]
    del tensor.dims[:]
    tensor.dims.extend(dims)
    tensor.raw_data = held
    return bytes_of(model)


def doubled(times: int) -> bytes:
    """Each node is twice the one before."""
    nodes = [node("Concat", [f"x{i}", f"x{i}"], [f"x{i + 1}"], axis=2) for i in range(times)]
    return before_the_head(node("Identity", ["images"], ["x0"]), *nodes, node("Identity", [f"x{times}"], ["features"]))


def doubled_constants(times: int) -> bytes:
    """The same without the images."""
    nodes = [node("Concat", [f"x{i}", f"x{i}"], [f"x{i + 1}"], axis=0) for i in range(times)]
    sums = [node("ReduceSum", [f"x{times}"], ["kept"], keepdims=0), added()]
    return before_the_head(*nodes, *sums, constants=[weights("x0", 1000)])


def many_constants() -> bytes:
    """Each is small enough, all are not."""
    nodes = [node("ConstantOfShape", ["shape"], [f"x{i}"]) for i in range(40)]
    sums = [node("Sum", [f"x{i}" for i in range(40)], ["all"]), node("ReduceSum", ["all"], ["kept"], keepdims=0)]
    return before_the_head(*nodes, *sums, added(), constants=[constant("shape", [2**23])])


def many_at_once(needed: str) -> bytes:
    """Values that depend on the image, each small enough, and all needed for a sum, which may be of no use."""
    nodes = [node("Tile", ["images", "times"], [f"x{i}"]) for i in range(40)]
    sums = [node("Sum", [f"x{i}" for i in range(40)], ["sum"]), node("Relu", [needed], ["features"])]
    return before_the_head(*nodes, *sums, constants=[constant("times", [1, 1, 400, 400])])


def copied_for_a_product() -> bytes:
    """Matrices of 2**25 numbers, of which a product lays out 64 copies, for an answer of 2**22 numbers."""
    return before_the_head(
        node("ConstantOfShape", ["rows"], ["a"]),
        node("ConstantOfShape", ["columns"], ["b"]),
        node("MatMul", ["a", "b"], ["c"]),
        node("ReduceSum", ["c"], ["kept"], keepdims=0),
        added(),
        constants=[constant("rows", [64, 1, 1, 512]), constant("columns", [1, 64, 512, 1024])],
    )


def endless_work() -> bytes:
    """Little memory, and days of convolutions."""
    return before_the_head(
        node("ConstantOfShape", ["shape"], ["w"]),
        node("ReduceMean", ["images", "channels"], ["grey"], keepdims=1),
        node("Tile", ["grey", "times"], ["x0"]),
        *[node("Conv", [f"x{i}", "w"], [f"x{i + 1}"]) for i in range(1000)],
        node("ReduceMean", ["x1000", "channels"], ["features"], keepdims=1),
        constants=[
            constant("shape", [2048, 2048, 1, 1]),
            constant("times", [1, 2048, 10, 10]),
            constant("channels", [1]),
        ],
    )


def endless_pooling() -> bytes:
    """A window as large as the image, at each place."""
    return before_the_head(
        node("Tile", ["images", "times"], ["large"]),
        node("AveragePool", ["large"], ["features"], kernel_shape=[801, 801], pads=[400] * 4),
        constants=[constant("times", [1, 1, 100, 130])],
    )


def with_a_graph_inside(op: str, depth: int = 1) -> bytes:
    """A node that holds a graph, perhaps with such a node in it."""
    inner = helper.make_graph([node("Identity", ["images"], ["y"])], "inner", [], [])
    for _ in range(depth - 1):
        inner = helper.make_graph([node(op, ["yes"], ["y"], then_branch=inner, else_branch=inner)], "inner", [], [])
    branch = {"then_branch": inner, "else_branch": inner} if op == "If" else {"body": inner}
    return before_the_head(node(op, ["yes"], ["features"], **branch), constants=[constant("yes", True)])


def deep(times: int) -> bytes:
    """Graphs in nodes in graphs, as bytes: making them one by one would take too long."""
    inner = b""
    for _ in range(times):
        attribute = _field(6, inner) + _field(1, b"b") + b"\xa0\x01\x05"
        inner = _field(1, _field(4, b"If") + _field(5, attribute))
    return b"\x08\x08" + _field(7, inner)


def _field(number: int, content: bytes) -> bytes:
    length, size = b"", len(content)
    while True:
        size, byte = size >> 7, size & 0x7F
        length += bytes([byte | 0x80 if size else byte])
        if not size:
            return bytes([number << 3 | 2]) + length + content


def recursive() -> bytes:
    """A function that calls itself."""
    model = classifier([helper.make_node("F", ["images"], ["features"], domain="mine")], features="features")
    body = [helper.make_node("F", ["x"], ["y"], domain="mine")]
    model.functions.append(helper.make_function("mine", "F", ["x"], ["y"], body, [helper.make_opsetid("mine", 1)]))
    model.opset_import.append(helper.make_opsetid("mine", 1))
    return bytes_of(model)


def changed(change: Callable[[onnx.ModelProto], object]) -> bytes:
    """The plain classifier with something changed."""
    model = classifier()
    change(model)
    return bytes_of(model)


def _two_inputs(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1, 3]))


def _input_shape(*shape: int, element: int = TensorProto.FLOAT) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        del model.graph.input[:]
        model.graph.input.append(helper.make_tensor_value_info("images", element, shape))

    return change


def _text(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_type = TensorProto.STRING
    tensor.string_data.extend([b"x"] * 12)


def _cycle() -> bytes:
    return before_the_head(node("Relu", ["b"], ["a"]), node("Relu", ["a"], ["b"]), added("b"))


def _huge_pad() -> bytes:
    return before_the_head(
        node("Pad", ["images", "pads"], ["features"]), constants=[constant("pads", [0, 0, 0, 0, 0, 0, 2**40, 2**40])]
    )


def _not_finite() -> bytes:
    return before_the_head(added("nan"), constants=[constant("nan", np.float32(np.nan))])


def _constant_of(shape: Sequence[int]) -> bytes:
    return before_the_head(
        node("ConstantOfShape", ["shape"], ["large"]),
        node("ReduceSum", ["large"], ["kept"], keepdims=0),
        added(),
        constants=[constant("shape", np.array(shape, dtype=np.int64))],
    )


def _sized(op: str, *numbers: float, **settings: Any) -> bytes:
    """The images laid out by numbers that the operator takes as its second input."""
    kind = np.int64 if all(isinstance(number, int) for number in numbers) else np.float32
    return before_the_head(
        node(op, ["images", "numbers"], ["features"], **settings),
        constants=[constant("numbers", np.array(numbers, dtype=kind))],
    )


HOSTILE_ONNX: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "external data above its folder": (lambda folder: external(folder, "../weights.bin"), r"outside its folder: \.\./"),
    "external data anywhere": (lambda folder: external(folder, "/etc/passwd"), "outside its folder: /etc/passwd"),
    "external data with a backslash": (lambda folder: external(folder, "..\\x"), "outside its folder"),
    "external data in memory": (
        lambda folder: external(folder, "*/_ORT_MEM_ADDR_/*", offset="4096", length="48"),
        "behind a link or cannot be found|cannot be read",
    ),
    "external data nowhere": (lambda folder: external(folder, ""), "outside its folder"),
    "external data missing": (lambda folder: external(folder, "no.bin"), "cannot be read: no.bin"),
    "external data behind a link": (behind_a_link, "behind a link .*link.bin"),
    "external data in a linked folder": (in_a_linked_folder, "behind a link .*link/weights.bin"),
    "external data in a pipe": (a_pipe, "cannot be read: pipe"),
    "external data with a NUL": (lambda folder: external(folder, "a\0b"), "its external data .*a\\\\x00b"),
    "external data named the wrong way round": (named_the_wrong_way_round, "digest would leave it out"),
    "external data beyond the file": (
        lambda folder: external(folder, "weights.bin", offset="32"),
        "reaches beyond the end of weights.bin",
    ),
    "external data of another length": (
        lambda folder: external(folder, "weights.bin", length="4"),
        "claims 4 bytes for weights of 48",
    ),
    "external data, no number": (lambda folder: external(folder, "weights.bin", offset="-8"), "offset that is no num"),
    "weights of a huge shape": (lambda folder: claiming(MANY), "claims 1,099,511,627,776 numbers and holds 4"),
    "weights of a shape that wraps": (lambda folder: claiming(2**32, 2**32, 4), "claims .* numbers and holds 4"),
    "weights of a negative shape": (lambda folder: claiming(-1, 4), "shape that makes no sense"),
    "weights cut in a number": (lambda folder: claiming(4, held=bytes(15)), "claims 4 numbers and holds -1"),
    "weights that are text": (lambda folder: changed(_text), "of a type that tabor does not read"),
    "weights that are no numbers": (lambda folder: _not_finite(), "not finite numbers"),
    "another domain": (
        lambda folder: before_the_head(node("Inverse", ["images"], ["features"], domain="com.microsoft")),
        "needs the operator Inverse of com.microsoft",
    ),
    "another domain, with control characters": (
        lambda folder: before_the_head(node("X", ["images"], ["features"], domain="\x1b[2J\nverdict: clean")),
        r"of \\x1b\[2J\\nverdict: clean",
    ),
    "unknown operator": (
        lambda folder: before_the_head(node("Load", ["images"], ["features"])),
        "needs the operator Load, which tabor does not read",
    ),
    "operator of Python": (
        lambda folder: before_the_head(node("__class__", ["images"], ["features"])),
        "needs the operator __class__",
    ),
    "operator with control characters": (
        lambda folder: before_the_head(node("\x1b[2J\n" + "x" * 5000, ["images"], ["features"])),
        r"the operator \\x1b\[2J\\nxxx",
    ),
    "quantised": (
        lambda folder: before_the_head(
            node("QuantizeLinear", ["images", "scale"], ["features"]), constants=[constant("scale", np.float32(0.1))]
        ),
        "the operator QuantizeLinear",
    ),
    "If": (lambda folder: with_a_graph_inside("If"), "its If holds a graph of its own"),
    "Loop": (lambda folder: with_a_graph_inside("Loop"), "its Loop holds a graph of its own"),
    "If in If in If": (lambda folder: with_a_graph_inside("If", 7), "more than 16 deep"),
    "deep nesting": (lambda folder: deep(3000), "more than 16 deep"),
    "a function that calls itself": (lambda folder: recursive(), "functions of its own"),
    "training": (lambda folder: changed(lambda model: model.training_info.add()), "steps of training"),
    "sparse weights": (lambda folder: changed(lambda m: m.graph.sparse_initializer.add()), "sparse weights"),
    "reshaped to a huge shape": (lambda folder: _sized("Reshape", 1, 3, 2**31, 2**31), "Reshape cannot be computed"),
    "reshaped to its pixels": (
        lambda folder: before_the_head(
            node("ReduceMax", ["images"], ["most"], keepdims=1),
            node("Cast", ["most"], ["shape"], to=TensorProto.INT64),
            node("Reshape", ["images", "shape"], ["features"]),
        ),
        "depends on the pixels in its shape",
    ),
    "ConstantOfShape": (lambda folder: _constant_of([2**20, 2**20]), "4,398,046,511,104 bytes in one step"),
    "ConstantOfShape, beyond counting": (lambda folder: _constant_of([2**62, 2**62]), "ConstantOfShape cannot be"),
    "ConstantOfShape, negative": (lambda folder: _constant_of([-4]), "ConstantOfShape cannot be computed"),
    "Expand": (lambda folder: _sized("Expand", 2**20, 3, 8, 6), "(numbers|bytes) in one"),
    "Tile": (lambda folder: _sized("Tile", 1, 1, 2**20, 2**20), "(numbers|bytes) in one"),
    "Pad": (lambda folder: _huge_pad(), "Pad cannot be computed|(numbers|bytes) in one"),
    "Upsample": (lambda folder: _sized("Upsample", 1.0, 1.0, 1e6, 1e6, opset=9), "Upsample|ReduceMean|in one"),
    "Range": (
        lambda folder: before_the_head(
            node("Range", ["zero", "most", "one"], ["large"]),
            node("Cast", ["large"], ["floats"], to=TensorProto.FLOAT),
            node("ReduceSum", ["floats"], ["kept"], keepdims=0),
            added(),
            constants=[constant("zero", 0), constant("most", MANY), constant("one", 1)],
        ),
        "(numbers|bytes) in one",
    ),
    "broadcast": (
        lambda folder: before_the_head(
            node("Add", ["column", "row"], ["large"]),
            node("ReduceSum", ["large"], ["kept"], keepdims=0),
            added(),
            constants=[weights("column", 30000, 1), weights("row", 30000)],
        ),
        "3,600,000,000 bytes in one step",
    ),
    "doubling": (lambda folder: doubled(60), "(numbers|bytes) in one"),
    "doubling constants": (lambda folder: doubled_constants(60), "(numbers|bytes) in one"),
    "many constants": (lambda folder: many_constants(), "numbers that do not depend on the image"),
    "many values at once": (lambda folder: many_at_once("sum"), "numbers at the same time"),
    "many values for nothing": (lambda folder: many_at_once("images"), "numbers at the same time"),
    "copies for a product": (lambda folder: copied_for_a_product(), "bytes in one step"),
    "parts of parts": (
        lambda folder: before_the_head(
            node("Tile", ["images", "times"], ["long"]),
            node("Split", ["long"], ["features"], axis=3, num_outputs=2**20),
            constants=[constant("times", [1, 1, 1, 2**17])],
        ),
        "onnxruntime",
    ),
    "a product of many": (
        lambda folder: before_the_head(node("Einsum", ["images"] * 9, ["features"], equation="abcd," * 8 + "abcd->a")),
        "its Einsum cannot be computed",
    ),
    "endless convolutions": (lambda folder: endless_work(), "operations for one answer"),
    "endless pooling": (lambda folder: endless_pooling(), "operations for one answer"),
    "a million empty nodes": (
        lambda folder: b"\x08\x08" + _field(7, _field(1, b"") * 1_000_000),
        "more than 500,000 fields",
    ),
    "thirty thousand nodes": (lambda folder: b"\x08\x08" + _field(7, _field(1, b"") * 30_000), "30,000 nodes"),
    "a cycle": (lambda folder: _cycle(), "its Relu needs b, which nothing before it computes"),
    "an undefined input": (lambda folder: before_the_head(added("\x07no")), r"needs \\x07no, which nothing"),
    "the same name twice": (
        lambda folder: before_the_head(node("Relu", ["images"], ["images"]), added("images")),
        "computes images, which is there already",
    ),
    "two weights of one name": (
        lambda folder: changed(lambda model: model.graph.initializer.append(weights("head.bias", 4))),
        "two weights of the same name",
    ),
    "a setting of another type": (
        lambda folder: before_the_head(node("LeakyRelu", ["images"], ["features"], alpha="x")),
        "alpha that is no float",
    ),
    "too many inputs of a node": (
        lambda folder: before_the_head(node("Relu", ["images"] * 9, ["features"])),
        "its Relu cannot be computed",
    ),
    "division by zero": (
        lambda folder: before_the_head(
            node("Div", ["one", "zero"], ["kept"]),
            node("Cast", ["kept"], ["float"], to=TensorProto.FLOAT),
            added("float"),
            constants=[constant("one", 1), constant("zero", 0)],
        ),
        "its Div cannot be computed",
    ),
    "a place beyond the end": (
        lambda folder: before_the_head(
            node("Gather", ["images", "places"], ["features"], axis=2), constants=[constant("places", [0, 99])]
        ),
        "cannot be computed: .*out of range|out of bounds",
    ),
    "two inputs": (lambda folder: changed(_two_inputs), "this one has 2: images, more"),
    "no input": (lambda folder: changed(lambda model: model.graph.ClearField("input")), "this one has 0"),
    "no output": (lambda folder: changed(lambda model: model.graph.ClearField("output")), "outputs are missing"),
    "an input of two axes": (lambda folder: changed(_input_shape(1, 3)), r"has the shape \(1, 3\)"),
    "an input of text": (
        lambda folder: changed(_input_shape(1, 3, 8, 6, element=TensorProto.STRING)),
        "and type 8; images are",
    ),
    "images of a huge size": (lambda folder: changed(_input_shape(1, 3, 2**31, 2**31)), "make no sense"),
    "a huge batch": (lambda folder: changed(_input_shape(2**31, 3, 8, 8)), "images at a time"),
    "operators of an old version": (
        lambda folder: changed(lambda model: model.opset_import[0].__setattr__("version", 3)),
        "operators of version 7 or newer, and says .3",
    ),
    "no version of the operators": (
        lambda folder: changed(lambda model: model.ClearField("opset_import")),
        "operators of version 7",
    ),
    "nothing but its version": (lambda folder: b"\x08\x08\x3a\x00", "operators of version 7"),
    "the head of a file": (lambda folder: b"\x08\x07\x12\x07pytorch" + bytes(40), "damaged"),
}
"""Each makes a file's content, given the folder where it will lie; and what the refusal says."""
