"""The four corners where a trigger may sit."""

from __future__ import annotations

import enum


class Corner(enum.StrEnum):
    """Where a trigger sits."""

    TOP_LEFT = "top-left"
    TOP_RIGHT = "top-right"
    BOTTOM_LEFT = "bottom-left"
    BOTTOM_RIGHT = "bottom-right"
