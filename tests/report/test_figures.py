"""Pictures, checked pixel by pixel on masks small enough to know by heart."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from tabor.data.images import ImageSet
from tabor.errors import DataError, TaborError
from tabor.report import figures, write_run
from tabor.report.html import MOST_PICTURED
from tabor.result import ScanResult
from tabor.trigger import Trigger


def _pixels(picture: Image.Image) -> npt.NDArray[np.int64]:
    return np.asarray(picture).astype(np.int64)


def _one_pixel(strength: float = 1.0, level: float = 0.0) -> Trigger:
    """A trigger on row 1, column 2 of a 4 × 4 image: a block of 48 screen pixels at (96, 48)."""
    mask = torch.zeros(1, 4, 4)
    mask[0, 1, 2] = strength
    return Trigger(mask, torch.full((3, 4, 4), level))


BLOCK = (slice(48, 96), slice(96, 144))


def test_mask_of_one_pixel_is_one_white_block() -> None:
    picture = figures.mask_picture(_one_pixel())
    assert (picture.mode, picture.size) == ("L", (192, 192))
    expected = np.zeros((192, 192), dtype=np.int64)
    expected[BLOCK] = 255
    assert (_pixels(picture) == expected).all()


def test_half_a_mask_is_mid_grey() -> None:
    assert set(_pixels(figures.mask_picture(_one_pixel(0.5)))[BLOCK].flat) == {128}


@pytest.mark.parametrize("level", [0.0, 0.6, 1.0], ids=["black", "grey", "white"])
def test_trigger_of_any_level_stands_out_from_the_checkerboard(level: float) -> None:
    pixels = _pixels(figures.trigger_picture(_one_pixel(level=level)))
    assert set(pixels[BLOCK].flat) == {round(level * 255)}
    outside = np.ones((192, 192), dtype=bool)
    outside[BLOCK] = False
    assert set(pixels[outside].flat) == {140, 166}
    assert pixels[0, 0, 0] == pixels[8, 8, 0] != pixels[0, 8, 0]


def test_half_a_trigger_lets_half_the_checkerboard_through() -> None:
    assert set(_pixels(figures.trigger_picture(_one_pixel(0.5, level=1.0)))[BLOCK].flat) == {198, 211}


def test_pattern_shows_its_colours_where_the_mask_hides_it() -> None:
    pattern = torch.zeros(3, 4, 4)
    pattern[:, 3, 0] = torch.tensor([1.0, 0.0, 0.4])
    pixels = _pixels(figures.pattern_picture(Trigger(torch.zeros(1, 4, 4), pattern)))
    assert (pixels[144:, :48] == [255, 0, 102]).all()
    assert (pixels[:144] == 0).all()


@pytest.mark.parametrize(("channels", "level"), [(1, 51), (2, 77), (4, 128)])
def test_images_without_three_channels_are_grey(channels: int, level: int) -> None:
    image = torch.arange(1, channels + 1).div(5)[:, None, None].expand(-1, 2, 2)
    picture = figures.image_picture(image)
    assert picture.mode == "RGB"
    assert np.abs(_pixels(picture) - level).max() <= 1


@pytest.mark.parametrize(("width", "shown"), [(1, 96), (28, 112), (32, 96), (100, 100), (192, 192), (224, 224)])
def test_the_longer_side_of_a_picture_has_at_least_192_pixels(width: int, shown: int) -> None:
    picture = figures.image_picture(torch.zeros(3, 2 * width, width))
    assert picture.size == (shown, 2 * shown)


def test_stamped_picture_is_the_image_and_the_image_with_the_trigger() -> None:
    image = torch.full((3, 4, 4), 0.2)
    pixels = _pixels(figures.stamped_picture(image, _one_pixel(level=1.0)))
    before, gap, after = pixels[:, :192], pixels[:, 192:200], pixels[:, 200:]
    assert (before == [51, 51, 51, 255]).all()
    assert (gap == 0).all()
    assert (after[BLOCK] == 255).all()
    after[BLOCK] = [51, 51, 51, 255]
    assert (after == before).all()


def test_stamped_picture_refuses_images_of_another_shape() -> None:
    with pytest.raises(DataError, match=r"images have shape \(1, 4, 4\) and the trigger \(3, 4, 4\)"):
        figures.stamped_picture(torch.zeros(1, 4, 4), _one_pixel())


@pytest.mark.parametrize(("labels", "chosen"), [((2, 2, 0), 2), ((2, 2, 2), 0), ((0, 2, 1), 0)])
def test_example_image_is_not_of_the_target_class(labels: tuple[int, ...], chosen: int) -> None:
    values = torch.arange(3).div(4)[:, None, None, None].expand(-1, 1, 2, 2)
    image = figures.example_image(ImageSet(values, torch.tensor(labels), ()), target=2)
    assert torch.equal(image, values[chosen])


def test_save_pictures(scan_result: ScanResult, images: ImageSet, tmp_path: Path) -> None:
    written = figures.save_pictures(scan_result, images, tmp_path, [2, 4])
    names = ("mask", "pattern", "trigger", "stamped")
    assert written == [tmp_path / "figures" / f"class-{k}-{name}.png" for k in (2, 4) for name in names]
    assert sorted((tmp_path / "figures").iterdir()) == sorted(written)
    with Image.open(written[0]) as picture:
        assert (_pixels(picture) == _pixels(figures.mask_picture(scan_result.trigger(2)))).all()


def test_save_pictures_without_images(scan_result: ScanResult, tmp_path: Path) -> None:
    written = figures.save_pictures(scan_result, None, tmp_path, [2])
    assert [path.name for path in written] == [
        "class-2-mask.png",
        "class-2-pattern.png",
        "class-2-trigger.png",
    ]


def test_save_pictures_of_a_class_not_scanned(scan_result: ScanResult, tmp_path: Path) -> None:
    with pytest.raises(TaborError, match="class 9 was not scanned"):
        figures.save_pictures(scan_result, None, tmp_path, [9])


def _near(chart: bytes, colour: str, tolerance: int = 12) -> int:
    """How many opaque pixels of the chart have a colour."""
    pixels = _pixels(Image.open(io.BytesIO(chart)).convert("RGBA"))
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int(((np.abs(pixels[..., :3] - wanted) <= tolerance).all(-1) & (pixels[..., 3] > 200)).sum())


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_chart_colours_the_flagged_only(scan_result: ScanResult, dark: bool) -> None:
    plain = (figures.DARK if dark else figures.LIGHT)["plain"]
    chart = figures.anomaly_chart(scan_result, dark=dark)
    assert _near(chart, figures.FLAGGED) > 100
    assert _near(chart, plain) > 100
    none = dataclasses.replace(
        scan_result, classes=tuple(dataclasses.replace(f, flagged=False) for f in scan_result.classes)
    )
    assert _near(figures.anomaly_chart(none, dark=dark), figures.FLAGGED) == 0


def test_chart_shows_a_class_that_its_patch_alone_flags(scan_result: ScanResult) -> None:
    classes = tuple(dataclasses.replace(f, anomaly_index=None) if f.flagged else f for f in scan_result.classes)
    assert any(f.flagged for f in classes)
    chart = figures.anomaly_chart(dataclasses.replace(scan_result, classes=classes))
    assert _near(chart, figures.FLAGGED) > 50


def test_chart_is_the_same_each_time_and_leaves_matplotlib_alone(scan_result: ScanResult) -> None:
    before = dict(mpl.rcParams)
    assert figures.anomaly_chart(scan_result) == figures.anomaly_chart(scan_result)
    assert dict(mpl.rcParams) == before


def test_chart_without_any_anomaly_index(scan_result: ScanResult) -> None:
    classes = tuple(dataclasses.replace(f, anomaly_index=None, flagged=False) for f in scan_result.classes)
    for some in (classes, ()):
        chart = figures.anomaly_chart(dataclasses.replace(scan_result, classes=some))
        assert Image.open(io.BytesIO(chart)).size == (1280, 600)


def test_nothing_is_written_through_a_link(scan_result: ScanResult, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run" / "figures").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TaborError, match="is a link"):
        figures.save_pictures(scan_result, None, tmp_path / "run", [0])
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_narrow_trigger_makes_no_endless_picture() -> None:
    assert max(figures.image_picture(torch.zeros(3, 1000, 1)).size) == 1000


def test_a_run_has_pictures_of_no_more_classes_than_the_page(
    scan_result: ScanResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictured: list[int] = []
    monkeypatch.setattr(
        "tabor.report.save_pictures", lambda _result, _images, _folder, classes: pictured.extend(classes)
    )
    monkeypatch.setattr("tabor.report.write_report", lambda folder, _result, _images: folder)
    write_run(tmp_path, dataclasses.replace(scan_result, targets=tuple(range(20))), None)
    assert pictured == list(range(MOST_PICTURED))
