"""The page: what it says, and that nothing from a stranger's file becomes markup or a fetch."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from tabor.data.images import ImageSet
from tabor.errors import TaborError
from tabor.report import write_run
from tabor.report.html import render, write_report
from tabor.report.words import NOTHING
from tabor.result import ScanResult, Verdict

HOSTILE = '"><img src=https://evil.example/x onerror=alert(1)>{{ 7 * 7 }}\x1b[2J\x00\u202e\ud800'


class Page(HTMLParser):
    """Gathers a page's tags, links and visible text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.extend(attrs)

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def links(self) -> list[str]:
        return [value or "" for name, value in self.attributes if name in {"src", "href", "srcset", "poster", "data"}]


def _without_target(result: ScanResult, verdict: Verdict) -> ScanResult:
    classes = tuple(dataclasses.replace(finding, flagged=False) for finding in result.classes)
    return dataclasses.replace(result, verdict=verdict, targets=(), classes=classes)


def _hostile(result: ScanResult) -> ScanResult:
    """The result with the same hostile text in every place that holds text."""
    return dataclasses.replace(
        result,
        reason=HOSTILE,
        method=HOSTILE,
        preset=HOSTILE,
        device=HOSTILE,
        tabor_version=HOSTILE,
        warnings=(HOSTILE,),
        settings={HOSTILE: [HOSTILE], "nested": {HOSTILE: HOSTILE}},
        model=dict.fromkeys(result.model, HOSTILE),
        data=dict.fromkeys(result.data, HOSTILE),
        classes=tuple(dataclasses.replace(finding, name=HOSTILE) for finding in result.classes),
    )


@pytest.fixture(scope="module")
def source(scan_result: ScanResult, images: ImageSet) -> str:
    """The page, rendered once for the tests that only read it."""
    return render(scan_result, images)


def test_backdoor_found(scan_result: ScanResult, source: str) -> None:
    text = Page(source).text
    assert "Backdoor found" in text
    assert "Target: class 2 (stop & go)" in text
    assert scan_result.reason in text
    assert "Only 64 images were given." in text
    assert "no proof of absence" not in text


@pytest.mark.parametrize(
    ("verdict", "headline", "caveat"),
    [
        (Verdict.CLEAN, "No trigger found", "This is no proof of absence"),
        (Verdict.UNDECIDED, "Undecided", "neither for the model nor against it"),
    ],
)
def test_nothing_found(scan_result: ScanResult, verdict: Verdict, headline: str, caveat: str) -> None:
    result = dataclasses.replace(_without_target(scan_result, verdict), reason="Because.")
    text = Page(render(result, None)).text
    assert headline in text
    assert caveat in text
    assert "Backdoor found" not in text
    assert not re.search(r"\b(safe|trustworthy|model is clean)\b", text, re.IGNORECASE)


def test_table_holds_each_class_and_dashes_for_none(source: str) -> None:
    text = Page(source).text
    assert "2 stop & go converged, flagged 6.25 3.5 25.0 % 95.0 % 50.0 %" in text
    assert f"4 four no trigger {NOTHING} 5.5 50.0 % 95.0 % 50.0 %" in text


def test_facts(source: str) -> None:
    text = Page(source).text
    for fact in (
        "sha256 " + "ab" * 32, "architecture tabor:gtsrb6", "images 64", "clean accuracy 98.4 %", "seed 0",
        "weights: r1 0.001", f"weights: r2 {NOTHING}", "sizes 8, 8", "seconds 12.5", "image passes 19,200",
        f"peak memory bytes {NOTHING}", "tabor 0.1.0",
    ):  # fmt: skip
        assert fact in text


def _pictured(page: str) -> list[str]:
    return re.findall(r'alt="Trigger of class (\d+)"', page)


def test_pictures_of_the_flagged_or_of_the_three_most_suspicious(scan_result: ScanResult, source: str) -> None:
    assert _pictured(source) == ["2"]
    assert _pictured(render(_without_target(scan_result, Verdict.CLEAN), None)) == ["2", "3", "0"]


