"""A short run of the fuzzer, always over the same files; `python -m tests.hostile.fuzz` is the long one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("onnx")

from ..models.exporting import small
from . import fuzz, mutations
from .makers import TINY
from .programs import onnx_model


@pytest.mark.slow
@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_broken_files(target: str, tmp_path: Path) -> None:
    outcomes = fuzz.fuzz(target, tmp_path, examples=150)
    assert outcomes["refused"] > 30
    assert outcomes.total() >= 150


@pytest.mark.parametrize("kind", mutations.WHOLE)
def test_what_is_broken_was_whole(kind: str, tmp_path: Path) -> None:
    """Or else the fuzzer would only ever see a file's first refusal."""
    path = tmp_path / "tiny.pt"
    path.write_bytes(mutations.WHOLE[kind])
    assert fuzz.attempt(path, tmp_path / "dead", TINY.name) == "loaded"


@pytest.mark.parametrize("make", [small, onnx_model], ids=["exported", "ONNX"])
def test_what_programs_were_whole(make: Callable[[], bytes], tmp_path: Path) -> None:
    path = tmp_path / "tiny.pt"
    path.write_bytes(make())
    assert fuzz.attempt(path, tmp_path / "dead", None) == "loaded"


@pytest.mark.parametrize("age", mutations.OPCODES)
def test_opcodes_can_be_put_together_again(age: str, tmp_path: Path) -> None:
    path = tmp_path / "tiny.pt"
    path.write_bytes(mutations.packed(b"".join(mutations.OPCODES[age]), age))
    assert fuzz.attempt(path, tmp_path / "dead", TINY.name) == "loaded"


def test_a_canary_is_noticed(tmp_path: Path) -> None:
    path, dead = tmp_path / "tiny.pt", tmp_path / "dead"
    path.write_bytes(b"")
    dead.touch()
    with pytest.raises(AssertionError):
        fuzz.attempt(path, dead, None)


def test_another_error_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OverflowError

    monkeypatch.setattr(fuzz, "load_model", fail)
    with pytest.raises(OverflowError):
        fuzz.fuzz("headers", tmp_path, examples=1)
