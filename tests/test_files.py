"""Files appear whole or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tabor.errors import TaborError
from tabor.files import replacing, sha256, write_text


@pytest.fixture
def umask() -> Iterator[int]:
    """A umask that is nobody's default, and the old one afterwards."""
    before = os.umask(0o037)
    yield 0o037
    os.umask(before)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def break_off(path: Path, error: BaseException) -> None:
    """Writes half a file."""
    with replacing(path) as temporary:
        temporary.write_text("half")
        raise error


def test_a_new_file_in_new_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.txt"
    with replacing(path) as temporary:
        assert temporary.parent == path.parent
        assert not path.exists()
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert names(path.parent) == ["file.txt"]


def test_an_old_file_stays_until_the_end(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["file.txt"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("boom"), RuntimeError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (OSError(28, "No space left on device"), TaborError),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_the_old_file_stays_when_the_block_raises(
    error: BaseException, expected: type[BaseException], tmp_path: Path
) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(expected):
        break_off(path, error)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_no_new_file_when_the_block_raises(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="boom"):
        break_off(tmp_path / "file.txt", RuntimeError("boom"))
    assert names(tmp_path) == []


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    with pytest.raises(TaborError, match=r"cannot write .*file.txt: No space left on device"):
        break_off(tmp_path / "file.txt", OSError(28, "No space left on device"))


@pytest.mark.parametrize("old", [True, False], ids=["over an old file", "new file"])
def test_permission_bits_are_those_of_any_new_file(umask: int, old: bool, tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    if old:
        path.touch(0o600)
    write_text(path, "text")
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask == 0o640
    assert os.umask(umask) == umask, "asking for the umask has changed it"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("file/below.txt", id="below a file"),
        pytest.param("file/deep/below.txt", id="far below a file"),
        pytest.param("x" * 5000, id="a name too long"),
        pytest.param("folder", id="a folder in the way"),
    ],
)
def test_places_that_cannot_be_written(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    (tmp_path / "folder").mkdir()
    with pytest.raises(TaborError, match="cannot write") as caught:
        write_text(tmp_path / name, "text")
    assert str(caught.value).isprintable()
    assert names(tmp_path) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "precious"
    assert names(tmp_path / "folder") == []


def test_text_is_utf8(tmp_path: Path) -> None:
    write_text(tmp_path / "file.txt", "λ ⊙\n")
    assert (tmp_path / "file.txt").read_bytes() == "λ ⊙\n".encode()


def test_sha256(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(content)
    assert sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()