@pytest.mark.parametrize("flagged", [True, False])
def test_a_run_has_pictures_of_the_classes_on_its_page(
    flagged: bool, scan_result: ScanResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tabor.report.html.PICTURED_WHEN_NONE", 2)
    result = scan_result if flagged else _without_target(scan_result, Verdict.CLEAN)
    page = write_run(tmp_path, result, None).read_text(encoding="utf-8")
    files = {path.name.split("-")[1] for path in (tmp_path / "figures").iterdir()}
    assert files == set(_pictured(page)) == ({"2"} if flagged else {"2", "3"})


def test_many_flagged_classes_are_not_all_pictured(scan_result: ScanResult) -> None:
    classes = tuple(dataclasses.replace(scan_result.classes[0], index=k, flagged=True) for k in range(15))
    triggers = dict.fromkeys(range(15), scan_result.trigger(0))
    page = render(dataclasses.replace(scan_result, classes=classes, triggers=triggers, targets=tuple(range(15))), None)
    assert len(_pictured(page)) == 12
    assert "3 more flagged classes are in the table" in page


def test_stamped_picture_needs_images(scan_result: ScanResult, source: str) -> None:
    assert "A clean image" in source
    assert "A clean image" not in render(scan_result, None)


def test_images_of_another_shape(scan_result: ScanResult, images: ImageSet) -> None:
    with pytest.raises(TaborError, match="same size"):
        render(scan_result, ImageSet(images.images[:, :, :4], images.labels, ()))


def test_pictures_are_inside_the_page(source: str) -> None:
    links = Page(source).links()
    assert len(links) == 5  # mask, trigger, stamped, and the chart for light and dark
    for link in links:
        assert link.startswith("data:image/png;base64,")
        Image.open(io.BytesIO(base64.b64decode(link.partition(",")[2]))).verify()


def test_nothing_is_fetched_or_run(source: str) -> None:
    page = Page(source)
    assert "http://" not in source
    assert "https://" not in source
    assert not re.search(r"url\(|@import", source)
    assert not {"script", "link", "iframe", "object", "embed", "form", "base"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name == "style"]


def test_content_security_policy_allows_this_style_only(source: str) -> None:
    style = source.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert "--paper" in style
    policy = next(value or "" for name, value in Page(source).attributes if name == "content")
    assert policy.startswith("default-src 'none';")
    assert f"style-src 'sha256-{digest}';" in policy
    assert "unsafe" not in policy


def test_class_name_with_a_script_is_text(source: str) -> None:
    assert "<script" not in source
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in source


def test_hostile_text_is_text_everywhere(scan_result: ScanResult, images: ImageSet, source: str) -> None:
    page = render(_hostile(scan_result), images)
    hostile, honest = Page(page), Page(source)
    assert hostile.tags.count("img") == honest.tags.count("img")
    assert not [name for name, _ in hostile.attributes if name.startswith("on")]
    assert all(link.startswith("data:") for link in hostile.links())
    assert not re.search("[\x00\x1b\u202e\ud800]", page)
    assert r"\x1b[2J\x00\u202e\ud800" in hostile.text
    assert "{{ 7 * 7 }}" in hostile.text


def test_write_report(scan_result: ScanResult, tmp_path: Path) -> None:
    path = write_report(tmp_path / "run", scan_result, None)
    assert path == tmp_path / "run" / "report.html"
    assert path.read_text(encoding="utf-8") == render(scan_result, None)
    assert list(path.parent.iterdir()) == [path]


def test_hostile_report_can_be_written(scan_result: ScanResult, tmp_path: Path) -> None:
    assert write_report(tmp_path, _hostile(scan_result), None).exists()


def test_the_page_says_that_masks_of_two_classes_flag_none(scan_result: ScanResult) -> None:
    said = "none is flagged by the smallest mask"
    assert said not in render(scan_result, None)
    assert said in render(dataclasses.replace(scan_result, targets=(), classes=scan_result.classes[:2]), None)
