"""JSON of strangers."""

from __future__ import annotations

import pytest

from tabor.strict_json import DEEPEST, LARGEST_WHOLE, loads


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize(
    "text", ["NaN", "[-Infinity]", "1e999", "-1e999", str(LARGEST_WHOLE * 2), "9" * 400, "9" * 9999]
)
def test_what_no_number_holds_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no JSON number|Exceeds the limit"):
        loads(text)


@pytest.mark.parametrize("text", [nested(DEEPEST + 2), nested(10**5), '{"a":' * 40 + "1" + "}" * 40])
def test_what_is_deeper_than_anything_needs_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="it is too deep"):
        loads(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, 2.5, null, true, "x"]}', {"a": [1, 2.5, None, True, "x"]}),
        (f"-{LARGEST_WHOLE}", -LARGEST_WHOLE),
        ("1e-400", 0.0),
        (nested(DEEPEST).replace("[]", "[7]"), None),
    ],
)
def test_what_is_usual_is_read(text: str, value: object) -> None:
    found = loads(text)
    assert value is None or found == value
