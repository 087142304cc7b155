"""Every hostile file is refused in one line, and none runs; some of each kind also on the command line."""

from __future__ import annotations

import json
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from tabor.errors import ModelError
from tabor.models import load_model
from tabor.models.isolation import Limits

from .corpus import BOMBS, HOSTILE, PROGRAMS, RECORDS
from .makers import TINY, Canary, Corpus, checkpoint, saved, table, weights

GIBIBYTE = 2**30


def made(folder: Path, corpus: Corpus, name: str) -> tuple[Path, Path, str]:
    """Writes a hostile file; returns it, where its canary would appear, and what its refusal says."""
    path, dead = folder / "tiny.pt", folder / "dead"
    make, reason = corpus[name]
    path.write_bytes(make(dead))
    return path, dead, reason


def check_line(message: str) -> None:
    """A message is one printable line."""
    assert message.isprintable()
    assert len(message) < 700


def test_the_canary_would_sing(tmp_path: Path) -> None:
    dead = tmp_path / "dead"
    pickle.loads(pickle.dumps(Canary(dead)))
    assert dead.exists()


def test_the_honest_file_is_read(tmp_path: Path) -> None:
    """Nothing but what is wrong with the hostile ones can be in their way."""
    path = tmp_path / "tiny.pt"
    for content in (saved(weights()), saved(weights(), zipped=False)):
        path.write_bytes(content)
        assert load_model(path, arch=TINY.name, channels=1, size=TINY.size, isolate=False).architecture == TINY


@pytest.mark.filterwarnings("ignore")  # of makers that write what PyTorch deprecates
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_and_never_run(name: str, tmp_path: Path) -> None:
    path, dead, reason = made(tmp_path, HOSTILE, name)
    with pytest.raises(ModelError, match=reason) as caught:
        load_model(path, arch=TINY.name, channels=1, size=TINY.size, isolate=False)
    check_line(str(caught.value))
    with pytest.raises(ModelError) as caught:
        load_model(path, isolate=False)
    check_line(str(caught.value))
    assert not dead.exists()


@pytest.mark.parametrize("name", RECORDS)
def test_records_that_lie_are_refused(name: str, tmp_path: Path) -> None:
    path, _, reason = made(tmp_path, RECORDS, name)
    with pytest.raises(ModelError, match=reason) as caught:
        load_model(path)
    check_line(str(caught.value))


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_bombs_go_off_elsewhere(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Limits, "of", lambda *_: Limits(memory=GIBIBYTE, seconds=5))
    path, dead, reason = made(tmp_path, BOMBS, name)
    with pytest.raises(ModelError, match=f"{reason}|more than 5 s") as caught:
        load_model(path, arch=TINY.name, channels=1, size=TINY.size)
    check_line(str(caught.value))
    assert not dead.exists()


AS_A_USER = {
    "code: canary beside weights": HOSTILE,
    "code: canary, pickle 4": HOSTILE,
    "code: Keras with a Lambda layer": HOSTILE,
    "archive: zip bomb": HOSTILE,
    "tensor: a head of 2**31 classes": HOSTILE,
    "safetensors: tensor beyond the end": HOSTILE,
    "exported: operator: loading a library": PROGRAMS,
    "ONNX: endless convolutions": PROGRAMS,
    "hangs": BOMBS,
    "crashes on a key": BOMBS,
    "a billion entries": BOMBS,
}


WATCH = """
import json, os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=sys.stderr)
_, status, used = os.wait4(process.pid, 0)
print(json.dumps([os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, used.ru_maxrss * 1024]))
"""
"""Runs a command, its own children included.  A small process, as Linux counts the memory of whoever starts another."""


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, corpus in AS_A_USER.items() if name in corpus])
def test_as_a_user_meets_them(name: str, tmp_path: Path) -> None:
    path, dead, reason = made(tmp_path, AS_A_USER[name], name)
    command = [sys.executable, "-m", "tabor", "scan", str(path), "--data", "digits"]
    weights_only = [] if AS_A_USER[name] is PROGRAMS else ["--size", "12", "--arch", TINY.name]
    watched = [sys.executable, "-c", WATCH, *command, *weights_only]
    done = subprocess.run(watched, capture_output=True, text=True, check=False)
    lines, (code, seconds, memory) = done.stderr.splitlines(), json.loads(done.stdout)
    assert code == 2
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert not dead.exists()
    with pytest.raises(ModelError, match=reason):
        raise ModelError(lines[0])
    check_line(lines[0])
    assert seconds < 30  # of processor time; the clock may be shared with much else
    assert memory < 2 * GIBIBYTE


