"""The JSON Schema of `result.json`, and whether a result that was read is of its form."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import jsonschema


def json_schema() -> dict[str, Any]:
    """Returns the JSON Schema (draft 2020-12) of `result.json`."""
    text = resources.files("tabor").joinpath("result.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def check(stored: Any) -> None:
    """Holds a result against the schema; 1.0 is no whole number here, unlike in JSON Schema.

    Raises:
        jsonschema.ValidationError: it does not fit.
    """
    usual = jsonschema.Draft202012Validator
    types = usual.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)
    jsonschema.validators.extend(usual, type_checker=types)(json_schema()).validate(stored)
