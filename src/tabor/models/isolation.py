"""The rehearsal: a stranger's file is first read in a process of its own, with limits, before it is read in this one.

Some formats have a parser of their own, which a file can make hang (`set(bytearray(2**40))` in a pickle of 40 bytes),
take all memory (a tuple of as many numbers), or crash (a key that is a tuple in a tuple in a tuple …).  The settings
of a Hugging Face folder can ask for a network that takes hours to answer, though its weights are few.  The child
process calls the very same reader; only when that went well does this process read the file, which must not have
changed in between.

This is no sandbox: the child may do what the user may.  That nothing in a file is run is the readers' promise, not the
rehearsal's.  The child could also write what it read as safetensors, for this process to read, but only for weights:
what the readers of programs make is a network, which is no data, and one mechanism for all is easier to be sure of.
The weights of a folder for the network of another one (`hub:` as the architecture) are not rehearsed, as that one would
be fetched twice.  Safetensors files need none: what their reader takes is bounded by the file and its header, and the
header's size is bounded (`content.LARGEST_HEADER`).

The child is a new Python, which imports PyTorch first: two seconds, more than most files take.  Where this process is
known to have one thread only (no other could hold a lock that the child would wait for), it is a fork of this one.
"""

from __future__ import annotations

import faulthandler
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import torch

from tabor.errors import ModelError, one_line
from tabor.models.parts import Given

LONGEST_ANSWER = 10_000
"""Bytes."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a reader may take.

    Attributes:
        memory: bytes beyond what Python and its libraries take before the file is opened.
        seconds: of wall time, from the start of the process, and of processor time.
    """

    memory: int
    seconds: int

    @classmethod
    def of(cls, size: int, described: bool = False) -> Limits:
        """Returns what an honest file stays far below.

        Args:
            size: in bytes; that of a file with holes in it may be anything.
            described: whether its network is transformers' or timm's by settings, so that the libraries are imported.
        """
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
        begin = 60 if described else 20
        return cls(memory=min(2**30 + 8 * size, max(memory, 2**30)), seconds=min(begin + size // 10_000_000, 600))


@contextmanager
def rehearsed(path: Path, given: Given, limits: Limits) -> Iterator[None]:
    """Reads a file in a child process while the block runs, and waits for it when the block is done.

    Args:
        path: the file.
        given: what the caller says about the model.
        limits: what the child may take.

    Raises:
        ModelError: the reader refused the file, exceeded a limit, or crashed.
    """
    deadline = time.monotonic() + limits.seconds
    # Files, not pipes: a child that neither reads nor ends, or that writes without end, holds nobody up.
    with tempfile.TemporaryFile() as order, tempfile.TemporaryFile() as answer:
        said = given.changes() | {"arch": given.arch}
        order.write(json.dumps({"path": str(path), "given": said, "limits": asdict(limits)}).encode())
        order.seek(0)
        child = _Fork(order, answer) if may_fork() else _NewPython(order, answer)
        try:
            yield
            ended = child.wait(max(0, deadline - time.monotonic()))
        finally:
            child.end()
        answer.seek(0)
        _judge(path, -signal.SIGXCPU if ended is None else ended, answer.read(LONGEST_ANSWER), limits)


def may_fork() -> bool:
    """Whether this process can be forked: on macOS, system libraries cannot; elsewhere, no other thread may run.

    Python lets a daemonic process, such as a worker of a pool or of a data loader, have none for a child.
    """
    daemonic = multiprocessing.current_process().daemon
    return sys.platform == "linux" and threading.active_count() == 1 and not daemonic


class _NewPython:
    """The child as a Python of its own."""

    def __init__(self, order: IO[bytes], answer: IO[bytes]) -> None:
        self._process = subprocess.Popen(
            # -P, since -m would look into the current folder first, which may be the stranger's.
            [sys.executable, "-P", "-m", "tabor.models.rehearsal"],
            stdin=order,
            stdout=answer,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )

    def wait(self, seconds: float) -> int | None:
        """Returns its exit code, below 0 for a signal; None if it takes longer."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def end(self) -> None:
        """Makes sure that nothing of it stays."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


class _Fork:
    """The child as a copy of this process."""

    def __init__(self, order: IO[bytes], answer: IO[bytes]) -> None:
        self._process = multiprocessing.get_context("fork").Process(target=self._perform, args=(order, answer))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # PyTorch's own threads hold no lock when idle
            self._process.start()

    @staticmethod
    def _perform(order: IO[bytes], answer: IO[bytes]) -> None:
        from tabor.models.rehearsal import perform

        os.setsid()
        faulthandler.disable()  # it would tell of a crash where the caller is told of its own
        for number, file in enumerate((order, answer)):
            os.dup2(file.fileno(), number)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        torch.set_num_threads(1)
        perform()

    def wait(self, seconds: float) -> int | None:
        """Returns its exit code, below 0 for a signal; None if it takes longer."""
        self._process.join(seconds)
        return self._process.exitcode

    def end(self) -> None:
        """Makes sure that nothing of it stays."""
        if self._process.exitcode is None and self._process.pid is not None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:  # it has no group of its own yet
                self._process.kill()
            self._process.join()


def _judge(path: Path, ended: int, answer: bytes, limits: Limits) -> None:
    """Turns what became of the child into an error, unless it says that all went well."""
    if ended == 0:
        try:
            told = json.loads(answer)["error"]
        except (ValueError, TypeError, LookupError, RecursionError):
            told = f"{path} is not opened: its reader gave no answer"
        if told is None:
            return
        raise ModelError(one_line(told, 1000))
    if ended == -signal.SIGXCPU:
        why = f"to read it took more than {limits.seconds} s"
    else:
        name = signal.Signals(-ended).name if ended < 0 else f"code {ended}"
        why = f"its reader crashed ({name}), or ran out of memory"
    raise ModelError(f"{one_line(path)} is not opened: {why}; whoever trusts it can read it with --no-isolate")


def state_of(path: Path) -> tuple[int, ...]:
    """Returns what changes when a file does; of its two times, a stranger can set back the first alone.

    Raises:
        ModelError: there is no such file.
    """
    try:
        found = path.stat()
    except (OSError, ValueError):
        raise ModelError(f"there is no model file {one_line(path)}") from None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def check_unchanged(paths: Sequence[Path], before: Sequence[tuple[int, ...]]) -> None:
    """Makes sure that files are those that they were.

    Raises:
        ModelError: one is not.
    """
    for path, state in zip(paths, before, strict=True):
        if state_of(path) != state:
            raise ModelError(f"{one_line(path)} changed while it was read")
