"""The verdict and the most suspicious classes in a terminal.

Everything is built as `rich.text.Text`, never as markup: a class called `[red]` shows as written.
"""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from tabor.class_finding import ClassFinding
from tabor.errors import one_line
from tabor.report import words
from tabor.result import ScanResult, Verdict

# No green: "no trigger found" is not a promise.
STYLES = {Verdict.BACKDOORED: "bold red", Verdict.CLEAN: "bold", Verdict.UNDECIDED: "bold yellow"}

# Two lines each, so that the table fits a terminal of 80 columns.
HEADINGS = ("anomaly\nindex", "mask L1\n(pixels)", "attack\nsuccess", "crop\naccuracy", "patch\nindex")
NAME_LIMIT = 40  # characters; a longer class name would push the numbers off the screen


def summary(result: ScanResult) -> Text:
    """Returns the verdict with its reason, the targets, the caveat and the warnings, a line each."""
    text = Text(words.HEADLINES[result.verdict], style=STYLES[result.verdict])
    text.append(f": {one_line(result.reason)}", style="not bold default")
    for index, name in words.targets(result):
        text.append(f"\nTarget: class {index:d}", style="bold default")
        text.append(f" ({one_line(name, NAME_LIMIT)})", style="not bold default")
    text.append(f"\n{words.CAVEATS[result.verdict]}", style="not bold default")
    for warning in result.warnings:
        text.append(f"\nWarning: {one_line(warning)}", style="not bold yellow")
    return text


def table(result: ScanResult, count: int) -> Table:
    """Returns a table of up to `count` classes, the most suspicious first."""
    title = Text("\nMost suspicious classes")
    below = Text(_below(result, count))
    grid = Table(title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    grid.caption, grid.caption_justify = below, "left"
    grid.add_column("class", justify="right", no_wrap=True)
    grid.add_column("name", overflow="fold")
    grid.add_column("status", min_width=10)
    for heading in HEADINGS:
        grid.add_column(heading, justify="right", no_wrap=True)
    for finding in result.most_suspicious(count):
        grid.add_row(*_cells(finding), style=STYLES[Verdict.BACKDOORED] if finding.flagged else "")
    return grid


def _below(result: ScanResult, count: int) -> str:
    """What the numbers are held against, and how many classes are not shown."""
    masks = f"an anomaly index above {words.number(result.threshold)} of a mask far smaller than the others'"
    grounds = [masks] if words.compares_masks(result) else []
    if result.patch_threshold is not None:
        grounds.append(f"a patch index above {words.number(result.patch_threshold)}")
    more = max(0, len(result.classes) - count)
    left_out = f"; {more} more {'class' if more == 1 else 'classes'}" if more else ""
    said = f"Flagged is {', or '.join(grounds)}" if grounds else "None of two classes can be flagged"
    return f"{said}{left_out}."


def _cells(finding: ClassFinding) -> list[Text]:
    flag = ", flagged" if finding.flagged else ""
    cells = (
        f"{finding.index:d}",
        one_line(finding.name, NAME_LIMIT),
        words.status(finding) + flag,
        words.number(finding.anomaly_index),
        words.number(finding.mask_l1, 1),
        words.percent(finding.attack_success),
        words.percent(finding.crop_accuracy),
        words.number(finding.patch.anomaly_index if finding.patch else None),
    )
    return [Text(cell) for cell in cells]
