"""From the JSON of a torch.export program to the steps that an interpreter runs: names, arguments, operators.

Nothing in it is believed: a value must be there before it is used, an operator must be on our list, and expressions
and guards, which PyTorch would evaluate, are not even looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from tabor.errors import one_line
from tabor.models.exported_graph.archive import DTYPES, STRIDED, Json, ProgramError
from tabor.models.exported_graph.memory import Memory
from tabor.models.exported_graph.network import DEVICE, Images, Reference, Step
from tabor.models.exported_graph.operators import Operator, is_assertion, operators
from tabor.models.exported_graph.signature import Signature, only, value_name

MOST_NODES = 20_000
"""The largest networks of timm need some thousands."""

LONGEST_STRING = 40

BATCH_SIZES: Mapping[str, str] = {
    "torch.ops.aten.view.default": "size",
    "torch.ops.aten._unsafe_view.default": "size",
    "torch.ops.aten.reshape.default": "shape",
    "torch.ops.aten.expand.default": "size",
}
"""Operators that are told the batch size, and their argument that says it."""

BROADCASTS = ("torch.ops.aten.expand.default",)
"""Of these, those that also bring what is the same for all images, such as a class token, to the batch's size."""


def read_steps(program: Json, signature: Signature, fixed_batch: int | None) -> list[Step]:
    """Returns what the program does, in its order.

    Args:
        program: the file's JSON.
        signature: what goes in and comes out.
        fixed_batch: the number of images that is written into the program as a number, if one is: the first size of
            a view, where it is a multiple of that, is made to follow the batch that is run.

    Raises:
        ProgramError: the program uses what is not on our list, or makes no sense.
    """
    nodes = program["graph_module"]["graph"]["nodes"]
    if len(nodes) > MOST_NODES:
        raise ProgramError(f"has {len(nodes)} steps, more than {MOST_NODES}")
    reader = _Reader(signature, fixed_batch)
    calls = [reader.call(node) for node in nodes if not is_assertion(str(node["target"]))]
    if signature.answer not in reader.known:
        raise ProgramError("answers with a value that it does not have")
    memory = Memory(signature.given(), [call.uses() for call in calls], signature.answer)
    steps = [_step(call, index, memory) for index, call in enumerate(calls)]
    return _with_ends(steps, memory.now(signature.answer))


@dataclass(frozen=True)
class _Call:
    """A node of the graph, its arguments in the order of the file."""

    operator: Operator
    arguments: Sequence[tuple[str, Any]]
    results: tuple[str, ...]
    several: bool
    name: str

    def uses(self) -> list[str]:
        return list(dict.fromkeys(_names(self.arguments)))


