"""The types of numbers in a graph, kept so that nothing is computed in another one than the file's.

What depends on the pixels is computed in float32, for its gradients; so it must be float32 in the file, or whole or yes
and no.  Anything else would wrap around, overflow or round elsewhere than here.  What does not depend on them may be of
any type: its result is brought to that after every step.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tabor.errors import ModelError, one_line
from tabor.models.onnx_graph.node import Node

TYPES = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    5: torch.int16,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
    16: torch.bfloat16,
}
"""By the standard's numbers for them."""

FROM_PIXELS = (torch.float32, torch.int64, torch.bool)

HALVES = (torch.float16, torch.bfloat16)

YES_OR_NO = ("And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "Or")
PLACES = ("ArgMax", "ArgMin", "Shape", "Size")
MOVES = ("Concat", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze")
"""Operators that answer with yes and no, those that answer with whole numbers, and those that compute nothing."""

MADE = ("Cast", "Constant", "ConstantOfShape", *MOVES)

WITHIN = ("softmax_precision", "stash_type")
"""Settings that name the type in which an operator computes within itself."""


def held(tensor: Tensor) -> Tensor:
    """Returns a tensor as it is computed with: halves as float32, whole numbers as int64."""
    if tensor.dtype in HALVES:
        return tensor.float()
    whole = not tensor.is_floating_point() and tensor.dtype != torch.bool
    return tensor.long() if whole else tensor


def result_type(node: Node, inputs: list[torch.dtype | None]) -> torch.dtype:
    """Returns the type of a node's outputs, given those of its inputs; onnxruntime checks that these belong together.

    Raises:
        ModelError: there is no such type, or it is not read.
    """
    if node.op in YES_OR_NO:
        return torch.bool
    if node.op in PLACES:
        return torch.int64
    if node.op == "Cast":
        wanted = node.integer("to", 0)
        if wanted not in TYPES:
            raise node.refuse(f"a result of type {wanted}")
        return TYPES[wanted]
    if node.op in ("Constant", "ConstantOfShape"):
        return _type_of_value(node)
    found = inputs[1:2] if node.op == "Where" else inputs[:1]
    if not found or found[0] is None:
        raise node.refuse("no input")
    return found[0]


def _type_of_value(node: Node) -> torch.dtype:
    value = node.attributes.get("value")
    if isinstance(value, Tensor):
        return value.dtype
    return torch.int64 if {"value_int", "value_ints"} & set(node.attributes) else torch.float32


def check_known(node: Node, result: torch.dtype) -> None:
    """Refuses to compute in half precision even what does not depend on the pixels: onnxruntime rounds each result to
    it on one device, and none on another.

    Raises:
        ModelError: it is computed in half precision.
    """
    if result in HALVES and node.op not in MADE:
        raise node.refuse(f"a result in {_shown(result)}")


def check_fits(node: Node, given: Tensor, wanted: torch.dtype) -> None:
    """Refuses numbers that do not fit the type that they are to become: each processor makes something else of them.

    Raises:
        ModelError: they do not fit.
    """
    if not given.is_floating_point() or wanted.is_floating_point or wanted in FROM_PIXELS:
        return
    limits = torch.iinfo(wanted)
    if not bool(((given > limits.min - 1) & (given < limits.max + 1)).all()):
        raise node.refuse(f"numbers that do not fit {_shown(wanted)}")


def check_from_pixels(node: Node, result: torch.dtype, image: torch.dtype, constants: list[Tensor]) -> None:
    """Refuses a step that depends on the pixels and is not computed in float32.

    Args:
        node: the step.
        result: its type.
        image: the type of the images, which may be moved about before they are cast.
        constants: its other inputs.

    Raises:
        ModelError: it computes in another type.
    """
    if any(node.integer(name, 1) != 1 for name in WITHIN):
        raise node.refuse("another precision within than float32")
    types = {constant.dtype for constant in constants if constant.dtype not in FROM_PIXELS}
    if result not in FROM_PIXELS and not (result == image and node.op in MOVES):
        types.add(result)
    if types:
        raise ModelError(
            f"its {one_line(node.op, 40)} computes in {_shown(types.pop())} what depends on the pixels, where tabor "
            f"computes in float32 and could miss what that hides; export the network in float32"
        )


def _shown(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