# What is no file, or does not stay the same


def _socket(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY)  # the name of a socket is short
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(f"/proc/self/fd/{folder}/{path.name}")
    listening.close()
    os.close(folder)


NO_FILES: dict[str, Callable[[Path], None]] = {
    "an endless pipe": lambda path: os.mkfifo(path),
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a terminal": lambda path: path.symlink_to("/dev/tty"),
    "a folder": lambda path: path.mkdir(),
    "a socket": _socket,
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "a link to itself": lambda path: path.symlink_to(path),
}


@pytest.mark.parametrize("name", NO_FILES)
def test_what_is_no_file(name: str, tmp_path: Path) -> None:
    NO_FILES[name](tmp_path / "model.pt")
    with pytest.raises(ModelError, match="there is no model file"):
        load_model(tmp_path / "model.pt", arch=TINY.name)


@pytest.mark.parametrize("content", [saved(weights()), saved(weights(), zipped=False)], ids=["archive", "old"])
def test_a_file_that_grows(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tiny.pt"
    path.write_bytes(content)

    def digest(grown: Sequence[Path]) -> str:
        with grown[0].open("ab") as file:
            file.write(b"more")
        return "0" * 64

    monkeypatch.setattr("tabor.models.load.fingerprint", digest)
    with pytest.raises(ModelError, match="changed while it was read"):
        load_model(path, arch=TINY.name, channels=1, size=TINY.size, isolate=False)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".h5", ""])
def test_a_name_promises_nothing(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(saved(weights()))
    assert load_model(path, arch=TINY.name, channels=1, size=TINY.size, isolate=False).architecture == TINY
    path.write_bytes(HOSTILE["code: canary beside weights"][0](tmp_path / "dead"))
    with pytest.raises(ModelError, match="would call"):
        load_model(path, arch=TINY.name, channels=1, size=TINY.size, isolate=False)


class Own(Tensor):
    """A tensor that may answer in its own way."""


def test_tensors_of_a_class_that_another_library_allows(tmp_path: Path) -> None:
    """Libraries tell PyTorch which of their classes `weights_only` may build; importing one must not change ours."""
    path = tmp_path / "model.pt"
    path.write_bytes(saved({"head.5.bias": torch.zeros(3).as_subclass(Own)}))
    allowed = torch.serialization.safe_globals([Own])
    with allowed, pytest.raises(ModelError, match=r"holds weights of a class of their own: head\.5\.bias"):
        load_model(path, arch=TINY.name, isolate=False)


# Damage


@pytest.fixture(scope="module")
def honest() -> dict[str, bytes]:
    """An honest file of every kind that is read."""
    return {
        "archive": saved(weights()),
        "old": saved(weights(), zipped=False),
        "safetensors": safetensors.torch.save(weights()),
    }


@pytest.mark.parametrize("kind", ["archive", "old", "safetensors"])
def test_truncated_at_every_kilobyte(kind: str, honest: dict[str, bytes], tmp_path: Path) -> None:
    path, whole = tmp_path / "tiny.pt", honest[kind]
    for length in [*range(0, len(whole), 1024), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(ModelError) as caught:
            load_model(path, arch=TINY.name, channels=1, size=TINY.size, isolate=False)
        check_line(str(caught.value))


@pytest.mark.parametrize("kind", ["archive", "old", "safetensors"])
def test_flipped_bits(kind: str, honest: dict[str, bytes], tmp_path: Path) -> None:
    """A flipped bit may do no harm; it may not do anything but be refused, either."""
    path, whole = tmp_path / "tiny.pt", honest[kind]
    places = [*range(0, 2000, 17), *range(2000, len(whole), 1999), *range(len(whole) - 200, len(whole), 7)]
    refused = 0
    for place in places:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << place % 8)]) + whole[place + 1 :])
        try:
            load_model(path, arch=TINY.name, channels=1, size=TINY.size, isolate=False)
        except ModelError as error:
            refused += 1
            check_line(str(error))
    assert refused > 20


def test_archives_with_a_directory_of_the_long_form_and_the_short(tmp_path: Path) -> None:
    """The checks of an archive's end let honest ones pass: those of torch.save, and those of `zip`."""
    path = tmp_path / "model.pt"
    for content in (saved({"w": 1}), checkpoint(table({}))):
        path.write_bytes(content)
        with pytest.raises(ModelError, match="holds no weights"):
            load_model(path, arch=TINY.name, isolate=False)
