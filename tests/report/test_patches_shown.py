"""A class that is flagged by its patch alone is shown, and says why."""

from __future__ import annotations

import dataclasses

from tabor.report.html import render
from tabor.result import ScanResult


def test_a_flagged_class_stands_first_whatever_its_index(scan_result: ScanResult) -> None:
    classes = [dataclasses.replace(f, flagged=f.index == 3) for f in scan_result.classes]
    flagged_by_patch = dataclasses.replace(scan_result, classes=tuple(classes), targets=(3,))
    assert flagged_by_patch.most_suspicious(1)[0].index == 3


def test_the_page_tells_of_the_patch(scan_result: ScanResult) -> None:
    page = render(scan_result, None)
    assert (
        "The patch sends 87.5 % here; among the answers of other classes to patches in that place it has an anomaly "
        "index of 12.50 (flagged above 8.00)." in page
    )
