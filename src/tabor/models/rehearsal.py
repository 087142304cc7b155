"""What the child process of a rehearsal does: it sets its limits, reads the file, and says how that went."""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

from tabor.errors import ModelError
from tabor.models.isolation import LONGEST_ANSWER
from tabor.models.load import rehearse
from tabor.models.parts import Given


def limit(memory: int, seconds: int) -> None:
    """Limits this process for good: memory and processor time beyond what is used, no files, no core dump."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (LONGEST_ANSWER, LONGEST_ANSWER))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    # Not RLIMIT_AS, which counts gigabytes that PyTorch reserves and never touches.
    taken = _data()
    if taken is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (taken + memory, taken + memory))


def _data() -> int | None:
    """Bytes of memory that count for RLIMIT_DATA; None where only Linux could say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    except OSError:
        return None


def perform() -> None:
    """Reads the order from standard input, answers on standard output with an error's text, or null, and ends all."""
    with open(0, closefd=False) as written:  # in a fork, sys.stdin is another
        order: dict[str, Any] = json.load(written)
    answer = os.dup(1)
    os.dup2(2, 1)  # a parser that prints shall not be taken for us
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in order["given"].items()
    }
    sys.dont_write_bytecode = True  # what a library's import writes would be cut off by the limit, and stay so
    limit(**order["limits"])
    told = None
    try:
        rehearse(Path(order["path"]), Given(**given))
    except ModelError as error:
        told = str(error)
    except Exception as error:  # noqa: BLE001 (whatever a stranger's file brings about)
        told = f"{order['path']} is not opened: its reader failed ({type(error).__name__})"
    os.write(answer, json.dumps({"error": told}).encode()[:LONGEST_ANSWER])
    os._exit(0)  # at once: what was read may take long to take down


if __name__ == "__main__":
    perform()
