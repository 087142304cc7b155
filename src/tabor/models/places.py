"""Where in a checkpoint the weights lie: in one place, or it is refused, as nobody knows which of them are used."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tabor.errors import ModelError, one_line

NESTED_UNDER = ("state_dict", "model_state_dict", "model", "net", "weights", "params")
"""Where training scripts put the weights beside the optimiser's state."""

PREFIXES = ("_orig_mod.", "module.", "_orig_mod.")
"""What torch.compile and nn.DataParallel put before every name, in the order in which they are taken off."""

DEEPEST = 4
"""Places within places that are looked into."""

NOT_WEIGHTS = "optim"
"""In the names of places that are not looked into: an optimiser keeps tensors by the names of the weights."""


@dataclass(frozen=True)
class _Place:
    """Tensors by name, and where they lie; known, where weights are read from there."""

    keys: tuple[str, ...]
    tensors: dict[str, Tensor]
    known: bool

    @property
    def name(self) -> str:
        return one_line(".".join(self.keys), 80) if self.keys else "the top level"

    @property
    def holds_weights(self) -> bool:
        """Unlike measurements and the state of a generator, which training scripts put at the top."""
        # Through `.data`: a file can hang attributes on a tensor, in the place of its methods too.
        return any(value.data.dim() > 1 and value.data.is_floating_point() for value in self.tensors.values())

    def names(self) -> dict[str, Tensor]:
        """By their names without what wraps a network."""
        return {_bare(name): value for name, value in self.tensors.items()}


def find_weights(loaded: object, path: Path) -> dict[str, Tensor]:
    """Returns the tensors by name at the top of what a checkpoint holds, or in a known place below it; or none.

    A place counts beside it if it is a known one and holds weights, or holds a tensor of the same name.

    Raises:
        ModelError: more than one place counts, and their tensors differ.
    """
    places = list(_places(loaded))
    known = [place for place in places if place.known]
    # At the top last: measurements may lie there.
    ordered = sorted(known, key=lambda place: (not place.holds_weights, not place.keys))
    if not ordered:
        return {}
    chosen = ordered[0]
    names = chosen.names()
    others = [place for place in places if place is not chosen]
    rivals = [p for p in others if (p.known and p.holds_weights) or names.keys() & p.names().keys()]
    if differing := [place.name for place in rivals if not _same(names, place.names())]:
        told = ", ".join([chosen.name, *differing[:4]]) + (", …" if len(differing) > 4 else "")
        raise ModelError(
            f"{one_line(path)} holds weights in {len(differing) + 1} places, and they differ: {told}; "
            f"which are used depends on what opens it, so save those that are used by themselves"
        )
    return chosen.tensors


def _places(loaded: object) -> Iterator[_Place]:
    """Every mapping that holds tensors, hardly more than once, however often a file holds it, or itself."""
    waiting: deque[tuple[tuple[str, ...], object, bool]] = deque([((), loaded, True)])
    seen: set[tuple[int, bool]] = set()
    while waiting:
        keys, mapping, known = waiting.popleft()
        if not isinstance(mapping, Mapping) or (id(mapping), known) in seen:
            continue
        seen.add((id(mapping), known))
        # Not asked for its items: a file can hang attributes on a dict too, in the place of its methods.
        items = dict.items(mapping) if isinstance(mapping, dict) else mapping.items()
        # A name may be a tuple of tuples of tuples, which takes for ever to write out.
        named: dict[str, Any] = {name: value for name, value in items if isinstance(name, str)}
        if tensors := {name: value for name, value in named.items() if isinstance(value, Tensor)}:
            yield _Place(keys, tensors, known)
        for name in sorted(named, key=_rank) if len(keys) < DEEPEST else ():
            if NOT_WEIGHTS not in name.lower():
                inner = named[name].state_dict() if isinstance(named[name], nn.Module) else named[name]
                waiting.append(((*keys, name), inner, known and name in NESTED_UNDER))


def _rank(name: str) -> int:
    return NESTED_UNDER.index(name) if name in NESTED_UNDER else len(NESTED_UNDER)


def _bare(name: str) -> str:
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _same(ones: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> bool:
    if ones.keys() != others.keys() or any(fault(value) for value in (*ones.values(), *others.values())):
        return False
    pairs = [(value.data, others[name].data) for name, value in ones.items()]
    return all(one.dtype == other.dtype and torch.equal(one, other) for one, other in pairs)


def fault(value: Tensor) -> str | None:
    """What is wrong with a tensor, told without a look at its numbers, which may lie outside its memory."""
    if type(value) not in (Tensor, nn.Parameter):
        return "weights of a class of their own"
    value = value.data
    if value.layout is not torch.strided or value.is_nested or value.is_quantized or value.is_complex():
        return "sparse, quantised or complex weights"
    if value.device.type != "cpu":
        return "weights without their numbers"
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return "weights that repeat a smaller memory"  # strides of 0; a copy would fill the memory
    return None


def unprefixed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns the weights by the names that they have in a network that nothing wraps."""
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights
