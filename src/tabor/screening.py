"""Which classes are searched to the end: a planted trigger shows early, and the rest tells only what is natural."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from tabor.draws import key
from tabor.errors import SettingError

LOTS = 2**32
"""The stream of draws that no class uses."""


@dataclass(frozen=True, kw_only=True)
class Screening:
    """A short search for every class, after which only some go on.

    Attributes:
        steps: of the short search.
        closest: classes with the smallest masks so far, which go on as suspects.
        others: classes drawn at random, which go on to tell what is natural.
    """

    steps: int = 60
    closest: int = 6
    others: int = 16

    def __post_init__(self) -> None:
        if self.steps < 1 or self.closest < 1 or self.others < 2:
            raise SettingError(f"a screening needs steps, one suspect and two others, got {self}")

    def screens(self, targets: Sequence[int]) -> bool:
        """Whether any class of these could be left out."""
        return len(targets) > self.closest + self.others

    def peers(self, targets: Sequence[int], seed: int) -> frozenset[int]:
        """Returns the classes that go on whatever their masks: drawn by lot, or all where nothing is screened."""
        if not self.screens(targets):
            return frozenset(targets)
        return frozenset(sorted(targets, key=lambda target: key(seed, LOTS, target))[: self.others])

    def stay(self, sizes: Mapping[int, float], peers: Collection[int]) -> frozenset[int]:
        """Returns which classes go on: the peers, and those with the smallest masks.

        Those left out by some of the classes are left out by all of them, so classes may be looked at in any order.

        Args:
            sizes: L1 of each class's smallest working mask, infinite where none works.
            peers: see `peers`.
        """
        closest = sorted(sizes, key=lambda target: (sizes[target], target))[: self.closest]
        return frozenset(closest) | (frozenset(peers) & frozenset(sizes))
