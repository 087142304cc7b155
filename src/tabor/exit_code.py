"""What the process returns."""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """What the process returns."""

    NO_TRIGGER_FOUND = 0
    BACKDOOR_FOUND = 1
    FAILED = 2
    UNDECIDED = 3
    USAGE = 4
    INTERRUPTED = 130

    @classmethod
    def of(cls, verdict: str) -> ExitCode:
        """Returns the code that tells a verdict."""
        return {"clean": cls.NO_TRIGGER_FOUND, "backdoored": cls.BACKDOOR_FOUND}.get(verdict, cls.UNDECIDED)
