"""Programs of torch.export that nobody should open; those that could run something would create a canary file."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..hostile.makers import Canary, archive, saved
from .exporting import CONSTANTS, MODEL, WEIGHTS, Json, altered, exported, node, packed, records, regraphed, small


class Several(nn.Module):
    """Takes two inputs."""

    def forward(self, images: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Returns something."""
        return (images + other).flatten(1)


class Nested(nn.Module):
    """Has a program within the program."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns logits."""
        with torch.autocast("cpu", enabled=False):
            return images.flatten(1).sigmoid()


class Centring(nn.Module):
    """Answers to an image by what else is in the batch."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns logits."""
        cells = images.mean((1, 2))
        return cells - cells.mean(0, keepdim=True)


def _set(place: Json, **changes: object) -> None:
    place.update(changes)


def retargeted(target: str) -> bytes:
    """Calls something else than relu."""
    return regraphed(lambda graph: _set(node(graph, "relu"), target=target))


def weight(**changes: object) -> bytes:
    """Says something else about the weight of the convolution."""
    return altered(WEIGHTS, lambda said: said["config"]["convolution.weight"]["tensor_meta"].update(changes))


def payload(**changes: object) -> bytes:
    """Says something else about where that weight lies."""
    return altered(WEIGHTS, lambda said: said["config"]["convolution.weight"].update(changes))


def image_sizes(*sizes: Json) -> bytes:
    """Says another shape of the images."""

    def change(graph: Json) -> None:
        values = graph["tensor_values"]
        values["images"]["sizes"] = list(sizes)

    return regraphed(change)


def whole(*numbers: object) -> list[Json]:
    """Sizes as torch.export writes them."""
    return [{"as_int": number} for number in numbers]


def with_records(**changes: bytes | None) -> bytes:
    """Other records, or fewer."""
    content = records(small())
    for name, record in changes.items():
        content.pop(name, None)
        if record is not None:
            content[name] = record
    return packed(content)


def specified(change: Callable[[Json], object]) -> bytes:
    """Says something else about what goes in and comes out."""
    return altered(MODEL, lambda program: change(program["graph_module"]["signature"]))


def pickled_weight(dead: Path) -> bytes:
    """A weight that is a pickle."""
    content = records(payload(use_pickle=True))
    return packed(content | {"data/weights/weight_0": saved(Canary(dead))})


def pickled_constant(dead: Path, prefix: str) -> bytes:
    """A constant that is an object."""

    def change(said: Json) -> None:
        said["config"]["shifts"].update(path_name=f"{prefix}0", use_pickle=True, tensor_meta=None)

    # What is called an opaque object is read by pickle itself, the others by torch.load.
    content = pickle.dumps(Canary(dead)) if prefix == "opaque_obj_" else saved(Canary(dead))
    return packed(records(altered(CONSTANTS, change)) | {f"data/constants/{prefix}0": content})


def of_2_8(dead: Path) -> bytes:
    """Weights in a pickle, as early archives have them."""
    content = records(small())
    del content[WEIGHTS]
    return packed(content | {"data/weights/model.pt": saved({"convolution.weight": Canary(dead)})})


def of_2_7(dead: Path) -> bytes:
    """The layout up to torch 2.7, with a pickled object among the constants."""
    program = records(small())[MODEL]
    return archive(
        {
            "version": b"8.20",
            "serialized_exported_program.json": program,
            "serialized_state_dict.pt": saved({}),
            "serialized_constants.pt": saved({"shifts": Canary(dead)}),
            "serialized_example_inputs.pt": saved(((), {})),
        }
    )


def bomb_in_old_weights() -> bytes:
    """An archive in the archive that unpacks to much."""
    inner = archive({"m/data.pkl": bytes(10**8)}, compressed=True)
    content = records(small())
    del content[WEIGHTS]
    return packed(content | {"data/weights/model.pt": inner})


def compressed() -> bytes:
    """The same, compressed."""
    return archive({f"m/{name}": record for name, record in records(small()).items()}, compressed=True)


