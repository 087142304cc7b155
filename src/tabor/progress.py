"""The live line of a scan, on standard error: classes done, the smallest mask so far, time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from tabor.console import log

if TYPE_CHECKING:
    from tabor.solver import Progress as SearchProgress


SECONDS = 60.0
"""Between two lines of a log."""


@contextmanager
def live(title: str) -> Iterator[Callable[[SearchProgress], None]]:
    """Yields what a scan calls after each round; where standard error is no terminal, a line is logged now and then."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[classes]}"),
        TextColumn("{task.fields[mask]}"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _now_and_then(title)
        return
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(title, total=1.0, classes="", mask="")

        def show(at: SearchProgress) -> None:
            mask = "no trigger yet" if at.smallest_mask is None else f"best mask {at.smallest_mask:.0f} px"
            progress.update(task, completed=at.share, classes=f"{at.finished}/{at.classes} classes", mask=mask)

        yield show


def _now_and_then(title: str) -> Callable[[SearchProgress], None]:
    last = time.monotonic()

    def tell(at: SearchProgress) -> None:
        nonlocal last
        if time.monotonic() - last >= SECONDS:
            last = time.monotonic()
            log(f"{title}: {at.share:.0%} done, {at.finished} of {at.classes} classes")

    return tell
