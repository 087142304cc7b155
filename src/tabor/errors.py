"""Errors a caller can act on: each message says what was wrong, what was expected, and what to do next."""

from __future__ import annotations

from collections.abc import Iterable


class TaborError(Exception):
    """The work could not be done; the command line prints the message on one line and exits with 2."""


class ModelError(TaborError, ValueError):
    """The model cannot be loaded or does not answer as an image classifier."""


class DataError(TaborError, ValueError):
    """The images cannot be loaded, or do not fit the model."""


class SettingError(TaborError, ValueError):
    """A setting lies outside its range."""


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: Python's, or PyTorch's, which is a RuntimeError of some kind."""
    told = type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
    return told or isinstance(error, MemoryError)


def one_line(text: object, limit: int = 300) -> str:
    """Returns text from a stranger's file as one printable line of at most `limit` characters.

    Control characters, which could move a terminal's cursor or forge a second line, are shown as escapes.
    """
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(text))
    return line if len(line) <= limit else line[: limit - 1] + "…"


def dimensions(shape: Iterable[int]) -> str:
    """Returns a shape as messages show it: 3×32×32."""
    return "×".join(str(n) for n in shape)
