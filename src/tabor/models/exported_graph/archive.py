"""What lies in a `.pt2` archive of torch.export: a program as JSON, and tensors as raw bytes or as a checkpoint.

`torch.export.load` runs code from the file: pickled constants, guards, and expressions that are evaluated.  So the
records are read here, as data: JSON of a limited size, and bytes that a tensor must not reach beyond.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tabor.errors import one_line
from tabor.models.checkpoint import plain_tensors
from tabor.models.content import OLD_PROGRAM

LARGEST_JSON = 32_000_000
"""Bytes; a ResNet50's program takes 0.6 million, most of it notes for people."""

MOST_DIMENSIONS = 16

LARGEST_CLAIM = 4
"""All tensors together may claim so many times the file's size: several may lie in one record."""

SLACK = 1_000_000
"""Bytes that the tensors of a tiny file may claim beyond that."""

DTYPES: Mapping[int, torch.dtype] = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    12: torch.bool,
    13: torch.bfloat16,
}
"""By torch.export's numbers; what is not here is complex, quantised or of 8-bit floats."""

STRIDED = 7
"""torch.export's number for tensors that are neither sparse nor otherwise odd."""

SCHEMA = 8
"""The major version of how programs are written since torch 2.6 at the latest."""

Json = dict[str, Any]


class ProgramError(ValueError):
    """Why a program is not read, in words that follow "is a torch.export program that"."""