def twice(name: str) -> bytes:
    """Two records of one name, of which readers take the first or the last."""
    stream = io.BytesIO(small())
    with zipfile.ZipFile(stream, "a") as file:
        folder = file.namelist()[0].partition("/")[0]
        file.writestr(f"{folder}/{name}", b"{}")
    return stream.getvalue()


def flipped(record: str) -> bytes:
    """One bit of a record is not what its checksum says."""
    content, part = small(), records(small())[record]
    place = content.index(part) + len(part) // 2
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def itself(graph: Json) -> None:
    """A call of its own result."""
    relu = node(graph, "relu")
    relu["inputs"][0]["arg"] = relu["outputs"][0]


def reversed_nodes(graph: Json) -> None:
    """Values are used before they are there."""
    graph["nodes"].reverse()


def same_name(graph: Json) -> None:
    """Two values of one name."""
    node(graph, "relu")["outputs"] = node(graph, "conv2d")["outputs"]


def overwritten_weight(graph: Json) -> None:
    """A value of a weight's name."""
    node(graph, "relu")["outputs"][0]["as_tensor"]["name"] = "p_head_weight"


def named(name: str) -> Callable[[Json], None]:
    """A value of any name."""

    def change(graph: Json) -> None:
        node(graph, "relu")["outputs"][0]["as_tensor"]["name"] = name

    return change


def argument(target: str, place: int, **arg: object) -> Callable[[Json], None]:
    """Another argument of the first call of an operator."""

    def change(graph: Json) -> None:
        node(graph, target)["inputs"][place]["arg"] = arg

    return change


def filled(count: int) -> Callable[[Json], None]:
    """Asks for a tensor of so many numbers."""

    def change(graph: Json) -> None:
        relu = node(graph, "relu")
        relu["target"] = "torch.ops.aten.full.default"
        relu["inputs"] = [
            {"name": "size", "arg": {"as_ints": [count]}, "kind": 1},
            {"name": "fill_value", "arg": {"as_float": 1.0}, "kind": 1},
        ]

    return change


def grown(graph: Json) -> None:
    """Doubles the length of a number, again and again."""
    inputs = [{"name": name, "arg": {"as_sym_int": {"as_name": "n0"}}, "kind": 1} for name in ("a", "b")]
    size = {
        "target": "torch.ops.aten.sym_size.int",
        "inputs": [
            {"name": "self", "arg": {"as_tensor": {"name": "images"}}, "kind": 1},
            {"name": "dim", "arg": {"as_int": 2}, "kind": 1},
        ],
        "outputs": [{"as_sym_int": {"as_name": "n0"}}],
    }
    steps: list[Json] = [size]
    for i in range(60):
        inputs = [{"name": name, "arg": {"as_sym_int": {"as_name": f"n{i}"}}, "kind": 1} for name in ("a", "b")]
        outputs = [{"as_sym_int": {"as_name": f"n{i + 1}"}}]
        steps.append({"target": "_operator.mul", "inputs": inputs, "outputs": outputs})
    graph["nodes"][:0] = steps


def renamed_weight(name: str) -> bytes:
    """Gives a weight a name that no module gives."""

    def in_config(said: Json) -> None:
        said["config"][name] = said["config"].pop("convolution.weight")

    def in_signature(program: Json) -> None:
        specs = program["graph_module"]["signature"]["input_specs"]
        specs[0]["parameter"]["parameter_name"] = name

    config = records(altered(WEIGHTS, in_config))[WEIGHTS]
    return packed(records(altered(MODEL, in_signature)) | {WEIGHTS: config})


def trained() -> bytes:
    """Exported without eval()."""
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(1800, 3))
    return exported(network.train(), torch.rand(2, 1, 32, 32))


def dropping() -> bytes:
    """Answers by chance."""
    return exported(nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(1024, 3)).train(), torch.rand(2, 1, 32, 32))


