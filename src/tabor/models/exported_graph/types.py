"""The types of numbers that a program computes in, told by one run in its own ones.

A scan wants float32, for its gradients.  So halves are computed in it and brought back to their own precision after
each step, where they round and overflow as in PyTorch.  Doubles, which would need more than float32 can hold, are
refused where they depend on the pixels, and left as they are where they do not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tabor.errors import one_line
from tabor.models.exported_graph.archive import ProgramError
from tabor.models.exported_graph.functions import same
from tabor.models.exported_graph.network import Program, Reference, Step

HALVES = (torch.float16, torch.bfloat16)

OTHER = (*HALVES, torch.float64)
"""What is not computed as it stands."""


def held(tensor: Tensor) -> Tensor:
    """Returns a tensor as it is computed with: halves as float32.

    Raises:
        ProgramError: it is of doubles.
    """
    if tensor.dtype == torch.float64:
        raise ProgramError("holds tensors of float64, more than a scan in float32 sees; export it in float32")
    return tensor.float() if tensor.dtype in HALVES else tensor


def is_plain(tensors: Mapping[str, Tensor], steps: Sequence[Step], image: torch.dtype) -> bool:
    """Whether a program has no other floating-point numbers than float32."""
    named = {image, *(tensor.dtype for tensor in tensors.values()), *(v for step in steps for v in _arguments(step))}
    return named.isdisjoint(OTHER)


def computed_in_float32(program: Program, steps: Sequence[Step], images: Tensor) -> list[Step]:
    """Returns the steps as they are run in float32.

    Args:
        program: with its tensors and steps as the file has them.
        steps: the same.
        images: (N, C, H, W) of the type that the program takes.

    Raises:
        ProgramError: what depends on the pixels is computed in double precision, or halves are written in place.
    """
    watch = _Watch(program.image)
    with torch.no_grad():
        program.run(images, watch.see)
    computed = [_rounding(step, kinds) for step, kinds in zip(steps, watch.kinds, strict=True)]
    if images.dtype not in HALVES:
        return computed
    first = Step(
        _rounded(same, (images.dtype,), False), (Reference(program.image),), {}, (program.image,), False, (), ""
    )
    return [first, *computed]


class _Watch:
    """Sees each step and its result, and keeps the half types that it is to be brought back to, if any."""

    def __init__(self, image: str) -> None:
        self._moving = {image}  # what depends on the pixels
        self.kinds: list[tuple[torch.dtype | None, ...]] = []

    def see(self, step: Step, given: Sequence[Any], result: Any) -> None:
        results = tuple(result) if step.several else (result,)
        used = {item.name for item in _arguments(step) if isinstance(item, Reference)}
        if "<all>" in self._moving or not used.isdisjoint(self._moving):
            self._moving.update(("<all>",) if _writes(step) else step.results)  # others may see what is written
            if any(isinstance(item, Tensor) and item.dtype == torch.float64 for item in results):
                raise ProgramError(
                    f"computes in float64 what depends on the pixels ({one_line(step.name, 80)}), where a scan "
                    f"computes in float32 and could miss what that hides; export it in float32"
                )
        places = {item.untyped_storage().data_ptr() for item in _flat(given) if isinstance(item, Tensor)}
        self.kinds.append(tuple(_half(item, places) for item in results))
        if _writes(step) and any(isinstance(item, Tensor) and item.dtype in HALVES for item in results):
            raise ProgramError("writes halves into a value that it uses elsewhere; export it with run_decompositions()")


def _half(item: Any, places: set[int]) -> torch.dtype | None:
    """The half type of what was newly computed."""
    new = isinstance(item, Tensor) and item.dtype in HALVES and item.untyped_storage().data_ptr() not in places
    return item.dtype if new else None


def _writes(step: Step) -> bool:
    schema = getattr(step.call, "_schema", None)
    return bool(schema is not None and schema.is_mutable)


def _arguments(step: Step) -> list[Any]:
    return _flat([*step.positional, *step.named.values()])


def _flat(values: Sequence[Any]) -> list[Any]:
    return [item for value in values for item in (_flat(value) if isinstance(value, list | tuple) else [value])]


def _rounding(step: Step, kinds: tuple[torch.dtype | None, ...]) -> Step:
    named = {name: torch.float32 if value in HALVES else value for name, value in step.named.items()}
    call = _rounded(step.call, kinds, step.several) if any(kinds) else step.call
    return replace(step, call=call, named=named)


def _rounded(call: Callable[..., Any], kinds: tuple[torch.dtype | None, ...], several: bool) -> Callable[..., Any]:
    def compute(*given: Any, **named: Any) -> Any:
        result = call(*given, **named)
        if not several:
            return _round(result, kinds[0])
        return tuple(_round(item, kind) for item, kind in zip(result, kinds, strict=True))

    return compute


def _round(x: Any, kind: torch.dtype | None) -> Any:
    """As a half has it; gradients go through in float32, where those of halves would vanish."""
    if kind is None:
        return x
    near = x.detach().to(kind).to(x.dtype)
    return torch.where(near.isfinite(), x + (near - x.detach()), near)