class _Reader:
    """Reads one node after the other, and knows which values there are by then."""

    def __init__(self, signature: Signature, fixed_batch: int | None) -> None:
        self.known = set(signature.given())
        self._moving = {signature.image}  # what depends on the images
        self._fixed_batch = fixed_batch

    def call(self, node: Json) -> _Call:
        target = str(node["target"])
        operator = operators().get(target)
        if operator is None:
            raise ProgramError(
                f"uses the operator {one_line(target, 80)}, which is not on the list of those that are run"
            )
        arguments = [(str(item["name"]), self._value(*only(item["arg"]))) for item in node["inputs"]]
        if not operator.positional and len(dict(arguments)) < len(arguments):
            raise ProgramError(f"gives {one_line(target, 80)} an argument twice")
        call = _Call(operator, arguments, *_results(node["outputs"]), target)
        for name in call.results:
            if name in self.known:
                raise ProgramError(f"has two values of the name {one_line(name, 80)}")
            self.known.add(name)
        self._follow_batch(target, call)
        return call

    def _follow_batch(self, target: str, call: _Call) -> None:
        moves = not self._moving.isdisjoint(call.uses())
        if moves:
            self._moving.update(call.results)
        sizes = dict(call.arguments).get(BATCH_SIZES.get(target, ""))
        if self._fixed_batch is None or not isinstance(sizes, list) or not (moves or target in BROADCASTS):
            return
        if sizes and type(sizes[0]) is int and sizes[0] > 0 and sizes[0] % self._fixed_batch == 0:
            sizes[0] = Images(sizes[0] // self._fixed_batch)

    def _value(self, kind: str, content: Any) -> Any:
        if kind in _SCALARS:
            return _SCALARS[kind](content)
        if kind in ("as_tensor", "as_name"):
            return self._reference(content["name"] if kind == "as_tensor" else content)
        if kind in _LISTS:
            return [self._value(_LISTS[kind], item) for item in content]
        if kind in _CHOICES:
            return self._value(*only(content))
        if kind in _LISTS_OF_CHOICES:
            return [self._value(*only(item)) for item in content]
        raise ProgramError(f"has an argument of a kind that is not read: {one_line(kind, 40)}")

    def _reference(self, name: object) -> Reference:
        if not isinstance(name, str) or name not in self.known:
            raise ProgramError(f"uses a value that is not there by then: {one_line(name, 80)}")
        return Reference(name)


def _exactly(kind: type) -> Callable[[Any], Any]:
    def check(content: object) -> object:
        if type(content) is not kind:
            raise ProgramError(f"has an argument that is no {kind.__name__}: {one_line(content, 40)}")
        return content

    return check


def _floating(content: object) -> float:
    if type(content) not in (int, float) and content not in ("Infinity", "-Infinity", "NaN"):
        raise ProgramError(f"has an argument that is no number: {one_line(content, 40)}")
    return float(str(content))


def _string(content: object) -> str:
    if not isinstance(content, str) or len(content) > LONGEST_STRING or not content.isprintable():
        raise ProgramError(f"has an argument that is no word: {one_line(content, 40)}")
    return content


def _dtype(content: object) -> torch.dtype:
    if type(content) is not int or content not in DTYPES:
        raise ProgramError(f"has an argument of a type of numbers that is not read: {one_line(content, 40)}")
    return DTYPES[content]


def _layout(content: object) -> torch.layout:
    if content != STRIDED:
        raise ProgramError("asks for sparse tensors")
    return torch.strided


_MEMORY_FORMATS = {1: torch.contiguous_format, 2: torch.channels_last, 4: torch.preserve_format}

_SCALARS: Mapping[str, Callable[[Any], Any]] = {
    "as_none": lambda content: None,
    "as_bool": _exactly(bool),
    "as_int": _exactly(int),
    "as_float": _floating,
    "as_string": _string,
    "as_scalar_type": _dtype,
    "as_memory_format": lambda content: _MEMORY_FORMATS[content],
    "as_layout": _layout,
    "as_device": lambda content: Reference(DEVICE),  # where the images are, whatever the file says
}
_LISTS = {
    "as_tensors": "as_tensor",
    "as_ints": "as_int",
    "as_floats": "as_float",
    "as_bools": "as_bool",
    "as_strings": "as_string",
}
_CHOICES = ("as_optional_tensor", "as_sym_int", "as_sym_float", "as_sym_bool")
_LISTS_OF_CHOICES = ("as_optional_tensors", "as_sym_ints", "as_sym_floats", "as_sym_bools")
"""How torch.export writes arguments: plain ones, lists of them, and those that may be a value of the graph or not."""


def _results(outputs: Sequence[Json]) -> tuple[tuple[str, ...], bool]:
    """The names of what a call returns, and whether it returns several things."""
    if len(outputs) == 1:
        kind, content = only(outputs[0])
        if kind == "as_tensors":
            return tuple(value_name(tensor["name"]) for tensor in content), True
    return tuple(_result(*only(output)) for output in outputs), len(outputs) > 1


def _result(kind: str, content: Any) -> str:
    if kind == "as_tensor":
        return value_name(content["name"])
    if kind in ("as_sym_int", "as_sym_float", "as_sym_bool"):
        return value_name(content["as_name"])
    raise ProgramError(f"has a result of a kind that is not read: {one_line(kind, 40)}")


def _names(value: Any) -> Iterator[str]:
    if isinstance(value, Reference) and value.name != DEVICE:
        yield value.name
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _names(item)


def _step(call: _Call, index: int, memory: Memory) -> Step:
    arguments = [(name, _renamed(value, memory)) for name, value in call.arguments]
    if call.operator.in_place is None:
        function = memory.enter(call.operator, call.uses(), call.results)
    else:
        target = dict(call.arguments).get("self")
        if not isinstance(target, Reference) or len(call.results) != 1:
            raise ProgramError("writes into something else than a tensor")
        function = memory.write(index, call.operator, target.name, call.results)
    if call.operator.positional:
        return Step(function, tuple(value for _, value in arguments), {}, call.results, call.several, (), call.name)
    return Step(function, (), dict(arguments), call.results, call.several, (), call.name)


def _renamed(value: Any, memory: Memory) -> Any:
    if isinstance(value, Reference):
        return Reference(memory.now(value.name))
    return [_renamed(item, memory) for item in value] if isinstance(value, list) else value


def _with_ends(steps: Sequence[Step], answer: str) -> list[Step]:
    """Lets go of each value after the step that uses it last."""
    needed, ended = {answer}, []
    for step in reversed(steps):
        there = {*_names([*step.positional, *step.named.values()]), *step.results}
        ended.append(replace(step, last=tuple(sorted(there - needed))))
        needed |= there
    return ended[::-1]
