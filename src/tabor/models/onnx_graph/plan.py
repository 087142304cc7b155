"""What a graph computes, found out before any of it takes memory.

The images' shape is known when a model is loaded.  So everything that does not depend on their pixels, all shapes
among it, is computed then and once; what is left is a list of steps.  Each is first tried without memory (on
PyTorch's device "meta"), so that a small file cannot ask for large tensors or endless work.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tabor.errors import ModelError, one_line
from tabor.models.onnx_graph.node import Computed, Node, Numbers, Operator
from tabor.models.onnx_graph.operators import OPERATORS
from tabor.models.onnx_graph.proto import Graph
from tabor.models.onnx_graph.types import TYPES, check_fits, check_from_pixels, check_known, held, result_type

LARGEST_VALUE = 2**25
"""Numbers in one value, for the images that the file takes at once."""

LARGEST_STEP = 8 * LARGEST_VALUE
"""Bytes that anything takes on the way to a value; a product of matrices, for one, may lay out copies."""

LARGEST_MOMENT = 2**26
"""Numbers in all values that are needed at the same time, and in what is computed beside the file's own weights."""

MOST_NUMBERS = 2**31
"""Numbers that are computed for one answer."""

MOST_WORK = 4 * 10**11
"""Floating-point operations for one answer; the largest networks that are used for images need a third of it."""

LONGEST_LIST = 100_000
"""Numbers that an operator takes as its settings, such as a shape."""


@dataclass(frozen=True)
class Value:
    """The name of what depends on the pixels."""

    name: str


Argument: TypeAlias = Value | Numbers | Tensor | None
"""What an operator gets: a value, settings, a constant, or nothing."""


@dataclass(frozen=True)
class Step:
    """One operator to run for every answer; `forget` names the values that no later step needs."""

    operator: Operator
    node: Node
    arguments: tuple[Argument, ...]
    forget: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What is to be done for an answer.

    Attributes:
        image: the name of the input.
        steps: in their order.
        answer: the name of the output.
        num_classes: numbers in the answer to one image.
    """

    image: str
    steps: tuple[Step, ...]
    answer: str
    num_classes: int


def plan(graph: Graph, image: str, shape: tuple[int, ...]) -> Plan:
    """Returns what the graph does with images of that shape, the batch among it.

    Raises:
        ModelError: an operator that is not read, a value that nobody computes, shapes that do not fit, more memory or
            work than a classifier needs, or no output that is one number a class.
    """
    planner = _Planner(graph, image, shape)
    for node in graph.nodes:
        planner.add(node)
    answer, classes = planner.answer(graph.outputs, shape[0])
    planner.check_moments(_forgetful(planner.steps, answer), image)  # all of them: onnxruntime runs them all
    return Plan(image, _forgetful(_needed(planner.steps, answer), answer), answer, classes)


class _Planner:
    def __init__(self, graph: Graph, image: str, shape: tuple[int, ...]) -> None:
        constants = {name: held(constant) for name, constant in graph.constants.items()}
        self._values: dict[str, Tensor] = {**constants, image: torch.empty(shape, device="meta")}
        self._image_type = TYPES[graph.inputs[image][1]]
        self._types = {name: constant.dtype for name, constant in graph.constants.items()} | {image: self._image_type}
        self.steps: list[Step] = []
        self._numbers = self._kept = 0
        self._work = 0.0
        self._own = sum(constant.numel() for constant in graph.constants.values())

    def add(self, node: Node) -> None:
        operator = OPERATORS.get(node.op)
        if operator is None:
            raise ModelError(f"it needs the operator {one_line(node.op, 60)}, which tabor does not read")
        inputs = [self._value(name, node) for name in node.inputs]
        arguments = [_as_numbers(v, node) if i in operator.numbers else v for i, v in enumerate(inputs)]
        kind = result_type(node, [self._types.get(name) for name in node.inputs])
        outputs = self._outlook(operator, node, arguments)
        if operator.shape_only or not any(_depends(argument) for argument in arguments):
            outputs = self._known(operator, node, arguments, kind)
        else:
            constants = [a for a in arguments if isinstance(a, Tensor) and not a.is_meta]
            check_from_pixels(node, kind, self._image_type, constants)
            named = zip(node.inputs, arguments, strict=True)
            self.steps.append(Step(operator, node, tuple(Value(n) if _depends(a) else a for n, a in named)))
        for name, output in zip(node.outputs, outputs, strict=False):
            self._define(name, output, kind, node)

    def _known(
        self, operator: Operator, node: Node, arguments: Sequence[Tensor | Numbers | None], kind: torch.dtype
    ) -> Sequence[Tensor]:
        """The outputs that do not depend on the pixels."""
        check_known(node, kind)
        if node.op == "Cast" and isinstance(arguments[0], Tensor):
            check_fits(node, arguments[0], kind)
        outputs = [held(output.to(kind)) for output in _computed(operator, node, arguments)]
        self._kept += sum(output.numel() for output in outputs)
        _check(self._kept, LARGEST_MOMENT + self._own, "numbers that do not depend on the image")
        return outputs

    def answer(self, names: Sequence[str], batch: int) -> tuple[str, int]:
        """The one output that is a number a class, and how many classes."""
        found = [(name, self._values[name]) for name in names if name in self._values]
        fitting = [
            (name, value.numel() // batch)
            for name, value in found
            if value.is_meta and value.ndim > 1 and len(value) == batch and value[0].numel() == value.shape[1] > 1
        ]
        if len(fitting) != 1:
            shapes = ", ".join(f"{one_line(name, 40)} {tuple(value.shape)}" for name, value in found[:4])
            raise ModelError(f"a classifier has one output (N, classes); this one's outputs are {shapes or 'missing'}")
        return fitting[0]

    def check_moments(self, steps: Sequence[Step], image: str) -> None:
        """Refuses steps that need too much memory at once."""
        alive = self._values[image].numel()
        for step in steps:
            alive += sum(self._values[name].numel() for name in step.node.outputs if name in self._values)
            _check(alive, LARGEST_MOMENT, "numbers at the same time")
            alive -= sum(self._values[name].numel() for name in step.forget)

    def _value(self, name: str, node: Node) -> Tensor | None:
        if name == "":
            return None
        if name not in self._values:
            raise ModelError(
                f"its {one_line(node.op, 40)} needs {one_line(name, 80)}, which nothing before it computes"
            )
        return self._values[name]

    def _define(self, name: str, value: Tensor, kind: torch.dtype, node: Node) -> None:
        if name in self._values:
            raise ModelError(f"its {one_line(node.op, 40)} computes {one_line(name, 80)}, which is there already")
        if name:
            self._values[name], self._types[name] = value, kind

    def _outlook(
        self, operator: Operator, node: Node, arguments: Sequence[Tensor | Numbers | None]
    ) -> Sequence[Tensor]:
        """The outputs' shapes, computed without memory and counted."""
        unreal = [a.to("meta") if isinstance(a, Tensor) else a for a in arguments]
        with _Watch() as watch, torch.device("meta"):
            outputs = _computed(operator, node, unreal)
        for output in outputs:
            _check(output.numel(), LARGEST_VALUE, "numbers in one value")
            self._numbers += output.numel()
            self._work += output.numel() * math.prod(node.integers("kernel_shape") or ())
        self._work += watch.work
        _check(self._numbers, MOST_NUMBERS, "numbers for one answer")
        _check(self._work, MOST_WORK, "operations for one answer")
        return outputs


