"""JSON files of strangers: read with limits, as plain values."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeGuard, cast

from tabor import strict_json
from tabor.errors import ModelError, one_line

LARGEST_FILE = 16 * 2**20
"""Bytes.  The names of 21,843 classes need less than two million."""

LARGEST_NUMBER = 2**18
"""Of a setting that sizes a network: no layer is as wide, and no classifier has as many classes."""

LONGEST_LIST = 1000
LONGEST_TEXT = 200
DEEPEST_LIST = 3


def read_object(path: Path) -> dict[str, Any]:
    """Returns the JSON object in a file.

    Raises:
        ModelError: there is no such file, it is too large, or it holds something else.
    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ModelError(f"{one_line(path)} has more than {LARGEST_FILE:,} bytes, which no settings need")
        content = strict_json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        raise ModelError(f"there is no {one_line(path)}") from None
    except ModelError:
        raise
    except (OSError, ValueError) as error:  # ValueError: no UTF-8, no JSON, or an endless number
        raise ModelError(f"{one_line(path)} is no JSON ({type(error).__name__}: {one_line(error, 120)})") from None
    if not isinstance(content, dict):
        raise ModelError(f"{one_line(path)} is no JSON object")
    return content


def is_setting(value: object, depth: int = 0) -> bool:
    """Whether a value may size a network: a yes or no, a bounded number, a short text, or a short list of those."""
    if isinstance(value, list):
        return depth < DEEPEST_LIST and len(value) <= LONGEST_LIST and all(is_setting(v, depth + 1) for v in value)
    if isinstance(value, str):
        return len(value) <= LONGEST_TEXT
    return value is None or isinstance(value, bool) or is_number(value)


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value is a number that is not absurdly large."""
    return type(value) in (int, float) and abs(cast(float, value)) <= LARGEST_NUMBER  # False for what is not finite


def class_names(names: object, num_classes: int) -> list[str] | None:
    """Returns the names of the classes as printable text, or None where the file does not name each of them.

    Args:
        names: a list of names, or names by number.
        num_classes: how many there have to be.
    """
    if isinstance(names, dict):
        names = [names.get(str(number)) for number in range(num_classes)]
    if not isinstance(names, list) or len(names) != num_classes or not all(isinstance(name, str) for name in names):
        return None
    return [one_line(name, 120) for name in names]
