"""Hypothesis strategies that break whole model files in ways that know their structure."""

from __future__ import annotations

import io
import json
import pickletools
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch
from hypothesis import strategies as st

from tabor.models.safetensors_file import METADATA_KEY

from .calls import calls
from .makers import (
    LITTLE,
    TINY,
    archive,
    call,
    named,
    number,
    safetensors_file,
    saved,
    several,
    storage,
    table,
    tensor,
    text,
    weights,
)

RECORD = {"architecture": {**vars(TINY), "size": list(TINY.size), "value_range": [0, 1]}, "clean_accuracy": 0.5}
WHOLE = {
    "safetensors": safetensors.torch.save(weights(), {METADATA_KEY: json.dumps(RECORD)}),
    "archive": saved({"state_dict": weights(), "epoch": 3}),
    "old": saved({"state_dict": weights(), "epoch": 3}, zipped=False),
}
"""Honest files, which are broken."""

Edit = tuple[str, float, float, bytes]
edits: st.SearchStrategy[list[Edit]] = st.lists(
    st.tuples(
        st.sampled_from(["flip", "put", "insert", "delete", "repeat", "move", "cut"]),
        st.floats(0, 1) | st.floats(0, 0.05) | st.floats(0.97, 1),  # headers and directories are what matters
        st.floats(0, 0.02),
        st.binary(min_size=1, max_size=9) | st.sampled_from([b"\xff" * 8, bytes(8), b"PK\x05\x06", b"\x80\x02", b"."]),
    ),
    min_size=1,
    max_size=6,
)


def edited(content: bytes, changes: list[Edit]) -> bytes:
    """Breaks bytes that may be anything."""
    for what, where, length, new in changes:
        place = int(where * len(content))
        end = place + 1 + int(length * len(content))
        chunk = content[place:end]
        before, after = content[:place], content[end:]
        content = {
            "flip": before + bytes(byte ^ new[0] for byte in chunk[:1]) + content[place + 1 :],
            "put": before + new + content[place + len(new) :],
            "insert": before + new + content[place:],
            "delete": before + after,
            "repeat": before + chunk + chunk + after,
            "move": before + after + chunk,
            "cut": before,
        }[what]
    return content


def broken(kind: str, _: Path) -> st.SearchStrategy[bytes]:
    """An honest file with broken bytes."""
    return edits.map(lambda changes: edited(WHOLE[kind], changes))


# JSON

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, -1, 2**31, 2**63, 2**64, 10**400, "F32", "F64", "BOOL", "F4", "timm:vgg11", "tabor:gtsrb6"])
    | st.floats()
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=8,
)
changes_of_json = st.lists(
    st.tuples(st.lists(st.integers(0, 40), min_size=1, max_size=4), anything), min_size=1, max_size=4
)


def changed_json(value: Any, path: list[int], new: Any) -> Any:
    """Replaces what lies in a place of a value of JSON."""
    if not path or not isinstance(value, dict | list) or not value:
        return new
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = keys[path[0] % len(keys)]
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    copy[key] = changed_json(value[key], path[1:], new)
    return copy


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """A safetensors file with a header that was changed as JSON, and a record in it likewise."""
    whole = WHOLE["safetensors"]
    end = 8 + int.from_bytes(whole[:8], "little")
    header, record = json.loads(whole[8:end]), RECORD
    for path, new in draw(changes_of_json):
        if draw(st.booleans()):
            record = changed_json(record, path, new)
        else:
            header = changed_json(header, path, new)
    if isinstance(header, dict) and isinstance(header.get("__metadata__"), dict):
        header["__metadata__"][METADATA_KEY] = json.dumps(record)
    return safetensors_file(header, whole[end:])


# Archives


def records_of(content: bytes) -> dict[str, bytes]:
    """An archive's records by their names."""
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        return {name: file.read(name) for name in file.namelist()}


RECORDS = records_of(WHOLE["archive"])
NAMES = sorted(RECORDS)
CONTENTS = st.binary(max_size=40) | st.sampled_from([b"1", b"big", b"little", b"3\n", *list(RECORDS.values())[:4]])


@st.composite
def archives(draw: st.DrawFn) -> bytes:
    """A checkpoint whose records were renamed, replaced, added or left out; perhaps with broken bytes besides."""
    records = dict(RECORDS)
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from(NAMES))
        content = records.pop(name, b"")
        if draw(st.booleans()):
            new = draw(st.sampled_from(NAMES) | st.text(max_size=12).map("archive/".__add__))
            records[new.replace("\0", "")] = draw(CONTENTS | st.just(content))
    whole = archive(records, compressed=draw(st.booleans()))
    return edited(whole, draw(edits)) if draw(st.booleans()) else whole


