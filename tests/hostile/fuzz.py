"""Fuzzing the loaders: `python -m tests.hostile.fuzz --minutes 10`, from the repository's root.

Whatever a file holds, `load_model` returns a model or raises ModelError with one printable line, soon, in little
memory, and without running anything.  Everything happens in this process, for speed, so that a file that crashes the
reader ends the run; it is left beside the canary, as `tiny.pt`.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import HypothesisWarning

from tabor.errors import ModelError
from tabor.models import load_model

from .makers import TINY
from .mutations import TARGETS as WEIGHTS
from .programs import PROGRAMS

TARGETS = {**WEIGHTS, **PROGRAMS}

LONGEST = 5.0
"""Seconds of processor time that any of these small files may take."""

MEMORY = 2**30
"""Bytes beyond what the process has that reading may take; a rehearsal's limit, which some files would exceed."""

TOLD = ("bytes, archive", "bytes, old", "records", "opcodes, archive", "opcodes, old", "calls")
"""Targets whose files do not say which network they are."""


def attempt(path: Path, dead: Path, arch: str | None) -> str:
    """Loads one file; returns what became of it, in a word or two.

    Raises:
        AssertionError: it did what no file may.
    """
    began = time.process_time()
    try:
        if arch is None:
            load_model(path, isolate=False)
        else:
            load_model(path, arch=arch, channels=1, size=TINY.size, isolate=False)
        refusal = None
    except ModelError as error:
        refusal = str(error)
    assert refusal is None or (refusal.isprintable() and 0 < len(refusal) < 700)
    assert time.process_time() - began < LONGEST
    assert not dead.exists()
    return "loaded" if refusal is None else "refused"


def fuzz(target: str, folder: Path, examples: int, start: int | None = None) -> Counter[str]:
    """Breaks files in one way; returns how many were loaded and how many refused.

    Args:
        target: which, of `TARGETS`.
        folder: where to write them.
        examples: how many to try.
        start: a seed; None: always the same files.
    """
    path, dead, outcomes = folder / "tiny.pt", folder / "dead", Counter[str]()
    arch = TINY.name if target in TOLD else None

    def one(content: bytes) -> None:
        path.write_bytes(content)
        outcomes[attempt(path, dead, arch)] += 1

    seeded: Any = seed(start) if start is not None else lambda test: test
    configured: Any = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=start is None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    run: Callable[[], None] = configured(seeded(given(TARGETS[target](dead))(one)))
    with limited(MEMORY):
        run()
    return outcomes


@contextmanager
def limited(memory: int) -> Iterator[None]:
    """Lets this process take so many more bytes of memory, for as long as the block runs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    taken = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_DATA, (taken + memory, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def main() -> None:
    """Goes through all targets, again and again with other seeds, until the time is up or something is found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--target", choices=sorted(TARGETS), action="append")
    chosen = parser.parse_args()
    until, start, totals = time.monotonic() + 60 * chosen.minutes, chosen.seed, Counter[str]()
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    warnings.simplefilter("ignore", HypothesisWarning)  # of long files in its reports
    while time.monotonic() < until:
        for target in chosen.target or TARGETS:
            outcomes = fuzz(target, folder, 200, start)
            totals.update({f"{target}, {outcome}": count for outcome, count in outcomes.items()})
        start += 1
        sys.stderr.write(f"seed {start}: {dict(sorted(totals.items()))}\n")


if __name__ == "__main__":
    main()