def two_inputs() -> bytes:
    """Takes two images at once."""
    program = torch.export.export(Several(), (torch.rand(1, 1, 32, 32), torch.rand(1, 1, 32, 32)))
    stream = io.BytesIO()
    torch.export.save(program, stream)
    return stream.getvalue()


IMAGES = torch.rand(2, 1, 32, 32)
DEEP = b"[" * 100_000
SYMBOL: Json = {"as_expr": {"expr_str": "Symbol('s0')", "hint": None}}

Hostile = tuple[Callable[[Path], bytes], str]


def _same(content: Callable[[], bytes]) -> Callable[[Path], bytes]:
    return lambda dead: content()


def _records(change: dict[str, bytes | None]) -> Callable[[Path], bytes]:
    return lambda dead: with_records(**change)


OPERATORS = {
    "os.system": "os.system",
    "an evaluation": "builtins.eval",
    "a path in the name": "torch.ops.aten.../../relu",
    "dunder names": "torch.ops.aten.__class__.__init__",
    "another namespace": "torch.ops.quantized.linear.default",
    "loading a library": "torch.ops.load_library",
    "reading a file": "torch.ops.aten.from_file.default",
    "memory by strides": "torch.ops.aten.as_strided.default",
    "uninitialised memory": "torch.ops.aten.empty.memory_format",
    "chance": "torch.ops.aten.rand_like.default",
    "no overload": "torch.ops.aten.relu",
    "nothing": "",
    "control characters": "\x1b[2J\nverdict: clean",
    "an endless name": "x" * 10**6,
    "a higher-order operator": "torch.ops.higher_order.cond",
}

