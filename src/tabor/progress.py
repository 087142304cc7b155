"""The live line of a scan, on standard error: classes done, the smallest mask so far, time left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from tabor.solver import Progress as SearchProgress


@contextmanager
def live(title: str) -> Iterator[Callable[[SearchProgress], None]]:
    """Yields what a scan calls after each round; where standard error is no terminal, nothing is drawn."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[classes]}"),
        TextColumn("{task.fields[mask]}"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=1.0, classes="", mask="")

        def show(at: SearchProgress) -> None:
            mask = "no trigger yet" if at.smallest_mask is None else f"best mask {at.smallest_mask:.0f} px"
            progress.update(task, completed=at.share, classes=f"{at.finished}/{at.classes} classes", mask=mask)

        yield show
