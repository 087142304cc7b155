"""Memory that is freed stays with the process that asked for it, and only there."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tabor.allocator import give_back_freed, keep_freed
from tabor.cli import main

LARGE = 2**26
PAGES = LARGE // 4096

USE = f"""
import json, resource, sys
import psutil
from tabor.allocator import give_back_freed, keep_freed

def use():
    large = bytearray({LARGE})
    large[::4096] = bytes({PAGES})

if sys.argv[1] == "keep":
    keep_freed()
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    use()
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
kept = psutil.Process().memory_info().rss
give_back_freed()
print(json.dumps([faults, kept - psutil.Process().memory_info().rss]))
"""

on_glibc = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc"
)


def used(how: str) -> tuple[int, int]:
    """Page faults of four large allocations after a first one, and the bytes that are given back then."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run([sys.executable, "-c", USE, how], capture_output=True, text=True, check=True, env=plain)
    faults, given_back = json.loads(done.stdout)
    return faults, given_back


@on_glibc
def test_what_is_freed_is_kept_for_the_next_until_it_is_given_back() -> None:
    faults, given_back = used("keep")
    assert faults < PAGES / 10
    assert given_back > LARGE / 2


@on_glibc
def test_without_that_each_large_one_comes_anew_from_the_kernel() -> None:
    faults, given_back = used("as it is")
    assert faults > 3 * PAGES
    assert given_back < LARGE / 2


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_another_c_library_is_left_as_it_is(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())
    keep_freed()
    give_back_freed()


def test_every_command_keeps_what_is_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[bool] = []
    monkeypatch.setattr("tabor.cli.keep_freed", lambda: kept.append(True))
    assert main(["scan", "missing.safetensors", "--data", "digits"]) == 2
    assert kept == [True]
