"""What a person reads of a scan: pictures, page, lines in a terminal; each a function of a `ScanResult`."""

from __future__ import annotations

from pathlib import Path

from tabor.data import ImageSet
from tabor.report.figures import save_pictures
from tabor.report.html import pictured, write_report
from tabor.result import ScanResult

__all__ = ["write_run"]


def write_run(folder: str | Path, result: ScanResult, images: ImageSet | None) -> Path:
    """Writes the pictures of the classes that the page shows, and the page.

    Args:
        folder: the run's folder.
        result: the scan.
        images: clean images to show the trigger on, or None.

    Returns:
        The page's path.

    Raises:
        TaborError: the folder cannot be written.
    """
    save_pictures(result, images, folder, pictured(result))
    return write_report(folder, result, images)
