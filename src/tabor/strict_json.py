"""JSON of strangers: its numbers are finite, and it is no deeper than anything needs."""

from __future__ import annotations

import json
from typing import Any, NoReturn

DEEPEST = 32
LARGEST_WHOLE = 2**63


def loads(text: str) -> Any:
    """Returns what a JSON text holds.

    Raises:
        ValueError: it is no JSON, or has a number that no float or 64-bit integer holds, or lists in lists in lists.
    """
    try:
        content = json.loads(text, parse_constant=_refuse, parse_float=_finite, parse_int=_whole)
    except RecursionError:
        raise ValueError("it is too deep") from None
    level = [content]
    for _ in range(DEEPEST + 1):
        level = [value for each in level for value in _inside(each)]
    if level:
        raise ValueError("it is too deep")
    return content


def _inside(value: object) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []


def _finite(text: str) -> float:
    value = float(text)
    return value if abs(value) < float("inf") else _refuse(text)


def _whole(text: str) -> int:
    return int(text) if abs(float(text)) <= LARGEST_WHOLE else _refuse(text)


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word[:20]} is no JSON number")
