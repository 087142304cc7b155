"""Patches that say nothing of their own class: effects of another class's, and what is natural to the model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from tabor.patches import Patch
from tabor.suspect import Suspect

SHADOW = 0.8
"""A patch worth less than this share of one that it overlaps is taken for a part of that one."""

ECHO_WORTH, ECHO_INDEX = 0.6, 0.8
"""A patch with less than these shares of another's worth and index is taken for an effect of that one, wherever it is:
a network that was taught a trigger answers more to patches of other classes too, more so than any clean one.  So is one
that stands out less and, moved to the other's place, works for the other's class where its mean colour does not: it is
the same picture, which convolutions see anywhere, and what the network makes of it elsewhere nobody taught it.  A
second backdoor that is so much weaker, or of the same picture, is seen once the first has been unlearned."""

COMMON, AS_FAR = 3, 0.5
"""Where so many of the classes looked at, and more than half of them, have a patch that is worth something and stands
out this share as far as a patch does, it is natural to the model: what is in one place may tell the class.  Only one
worth more than a real image counts then."""


def is_common(own: Suspect, suspects: Collection[Suspect]) -> bool:
    """Whether a patch is natural to the model: most of the classes looked at have one that stands out about as far."""
    least = AS_FAR * max(own.index or 0.0, 0.0)
    indices = [s.index for s in suspects if s.patch.worth > 0 and s.anomaly_index is not None]
    alike = sum(index is not None and index >= least for index in indices)
    return alike >= COMMON and 2 * alike > len(suspects)


def cause_of(target: int, suspects: Mapping[int, Suspect], works: Callable[[Patch, int], bool]) -> int | None:
    """Returns the class whose patch this class's is a part or an effect of; None: of none.

    Of several the one that stands out most.  No effect stands out more than its cause, so that no two are each
    other's effects.

    Args:
        target: the class.
        suspects: it and others.
        works: whether a patch sends enough images to a class.
    """
    own = suspects[target]
    causes = [
        (other.index, k)
        for k, other in suspects.items()
        if k != target
        and other.own_index is not None
        and other.index is not None
        and max(own.index or 0.0, 0.0) <= other.index
        and (_is_part(own.patch, other.patch) or _is_echo(own, other, k, works))
    ]
    return max(causes)[1] if causes else None


def with_effects(suspects: Mapping[int, Suspect], works: Callable[[Patch, int], bool]) -> dict[int, Suspect]:
    """Returns the same, each with the class whose effect it is, if it is one; see `cause_of`."""
    causes = {target: cause_of(target, suspects, works) for target in suspects}
    return {target: replace(s, effect_of=_root(target, causes)) for target, s in suspects.items()}


def _root(target: int, causes: Mapping[int, int | None]) -> int | None:
    """The class at the end of a chain of effects; None where this one is no effect."""
    found = causes[target]
    while found is not None and causes[found] is not None:
        found = causes[found]
    return found


def _is_part(own: Patch, other: Patch) -> bool:
    return max(own.worth, 0) < SHADOW * other.worth and own.window.overlap(other.window) > 0


def _is_echo(own: Suspect, other: Suspect, others_class: int, works: Callable[[Patch, int], bool]) -> bool:
    if own.index is None or other.index is None or own.index >= other.index:
        return False
    weak = max(own.patch.worth, 0) < ECHO_WORTH * other.patch.worth and own.index < ECHO_INDEX * other.index
    return weak or _is_same_picture(own.patch, other.patch, others_class, works)


def _is_same_picture(own: Patch, other: Patch, others_class: int, works: Callable[[Patch, int], bool]) -> bool:
    moved = replace(own, window=other.window)
    blank = replace(moved, colours=own.colours.mean((1, 2), keepdim=True), outline=None)
    return works(moved, others_class) and not works(blank, others_class)
