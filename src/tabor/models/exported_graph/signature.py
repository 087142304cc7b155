"""What a torch.export program says about itself: what goes in, what comes out, and their shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from tabor.errors import one_line
from tabor.models.exported_graph.archive import DTYPES, Json, ProgramError

LONGEST_NAME = 200

LARGEST_BATCH = 4096


@dataclass(frozen=True)
class Signature:
    """What goes into a program and what comes out.

    Attributes:
        image: the name of the images.
        answer: the name of the answer.
        parameters: the names of parameters in the graph, and their dotted names.
        buffers: likewise of buffers and constants.
    """

    image: str
    answer: str
    parameters: Mapping[str, str]
    buffers: Mapping[str, str]

    def given(self) -> set[str]:
        """Returns the names of all that goes in."""
        return {self.image, *self.parameters, *self.buffers}


@dataclass(frozen=True)
class Shapes:
    """What a program says about its images and its answer.

    Attributes:
        batch: images that it was exported with.
        any_batch: whether it says that it takes any number of them.
        image: (C, H, W).
        any_size: whether it says that it takes other heights and widths.
        classes: how many numbers it answers for an image.
        dtype: the type of the images.
    """

    batch: int
    any_batch: bool
    image: tuple[int, int, int]
    any_size: bool
    classes: int
    dtype: torch.dtype


def read_signature(program: Json) -> Signature:
    """Returns what goes in and comes out.

    Raises:
        ProgramError: it is not one tensor of images and one answer.
    """
    specs = program["graph_module"]["signature"]
    images: list[str] = []
    tensors: dict[str, dict[str, str]] = {"parameter": {}, "buffer": {}, "tensor_constant": {}}
    for kind, content in map(only, specs["input_specs"]):
        if kind == "user_input":
            images.append(_tensor_name(content["arg"], "takes"))
        elif kind in tensors:
            tensors[kind][value_name(content["arg"]["name"])] = str(content[f"{kind}_name"])
        else:
            raise ProgramError(f"takes a {one_line(kind, 40)}, which a classifier of images does not need")
    outputs = [only(spec) for spec in specs["output_specs"]]
    changed = [kind for kind, _ in outputs if kind != "user_output"]
    if changed:
        raise ProgramError(
            f"has an effect beside its answer ({one_line(changed[0], 40)}); export it after model.eval()"
        )
    if len(images) != 1 or len(outputs) != 1:
        raise ProgramError(
            f"takes {len(images)} inputs and gives {len(outputs)} outputs, where a classifier has one of each"
        )
    answer = _tensor_name(outputs[0][1]["arg"], "answers")
    signature = Signature(images[0], answer, tensors["parameter"], tensors["buffer"] | tensors["tensor_constant"])
    if len(signature.given()) != len(specs["input_specs"]):
        raise ProgramError("gives two of its inputs the same name")
    return signature


def read_shapes(program: Json, signature: Signature) -> Shapes:
    """Returns the shapes of the images and the answer.

    Raises:
        ProgramError: they are no shapes of images and of answers to them.
    """
    values = program["graph_module"]["graph"]["tensor_values"]
    meta = values[signature.image]
    sizes = [_length(size) for size in meta["sizes"]]
    if len(sizes) != 4 or not DTYPES[meta["dtype"]].is_floating_point:
        raise ProgramError("takes something else than a batch of images (N, C, H, W) of floating numbers")
    answers = [_length(size) for size in values[signature.answer]["sizes"]]
    if len(answers) != 2:
        raise ProgramError("answers something else than (N, classes)")
    (batch, fixed), (channels, _), (height, fixed_height), (width, fixed_width) = sizes
    if not 1 <= batch <= LARGEST_BATCH:
        raise ProgramError(f"takes {batch} images at a time; between 1 and {LARGEST_BATCH} make sense")
    any_size = not (fixed_height and fixed_width)
    return Shapes(batch, not fixed, (channels, height, width), any_size, answers[1][0], DTYPES[meta["dtype"]])


def _length(size: Json) -> tuple[int, bool]:
    """A dimension's length, and whether it is fixed; a free one was exported with the length that its hint says."""
    kind, content = only(size)
    length = content if kind == "as_int" else only(content["hint"])[1]
    if type(length) is not int:
        raise ProgramError("has a size that is no whole number")
    return length, kind == "as_int"


def _tensor_name(argument: Json, does: str) -> str:
    kind, content = only(argument)
    if kind != "as_tensor":
        raise ProgramError(f"{does} something else than a tensor ({one_line(kind, 40)})")
    return value_name(content["name"])


def only(choice: Json) -> tuple[str, Any]:
    """Returns the kind and the content of one of torch.export's either-ors, which have a single field."""
    if not isinstance(choice, dict) or len(choice) != 1:
        raise ProgramError("says two things, or none, where one is wanted")
    return next(iter(choice.items()))


def value_name(name: object) -> str:
    """Returns the name of a value of the graph.

    Raises:
        ProgramError: it is none.
    """
    if not isinstance(name, str) or not name.isidentifier() or len(name) > LONGEST_NAME:
        raise ProgramError(f"has a value with a name that none can have: {one_line(name, 80)}")
    return name
