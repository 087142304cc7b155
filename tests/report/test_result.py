"""A result to disk and back, its schema, and damaged runs."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import safetensors.torch
import torch

from tabor.class_finding import ClassFinding, PatchFinding
from tabor.errors import TaborError
from tabor.result import RESULT_FILE, TRIGGERS_FILE, ScanResult
from tabor.schema import json_schema
from tabor.trigger import Trigger


def plain(result: ScanResult) -> ScanResult:
    """The result without its tensors, which `==` cannot compare."""
    return dataclasses.replace(result, triggers={}, patches={})


def test_round_trip(scan_result: ScanResult, tmp_path: Path) -> None:
    scan_result.save(tmp_path)
    loaded = ScanResult.load(tmp_path)
    assert plain(loaded) == plain(scan_result)
    assert loaded.triggers.keys() == scan_result.triggers.keys()
    assert loaded.patches.keys() == scan_result.patches.keys() == {2}
    for stored, expected in ((loaded.triggers, scan_result.triggers), (loaded.patches, scan_result.patches)):
        for index, trigger in expected.items():
            assert torch.equal(stored[index].mask, trigger.mask)
            assert torch.equal(stored[index].pattern, trigger.pattern)


def test_the_trigger_of_a_class_is_its_patch_where_there_is_one(scan_result: ScanResult) -> None:
    assert scan_result.trigger(2) is scan_result.patches[2]
    assert scan_result.trigger(3) is scan_result.triggers[3]


def test_saving_twice_gives_the_same_bytes(scan_result: ScanResult, tmp_path: Path) -> None:
    scan_result.save(tmp_path / "a")
    ScanResult.load(tmp_path / "a").save(tmp_path / "b")
    for name in (RESULT_FILE, TRIGGERS_FILE):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_result_fits_the_schema(scan_result: ScanResult, tmp_path: Path) -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    scan_result.save(tmp_path)
    jsonschema.validate(json.loads((tmp_path / RESULT_FILE).read_text(encoding="utf-8")), json_schema())


def test_schema_names_every_field() -> None:
    schema = json_schema()
    fields = {f.name for f in dataclasses.fields(ScanResult)} - {"triggers", "patches"} | {"schema_version"}
    assert set(schema["properties"]) == set(schema["required"]) == fields
    entry = schema["$defs"]["finding"]
    assert set(entry["properties"]) == set(entry["required"]) == {f.name for f in dataclasses.fields(ClassFinding)}


@pytest.mark.parametrize("key", json_schema()["required"])
def test_schema_refuses_a_missing_key(scan_result: ScanResult, key: str) -> None:
    stored = scan_result.to_dict()
    del stored[key]
    with pytest.raises(jsonschema.ValidationError, match=f"'{key}' is a required property"):
        jsonschema.validate(stored, json_schema())


def _set(*path: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(stored: Any) -> None:
        for key in path[:-1]:
            stored = stored[key]
        stored[path[-1]] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(_set("extra", value=1), id="extra key"),
        pytest.param(_set("model", "extra", value=1), id="extra key in model"),
        pytest.param(_set("data", "extra", value=1), id="extra key in data"),
        pytest.param(_set("timing", "extra", value=1), id="extra key in timing"),
        pytest.param(_set("classes", 0, "extra", value=1), id="extra key in a class"),
        pytest.param(_set("schema_version", value=2), id="other version"),
        pytest.param(_set("verdict", value="safe"), id="unknown verdict"),
        pytest.param(_set("threshold", value="2"), id="text for a number"),
        pytest.param(_set("targets", value=[2, 2]), id="target twice"),
        pytest.param(_set("model", "sha256", value="AB"), id="no sha256"),
        pytest.param(_set("classes", 0, "index", value="../evil"), id="text for an index"),
        pytest.param(_set("classes", 0, "attack_success", value=1.5), id="share above 1"),
        pytest.param(_set("classes", 0, "mask_l1", value=None), id="null where there is a number"),
        pytest.param(_set("classes", 0, "status", value="fine"), id="unknown status"),
    ],
)
def test_schema_refuses_a_wrong_value(scan_result: ScanResult, change: Callable[[dict[str, Any]], None]) -> None:
    stored = copy.deepcopy(scan_result.to_dict())
    jsonschema.validate(stored, json_schema())
    change(stored)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(stored, json_schema())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_to_dict_refuses_what_json_cannot_hold(scan_result: ScanResult, value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        dataclasses.replace(scan_result, score=value).to_dict()


def _edit_json(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        stored = json.loads((folder / RESULT_FILE).read_text(encoding="utf-8"))
        change(stored)
        (folder / RESULT_FILE).write_text(json.dumps(stored), encoding="utf-8")

    return damage


def _edit_triggers(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        tensors = safetensors.torch.load_file(folder / TRIGGERS_FILE)
        change(tensors)
        safetensors.torch.save_file(tensors, folder / TRIGGERS_FILE)

    return damage


def _truncate(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return damage


def _pipe(name: str) -> Callable[[Path], None]:
    """A reader of it would wait for ever."""

    def damage(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return damage


PARTS = {"mask": 1, "pattern": 3}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(_truncate(RESULT_FILE), "holds a damaged run", id="truncated json"),
        pytest.param(_truncate(TRIGGERS_FILE), "holds a damaged run", id="truncated triggers"),
        pytest.param(lambda f: (f / RESULT_FILE).unlink(), r"result\.json is missing", id="no json"),
        pytest.param(lambda f: (f / TRIGGERS_FILE).unlink(), "triggers.* is missing", id="no triggers"),
        pytest.param(lambda f: (f / RESULT_FILE).write_text("[]"), "schema version None", id="json of another kind"),
        pytest.param(lambda f: (f / RESULT_FILE).write_bytes(b"\xff\xfe"), "holds a damaged run", id="not utf-8"),
        pytest.param(_edit_json(_set("schema_version", value=99)), "schema version 99", id="other version"),
        pytest.param(
            _edit_json(lambda s: s.pop("reason")), "damaged run: 'reason' is a required property", id="missing key"
        ),
        pytest.param(_edit_json(_set("verdict", value="safe")), "'safe' is not one of", id="unknown verdict"),
        pytest.param(_edit_json(_set("classes", 0, "extra", value=1)), "damaged run.*extra", id="extra key in a class"),
        pytest.param(_edit_json(_set("classes", value=[])), "damaged run", id="no class"),
        pytest.param(_edit_json(_set("classes", 0, "index", value=0.0)), "not of type 'integer'", id="a class 0.0"),
        pytest.param(_pipe(RESULT_FILE), r"result\.json is no plain file", id="a pipe for json"),
        pytest.param(_pipe(TRIGGERS_FILE), r"triggers.* is no plain file", id="a pipe for triggers"),
        pytest.param(lambda f: os.truncate(f / RESULT_FILE, 2**28), "more than", id="huge json"),
        pytest.param(
            _edit_triggers(lambda t: t.update({f"{part}/3": torch.zeros(n, 0, 0) for part, n in PARTS.items()})),
            "has no pixels",
            id="no pixels",
        ),
        pytest.param(
            _edit_triggers(lambda t: t.update({"mask/3": torch.zeros(1, 8, 8, dtype=torch.complex64)})),
            "none that are fractions",
            id="complex mask",
        ),
        pytest.param(_edit_json(_set("classes", value=7)), "holds a damaged run", id="classes are no list"),
        pytest.param(_edit_json(_set("threshold", value="2")), "'2' is not of type 'number'", id="text for a number"),
        pytest.param(_edit_json(_set("targets", value=[9999])), "no class of the run", id="a target that is no class"),
        pytest.param(_edit_triggers(lambda t: t.pop("mask/3")), "damaged run.*mask/3", id="a class without a trigger"),
        pytest.param(
            _edit_triggers(lambda t: t.update({"mask/3": torch.zeros(8, 8)})),
            "needs a mask of shape",
            id="mask's shape",
        ),
        pytest.param(
            _edit_triggers(lambda t: t.update({"pattern/3": torch.zeros(3, 8, 9)})),
            "one size",
            id="pattern's size",
        ),
        pytest.param(
            _edit_triggers(lambda t: t.update({"mask/3": torch.full((1, 8, 8), math.nan)})),
            r"outside \[0, 1\]",
            id="NaN",
        ),
    ],
)
def test_damaged_run(scan_result: ScanResult, tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    scan_result.save(tmp_path)
    damage(tmp_path)
    with pytest.raises(TaborError, match=message):
        ScanResult.load(tmp_path)


def test_triggers_of_another_precision_are_read_as_float32(scan_result: ScanResult, tmp_path: Path) -> None:
    double = {k: Trigger(t.mask.double(), t.pattern.double()) for k, t in scan_result.triggers.items()}
    dataclasses.replace(scan_result, triggers=double).save(tmp_path)
    loaded = ScanResult.load(tmp_path).trigger(0)
    assert (loaded.mask.dtype, loaded.pattern.dtype) == (torch.float32, torch.float32)


def test_a_name_that_is_no_unicode_can_be_written(scan_result: ScanResult, tmp_path: Path) -> None:
    odd = dataclasses.replace(scan_result, data={**scan_result.data, "source": "\udcff"})
    odd.save(tmp_path)
    assert ScanResult.load(tmp_path).data["source"] == "\udcff"


def test_a_class_not_scanned(scan_result: ScanResult) -> None:
    with pytest.raises(TaborError, match="class 9 was not scanned; scanned were 0, 1, 2, 3, 4, 5"):
        scan_result.trigger(9)
    with pytest.raises(TaborError, match="class 9 was not scanned"):
        scan_result.finding(9)
    with pytest.raises(TaborError, match="class '2' was not scanned"):
        scan_result.trigger("2")  # type: ignore[arg-type]  # as it stands in the JSON of other tools


def test_a_patch_that_nearly_flags_its_class_is_most_suspicious(scan_result: ScanResult) -> None:
    strong = PatchFinding(window=(0, 0, 2, 2), worth=1.0, anomaly_index=4.9, attack_success=0.9, crop_accuracy=0.9)
    classes = tuple(
        dataclasses.replace(f, anomaly_index=None, patch=strong) if f.index == 4 else f for f in scan_result.classes
    )
    result = dataclasses.replace(scan_result, classes=classes, patch_threshold=5.0)
    assert [f.index for f in result.most_suspicious(2)] == [2, 4]


def test_most_suspicious_puts_the_unmeasured_last(scan_result: ScanResult) -> None:
    assert [f.index for f in scan_result.most_suspicious(3)] == [2, 3, 0]
    assert [f.index for f in scan_result.most_suspicious(99)] == [2, 3, 0, 5, 1, 4]
