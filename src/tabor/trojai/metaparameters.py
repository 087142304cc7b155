"""What a TrojAI operator can set: a JSON file, checked against a JSON Schema before anything is done."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import referencing.exceptions

from tabor.errors import SettingError, one_line

DEFAULTS_FILE, SCHEMA_FILE = "metaparameters.json", "metaparameters_schema.json"


@dataclass(frozen=True, kw_only=True)
class Metaparameters:
    """The settings of one run; their bounds stand in `metaparameters_schema.json`.

    Attributes:
        method: "tabor" or "neural-cleanse".
        preset: "fast", "standard", "thorough" or "paper".
        images_per_class: how many images of a class are used at most.
        crop_size: edge in pixels to which images are cropped; 0: what their names say of the round.
        seed: of every random draw.
    """

    method: str
    preset: str
    images_per_class: int
    crop_size: int
    seed: int


def shipped(name: str) -> str:
    """Returns the text of one of the two files that ship with the package."""
    return resources.files("tabor.trojai").joinpath(name).read_text(encoding="utf-8")


def read_metaparameters(path: Path | None, schema: Path | None = None) -> Metaparameters:
    """Returns the settings in a file; what it leaves out, or all where there is none, has its default.

    Args:
        path: the file.
        schema: a schema of the operator's own, which the file has to satisfy as well.

    Raises:
        SettingError: a file is missing or no JSON, or a setting is unknown or outside its bounds.
    """
    given = {} if path is None else _read(path)
    schemas = [json.loads(shipped(SCHEMA_FILE)), *([] if schema is None else [_read(schema)])]
    for one in schemas:
        try:
            jsonschema.validate(given, one)
        except jsonschema.ValidationError as error:
            raise SettingError(f"{one_line(path)} does not satisfy its schema: {one_line(error.message)}") from None
        except (jsonschema.SchemaError, referencing.exceptions.Unresolvable) as error:
            raise SettingError(f"{one_line(schema)} is no JSON Schema: {one_line(error)}") from None
    return Metaparameters(**(json.loads(shipped(DEFAULTS_FILE)) | given))


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SettingError(f"cannot read {one_line(path)} as JSON: {one_line(error, 120)}") from None
