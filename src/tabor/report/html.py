"""The report of a scan as one self-contained page: no scripts, nothing fetched, readable for years."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tabor.class_finding import ClassFinding
from tabor.data.images import ImageSet
from tabor.errors import one_line
from tabor.files import write_text
from tabor.report import figures, words
from tabor.result import REPORT_FILE, ScanResult
from tabor.suspect import FOREIGN, OWED, reliability

PICTURED_WHEN_NONE = 3  # classes, when none is flagged
MOST_PICTURED = 12  # a model with a hundred flagged classes shall still open in a browser
TEXT_LIMIT = 2000  # characters of any one string from a file

Facts = list[tuple[str, Any]]


@dataclass(frozen=True)
class Pictured:
    """One class of the gallery: its finding, and its pictures as data: URIs."""

    finding: ClassFinding
    mask: Markup
    trigger: Markup
    stamped: Markup | None


def pictured(result: ScanResult) -> Sequence[int]:
    """Returns the classes that are shown in pictures: the first flagged ones, the most suspicious where none is."""
    return result.targets[:MOST_PICTURED] or [finding.index for finding in result.most_suspicious(PICTURED_WHEN_NONE)]


def render(result: ScanResult, images: ImageSet | None) -> str:
    """Returns the page.

    Args:
        result: the scan.
        images: clean images like those scanned, to show the trigger on one; None leaves those pictures out.

    Raises:
        TaborError: the images are not of the triggers' shape.
    """
    environment = _environment()
    targets = words.targets(result)
    return environment.get_template("report.html").render(
        result=result,
        headline=words.HEADLINES[result.verdict],
        caveat=words.CAVEATS[result.verdict],
        compares_masks=words.compares_masks(result),
        targets=targets[:MOST_PICTURED],
        left_out=max(0, len(targets) - MOST_PICTURED),
        gallery=[_pictured(result, result.finding(index), images) for index in pictured(result)],
        chart=_data_uri(figures.anomaly_chart(result)),
        chart_dark=_data_uri(figures.anomaly_chart(result, dark=True)),
        facts=_facts(result),
        owed=OWED,
        foreign=FOREIGN,
        reliability=reliability,
        style_hash=_style_hash(environment.get_template("report.css").render()),
    )  # fmt: skip


def write_report(folder: str | Path, result: ScanResult, images: ImageSet | None) -> Path:
    """Writes `report.html` into the folder, whole or not at all, and returns its path.

    Raises:
        TaborError: the folder cannot be written, or the images are not of the triggers' shape.
    """
    path = Path(folder) / REPORT_FILE
    write_text(path, render(result, images))
    return path


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("tabor", "report/templates"),
        autoescape=True,  # not by the file's extension: a renamed template would silently switch it off
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": words.number, "percent": words.percent, "status": words.status}
    return environment


def _shown(value: Any) -> Any:
    """What the page shows for any value; as the `finalize` of the environment no string can get around it."""
    if value is None:
        return words.NOTHING
    if isinstance(value, Markup):
        return value
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return one_line(", ".join(str(_shown(item)) for item in value), TEXT_LIMIT)
    return one_line(value, TEXT_LIMIT)


def _pictured(result: ScanResult, finding: ClassFinding, images: ImageSet | None) -> Pictured:
    trigger = result.trigger(finding.index)
    stamped = None
    if images is not None:
        picture = figures.stamped_picture(figures.example_image(images, finding.index), trigger)
        stamped = _data_uri(figures.png(picture))
    return Pictured(
        finding=finding,
        mask=_data_uri(figures.png(figures.mask_picture(trigger))),
        trigger=_data_uri(figures.png(figures.trigger_picture(trigger))),
        stamped=stamped,
    )


def _data_uri(png: bytes) -> Markup:
    return Markup("data:image/png;base64,{}").format(base64.b64encode(png).decode("ascii"))


def _style_hash(style: str) -> str:
    """The Content-Security-Policy source that allows this one style sheet and no other."""
    return "sha256-" + base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")


def _facts(result: ScanResult) -> dict[str, Facts]:
    return {
        "Model": _rows(result.model),
        "Data": [*_rows(result.data), ("clean accuracy", words.percent(result.clean_accuracy))],
        "Settings": [
            ("method", result.method),
            ("preset", result.preset),
            ("threshold", f"{result.threshold:.2f}"),
            ("seed", result.seed),
            ("device", result.device),
            *_rows(result.settings),
        ],
        "Timing": [(label, _grouped(value)) for label, value in _rows(result.timing)],
        "Version": [("tabor", result.tabor_version)],
    }


def _rows(values: Mapping[str, Any], prefix: str = "") -> Facts:
    """Flattens nested mappings into rows, in the order given."""
    rows: Facts = []
    for key, value in values.items():
        label = prefix + str(key).replace("_", " ")
        rows.extend(_rows(value, label + ": ") if isinstance(value, Mapping) else [(label, value)])
    return rows


def _grouped(value: Any) -> Any:
    """Separates the thousands of a count, which may run to billions."""
    return f"{value:,}" if isinstance(value, int) else value
