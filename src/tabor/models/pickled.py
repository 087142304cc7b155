"""A checkpoint that needs code to be read: unpickled in a process of its own, at the caller's word, and read as data.

What stands in the pickle runs there with the user's rights: the process keeps accidents away from the scan (endless
loops, too much memory, crashes), not intent.  Nothing that comes back from it is trusted: this side reads a
safetensors file and a few words.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from tabor.errors import ModelError, one_line
from tabor.models.checkpoint import called_by
from tabor.models.content import Kind
from tabor.models.parts import Given
from tabor.models.safetensors_file import read_record, read_weights

MODEL_FILE = "model.safetensors"
ANSWER_FILE = "answer.json"

SECONDS = 300.0
"""How long unpickling may take, and finding out which network it was: much of it is importing timm."""

MEMORY = 4 * 2**30
"""Bytes that the process may take, beside a few times the file's size."""

COPIES = 6
"""The file, the tensors, the network that is built again, and what they take while they are copied."""

LONGEST_ANSWER = 10_000
"""Bytes of the words that are read."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is wanted.

    Attributes:
        path: the checkpoint.
        folder: where the model and the answer go.
        memory: bytes that may be taken.
        channels, size: of the images that the network takes.
        name_wanted: whether to find out which network it is; else its weights are enough.
    """

    path: str
    folder: str
    memory: int
    channels: int
    size: tuple[int, int]
    name_wanted: bool


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of it, in words; each is empty where there is nothing to say.

    Attributes:
        error: why the checkpoint cannot be read.
        holds: the class of the network in it.
        reason: why no name was found for it.
        doubt: what speaks against the name that was found.
    """

    error: str = ""
    holds: str = ""
    reason: str = ""
    doubt: str = ""


def read_pickled(path: Path, kind: Kind, given: Given) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns the weights by name, and a record with the architecture where the pickle held a network known here.

    Raises:
        ModelError: it cannot be unpickled, takes too long or too much memory, or holds a network that is not known
            here while the caller names none.
    """
    calls = called_by(path, kind)
    given.trust.tell(f"--trust-code: unpickling {one_line(path)}" + (f", which calls {calls}" if calls else ""))
    with _folder(given.trust.scratch) as folder:
        answer = _unpickled(path, given, folder)
        weights, record = read_weights(folder / MODEL_FILE), read_record(folder / MODEL_FILE)
    if given.arch is None and answer.holds and "architecture" not in record:
        raise ModelError(
            f"{one_line(path)} holds a {one_line(answer.holds, 120)}, and {one_line(answer.reason)}; "
            f"name a Python function that builds it: --arch FILE.py:FUNCTION"
        )
    if answer.doubt:
        told = "%s holds a network taken for a %s, but %s"
        name = record.get("architecture", {}).get("name") if isinstance(record.get("architecture"), dict) else None
        logging.getLogger("tabor").warning(told, one_line(path), one_line(name), one_line(answer.doubt))
    return weights, {name: record[name] for name in ("architecture",) if name in record and given.arch is None}


@contextlib.contextmanager
def _folder(scratch: Path | None) -> Iterator[Path]:
    """A folder that is gone afterwards."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="tabor-", dir=scratch, ignore_cleanup_errors=True)
    except OSError as error:
        raise ModelError(f"cannot write into {one_line(scratch)}: {one_line(error.strerror)}") from None
    with folder as name:
        yield Path(name)


def _unpickled(path: Path, given: Given, folder: Path) -> Answer:
    """Has the process write the model into the folder, and returns what it says of it."""
    limit = MEMORY + COPIES * path.stat().st_size
    order = Order(
        path=str(path.absolute()),
        folder=str(folder),
        memory=limit,
        channels=given.channels or 3,
        size=given.size or (32, 32),
        name_wanted=given.arch is None,
    )
    ended = _run("tabor.models.unpickle", json.dumps(vars(order)), folder)
    answer = _answer(folder / ANSWER_FILE)
    if ended is None:
        raise ModelError(f"unpickling {one_line(path)} did not end within {SECONDS:.0f} seconds")
    if answer is None:
        how = f"by signal {-ended} ({signal.strsignal(-ended)})" if ended < 0 else f"with exit code {ended}"
        raise ModelError(f"unpickling {one_line(path)} broke off {how}; it may take {limit:,} bytes of memory")
    if answer.error:
        raise ModelError(f"{one_line(path)} cannot be unpickled: {one_line(answer.error)}")
    return answer


def _run(module: str, text: str, folder: Path) -> int | None:
    """Runs a module of ours with the text as its input, in a group of its own; returns its exit code, None too late."""
    environment = os.environ | {"TMPDIR": str(folder)}
    process = subprocess.Popen(  # noqa: S603 (this interpreter and a module of ours)
        [sys.executable, "-P", "-m", module],  # -P: no module of the current folder is imported instead of another
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
    )
    try:
        process.communicate(text.encode(), timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return None
    finally:
        _end(process)
    return process.returncode


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the process, and those of its group that outlive it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _answer(path: Path) -> Answer | None:
    """What the process says, which a stranger's code may have written."""
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > LONGEST_ANSWER:
            return None
        said: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return Answer(**{name: str(said[name]) for name in ("error", "holds", "reason", "doubt")})
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
