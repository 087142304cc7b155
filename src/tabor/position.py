"""Where a trigger may sit: flush with a corner, or with the middle of an edge."""

from __future__ import annotations

import enum


class Position(enum.StrEnum):
    """A place along the border of an image."""

    TOP_LEFT = "top-left"
    TOP = "top"
    TOP_RIGHT = "top-right"
    LEFT = "left"
    RIGHT = "right"
    BOTTOM_LEFT = "bottom-left"
    BOTTOM = "bottom"
    BOTTOM_RIGHT = "bottom-right"

    def place(self, size: int, height: int, width: int) -> tuple[int, int]:
        """Returns the row and column where a square of `size` pixels begins in an image of height×width."""
        return _along(self, "top", "bottom", height - size), _along(self, "left", "right", width - size)


def _along(word: str, near: str, far: str, room: int) -> int:
    if near in word:
        return 0
    return room if far in word else room // 2
