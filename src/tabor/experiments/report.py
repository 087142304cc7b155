"""What an experiment found, as a page, as plain values, and as a picture laid out as in the paper."""

from __future__ import annotations

import json
import os
import platform
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from tabor.files import replacing, write_text
from tabor.report.figures import trigger_picture
from tabor.trigger import Trigger

CAPTION_WIDTH = 22


@dataclass(frozen=True)
class Shown:
    """A trigger and what stands under it."""

    caption: str
    trigger: Trigger


@dataclass(frozen=True, kw_only=True)
class Report:
    """An experiment's outcome.

    Attributes:
        title: what it is, in the paper's words or nearly.
        paper: what the paper reports, in words.
        columns: of the table.
        rows: of the table, as text.
        figures: the same as plain values, for the JSON file.
        pictures: rows of triggers, side by side.
        wrong: what did not come out as it must; empty where all did.
        stand_ins: what stood for the paper's data and networks, a setting each.
    """

    title: str
    paper: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    figures: Sequence[dict[str, Any]]
    pictures: Sequence[Sequence[Shown]]
    wrong: Sequence[str]
    stand_ins: Sequence[str]

    @property
    def stand_in(self) -> str:
        """The stand-ins in one sentence."""
        return "; ".join(dict.fromkeys(self.stand_ins))


def write(report: Report, name: str, command: str, device: str, out: Path) -> list[Path]:
    """Writes `NAME.json`, `NAME.md` and `NAME.png`.

    Args:
        report: the outcome.
        name: of the experiment.
        command: that made it.
        device: where it ran.
        out: the folder.

    Returns:
        The three files.

    Raises:
        TaborError: a file cannot be written.
    """
    made = {
        "command": command,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {device}",
        "torch": torch.__version__,
        "date": datetime.now(UTC).date().isoformat(),
    }
    paths = [out / f"{name}.{kind}" for kind in ("json", "md", "png")]
    values = {"experiment": name, "stand_in": report.stand_in, **made, "rows": report.figures, "wrong": report.wrong}
    write_text(paths[0], json.dumps(values, indent=2, ensure_ascii=False) + "\n")
    write_text(paths[1], _page(report, name, made))
    _draw(report.pictures, paths[2])
    return paths


def _page(report: Report, name: str, made: dict[str, str]) -> str:
    table = [_line(report.columns), "|" + " --- |" * len(report.columns), *map(_line, report.rows)]
    outcome = (
        "\n".join(f"- **Not as it must be**: {fault}." for fault in report.wrong) or "Everything came out as it must."
    )
    parts = [
        f"# {report.title}",
        "\n".join(textwrap.wrap(f"{report.stand_in[0].upper()}{report.stand_in[1:]}. The paper: {report.paper}", 120)),
        f"```sh\n{made['command']}\n```",
        f"Made on {made['date']}: {made['machine']}, torch {made['torch']}.",
        "\n".join(table),
        outcome,
        f"![the triggers]({name}.png)",
    ]
    return "\n\n".join(parts) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _draw(pictures: Sequence[Sequence[Shown]], path: Path) -> None:
    from matplotlib.figure import Figure  # not pyplot, whose figures are global state

    columns = max(map(len, pictures))
    figure = Figure(figsize=(1.7 * columns, 2.1 * len(pictures)), layout="constrained")
    grid = figure.subplots(len(pictures), columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for row, shown in zip(grid, pictures, strict=True):
        for axes, each in zip(row, shown, strict=False):
            axes.imshow(trigger_picture(each.trigger), interpolation="nearest")
            axes.set_title("\n".join(textwrap.wrap(each.caption, CAPTION_WIDTH)), fontsize=7)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
