"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import hashlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import safetensors

from tabor.errors import TaborError, one_line


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary name beside `path` and renames it to `path` when the block ends without an error.

    Raises:
        TaborError: the folder cannot be made or written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        # Not mkstemp, whose files are private: a result is as public as its folder.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise TaborError(f"cannot write {one_line(path)}: {one_line(error.strerror)}") from None
    try:
        yield temporary
        temporary.replace(path)
    except (OSError, safetensors.SafetensorError) as error:  # safetensors reports a full disk as its own error
        raise TaborError(f"cannot write {one_line(path)}: {one_line(getattr(error, 'strerror', error))}") from None
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Finds out before hours of work whether a file can be written, and its folder made; leaves nothing behind.

    Raises:
        TaborError: it cannot.
    """
    try:
        with tempfile.TemporaryFile(dir=next(folder for folder in path.absolute().parents if folder.exists())):
            pass
    except OSError as error:
        raise TaborError(f"cannot write {one_line(path)}: {one_line(error.strerror)}") from None
    if path.is_dir():
        raise TaborError(f"cannot write {one_line(path)}: it is a folder")


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")  # a file's name may be no Unicode


def check_plain(path: Path, most: int | None = None) -> None:
    """Makes sure that what will be read is a plain file, as a pipe would be waited for; none at all is let pass.

    Args:
        path: of a file that may be a stranger's.
        most: bytes that it may have; None: any number.

    Raises:
        OSError: it is something else, or has more bytes.
    """
    if path.exists() and not path.is_file():
        raise OSError(f"{path.name} is no plain file")
    if most is not None and path.exists() and path.stat().st_size > most:
        raise OSError(f"{path.name} has more than {most:,} bytes")


def check_no_link(folder: Path) -> None:
    """Makes sure that a folder inside a run is no link, which would take what is written into it elsewhere.

    Raises:
        TaborError: it is one.
    """
    if folder.is_symlink():
        raise TaborError(f"{one_line(folder)} is a link; nothing is written through it")


def sha256(path: Path) -> str:
    """Returns the hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
