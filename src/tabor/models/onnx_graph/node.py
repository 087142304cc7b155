"""One node of a graph with plain values in it, and what an operator is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from torch import Tensor

from tabor.errors import ModelError, one_line

Attribute: TypeAlias = int | float | str | Tensor | tuple[int, ...] | tuple[float, ...]
Numbers: TypeAlias = list[int] | list[float]
Computed: TypeAlias = Tensor | tuple[Tensor, ...]
T = TypeVar("T")


@dataclass(frozen=True)
class Node:
    """What is to be computed from what.

    Attributes:
        op: the operator's type, of the standard's own domain.
        inputs: the values' names; "" where an optional one is left out.
        outputs: the results' names.
        attributes: the settings.
        opset: the version of the standard's operators.
    """

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]
    opset: int

    def integer(self, name: str, default: int) -> int:
        """Returns a setting that is a whole number."""
        return self._of_type(name, default, int)

    def number(self, name: str, default: float) -> float:
        """Returns a setting that is a number."""
        return float(self._of_type(name, default, float))

    def text(self, name: str, default: str) -> str:
        """Returns a setting that is a word."""
        return self._of_type(name, default, str)

    def integers(self, name: str) -> list[int] | None:
        """Returns a setting that is a list of whole numbers, or None where it is left out."""
        value = self.attributes.get(name)
        if value is None:
            return None
        if not isinstance(value, tuple) or not all(type(item) is int for item in value):
            raise ModelError(f"its {one_line(self.op, 40)} has a {name} that is no list of whole numbers")
        return [int(item) for item in value]

    def refuse(self, what: str) -> ModelError:
        """Returns the error that says what of an operator is not read."""
        return ModelError(f"its {one_line(self.op, 40)} has {one_line(what, 120)}, which tabor does not read")

    def _of_type(self, name: str, default: T, kind: type[T]) -> T:
        value = self.attributes.get(name, default)
        if not isinstance(value, kind):
            raise ModelError(f"its {one_line(self.op, 40)} has a {name} that is no {kind.__name__}")
        return value


@dataclass(frozen=True)
class Operator:
    """How one type of node is computed.

    Attributes:
        compute: takes the node and its inputs (None for one that is left out), returns its outputs.
        numbers: which inputs must be known when the model is loaded; `compute` gets them as flat lists.
        shape_only: the outputs depend on the inputs' shapes alone.
    """

    compute: Callable[..., Computed]
    numbers: tuple[int, ...] = ()
    shape_only: bool = False
