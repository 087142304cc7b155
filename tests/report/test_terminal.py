"""The lines in a terminal."""

from __future__ import annotations

import dataclasses
import io
import re

import pytest
from rich.console import Console, RenderableType

from tabor.console import show
from tabor.report.terminal import summary, table
from tabor.report.words import NOTHING
from tabor.result import ScanResult, Verdict


def _printed(renderable: RenderableType, width: int = 160) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_summary_of_a_backdoor(scan_result: ScanResult) -> None:
    lines = _printed(summary(scan_result)).splitlines()
    assert lines[0] == f"Backdoor found: {scan_result.reason}"
    assert lines[1] == "Target: class 2 (stop & go)"
    assert lines[-1] == "Warning: Only 64 images were given."


@pytest.mark.parametrize(
    ("verdict", "start", "caveat"),
    [
        (Verdict.CLEAN, "No trigger found: ", "no proof of absence"),
        (Verdict.UNDECIDED, "Undecided: ", "neither for the model nor against it"),
    ],
)
def test_summary_without_a_target(scan_result: ScanResult, verdict: Verdict, start: str, caveat: str) -> None:
    printed = _printed(summary(dataclasses.replace(scan_result, verdict=verdict, targets=())))
    assert printed.startswith(start)
    assert caveat in printed
    assert "Target" not in printed


def test_table_shows_the_most_suspicious_first(scan_result: ScanResult) -> None:
    shown = table(scan_result, 2)
    assert shown.row_count == 2
    rows = [re.split(r"\s{2,}", line.strip()) for line in _printed(shown).splitlines()]
    assert [row for row in rows if row[0] in {"2", "3"}] == [
        ["2", "stop & go", "converged, flagged", "6.25", "3.5", "25.0 %", "95.0 %", "12.50"],
        ["3", "$three_3$", "converged", "1.10", "4.5", "37.5 %", "95.0 %", "\N{EN DASH}"],
    ]


def test_table_dashes_for_none_and_markup_as_written(scan_result: ScanResult) -> None:
    printed = _printed(table(scan_result, 99))
    assert "4  four" in printed
    assert NOTHING in next(line for line in printed.splitlines() if "four" in line)
    assert r"[red]five[/red]\x1b[2J" in printed
    assert "\x1b" not in printed


def test_hostile_words_cannot_move_the_cursor_or_forge_a_line(scan_result: ScanResult) -> None:
    hostile = "all is well\nBackdoor found\r\x1b[1A[bold]"
    printed = _printed(summary(dataclasses.replace(scan_result, reason=hostile, warnings=(hostile,))))
    assert len(printed.splitlines()) == len(_printed(summary(scan_result)).splitlines())
    assert r"all is well\nBackdoor found\r\x1b[1A[bold]" in printed


def test_table_fits_eighty_columns(scan_result: ScanResult) -> None:
    lines = _printed(table(scan_result, 99), width=80).splitlines()
    assert max(len(line) for line in lines) <= 80
    assert not any("…" in line for line in lines)


def test_the_table_says_what_flags_a_class(scan_result: ScanResult) -> None:
    printed = " ".join(_printed(table(dataclasses.replace(scan_result, threshold=3.125), 9)).split())
    assert "above 3.12 of a mask far smaller than the others', or a patch index above 8.00." in printed


def test_of_two_classes_the_table_names_no_threshold_of_masks(scan_result: ScanResult) -> None:
    two = dataclasses.replace(scan_result, classes=scan_result.classes[:2])
    printed = " ".join(_printed(table(two, 9)).split())
    assert "Flagged is a patch index above 8.00." in printed
    by_masks = dataclasses.replace(two, patch_threshold=None)
    assert "None of two classes can be flagged." in " ".join(_printed(table(by_masks, 9)).split())


def test_no_number_is_cut_off_in_a_narrow_terminal(
    scan_result: ScanResult, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    show(table(scan_result, 99))
    printed = capsys.readouterr().out
    assert re.search(r"converged, .*12\.50", printed)
    assert "…" not in printed