# Pickles


def opcodes_of(content: bytes) -> list[bytes]:
    """A pickle cut into its opcodes."""
    places = [place for _, _, place in pickletools.genops(content) if place is not None]
    return [content[here:there] for here, there in zip(places, [*places[1:], len(content)], strict=True)]


def _old_places() -> tuple[int, int]:
    """Where the fourth of the five pickles of an old checkpoint begins and ends."""
    stream, ends = io.BytesIO(WHOLE["old"]), []
    for _ in range(4):
        list(pickletools.genops(stream))
        ends.append(stream.tell())
    return ends[2], ends[3]


OLD_START, OLD_END = _old_places()
OPCODES = {
    "archive": opcodes_of(RECORDS["archive/data.pkl"]),
    "old": opcodes_of(WHOLE["old"][OLD_START:OLD_END]),
}
INTEGERS = [number(n) for n in (-1, 0, 1, 2, 3, 9, 64, 2**31, 2**62, 2**63 - 1, 2**64)]
ALLOWED = [
    *(f"torch._utils._rebuild_{name}" for name in ("tensor", "tensor_v2", "tensor_v3", "qtensor", "parameter")),
    *(f"torch._utils._rebuild_{name}" for name in ("sparse_tensor", "meta_tensor_no_storage", "nested_tensor")),
    *(f"torch._utils._rebuild_{name}" for name in ("wrapper_subclass", "device_tensor_from_numpy")),
    *(f"torch.{name}" for name in ("FloatStorage", "QInt8Storage", "Tensor", "Size", "device", "float32", "int8")),
    *("torch.nn.parameter.Parameter", "torch._tensor._rebuild_from_type_v2", "torch.serialization._get_layout"),
    *("collections.OrderedDict", "collections.Counter", "builtins.set", "builtins.complex", "_codecs.encode"),
]


def pieces(dead: Path) -> list[bytes]:
    """What is spliced into pickles: single opcodes, allowed names, odd tensors, and a canary."""
    single = [bytes([code]) for code in b"(.0123NRtbaesu]})\x81\x85\x86\x87\x88\x89\x8f\x90\x93\x94Q"]
    names = [named(name) for name in ALLOWED]
    words = [
        text(word) for word in ("state_dict", "storage", "cpu", "cuda", "meta", "0", "is_complex", "torch.strided")
    ]
    wholes = [
        LITTLE,
        tensor(storage(4), (2, 2), (0, 0)),
        storage(2**40),
        storage(-1),
        table({"get": named("torch.Size")}),
    ]
    canaries = [call("pathlib.Path.touch", call("pathlib.PosixPath", text(str(dead)))), call("os.system", text("true"))]
    memo = [b"h\x00", b"h\x01", b"h\x05", b"q\x00", b"q\x05", b"N", several(number(1), number(2)), b"G" + bytes(8)]
    return [*single, *names, *words, *INTEGERS, *wholes, *canaries, *memo]


def packed(body: bytes, age: str) -> bytes:
    """A pickle in a checkpoint, as an archive or in the old way."""
    if age == "archive":
        return archive(RECORDS | {"archive/data.pkl": body})
    return WHOLE["old"][:OLD_START] + body + WHOLE["old"][OLD_END:]


def pickles(age: str, dead: Path) -> st.SearchStrategy[bytes]:
    """A checkpoint with a pickle whose opcodes were dropped, doubled, swapped and spliced."""
    whole = OPCODES[age]
    pool = st.sampled_from([*pieces(dead), *whole[:60]])
    splices = st.tuples(st.integers(0, len(whole)), st.integers(0, 3), st.lists(pool, max_size=5))

    def spliced(changes: list[tuple[int, int, list[bytes]]]) -> bytes:
        opcodes = list(whole)
        for place, dropped, new in changes:
            opcodes[place : place + dropped] = new
        return packed(b"".join(opcodes), age)

    return st.lists(splices, min_size=1, max_size=5).map(spliced)


TARGETS: dict[str, Callable[[Path], st.SearchStrategy[bytes]]] = {
    **{f"bytes, {kind}": partial(broken, kind) for kind in WHOLE},
    "headers": lambda _: headers(),
    "records": lambda _: archives(),
    **{f"opcodes, {age}": partial(pickles, age) for age in OPCODES},
    "calls": calls,
}
"""From a name to the files that it makes, given where a canary would appear."""
