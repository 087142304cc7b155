"""What kind of file a model is in, told by its content: a name promises nothing."""

from __future__ import annotations

import io
import os
import pickletools
import re
import struct
import tarfile
import zipfile
from enum import StrEnum
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO

from tabor.errors import ModelError, one_line
from tabor.models.onnx_graph.wire import looks_like_onnx

TORCH_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""How files begin that torch.save wrote before it made archives (up to torch 1.5, or when asked to)."""

LARGEST_HEADER = 10_000_000
"""Bytes of a safetensors header, enough for 100,000 tensors; one of ten times that takes a minute and 3 GB to read."""

LARGEST_RATIO = 20
"""An archive that unpacks to more than so many times its size is a bomb; torch.save does not compress at all."""

MOST_RECORDS = 100_000

LARGEST_DIRECTORY = 20_000_000
"""Bytes of an archive's directory."""

LARGEST_END = 2**16 + 22
"""Bytes of what follows it, a comment included."""

OLD_PROGRAM = "serialized_exported_program.json"
"""What torch.export up to 2.7 called the program."""

MOST_PICKLES = 5
"""Of a file that are looked through for names; an old checkpoint is five in a row."""

MOST_OPCODES = 200_000
"""Of a pickle that are looked through for names."""

MOST_NAMES = 1000
LONGEST_NAME = 200
"""Of what a pickle would call: how many names are gathered, and characters of each string in one."""

MOST_BYTES = 16_000_000
"""Of a record that are looked through for names."""


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
    HUGGINGFACE = "a Hugging Face folder"
    ONNX = "an ONNX model"
    TAR = "a tar archive (PyTorch before 0.2 wrote those)"
    COMPRESSED = "a compressed file (joblib writes those)"
    UNKNOWN = "a file of no known kind"


