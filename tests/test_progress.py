"""What a scan tells while it goes on, where nobody watches a terminal."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tabor.progress import SECONDS, live
from tabor.solver import Progress


def test_a_line_is_logged_now_and_then(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("tabor.progress.time", SimpleNamespace(monotonic=lambda: clock.now))
    with live("scanning") as tell:
        for share in range(10):
            clock.now += 0.4 * SECONDS
            tell(Progress(finished=share, classes=43, share=share / 10, smallest_mask=None))
    assert capsys.readouterr().err.splitlines() == [
        f"scanning: {share}0% done, {share} of 43 classes" for share in (2, 5, 8)
    ]
