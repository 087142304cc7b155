"""The two files that ship: by the rules of the challenge's own checker, and as the settings of a run."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tabor.errors import SettingError
from tabor.presets import METHODS, PRESETS
from tabor.trojai.metaparameters import DEFAULTS_FILE, SCHEMA_FILE, Metaparameters, read_metaparameters, shipped

ROOT_KEYS = {
    *("$schema", "technique", "technique_description", "technique_changes", "technique_type"),
    *("commit_id", "repo_name"),
}
TYPES = {"Weight Analysis", "Trigger Inversion", "Attribution Analysis", "Jacobian Inspection", "Other"}


def faults(schema: dict[str, Any], defaults: dict[str, Any]) -> list[str]:
    """What the checker of the test harness would complain of, by its rules."""
    told = [f"no {key}" for key in sorted(ROOT_KEYS - schema.keys())]
    told += ["unknown type"] if not set(schema.get("technique_type", [])) <= TYPES else []
    told += ["more properties"] if schema.get("additionalProperties") is not False else []
    for name, rule in schema["properties"].items():
        told += [f"{name}: {fault}" for fault in faults_of(rule)] + [f"{name}: no default"] * (name not in defaults)
    try:
        jsonschema.validate(defaults, schema)
    except jsonschema.ValidationError as error:
        told.append(error.message)
    return told


def faults_of(rule: dict[str, Any]) -> list[str]:
    """What is wrong with the rule for one metaparameter."""
    if rule["type"] == "string":
        return [] if "enum" in rule else ["no enum"]
    told = [f"no {end}" for end in ("minimum", "maximum") if end not in rule]
    if not told:
        low, high = (rule.get(f"suggested_{end}", rule[end]) for end in ("minimum", "maximum"))
        told += [] if rule["minimum"] <= low <= high <= rule["maximum"] else ["bounds"]
    return told


@pytest.fixture
def schema() -> dict[str, Any]:
    text: dict[str, Any] = json.loads(shipped(SCHEMA_FILE))
    return text


DEFAULTS: dict[str, Any] = json.loads(shipped(DEFAULTS_FILE))


def test_the_checker_has_nothing_to_complain_of(schema: dict[str, Any]) -> None:
    jsonschema.Draft7Validator.check_schema(schema)
    assert faults(schema, DEFAULTS) == []
    assert schema["technique_type"] == ["Trigger Inversion"]


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        pytest.param(lambda s: s.pop("repo_name"), "no repo_name", id="root key"),
        pytest.param(lambda s: s.update(technique_type=["Magic"]), "unknown type", id="type"),
        pytest.param(lambda s: s.pop("additionalProperties"), "more properties", id="additional"),
        pytest.param(lambda s: s["properties"]["seed"].pop("maximum"), "seed: no maximum", id="number"),
        pytest.param(lambda s: s["properties"]["preset"].pop("enum"), "preset: no enum", id="string"),
        pytest.param(lambda s: s["properties"].pop("seed"), "were unexpected|was unexpected", id="unknown"),
    ],
)
def test_the_checker_sees_faults(spoil: Callable[[dict[str, Any]], object], fault: str, schema: dict[str, Any]) -> None:
    spoilt = copy.deepcopy(schema)
    spoil(spoilt)
    (told,) = faults(spoilt, DEFAULTS)
    assert any(part in told for part in fault.split("|"))


def test_the_schema_knows_every_setting_and_every_choice(schema: dict[str, Any]) -> None:
    assert set(schema["properties"]) == {field.name for field in dataclasses.fields(Metaparameters)} == set(DEFAULTS)
    assert schema["properties"]["method"]["enum"] == list(METHODS)
    assert schema["properties"]["preset"]["enum"] == list(PRESETS)


def test_defaults_fill_in(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text('{"preset": "fast", "seed": 5}')
    assert read_metaparameters(None) == Metaparameters(**DEFAULTS)
    assert read_metaparameters(tmp_path / "m.json") == Metaparameters(**(DEFAULTS | {"preset": "fast", "seed": 5}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param('{"preset": "slow"}', "'slow' is not one of", id="enum"),
        pytest.param('{"crop_size": 2000}', "greater than the maximum of 1024", id="maximum"),
        pytest.param('{"images_per_class": 0}', "less than the minimum of 1", id="minimum"),
        pytest.param('{"seed": 0.5}', "not of type 'integer'", id="kind"),
        pytest.param('{"learning_rate": 1}', "'learning_rate' was unexpected", id="unknown"),
        pytest.param("[1]", "not of type 'object'", id="a list"),
        pytest.param("{", "as JSON", id="no JSON"),
        pytest.param("[" * 100_000, "as JSON", id="deep"),
        pytest.param('{"\\u001b[2J": 1}', r"\x1b[2J", id="control characters"),
    ],
)
def test_settings_outside_their_bounds(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(SettingError) as caught:
        read_metaparameters(tmp_path / "m.json")
    assert message in str(caught.value)
    assert str(caught.value).isprintable()


def test_the_operators_schema_counts_too(tmp_path: Path) -> None:
    metaparameters, schema = tmp_path / "m.json", tmp_path / "s.json"
    metaparameters.write_text('{"seed": 5}')
    schema.write_text('{"properties": {"seed": {"maximum": 4}}}')
    with pytest.raises(SettingError, match="5 is greater than the maximum of 4"):
        read_metaparameters(metaparameters, schema)
    schema.write_text('{"type": 3}')
    with pytest.raises(SettingError, match="is no JSON Schema"):
        read_metaparameters(metaparameters, schema)
    schema.write_text('{"$ref": "#/nowhere"}')
    with pytest.raises(SettingError, match="is no JSON Schema"):
        read_metaparameters(metaparameters, schema)
    with pytest.raises(SettingError, match="as JSON"):
        read_metaparameters(metaparameters, tmp_path / "missing.json")
