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
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

from tabor.errors import ModelError
from tabor.models import load_model

from .makers import TINY
from .mutations import TARGETS

LONGEST = 5.0
"""Seconds of processor time that any of these small files may take."""

LARGEST = 2**30
"""Bytes of memory by which all of them together may make the process grow."""

ARCHITECTURES = {"headers": None, "bytes, safetensors": None}
"""Targets whose files say themselves which network they are."""


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
    arch = ARCHITECTURES.get(target, TINY.name)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def one(content: bytes) -> None:
        path.write_bytes(content)
        outcomes[attempt(path, dead, arch)] += 1

    wrapped = given(TARGETS[target](dead))(one)
    wrapped = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=start is None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )(wrapped if start is None else seed(start)(wrapped))
    wrapped()
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < LARGEST
    return outcomes


def main() -> None:
    """Goes through all targets, again and again with other seeds, until the time is up or something is found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--target", choices=sorted(TARGETS), action="append")
    chosen = parser.parse_args()
    until, start, totals = time.monotonic() + 60 * chosen.minutes, chosen.seed, Counter[str]()
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    while time.monotonic() < until:
        for target in chosen.target or TARGETS:
            outcomes = fuzz(target, folder, 200, start)
            totals.update({f"{target}, {outcome}": count for outcome, count in outcomes.items()})
        start += 1
        sys.stderr.write(f"seed {start}: {dict(sorted(totals.items()))}\n")


if __name__ == "__main__":
    main()
