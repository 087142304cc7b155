"""A class that is flagged by its patch alone is shown, and says why."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tabor.report.html import render
from tabor.result import ScanResult


def test_a_flagged_class_stands_first_whatever_its_index(scan_result: ScanResult) -> None:
    classes = [dataclasses.replace(f, flagged=f.index == 3) for f in scan_result.classes]
    flagged_by_patch = dataclasses.replace(scan_result, classes=tuple(classes), targets=(3,))
    assert flagged_by_patch.most_suspicious(1)[0].index == 3


def test_the_page_tells_of_the_patch(scan_result: ScanResult) -> None:
    page = render(scan_result, None)
    assert (
        "The patch sends 87.5 % here; beside the answers of other classes it has an anomaly index of 12.50 "
        "(flagged above 8.00).</p>" in page
    )


@pytest.mark.parametrize(
    ("likeness", "said"),
    [
        (-0.125, "That is below 0.50, as of hardly any natural patch, and the index is 2.30 more for it."),
        (0.5, "Natural patches too have 0.50 and more."),
    ],
)
def test_the_page_tells_whether_the_patch_is_foreign(
    scan_result: ScanResult, tmp_path: Path, likeness: float, said: str
) -> None:
    found = scan_result.finding(2)
    assert found.patch is not None
    shown = dataclasses.replace(found, patch=dataclasses.replace(found.patch, likeness=likeness))
    classes = tuple(shown if f.index == 2 else f for f in scan_result.classes)
    dataclasses.replace(scan_result, classes=classes).save(tmp_path)
    share = f"Its likeness is {likeness:.2f}: what part of its effect is owed to how the class looks."
    assert f"(flagged above 8.00). {share} {said}</p>" in render(ScanResult.load(tmp_path), None)