class Records:
    """The records of an archive, by their names without the folder that they all lie in."""

    def __init__(self, archive: zipfile.ZipFile, size: int) -> None:
        self._archive = archive
        self.size = size
        self._places: dict[str, zipfile.ZipInfo] = {}
        for record in archive.infolist():
            folder, _, name = record.filename.partition("/")
            name = name or folder
            if name in self._places:
                raise ProgramError(f"holds two records of the name {one_line(name, 80)}")
            if record.compress_type != zipfile.ZIP_STORED:
                raise ProgramError(f"has a compressed record, {one_line(name, 80)}: torch.export compresses nothing")
            self._places[name] = record
        if sum(record.file_size for record in self._places.values()) > size:
            raise ProgramError("has records that together are longer than the file")

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def beginning(self, prefix: str) -> list[str]:
        """Returns the names that begin so."""
        return [name for name in self._places if name.startswith(prefix)]

    def read(self, name: str) -> bytearray:
        """Returns a record's bytes, whose checksum is right.

        Raises:
            ProgramError: it is missing or damaged.
        """
        if name not in self._places:
            raise ProgramError(f"lacks its record {one_line(name, 80)}")
        try:
            return bytearray(self._archive.read(self._places[name]))
        except (zipfile.BadZipFile, OSError, RuntimeError, EOFError) as error:  # RuntimeError: encrypted
            raise ProgramError(f"is damaged ({one_line(error, 120)})") from None

    def json(self, name: str) -> Json:
        """Returns a record that is a JSON object, in which nothing is said twice.

        Raises:
            ProgramError: it is missing, damaged, too large, or something else.
        """
        if name in self._places and self._places[name].file_size > LARGEST_JSON:
            raise ProgramError(f"has a record {one_line(name, 80)} of more than {LARGEST_JSON:,} bytes")
        text = self.read(name)
        try:
            content = json.loads(text, object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:
            raise ProgramError(f"has a record {one_line(name, 80)} that is no JSON ({one_line(error, 80)})") from None
        if not isinstance(content, dict):
            raise ProgramError(f"has a record {one_line(name, 80)} that is no JSON object")
        return content


def _object(pairs: list[tuple[str, Any]]) -> Json:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("the same name twice")
    return content


@contextmanager
def opened(path: Path) -> Iterator[Records]:
    """Opens an archive for reading.

    Raises:
        ProgramError: it is damaged, or made to do harm.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ProgramError(f"is damaged ({one_line(error, 120)})") from None
    with archive:
        yield Records(archive, path.stat().st_size)


def read_program(records: Records) -> Json:
    """Returns the program, as torch.export writes it down.

    Raises:
        ProgramError: there is none, or more than one, or it is written as this reader does not know it.
    """
    if "byteorder" in records and records.read("byteorder") != b"little":
        raise ProgramError("was written big end first; export it on a machine that writes the little end first")
    program = records.json(_program_name(records))
    if (version := program["schema_version"]["major"]) != SCHEMA:
        raise ProgramError(f"is written in version {one_line(version, 20)} of torch.export's schema, not {SCHEMA}")
    return program


def _program_name(records: Records) -> str:
    models = [name for name in records.beginning("models/") if name.endswith(".json")]
    models += [OLD_PROGRAM] if OLD_PROGRAM in records else []
    if records.beginning("data/aotinductor/"):  # which of them is run depends on what opens the file
        raise ProgramError("holds machine code, which may be of another model than its program")
    if len(models) != 1:
        raise ProgramError(f"holds {len(models) or 'no'} programs, where one is wanted")
    return models[0]


def read_tensors(records: Records) -> dict[str, Tensor]:
    """Returns parameters, buffers and constants by their names.

    Raises:
        ProgramError: there is a tensor that does not fit its record, or something that is no plain tensor.
    """
    if OLD_PROGRAM in records:
        return _pickled(records, "serialized_state_dict.pt") | _pickled(records, "serialized_constants.pt")
    model = _program_name(records).removeprefix("models/").removesuffix(".json")
    tensors: dict[str, Tensor] = {}
    for folder, kind in (("data/weights/", "weights"), ("data/constants/", "constants")):
        old = f"{folder}{model}.pt"
        found = _pickled(records, old) if old in records else _raw(records, folder, f"{model}_{kind}_config.json")
        if twice := tensors.keys() & found.keys():
            raise ProgramError(f"has two tensors of the name {one_line(min(twice), 80)}")
        tensors |= found
    return tensors


def _pickled(records: Records, name: str) -> dict[str, Tensor]:
    """The tensors of older files, which torch.save wrote."""
    content = io.BytesIO(records.read(name))
    try:
        with zipfile.ZipFile(content) as inner:
            Records(inner, len(content.getvalue()))  # an archive in the archive, of which the same must hold
        content.seek(0)
        tensors = plain_tensors(content)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ProgramError(f"has tensors in a pickle, not readable as data alone ({one_line(error, 200)})") from None
    claimed = sum(tensor.numel() * tensor.dtype.itemsize for tensor in tensors.values())
    _check_claim(records, claimed, name)
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def _raw(records: Records, folder: str, config: str) -> dict[str, Tensor]:
    described: Json = records.json(folder + config)["config"]
    read = cache(records.read)
    tensors, claimed = {}, 0
    for name, payload in described.items():
        if payload["use_pickle"] or payload["tensor_meta"] is None:
            raise ProgramError(f"has a pickled constant or weight, {one_line(name, 80)}, which could run code")
        sizes, strides, offset = _geometry(name, payload["tensor_meta"])
        dtype = _dtype(name, payload["tensor_meta"])
        count = math.prod(sizes)
        claimed += count * dtype.itemsize
        _check_claim(records, claimed, name)
        flat = _elements(name, read(folder + str(payload["path_name"])), dtype)
        last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
        if count and last >= len(flat):
            raise ProgramError(f"has a tensor that reaches beyond its record: {one_line(name, 80)}")
        # A copy of its own keeps the order in memory, and nothing of the record beyond what it uses.
        tensors[name] = flat.as_strided(sizes, strides, offset).clone() if count else flat.new_empty(sizes)
    return tensors


def _check_claim(records: Records, claimed: int, name: str) -> None:
    if claimed > LARGEST_CLAIM * records.size + SLACK:
        raise ProgramError(f"has tensors that claim more than the file holds, such as {one_line(name, 80)}")


def _geometry(name: str, meta: Json) -> tuple[list[int], list[int], int]:
    sizes = [size["as_int"] for size in meta["sizes"]]
    strides = [stride["as_int"] for stride in meta["strides"]]
    offset = meta["storage_offset"]["as_int"]
    if any(type(number) is not int or number < 0 for number in (*sizes, *strides, offset)):
        raise ProgramError(f"has a tensor with negative or broken measures: {one_line(name, 80)}")
    if len(sizes) != len(strides) or len(sizes) > MOST_DIMENSIONS:
        raise ProgramError(f"has a tensor whose sizes and strides make no sense: {one_line(name, 80)}")
    return sizes, strides, offset


def _dtype(name: str, meta: Json) -> torch.dtype:
    number, layout = meta["dtype"], meta["layout"]
    if type(number) is not int or number not in DTYPES or layout != STRIDED:
        raise ProgramError(f"has a sparse, quantised or complex tensor: {one_line(name, 80)}")
    return DTYPES[number]


def _elements(name: str, content: bytearray, dtype: torch.dtype) -> Tensor:
    if len(content) % dtype.itemsize:
        raise ProgramError(f"has a tensor whose record is no whole number of its elements: {one_line(name, 80)}")
    if not content:
        return torch.empty(0, dtype=dtype)
    if dtype is torch.bool:  # of whose bytes only 0 and 1 are defined
        return torch.frombuffer(content, dtype=torch.uint8) != 0
    return torch.frombuffer(content, dtype=dtype)
