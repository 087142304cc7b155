"""What kind of file a model is in, told by its content: a name promises nothing."""

from __future__ import annotations

import pickletools
import struct
import zipfile
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import IO

from tabor.errors import ModelError, one_line
from tabor.models.onnx_graph.wire import looks_like_onnx

TORCH_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""How files begin that torch.save wrote before it made archives (up to torch 1.5, or when asked to)."""

LARGEST_HEADER = 100_000_000
"""Bytes; safetensors' own limit."""

LARGEST_RATIO = 20
"""An archive that unpacks to more than so many times its size is a bomb; torch.save does not compress at all."""

MOST_RECORDS = 100_000

MOST_OPCODES = 5_000_000
"""Of a pickle that are looked through for names."""


class Kind(StrEnum):
    """The kinds of file that are told apart, in words for messages."""

    SAFETENSORS = "a safetensors file"
    CHECKPOINT = "a checkpoint of torch.save"
    OLD_CHECKPOINT = "an old checkpoint of torch.save"
    TORCHSCRIPT = "a TorchScript program"
    PACKAGE = "a torch.package archive"
    EXPORTED = "a torch.export program"
    KERAS = "a Keras model"
    ARCHIVE = "a zip archive"
    HDF5 = "an HDF5 file (Keras writes those)"
    NUMPY = "a NumPy file"
    PICKLE = "a pickle"
    ONNX = "an ONNX model"
    UNKNOWN = "a file of no known kind"


_SIGNATURES = {
    TORCH_MAGIC: Kind.OLD_CHECKPOINT,
    b"\x89HDF\r\n\x1a\n": Kind.HDF5,
    b"\x93NUMPY": Kind.NUMPY,
    b"\x80": Kind.PICKLE,
}


def identify(path: Path) -> Kind:
    """Returns what kind of file it is; runs nothing and unpacks nothing.

    Raises:
        ModelError: there is no such file, it cannot be read, or it is an archive made to do harm.
    """
    try:
        if not path.is_file():  # a pipe would be waited for
            raise FileNotFoundError
        with path.open("rb") as file:
            head = file.read(32)
    except (OSError, ValueError):  # ValueError: a name with a NUL in it
        raise ModelError(f"there is no model file {one_line(path)}") from None
    if head[:4] == b"PK\x03\x04":
        return _archive_kind(path)
    # Before the signatures: a header of 128 bytes more than a multiple of 256 begins like a pickle.
    if len(head) > 8 and head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] <= LARGEST_HEADER:
        return Kind.SAFETENSORS
    for signature, kind in _SIGNATURES.items():
        if head.startswith(signature):
            return kind
    return Kind.ONNX if looks_like_onnx(head) else Kind.UNKNOWN


def _archive_kind(path: Path) -> Kind:
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:  # the last: of a later zip version
        raise ModelError(f"{one_line(path)} is a damaged zip archive ({one_line(error, 120)})") from None
    _check_records(records, path)
    names = {PurePosixPath(*PurePosixPath(record.filename).parts[1:]).as_posix() for record in records}
    whole = {record.filename for record in records}
    if any(".data/extern_modules" in name for name in whole):
        return Kind.PACKAGE
    if "constants.pkl" in names or any(name.startswith("code/") for name in names):
        return Kind.TORCHSCRIPT
    if "archive_format" in names or any(name.startswith("models/") and name.endswith(".json") for name in names):
        return Kind.EXPORTED
    if "data.pkl" in names:
        return Kind.CHECKPOINT
    return Kind.KERAS if {"config.json", "model.weights.h5"} <= whole else Kind.ARCHIVE


def _check_records(records: list[zipfile.ZipInfo], path: Path) -> None:
    """Refuses what an honest writer of models never makes."""
    if len(records) > MOST_RECORDS:
        raise ModelError(f"{one_line(path)} is an archive of {len(records)} records, which no model needs")
    for record in records:
        name = PurePosixPath(record.filename)
        if name.is_absolute() or ".." in name.parts or "\\" in record.filename:
            raise ModelError(f"{one_line(path)} holds a record outside its folder: {one_line(record.filename, 80)}")
        if (record.external_attr >> 16) & 0o170000 == 0o120000:
            raise ModelError(f"{one_line(path)} holds a link: {one_line(record.filename, 80)}")
    unpacked = sum(record.file_size for record in records)
    if unpacked > LARGEST_RATIO * path.stat().st_size:
        raise ModelError(
            f"{one_line(path)} would unpack to {unpacked:,} bytes, over {LARGEST_RATIO} times its size: a zip bomb"
        )


def globals_of(path: Path, kind: Kind) -> list[str]:
    """Returns what a file's pickles would import, as "module.name", in their order; imports nothing.

    A damaged pickle, or an endless one, gives what was seen up to there.
    """
    if kind is Kind.CHECKPOINT:
        with zipfile.ZipFile(path) as archive:
            pickles = [name for name in archive.namelist() if name.endswith(".pkl")]
            return [found for name in pickles for found in _named_in(archive, name)]
    if kind in (Kind.OLD_CHECKPOINT, Kind.PICKLE):
        with path.open("rb") as file:
            found: list[str] = []
            for _ in range(5):  # an old checkpoint is five pickles in a row
                found += _named(file)
            return found
    return []


def _named_in(archive: zipfile.ZipFile, name: str) -> list[str]:
    try:
        with archive.open(name) as record:
            return _named(record)
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError):  # encrypted, or not where it is said to be
        return []


def _named(stream: IO[bytes]) -> list[str]:
    found: list[str] = []
    pushed: list[str | None] = []
    memo: dict[int, str | None] = {}
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if opcode.name in ("GLOBAL", "INST"):
                found.append(str(argument).replace(" ", "."))
            elif opcode.name == "STACK_GLOBAL":
                found.append(".".join(part or "?" for part in pushed[-2:]))
            _remember(opcode.name, argument, pushed, memo)
            if count > MOST_OPCODES:
                break
    except Exception:  # noqa: BLE001, S110 (a stranger's bytes may break the parser anywhere)
        pass
    return list(dict.fromkeys(found))


def _remember(opcode: str, argument: object, pushed: list[str | None], memo: dict[int, str | None]) -> None:
    """Follows the strings that a pickle pushes, and those that it puts by and fetches again."""
    if opcode == "MEMOIZE":
        memo[len(memo)] = pushed[-1] if pushed else None
    elif opcode in ("PUT", "BINPUT", "LONG_BINPUT"):
        memo[int(str(argument))] = pushed[-1] if pushed else None
    elif opcode in ("GET", "BINGET", "LONG_BINGET"):
        pushed[:] = [*pushed[-1:], memo.get(int(str(argument)))]
    else:
        pushed[:] = [*pushed[-1:], argument if isinstance(argument, str) else None]
