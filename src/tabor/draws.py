"""Random draws that depend on what they are for and on nothing else."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tabor.errors import SettingError, one_line

SEEDS = 2**63
"""How many seeds there are; torch takes no larger one."""


def whole(value: object, name: str) -> int:
    """Returns a whole number as Python's own, which NumPy's are not.

    Raises:
        SettingError: it is none; the message calls it by the name.
    """
    try:
        return operator.index(value)  # type: ignore[arg-type]  # which is asked here
    except TypeError:
        raise SettingError(f"{name} is a whole number, got {one_line(value, 40)}") from None


def checked_seed(seed: object) -> int:
    """Returns a seed as Python's own number.

    Raises:
        SettingError: it is no whole number, or torch takes none such.
    """
    number = whole(seed, "a seed")
    if not 0 <= number < SEEDS:
        raise SettingError(f"a seed lies between 0 and {SEEDS - 1}, got {number}")
    return number


def key(seed: int, stream: int, step: int) -> int:
    """Returns a generator seed for one stream of draws; hashed, as torch's generator takes only the low 32 bits."""
    digest = hashlib.blake2b(f"{seed}/{stream}/{step}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Lets what draws from the global generators, as dropout does, draw from the seed; they are then as they were.

    `torch.manual_seed` would seed those of every device, and leave those of the others so.

    Args:
        seed: of the draws.
        device: whose generator is seeded, besides the CPU's.
    """
    generators = _global_generators(device)
    before = [generator.get_state() for generator in generators]
    try:
        for generator in generators:
            generator.manual_seed(seed)
        yield
    finally:
        for generator, state in zip(generators, before, strict=True):
            generator.set_state(state)


def _global_generators(device: torch.device) -> list[torch.Generator]:
    if device.type == "cpu":
        return [torch.default_generator]
    if device.type == "mps":
        return [torch.default_generator, torch.mps._get_default_mps_generator()]
    return [torch.default_generator, torch.get_device_module(device).default_generators[device.index]]