_SIGNATURES = {
    TORCH_MAGIC: Kind.OLD_CHECKPOINT,
    b"\x89HDF\r\n\x1a\n": Kind.HDF5,
    b"\x93NUMPY": Kind.NUMPY,
    b"\x80": Kind.PICKLE,
    **dict.fromkeys((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!", b"\x28\xb5\x2f\xfd"), Kind.COMPRESSED),
    **dict.fromkeys((b"x\x01", b"x\x5e", b"x\x9c", b"x\xda", b"]\x00\x00"), Kind.COMPRESSED),  # zlib, lzma
}

_LAMBDA = re.compile(rb'"class_name": ?"Lambda"')


def identify(path: Path) -> Kind:
    """Returns what kind of file it is; runs nothing and unpacks nothing.

    Raises:
        ModelError: there is no such file, it cannot be read, or it is an archive made to do harm.
    """
    if os.path.isdir(path):  # unlike Path.is_dir, also False where the name is unusable
        return _folder_kind(path)
    try:
        if not path.is_file():  # a pipe would be waited for
            raise FileNotFoundError
        with path.open("rb") as file:
            head = file.read(tarfile.BLOCKSIZE)
    except (OSError, ValueError):  # ValueError: a name with a NUL in it
        raise ModelError(f"there is no model file {one_line(path)}") from None
    if head[:4] == b"PK\x03\x04":
        return _archive_kind(path)
    kind = _kind_by(head)
    if kind in (Kind.SAFETENSORS, Kind.OLD_CHECKPOINT, Kind.ONNX) and _has_directory(path):
        raise _of_two_kinds(path, kind, Kind.ARCHIVE)
    return kind


def _kind_by(head: bytes) -> Kind:
    """Tells by a file's first bytes, of which there are at least 32 where the file has as many."""
    if _is_tar(head):  # before the signatures: its first bytes are a name, which may look like any of them
        return Kind.TAR
    # Before the signatures: a header of 128 bytes more than a multiple of 256 begins like a pickle.
    if len(head) > 8 and head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] <= LARGEST_HEADER:
        return Kind.SAFETENSORS
    for signature, kind in _SIGNATURES.items():
        if head.startswith(signature):
            return kind
    return Kind.ONNX if looks_like_onnx(head) else Kind.UNKNOWN


def _folder_kind(path: Path) -> Kind:
    if not os.path.isfile(path / "config.json"):
        raise ModelError(f"there is no model file {one_line(path)}: it is a folder without a config.json")
    return Kind.HUGGINGFACE


def _is_tar(head: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "replace")  # which looks at the checksum
    except (tarfile.HeaderError, ValueError):
        return False
    return True


def _archive_kind(path: Path) -> Kind:
    _check_directory(path)
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:  # the last: of a later zip version
        raise ModelError(f"{one_line(path)} is a damaged zip archive ({one_line(error, 120)})") from None
    _check_records(records, path)
    whole = {record.filename for record in records}
    # As torch finds them: behind the first slash, in small letters or capitals.
    names = {name.partition("/")[2].lower() for name in whole}
    if any(".data/extern_modules" in name for name in whole):
        return Kind.PACKAGE
    found = {
        Kind.TORCHSCRIPT: "constants.pkl" in names or any(name.startswith("code/") for name in names),
        Kind.EXPORTED: OLD_PROGRAM in whole
        or "archive_format" in names
        or any(name.startswith("models/") and name.endswith(".json") for name in names),
        # A TorchScript program has one too; by this other record, so written, torch.load knows that it is none of its.
        Kind.CHECKPOINT: "data.pkl" in names and not any(name.partition("/")[2] == "constants.pkl" for name in whole),
        Kind.KERAS: {"config.json", "model.weights.h5"} <= whole,
    }
    kinds = [kind for kind, is_there in found.items() if is_there]
    if len(kinds) > 1:
        raise _of_two_kinds(path, *kinds[:2])
    return kinds[0] if kinds else Kind.ARCHIVE


def _of_two_kinds(path: Path, first: Kind, second: Kind) -> ModelError:
    return ModelError(
        f"{one_line(path)} is {first.value} and also {second.value}: which model it holds depends on what opens it, "
        f"so none is scanned; save the one that is used by itself"
    )


def _has_directory(path: Path) -> bool:
    """Whether a file that does not begin as an archive ends as one, which many readers take for one all the same."""
    with path.open("rb") as file:
        here = max(0, file.seek(0, os.SEEK_END) - LARGEST_END)
        file.seek(here)
        tail = file.read(LARGEST_END)
        for end in re.finditer(rb"PK\x05\x06.{8}(.{8})", tail, re.DOTALL):
            size, offset = struct.unpack("<II", end[1])
            if tail[max(0, end.start() - 20) : end.start()].startswith(b"PK\x06\x07"):
                return True
            for place in (offset, max(0, here + end.start() - size)):
                file.seek(place)
                if file.read(4) == b"PK\x01\x02":
                    return True
    return False


def _check_directory(path: Path) -> None:
    """Refuses an archive whose directory does not stand where it says, or is too large to be read.

    Readers of archives disagree on where to look for it, so that one file could be two archives.
    """
    with path.open("rb") as file:
        here = max(0, file.seek(0, os.SEEK_END) - 98)
        file.seek(here)
        tail = file.read(98)
    short, locator, long = tail[-22:], tail[-42:-22], tail[-98:-42]
    if len(tail) < 22 or not short.startswith(b"PK\x05\x06"):
        raise ModelError(f"{one_line(path)} is a damaged zip archive (it does not end with its directory)")
    size, offset, end = *struct.unpack("<12xII2x", short), here + len(tail) - 22
    if locator.startswith(b"PK\x06\x07") and len(long) == 56:
        size, offset, end = *struct.unpack("<40xQQ", long), struct.unpack("<8xQ4x", locator)[0]
        if end != here or not long.startswith(b"PK\x06\x06"):
            size = -1
    if offset + size != end:
        raise ModelError(f"{one_line(path)} is a damaged zip archive (its directory is not where it says)")
    if size > LARGEST_DIRECTORY:
        raise ModelError(f"{one_line(path)} is an archive with a directory of {size:,} bytes, which no model needs")


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
        if record.filename != record.orig_filename:  # cut at a NUL, or renamed by a field that few readers know
            raise ModelError(f"{one_line(path)} holds a record of two names: {one_line(record.filename, 80)}")
    if len({record.filename.lower() for record in records}) < len(records):  # torch takes capitals for small letters
        raise ModelError(f"{one_line(path)} is an archive that holds two records of one name")
    unpacked = sum(record.file_size for record in records)
    if unpacked > LARGEST_RATIO * path.stat().st_size:
        raise ModelError(
            f"{one_line(path)} would unpack to {unpacked:,} bytes, over {LARGEST_RATIO} times its size: a zip bomb"
        )


def globals_of(path: Path, kind: Kind) -> list[str]:
    """Returns what a file would call, as "module.name", in its order; imports nothing.

    A damaged pickle, or an endless one, gives what was seen up to there.
    """
    contents: list[bytes] = []
    if kind in (Kind.CHECKPOINT, Kind.KERAS):
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith((".pkl", "config.json"))]
            contents = [_start_of(archive, name) for name in names[:MOST_PICKLES]]
    elif kind in (Kind.OLD_CHECKPOINT, Kind.PICKLE, Kind.HDF5):
        with path.open("rb") as file:
            contents = [file.read(MOST_BYTES)]
    if kind in (Kind.KERAS, Kind.HDF5):
        return ["keras.layers.Lambda"] if any(_LAMBDA.search(content) for content in contents) else []
    return list(dict.fromkeys(name for content in contents for name in _named(io.BytesIO(content))))


def _start_of(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        with archive.open(name) as record:
            return record.read(MOST_BYTES)
    except Exception:  # noqa: BLE001 (encrypted, compressed badly, or not where it is said to be)
        return b""


def _named(stream: IO[bytes]) -> list[str]:
    found: dict[str, None] = {}
    try:
        for _ in range(MOST_PICKLES):
            _follow(stream, found)
    except Exception:  # noqa: BLE001, S110 (a stranger's bytes may break the parser anywhere)
        pass
    return list(found)


def _follow(stream: IO[bytes], found: dict[str, None]) -> None:
    """Goes through one pickle and adds the names in it, each once."""
    pushed: list[str | None] = []
    memo: dict[int, str | None] = {}
    for opcode, given, _ in islice(pickletools.genops(stream), MOST_OPCODES):
        argument = given[:LONGEST_NAME] if isinstance(given, str) else given
        if opcode.name in ("GLOBAL", "INST"):
            found[str(argument).replace(" ", ".")] = None
        elif opcode.name == "STACK_GLOBAL":
            found[".".join(part or "?" for part in pushed[-2:])] = None
        if len(found) >= MOST_NAMES:
            return
        _remember(opcode.name, argument, pushed, memo)


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
