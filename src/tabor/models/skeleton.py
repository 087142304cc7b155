"""Networks without memory: their modules, and the names and shapes of their weights, to check before any is taken."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook
from torch.overrides import TorchFunctionMode

from tabor.errors import ModelError

MOST_MODULES = 10_000
"""The deepest networks in use have 4,000."""


class _NoWeights(TorchFunctionMode):
    """Makes weights, which layers take from `torch.empty`, without memory, and lets other tensors be."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = dict(kwargs or {})
        return func(*args, **(named | {"device": "meta"} if func is torch.empty else named))


@contextmanager
def without_memory(*, computing: bool = False) -> Iterator[None]:
    """What is built in this block takes no memory for its weights, and is stopped where it would never end.

    Args:
        computing: whether constructors may compute with tensors, as those of torchvision's RegNets do; what they
            compute with takes memory.

    Raises:
        ModelError: more modules are built than any network has.
    """
    number = itertools.count(1)

    def count(module: nn.Module, name: str, submodule: nn.Module | None) -> None:
        if next(number) > MOST_MODULES:
            raise ModelError(f"a network of more than {MOST_MODULES:,} layers makes no sense")

    handle = register_module_module_registration_hook(count)
    try:
        with _NoWeights() if computing else torch.device("meta"):
            yield
    finally:
        handle.remove()