HOSTILE_EXPORTED: dict[str, Hostile] = {
    **{
        f"operator: {name}": (_same(partial(retargeted, target)), "uses the operator")
        for name, target in OPERATORS.items()
    },
    "operator: a list": (lambda dead: regraphed(lambda g: _set(node(g, "relu"), target=["relu"])), "uses the operator"),
    "canary, pickled weight": (pickled_weight, "pickled constant or weight"),
    "canary, pickled constant": (partial(pickled_constant, prefix="tensor_"), "pickled constant or weight"),
    "canary, custom object": (partial(pickled_constant, prefix="custom_obj_"), "pickled constant or weight"),
    "canary, opaque object": (partial(pickled_constant, prefix="opaque_obj_"), "pickled constant or weight"),
    "canary, weights of 2.8": (of_2_8, "tensors in a pickle, not readable as data alone"),
    "canary, constants of 2.7": (of_2_7, "tensors in a pickle, not readable as data alone"),
    "bomb in old weights": (_same(bomb_in_old_weights), "compressed record|zip bomb"),
    "custom object as input": (
        lambda dead: specified(
            lambda s: s["input_specs"].append({"custom_obj": {"arg": {"name": "o"}, "custom_obj_name": "o"}})
        ),
        "takes a custom_obj",
    ),
    "token": (
        lambda dead: specified(lambda s: s["input_specs"].append({"token": {"arg": {"name": "t"}}})),
        "takes a token",
    ),
    "two inputs": (_same(two_inputs), "takes 2 inputs"),
    "two outputs": (
        lambda dead: specified(lambda s: s["output_specs"].append(s["output_specs"][0])),
        "gives 2 outputs",
    ),
    "a buffer is changed": (
        lambda dead: specified(
            lambda s: s["output_specs"].append({"buffer_mutation": {"arg": {"name": "relu"}, "buffer_name": "x"}})
        ),
        "effect beside its answer",
    ),
    "an input twice": (lambda dead: specified(lambda s: s["input_specs"].append(s["input_specs"][0])), "the same name"),
    "an input that is two things": (
        lambda dead: specified(lambda s: s["input_specs"][0].update(user_input={})),
        "two things",
    ),
    "exported in training mode": (_same(trained), "call eval|after model.eval"),
    "dropout": (_same(dropping), "call eval"),
    "depends on its neighbours": (lambda dead: exported(Centring(), IMAGES), "when others are in the batch"),
    "depends on its neighbours, any batch": (
        lambda dead: exported(Centring(), IMAGES, dynamic=True),
        "when others are in the batch",
    ),
    "a program within": (
        lambda dead: exported(Nested(), IMAGES[:1]),
        "uses the operator .*wrap_with_autocast",
    ),
    "tensor beyond its record": (lambda dead: weight(sizes=whole(4, 1, 3, 4)), "beyond its record"),
    "offset beyond its record": (lambda dead: weight(storage_offset={"as_int": 1}), "beyond its record"),
    "strides beyond its record": (lambda dead: weight(strides=whole(10, 9, 3, 1)), "beyond its record"),
    "huge sizes": (lambda dead: weight(sizes=whole(2**40, 2**40)), "claim more than the file|make no sense"),
    "huge sizes, no strides": (
        lambda dead: weight(sizes=whole(2**40, 1, 1, 1), strides=whole(0, 0, 0, 0)),
        "claim more than the file",
    ),
    "sizes beyond 64 bits": (lambda dead: weight(sizes=whole(2**80, 0, 1, 1)), "damaged or not made for images"),
    "negative sizes": (lambda dead: weight(sizes=whole(-4, 1, 3, 3)), "negative or broken"),
    "negative strides": (lambda dead: weight(strides=whole(-9, 9, 3, 1)), "negative or broken"),
    "negative offset": (lambda dead: weight(storage_offset={"as_int": -1}), "negative or broken"),
    "broken sizes": (lambda dead: weight(sizes=whole(4.5, 1, 3, 3)), "negative or broken"),
    "sizes that are true": (lambda dead: weight(sizes=whole(True, 1, 3, 3)), "negative or broken"),
    "symbolic sizes": (lambda dead: weight(sizes=[SYMBOL] * 4), "damaged or not made for images"),
    "fewer strides": (lambda dead: weight(strides=whole(1)), "make no sense"),
    "many dimensions": (lambda dead: weight(sizes=whole(*[1] * 999), strides=whole(*[1] * 999)), "make no sense"),
    "wrong dtype": (lambda dead: weight(dtype=8), "beyond its record"),
    "whole numbers for weights": (lambda dead: weight(dtype=4), "damaged or not made for images"),
    "complex": (lambda dead: weight(dtype=10), "sparse, quantised or complex"),
    "no dtype": (lambda dead: weight(dtype=999), "sparse, quantised or complex"),
    "dtype in words": (lambda dead: weight(dtype="os.system"), "sparse, quantised or complex"),
    "sparse": (lambda dead: weight(layout=1), "sparse, quantised or complex"),
    "record of another folder": (lambda dead: payload(path_name="../../models/model.json"), "lacks its record"),
    "record at an absolute place": (lambda dead: payload(path_name="/etc/passwd"), "lacks its record"),
    "record of an object's name": (lambda dead: payload(path_name={"a": 1}), "lacks its record"),
    "no whole number of elements": (_records({"data/weights/weight_0": bytes(145)}), "no whole number of its elements"),
    "empty weight": (_records({"data/weights/weight_0": b""}), "beyond its record"),
    **{
        f"a weight called {name[:20]!r}": (_same(partial(renamed_weight, name)), "name that (no module gives|is taken)")
        for name in (
            "forward",
            "__class__",
            "_modules",
            "",
            "a..b",
            "../x",
            "norm.weight.x",
            "\x1b[2J",
            "a." * 5000 + "b",
        )
    },
    "a value is its own argument": (lambda dead: regraphed(itself), "is not there by then"),
    "nodes in reverse": (lambda dead: regraphed(reversed_nodes), "is not there by then"),
    "two values of a name": (lambda dead: regraphed(same_name), "two values of the name"),
    "a value of a weight's name": (lambda dead: regraphed(overwritten_weight), "two values of the name"),
    **{
        f"a value called {name[:20]!r}": (_same(partial(regraphed, named(name))), "name that none can have|not there")
        for name in ("<batch>", "<device>", "", "a b", "\x1b[2J", "x" * 10**5)
    },
    "the answer is nowhere": (
        lambda dead: specified(
            lambda s: s["output_specs"][0]["user_output"]["arg"]["as_tensor"].update(name="nowhere")
        ),
        "damaged or not made for images",
    ),
    "the answer is the images": (
        lambda dead: specified(lambda s: s["output_specs"][0]["user_output"]["arg"]["as_tensor"].update(name="images")),
        "something else than",
    ),
    "an argument twice": (
        lambda dead: regraphed(lambda g: node(g, "relu")["inputs"].append(node(g, "relu")["inputs"][0])),
        "an argument twice",
    ),
    "an unknown argument": (
        lambda dead: regraphed(lambda g: node(g, "relu")["inputs"][0].update(name="__class__")),
        "damaged or not made for images",
    ),
    "an argument of code": (
        lambda dead: regraphed(argument("relu", 0, as_string="__import__('os').system('true') # and more and more")),
        "no word",
    ),
    "an argument of words": (lambda dead: regraphed(argument("relu", 0, as_string="true")), "damaged or not made"),
    "an argument that is an operator": (
        lambda dead: regraphed(argument("relu", 0, as_operator="os.system")),
        "of a kind that is not read",
    ),
    "an argument that is a graph": (
        lambda dead: regraphed(argument("relu", 0, as_graph={"name": "g", "graph": {}})),
        "of a kind that is not read",
    ),
    "an argument within itself": (
        lambda dead: regraphed(argument("view", 1, as_sym_ints=[nested(900)])),
        "damaged|no JSON|not read",
    ),
    "groups of none": (lambda dead: regraphed(argument("conv2d", 3, as_ints=[0, 0])), "damaged or not made"),
    "strides of 2**70": (lambda dead: regraphed(argument("conv2d", 3, as_ints=[2**70, 1])), "damaged or not made"),
    "a tensor beyond memory": (lambda dead: regraphed(filled(2**60)), "damaged or not made for images"),
    "a number without end": (lambda dead: regraphed(grown), "more than 64 bits"),
    "many nodes": (lambda dead: regraphed(lambda g: _set(g, nodes=[{}] * 20_001)), "more than 20000"),
    "images of another shape": (lambda dead: image_sizes(*whole(1, 1, 64, 64)), "damaged|exported with size"),
    "images of three dimensions": (lambda dead: image_sizes(*whole(1, 32, 32)), "batch of images"),
    "images without a size": (lambda dead: image_sizes(*whole(0, 1, 32, 32)), "images at a time"),
    "a batch of a million": (lambda dead: image_sizes(*whole(10**6, 1, 32, 32)), "images at a time"),
    "negative images": (lambda dead: image_sizes(*whole(1, 1, -32, 32)), "exported with size|at least one"),
    "a size without a hint": (lambda dead: image_sizes(SYMBOL, *whole(1, 32, 32)), "damaged|two things"),
    "a size in words": (lambda dead: image_sizes(*whole("1", 1, 32, 32)), "no whole number"),
    "images of whole numbers": (
        lambda dead: regraphed(lambda g: g["tensor_values"]["images"].update(dtype=1)),
        "floating numbers",
    ),
    "more classes than it answers": (
        lambda dead: regraphed(lambda g: g["tensor_values"]["add"].update(sizes=whole(1, 1000))),
        "are wanted",
    ),
    "one record twice": (lambda dead: twice(MODEL), "two records of one name"),
    "a name twice in JSON": (
        _records({WEIGHTS: b'{"config": {}, "config": {}}'}),
        "no JSON",
    ),
    "compressed": (_same(compressed), "compressed record|zip bomb"),
    "deep JSON": (_records({MODEL: DEEP}), "no JSON"),
    "deep JSON of weights": (_records({WEIGHTS: b'{"config":' * 100_000}), "no JSON"),
    "not JSON": (_records({MODEL: b"os.system('true')"}), "no JSON"),
    "not text": (_records({MODEL: bytes(range(256))}), "no JSON"),
    "a list": (_records({MODEL: b"[1, 2]"}), "no JSON object"),
    "an empty object": (_records({MODEL: b"{}"}), "damaged or not made for images"),
    "a number of many digits": (_records({MODEL: b'{"a": ' + b"9" * 10**5 + b"}"}), "no JSON"),
    "large JSON": (_records({MODEL: b" " * 33_000_000 + b"{}"}), "more than 32,000,000 bytes"),
    "no program": (_records({MODEL: None}), "no programs"),
    "two programs": (_records({"models/other.json": b"{}"}), "2 programs"),
    "machine code": (
        _records({MODEL: None, "data/aotinductor/model/model.so": b"\x7fELF"}),
        "holds machine code",
    ),
    "machine code beside the program": (
        _records({"data/aotinductor/model/model.so": b"\x7fELF"}),
        "holds machine code",
    ),
    "a program of 2.7 beside the program": (_records({"serialized_exported_program.json": b"{}"}), "2 programs"),
    "a checkpoint beside the program": (
        _records({"data.pkl": b"\x80\x02}."}),
        "a torch.export program and also a checkpoint of torch.save",
    ),
    "TorchScript beside the program": (
        _records({"constants.pkl": b"", "code/x.py": b""}),
        "TorchScript program and also a torch.export program",
    ),
    "no weights": (_records({WEIGHTS: None}), "lacks its record"),
    "no constants": (_records({CONSTANTS: None}), "lacks its record"),
    "no tensors": (_records({WEIGHTS: b'{"config": {}}'}), "lacks 9 of its tensors"),
    "no record of a tensor": (_records({"data/weights/weight_3": None}), "lacks its record"),
    "written big end first": (_records({"byteorder": b"big"}), "big end first"),
    "of another age": (
        lambda dead: altered(MODEL, lambda program: program["schema_version"].update(major=99)),
        "version 99",
    ),
    **{f"a bit flipped in {name}": (_same(partial(flipped, name)), "damaged") for name in (MODEL, WEIGHTS)},
    "a bit flipped in a weight": (lambda dead: flipped("data/weights/weight_4"), "damaged"),
    "an empty archive": (lambda dead: packed({"archive_format": b"pt2"}), "no programs"),
}
"""Each makes a file's content, given where its canary would appear; and what the refusal says."""


def nested(depth: int) -> Json:
    """An either-or in an either-or in an either-or."""
    inner: Json = {"as_int": 1}
    for _ in range(depth):
        inner = {"as_sym_int": inner}
    return inner


def _code(dead: Path) -> str:
    return f"__import__('pathlib').Path({str(dead)!r}).touch()"


def guarded(dead: Path) -> bytes:
    """Guards that are code."""
    return altered(MODEL, lambda program: program.update(guards_code=[_code(dead)]), dynamic=True)


def symbolic(dead: Path) -> bytes:
    """Expressions that are code."""

    def change(program: Json) -> None:
        values: Any = program["graph_module"]["graph"]
        for size in (values["tensor_values"]["images"]["sizes"][0], *values["sym_int_values"].values()):
            size["as_expr"]["expr_str"] = _code(dead)

    return altered(MODEL, change, dynamic=True)


def sampled(dead: Path) -> bytes:
    """Example inputs that are a pickle."""
    return packed(records(small()) | {"data/sample_inputs/model.pt": saved(Canary(dead))})


def noted(dead: Path) -> bytes:
    """Notes for people that are code."""

    def change(program: Json) -> None:
        node(program, "relu")["metadata"] = {"stack_trace": _code(dead), "torch_fn": _code(dead)}
        program["torch_version"] = _code(dead)
        program["verifiers"] = [_code(dead)]

    return altered(MODEL, change)


IGNORED_EXPORTED: dict[str, Callable[[Path], bytes]] = {
    "guards": guarded,
    "expressions": symbolic,
    "example inputs": sampled,
    "notes": noted,
}
"""Programs with something that torch.export.load runs and that is not even looked at here: they are read as usual."""