STAND_INS = {torch.ops.aten.mean.dim: torch.ops.aten.sum.dim_IntList}
"""What has the same shape and type, and needs no compiler for it."""


class _Watch(TorchDispatchMode):
    """Counts multiplications and additions, and refuses what would take too much memory, while it takes none.

    PyTorch has a counter of its own, and can tell most shapes by itself; but for either it imports its compiler, which
    takes longer than all the rest.  So it is asked for as little as possible.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.work = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        from torch.utils.flop_counter import flop_registry

        kwargs, func = kwargs or {}, STAND_INS.get(func, func)
        computed = _pointwise(func, args, kwargs) if torch.Tag.pointwise in func.tags else func(*args, **kwargs)
        if count := flop_registry.get(func.overloadpacket):
            self.work += count(*args, **kwargs, out_val=computed)
        for output in computed if isinstance(computed, tuple | list) else (computed,):
            if isinstance(output, Tensor):
                _check(output.untyped_storage().nbytes(), LARGEST_STEP, "bytes in one step")
        return computed


def _pointwise(func: Any, args: Any, kwargs: Any) -> Tensor:
    """Returns what works on each number by itself, without memory; its type is found out on no numbers at all."""
    shapes = [a.shape for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
    few = [a.new_ones((0,) * bool(a.ndim), device="cpu") if isinstance(a, Tensor) else a for a in args]
    told: Tensor = func(*few, **kwargs)
    return torch.empty(np.broadcast_shapes(*shapes), dtype=told.dtype, device="meta")


def _depends(argument: object) -> bool:
    """Whether it depends on the pixels: then it is without memory here."""
    return isinstance(argument, Tensor) and argument.is_meta


def _check(count: float, most: int, what: str) -> None:
    if count > most:
        raise ModelError(f"it asks for {count:,.0f} {what}, over the {most:,} that tabor allows")


def _as_numbers(value: Tensor | None, node: Node) -> Numbers | None:
    if value is None:
        return None
    if value.is_meta:
        raise ModelError(f"its {one_line(node.op, 40)} depends on the pixels in its shape, which tabor does not read")
    _check(value.numel(), LONGEST_LIST, f"numbers as settings of {one_line(node.op, 40)}")
    return value.flatten().tolist()


@torch.no_grad()
def _computed(operator: Operator, node: Node, arguments: Sequence[Tensor | Numbers | None]) -> Sequence[Tensor]:
    try:
        return as_tuple(operator.compute(node, *arguments))
    except ModelError:
        raise
    except Exception as error:  # noqa: BLE001 (a stranger's shapes and types may break an operator anywhere)
        reason = str(error).partition("\n")[0]
        raise ModelError(f"its {one_line(node.op, 40)} cannot be computed: {one_line(reason, 160)}") from None


def as_tuple(computed: Computed) -> tuple[Tensor, ...]:
    """Returns an operator's outputs, however many."""
    return computed if isinstance(computed, tuple) else (computed,)


def _needed(steps: Sequence[Step], answer: str) -> tuple[Step, ...]:
    """The steps that the answer depends on."""
    wanted, kept = {answer}, []
    for step in reversed(steps):
        if not wanted.isdisjoint(step.node.outputs):
            wanted |= _inputs(step)
            kept.append(step)
    return tuple(reversed(kept))


def _forgetful(steps: Sequence[Step], answer: str) -> tuple[Step, ...]:
    """The same steps, each with what can be forgotten after it."""
    wanted, told = {answer}, []
    for step in reversed(steps):
        mine = _inputs(step) | {name for name in step.node.outputs if name}
        told.append(dataclasses.replace(step, forget=tuple(mine - wanted)))
        wanted |= mine
    return tuple(reversed(told))


def _inputs(step: Step) -> set[str]:
    return {argument.name for argument in step.arguments if isinstance(argument, Value)}
