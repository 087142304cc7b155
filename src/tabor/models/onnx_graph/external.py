"""Weights that an ONNX model keeps in another file: read only from a plain file beside it."""

from __future__ import annotations

import mmap
import os
import re
import stat
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from tabor.errors import ModelError, one_line

LOCATION = re.compile(rb"\x0a\x08location\x12([\x01-\x7f])(?=(.{1,127}))", re.DOTALL)
"""How a model says in which file a weight is: the length of the name, and the name with what follows it."""

MOST_FILES = 10_000


@dataclass(frozen=True)
class Beside:
    """What may lie beside a model, which is looked for once, and only where it is needed."""

    model: Path

    @cached_property
    def files(self) -> frozenset[Path]:
        """Those of which the model's digest is made."""
        return frozenset(files_beside(self.model))


def read_external(beside: Beside, entries: dict[str, str], size: int) -> bytes:
    """Returns the `size` bytes of a tensor that lie in another file.

    Args:
        beside: the files beside the model.
        entries: what the model says: "location", and perhaps "offset" and "length", in bytes.
        size: what the tensor's shape and type need, in bytes.

    Raises:
        ModelError: the place is not a plain file in the model's folder or below it, does not hold as much, or is not
            among the files of which the model's digest is made.
    """
    folder, location = beside.model.parent, entries.get("location", "")
    _check_place(folder, location)
    offset, length = _number(entries, "offset", 0), _number(entries, "length", size)
    if length != size:
        raise ModelError(f"its external data claims {length:,} bytes for weights of {size:,}")
    try:
        with _opened(folder / location) as file:
            file.seek(min(offset, os.fstat(file.fileno()).st_size))
            data = bytes(file.read(length))
    except (OSError, ValueError):  # ValueError: a name with a NUL in it
        raise ModelError(f"its external data cannot be read: {one_line(location, 80)}") from None
    if len(data) < length:
        raise ModelError(f"its external data reaches beyond the end of {one_line(location, 80)}")
    if folder / location not in beside.files:
        raise ModelError(
            f"its external data lies in {one_line(location, 80)}, which it names otherwise than onnx writes it, so the "
            f"model's digest would leave it out; save the model again, with onnx.save_model"
        )
    return data


def files_beside(path: Path) -> list[Path]:
    """Returns the files that a model says it keeps weights in, those that may be read, each once; parses nothing.

    Raises:
        ModelError: it names more files than any model is kept in.
    """
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return []
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            names = {found[2][: found[1][0]] for found in LOCATION.finditer(content)}
    if len(names) > MOST_FILES:
        raise ModelError(f"{one_line(path)} keeps weights in {len(names):,} files, which no model needs")
    # As a path, `./a` is `a`.
    return sorted({path.parent / name for name in map(os.fsdecode, names) if _may_be_read(path.parent, name)})


def _may_be_read(folder: Path, location: str) -> bool:
    try:
        _check_place(folder, location)
    except ModelError:
        return False
    return (folder / location).is_file()


def _check_place(folder: Path, location: str) -> None:
    place = PurePosixPath(location)
    if not location or place.is_absolute() or ".." in place.parts or "\\" in location or ":" in location:
        raise ModelError(f"its external data lies outside its folder: {one_line(location, 80)}")
    try:
        linked = Path(os.path.realpath(folder / place)) != Path(os.path.realpath(folder)) / place
    except (OSError, ValueError):
        linked = True
    if linked:
        raise ModelError(f"its external data lies behind a link or cannot be found: {one_line(location, 80)}")


def _opened(path: Path) -> Any:
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # a pipe would be waited for
    file = os.fdopen(handle, "rb")
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        file.close()
        raise OSError("no plain file")
    return file


def _number(entries: dict[str, str], name: str, default: int) -> int:
    text = entries.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise ModelError(f"its external data has a {name} that is no number: {one_line(text, 40)}")
    return int(text)
