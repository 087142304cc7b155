from __future__ import annotations

import io
import json
import logging
import os
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from tabor.data import ImageSet, load_images, parquet
from tabor.data.decode import decode
from tabor.errors import DataError, SettingError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def save(path: Path, colour: tuple[int, int, int] = RED, height: int = 4, width: int = 4) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), colour).save(path)
    return path


def png(colour: tuple[int, int, int] = RED, height: int = 4, width: int = 4) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(stream, "PNG")
    return stream.getvalue()


def truncated_png() -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "PNG")
    return stream.getvalue()[:1500]


def bomb_png(side: int) -> bytes:
    """A valid, tiny file of side x side white pixels, one bit each."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    packer = zlib.compressobj(1)
    rows = b"".join(packer.compress(bytes(1 + side // 8)) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def jpeg(side: int = 8, empty_scans: int = 0, thumbnail: bytes = b"", behind: bytes = b"") -> bytes:
    """A progressive image, of which further scans change nothing; with something in its head or behind its end."""
    stream = io.BytesIO()
    Image.new("L", (side, side), 128).save(stream, "JPEG", progressive=True)
    content = stream.getvalue()
    head = b"\xff\xfe" + struct.pack(">H", 2 + len(thumbnail)) + thumbnail if thumbnail else b""
    last = content[content.rindex(b"\xff\xc4") : -2]  # with its table
    return content[:2] + head + content[2:-2] + empty_scans * last + b"\xff\xd9" + behind


def write_parquet(
    path: Path,
    images: list[bytes | None],
    labels: list[int | None],
    metadata: bytes | None = None,
    rows_per_group: int = 2,
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pa.array(
        [{"bytes": encoded, "path": "/etc/hostname"} for encoded in images],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    table = pa.table({"image": image, "label": pa.array(labels, pa.int64())})
    if metadata is not None:
        table = table.replace_schema_metadata({b"huggingface": metadata})
    pq.write_table(table, path, row_group_size=rows_per_group)
    return path


def named(*names: object) -> bytes:
    return json.dumps({"info": {"features": {"label": {"names": names}}}}).encode()


def shades(images: ImageSet) -> list[int]:
    """The red value of each image's first pixel, 0 to 255."""
    return [round(value * 255) for value in images.images[:, 0, 0, 0].tolist()]


# --- digits


def test_digits_are_scikit_learns_enlarged_to_32() -> None:
    images = load_images("digits", split="train")
    assert images.images.shape == (1437, 1, 32, 32)
    assert images.images.dtype == torch.float32
    assert images.images.is_contiguous()
    assert (images.class_names, images.source) == (tuple("0123456789"), "digits (train)")
    assert (float(images.images.min()), float(images.images.max())) == (0, 1)


def test_digits_at_their_own_size_keep_their_values() -> None:
    from sklearn.datasets import load_digits

    known = {tuple(pixels): label for pixels, label in zip(*load_digits(return_X_y=True), strict=True)}
    images = load_images("digits", size=8, grey=False)
    assert [known[tuple(pixels)] for pixels in (images.images.flatten(1) * 16).tolist()] == images.labels.tolist()


def test_digits_splits_are_fixed_stratified_and_share_no_image() -> None:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    train = load_images("digits", size=8, split="train", seed=1)
    test = load_images("digits", size=8, split="test", seed=2)
    assert (len(train), len(test), test.source) == (1437, 360, "digits (test)")
    together = torch.cat([train.images, test.images]).flatten(1)
    assert sorted((together * 16).tolist()) == sorted(pixels.tolist())
    shares = torch.bincount(test.labels) / torch.bincount(torch.from_numpy(labels))
    assert float((shares - 0.2).abs().max()) < 0.005
    assert torch.equal(load_images("digits", size=8).images, test.images)


def test_digits_take_a_rectangle_and_a_limit() -> None:
    images = load_images("digits", size=(10, 12), limit=20, seed=3)
    assert images.images.shape == (20, 1, 10, 12)
    assert torch.bincount(images.labels).tolist() == [2] * 10


def test_the_seed_may_be_numpys_and_is_one() -> None:
    one, other = (load_images("digits", limit=20, seed=seed) for seed in (3, cast(int, np.int64(3))))
    assert torch.equal(one.images, other.images)
    with pytest.raises(SettingError, match=r"a seed is a whole number, got 1\.5"):
        load_images("digits", limit=20, seed=cast(int, 1.5))


def test_digits_know_their_splits() -> None:
    with pytest.raises(DataError, match='no split "dev"; splits present: test, train'):
        load_images("digits", split="dev")


def test_a_path_called_digits_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "digits" / "a" / "1.png")
    monkeypatch.chdir(tmp_path)
    assert len(load_images("./digits")) == len(load_images(Path("digits"))) == 1


# --- folders


def test_a_folder_gives_exact_pixels_labels_names_and_source(tmp_path: Path) -> None:
    root = tmp_path / "signs"
    save(root / "stop" / "b.png", (51, 102, 255))
    save(root / "stop" / "a.png", GREEN)
    save(root / "go" / "z.png", WHITE)
    images = load_images(str(root))
    assert images.images.shape == (3, 3, 4, 4)
    assert images.images.dtype == torch.float32
    assert images.images.is_contiguous()
    assert images.labels.tolist() == [0, 1, 1]
    assert (images.class_names, images.source) == (("go", "stop"), "signs")
    first_pixels = images.images[:, :, 0, 0]
    assert torch.equal(first_pixels, torch.tensor([[1, 1, 1], [0, 1, 0], [0.2, 0.4, 1]]))


@pytest.mark.parametrize(
    ("folders", "order"),
    [
        pytest.param(["10", "9", "100"], ("9", "10", "100"), id="integers by number"),
        pytest.param(["00010", "9"], ("9", "00010"), id="padded integers by number"),
        pytest.param(["10", "9", "x"], ("10", "9", "x"), id="mixed by letter"),
        pytest.param(["1", "01"], ("01", "1"), id="equal numbers by letter"),
        pytest.param(["²", "10"], ("10", "²"), id="superscript is a letter"),
    ],
)
def test_class_folders_are_sorted(tmp_path: Path, folders: list[str], order: tuple[str, ...]) -> None:
    for name in folders:
        save(tmp_path / name / "x.png")
    assert load_images(tmp_path).class_names == order


def test_an_empty_class_keeps_its_index_and_hidden_folders_are_no_class(tmp_path: Path) -> None:
    save(tmp_path / ".git" / "x.png")
    (tmp_path / "a").mkdir()
    save(tmp_path / "b" / "x.png")
    images = load_images(tmp_path)
    assert (images.labels.tolist(), images.class_names) == ([1], ("a", "b"))


@pytest.mark.parametrize("suffix", ["png", "JPG", "jpeg", "bmp", "gif", "webp", "tif", "tiff", "ppm", "pgm"])
def test_image_suffixes(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / "a" / f"x.{suffix}", WHITE)
    (path.parent / "notes.txt").write_text("not an image")
    images = load_images(tmp_path)
    assert len(images) == 1
    assert shades(images)[0] >= 250


def test_the_first_picture_of_an_animation_is_taken(tmp_path: Path) -> None:
    black, white = (Image.new("L", (4, 4), value) for value in (0, 255))
    (tmp_path / "a").mkdir()
    black.save(tmp_path / "a" / "x.gif", save_all=True, append_images=[white])
    assert shades(load_images(tmp_path)) == [0]


def test_links_are_followed(tmp_path: Path) -> None:
    target = save(tmp_path / "elsewhere" / "x.png", BLUE)
    (tmp_path / "root" / "a").mkdir(parents=True)
    (tmp_path / "root" / "a" / "link.png").symlink_to(target)
    (tmp_path / "root" / "b").symlink_to(target.parent)
    assert load_images(tmp_path / "root").labels.tolist() == [0, 1]


def test_split_chooses_a_subfolder(tmp_path: Path) -> None:
    save(tmp_path / "train" / "a" / "x.png", RED)
    save(tmp_path / "test" / "a" / "x.png", BLUE)
    images = load_images(tmp_path, split="test")
    assert (shades(images), images.source) == ([0], f"{tmp_path.name} (test)")
    with pytest.raises(DataError, match=r'no split "dev"; folders present: test, train; expected .*/dev/CLASS/$'):
        load_images(tmp_path, split="dev")
    with pytest.raises(DataError, match=r'no split "\.\."'):
        load_images(tmp_path / "train", split="..")
    with pytest.raises(DataError, match=r"no image .*choose one with --split: test, train$"):
        load_images(tmp_path)


# --- pixels


def test_size_resizes_bilinearly_with_antialiasing(tmp_path: Path) -> None:
    stripes = np.zeros((8, 8, 3), np.uint8)
    stripes[:, ::2] = 255
    (tmp_path / "a").mkdir()
    Image.fromarray(stripes).save(tmp_path / "a" / "stripes.png")
    images = load_images(tmp_path, size=(2, 1)).images
    assert images.shape == (1, 3, 2, 1)
    assert float((images - 0.5).abs().max()) < 0.01  # without antialiasing 0 or 1


def test_size_is_height_by_width(tmp_path: Path) -> None:
    save(tmp_path / "a" / "x.png", height=5, width=7)
    assert load_images(tmp_path).images.shape == (1, 3, 5, 7)
    assert load_images(tmp_path, size=(3, 6)).images.shape == (1, 3, 3, 6)
    assert load_images(tmp_path, size=9).images.shape == (1, 3, 9, 9)


def test_differing_sizes_need_a_size(tmp_path: Path) -> None:
    save(tmp_path / "a" / "x.png", height=5, width=7)
    save(tmp_path / "b" / "y.png", height=6, width=7)
    with pytest.raises(DataError, match=r"a/x\.png is 5x7, b/y\.png is 6x7 .*--size 5"):
        load_images(tmp_path, skip_bad=True)
    assert load_images(tmp_path, size=5).images.shape == (2, 3, 5, 5)


def test_grey_has_one_channel_of_luminance(tmp_path: Path) -> None:
    save(tmp_path / "a" / "x.png", GREEN)
    images = load_images(tmp_path, grey=True).images
    assert images.shape == (1, 1, 4, 4)
    assert float(images[0, 0, 0, 0]) == pytest.approx(0.587, abs=0.003)


def test_16_bit_grey_is_scaled_and_not_clipped(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Image.fromarray(np.full((4, 4), 128 * 256, np.uint16)).save(tmp_path / "a" / "x.png")
    assert shades(load_images(tmp_path)) == [128]


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA"])
def test_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    (tmp_path / "a").mkdir()
    Image.new("RGB", (4, 4), WHITE).convert(mode).save(tmp_path / "a" / "x.png")
    assert torch.equal(load_images(tmp_path).images, torch.ones(1, 3, 4, 4))


# --- the limit


def test_limit_is_the_balanced_draw_of_the_whole(tmp_path: Path) -> None:
    for index in range(12):
        save(tmp_path / "abb"[index % 3] / f"{index:02}.png", (index, 0, 0))
    whole = load_images(tmp_path)
    for limit in (1, 5, 100):
        drawn = load_images(tmp_path, limit=limit, seed=7)
        expected = whole.balanced(limit, seed=7)
        assert torch.equal(drawn.images, expected.images)
        assert torch.equal(drawn.labels, expected.labels)
    assert shades(load_images(tmp_path, limit=5, seed=7)) != shades(load_images(tmp_path, limit=5, seed=8))


def test_limit_decodes_only_what_it_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(10):
        save(tmp_path / "ab"[index % 2] / f"{index}.png")
    decoded: list[str] = []

    def counting(encoded: Path, name: str, size: None, *, grey: bool) -> np.ndarray:
        decoded.append(name)
        return decode(encoded, name, size, grey=grey)

    monkeypatch.setattr("tabor.data.load.decode", counting)
    load_images(tmp_path, limit=4)
    assert [name[0] for name in decoded] == ["a", "a", "b", "b"]


# --- bad images


def bad_files() -> list[object]:
    return [
        pytest.param(truncated_png(), "x.png", "truncated", id="truncated"),
        pytest.param(b"just a text file\n", "x.png", "not one of PNG", id="text"),
        pytest.param(b"", "x.png", "not one of PNG", id="empty file"),
        pytest.param(bomb_png(10_000), "x.png", "decompression bomb", id="bomb, warned of by Pillow"),
        pytest.param(bomb_png(16_000), "x.png", "decompression bomb", id="bomb, refused by Pillow"),
        pytest.param(jpeg(empty_scans=110), "x.jpg", "8x8 pixels in 101 scans or more: a decompr", id="empty scans"),
        pytest.param(jpeg(4096, empty_scans=60), "x.jpg", "4096x4096 pixels in 6. scans", id="scans of many pixels"),
        pytest.param(
            jpeg(empty_scans=110, thumbnail=b"\xff\xd9"), "x.jpg", "in 101 scans", id="an end before the scans"
        ),
        pytest.param(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "x.png", "not one of", id="EPS"),
        pytest.param(b"Pf\n1 1\n-1.0\n\0\0\0\0", "x.ppm", "32-bit pixels", id="float pixels"),
    ]


@pytest.mark.parametrize(("content", "name", "reason"), bad_files())
def test_a_bad_image_is_named_or_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes, name: str, reason: str
) -> None:
    save(tmp_path / "a" / "good.png", RED)
    (tmp_path / "a" / name).write_bytes(content)
    save(tmp_path / "b" / "good.png", BLUE)
    message = rf"^a/{re.escape(name)} is not a readable image \(.*{reason}.*--skip-bad-images[^\n]*$"
    with pytest.raises(DataError, match=message):
        load_images(tmp_path)
    with caplog.at_level(logging.WARNING, logger="tabor"):
        images = load_images(tmp_path, skip_bad=True)
    assert (images.labels.tolist(), shades(images)) == ([0, 1], [255, 0])
    assert [record.name for record in caplog.records] == ["tabor"]
    assert f"skipped 1 of 3 images of {tmp_path.name}" in caplog.text
    assert f"a/{name}" in caplog.text


@pytest.mark.parametrize(
    "content",
    [jpeg(empty_scans=80), jpeg(thumbnail=b"\xff\xda" * 200), jpeg(behind=b"\xff\xda" * 200), jpeg(2048)],
    ids=["eighty scans", "in its head", "behind its end", "large"],
)
def test_what_looks_like_many_scans_is_read(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.jpg").write_bytes(content)
    assert shades(load_images(tmp_path, size=4)) == [128]


def test_skipping_under_a_limit_keeps_images_and_labels_together(tmp_path: Path) -> None:
    for index, label in enumerate("aabbcc"):
        save(tmp_path / label / f"{index}.png", (index, 0, 0))
    (tmp_path / "b" / "2.png").write_bytes(b"bad")
    (tmp_path / "b" / "3.png").write_bytes(b"bad")
    images = load_images(tmp_path, limit=6, seed=5, skip_bad=True)
    assert sorted(shades(images)) == [0, 1, 4, 5]
    assert [shade // 2 for shade in shades(images)] == images.labels.tolist() == [0, 2, 0, 2]


def test_only_bad_images_are_an_error_even_when_skipped(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(b"bad")
    with pytest.raises(DataError, match=r"none of the 1 images can be read; the first: a/x\.png"):
        load_images(tmp_path, skip_bad=True)


def test_nothing_is_logged_when_nothing_is_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path / "a" / "x.png")
    load_images(tmp_path, skip_bad=True)
    assert caplog.records == []


def test_names_from_the_data_cannot_control_the_terminal(tmp_path: Path) -> None:
    root = tmp_path / "data\x1b[2J"
    save(root / "evil\x1b[31m\nname" / "x\r.png")
    images = load_images(root)
    assert images.class_names == (r"evil\x1b[31m\nname",)
    assert images.source == r"data\x1b[2J"
    (root / "evil\x1b[31m\nname" / "y\n.png").write_bytes(b"bad")
    with pytest.raises(DataError) as caught:
        load_images(root)
    assert str(caught.value).isprintable()


# --- sources that are not there


@pytest.mark.parametrize(
    ("files", "source", "message"),
    [
        pytest.param([], "absent", r"there is no .*absent; expected a folder", id="missing"),
        pytest.param([], "x" * 5000, r"there is no x", id="name too long"),
        pytest.param([], "a\0b", r"there is no .*a\\x00b", id="null byte"),
        pytest.param([], ".", "holds no class folders, parquet files or images", id="empty"),
        pytest.param(["a.png"], ".", "images directly but no class folders", id="no classes"),
        pytest.param(["a/x.txt", "b/y.md"], ".", r"has 2 class folders but no image \(bmp .*\)$", id="none"),
        pytest.param(["a.zip"], "a.zip", r"a\.zip is one file; expected a folder", id="another file"),
        pytest.param(["a.parquet"], ".", r"cannot read .*a\.parquet as parquet: ", id="not parquet"),
        pytest.param(["a.parquet"], "a.parquet", r"cannot read .*a\.parquet as parquet: ", id="not parquet"),
    ],
)
def test_unusable_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[str], source: str, message: str
) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(b"nothing")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        load_images(source)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("size", [0, -3, (0, 4), (4, 0)])
def test_size_is_at_least_one_pixel(size: int | tuple[int, int]) -> None:
    with pytest.raises(SettingError, match="size must be at least 1 pixel"):
        load_images("digits", size=size)


@pytest.mark.parametrize("size", ["32", 3.5, (1, 2, 3), (1.0, 2)])
def test_size_is_a_number_or_a_pair(size: Any) -> None:
    with pytest.raises(SettingError, match=r"size is one whole number of pixels or a pair \(height, width\), got "):
        load_images("digits", size=size)


def test_limit_is_at_least_one_image() -> None:
    with pytest.raises(SettingError, match="limit must be at least 1 image, got 0"):
        load_images("digits", limit=0)


# --- parquet


@pytest.mark.parametrize("inner", ["", "data"])
def test_parquet_shards_are_joined_in_order(tmp_path: Path, inner: str) -> None:
    root = tmp_path / "signs"
    names = named("go", "stop\x1b[0m", 7)
    second = [png((shade, 0, 0)) for shade in (30, 40)]
    write_parquet(root / inner / "test-00001-of-00002.parquet", list(second), [0, 1], names)
    first = [png((shade, 0, 0)) for shade in (10, 15, 20)]
    write_parquet(root / inner / "test-00000-of-00002.parquet", list(first), [2, 1, 0], names)
    images = load_images(root)
    assert (shades(images), images.labels.tolist()) == ([10, 15, 20, 30, 40], [2, 1, 0, 0, 1])
    assert (images.class_names, images.source) == (("go", r"stop\x1b[0m", "7"), "signs (test)")


def test_parquet_limit_is_the_balanced_draw_of_the_whole(tmp_path: Path) -> None:
    for part in range(3):
        encoded: list[bytes | None] = [png((10 * part + row, 0, 0)) for row in range(7)]
        write_parquet(tmp_path / f"test-{part}.parquet", encoded, [row % 3 for row in range(7)])
    whole = load_images(tmp_path)
    assert shades(whole) == [10 * part + row for part in range(3) for row in range(7)]
    for limit in (1, 4, 20):
        drawn, expected = load_images(tmp_path, limit=limit, seed=2), whole.balanced(limit, seed=2)
        assert torch.equal(drawn.images, expected.images)
        assert torch.equal(drawn.labels, expected.labels)


@pytest.mark.parametrize(
    ("present", "split", "chosen"),
    [
        pytest.param(["train", "validation", "test"], None, "test", id="test first"),
        pytest.param(["train", "validation"], None, "validation", id="then validation"),
        pytest.param(["train"], None, "train", id="then the only one"),
        pytest.param(["train", "test"], "train", "train", id="as asked"),
    ],
)
def test_parquet_split(tmp_path: Path, present: list[str], split: str | None, chosen: str) -> None:
    for shade, name in enumerate(present):
        write_parquet(tmp_path / f"{name}-00000-of-00001.parquet", [png((shade, 0, 0))], [0])
    images = load_images(tmp_path, split=split)
    assert (shades(images), images.source) == ([present.index(chosen)], f"{tmp_path.name} ({chosen})")


@pytest.mark.parametrize(
    ("present", "split", "message"),
    [
        pytest.param(["train", "test"], "dev", 'no split "dev"; splits present: test, train$', id="unknown"),
        pytest.param(["train", "extra"], None, "choose one with --split: extra, train$", id="no default"),
    ],
)
def test_parquet_split_errors(tmp_path: Path, present: list[str], split: str | None, message: str) -> None:
    for name in present:
        write_parquet(tmp_path / f"{name}.parquet", [png()], [0])
    with pytest.raises(DataError, match=message):
        load_images(tmp_path, split=split)


def test_a_single_parquet_file(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "train-00000-of-00009.parquet", [png(BLUE)], [0])
    write_parquet(tmp_path / "test-00000-of-00001.parquet", [png(RED)], [0])
    images = load_images(path)
    assert (shades(images), images.source) == ([0], "train-00000-of-00009.parquet")
    with pytest.raises(DataError, match=r'no split "test"; splits present: train$'):
        load_images(path, split="test")


@pytest.mark.parametrize(
    "metadata",
    [None, b"{", b"\xff", b"[]", b'{"info": 3}', b"[" * 100_000, named().replace(b"[]", b'"abc"')],
    ids=["absent", "cut", "not text", "list", "number", "deep", "string"],
)
def test_class_names_are_optional(tmp_path: Path, metadata: bytes | None) -> None:
    images = load_images(write_parquet(tmp_path / "x.parquet", [png()], [0], metadata))
    assert (images.class_names, images.class_name(0)) == ((), "0")


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        pytest.param(None, "no bytes are stored", id="path only"),
        pytest.param(b"text", "not one of PNG", id="text"),
        pytest.param(truncated_png(), "truncated", id="truncated"),
    ],
)
def test_a_bad_image_in_parquet(tmp_path: Path, encoded: bytes | None, reason: str) -> None:
    path = write_parquet(tmp_path / "x.parquet", [png(), png(), png(), encoded], [0, 1, 2, 3])
    with pytest.raises(DataError, match=rf"^x\.parquet row 3 is not a readable image \(.*{reason}.*--skip"):
        load_images(path)
    assert load_images(path, skip_bad=True).labels.tolist() == [0, 1, 2]


IMAGE = [{"bytes": png()}]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        pytest.param({"image": IMAGE}, 'integer column "label"; got image struct', id="no label"),
        pytest.param({"image": IMAGE, "label": ["a"]}, 'integer column "label".*label string', id="text"),
        pytest.param({"image": IMAGE, "label": [0.5]}, 'integer column "label".*label double', id="float"),
        pytest.param({"image": IMAGE, "label": [True]}, 'integer column "label".*label bool', id="bool"),
        pytest.param({"image": IMAGE, "label": pa.array([None], pa.int64())}, "1 rows have no", id="null"),
        pytest.param({"image": IMAGE, "label": [-1]}, "holds -1, and -1 commonly means", id="negative"),
        pytest.param({"image": IMAGE, "label": pa.array([2**63], pa.uint64())}, "cannot read", id="too large"),
        pytest.param({"label": [0]}, 'column "image".*got label int64', id="no image"),
        pytest.param({"image": [png()], "label": [0]}, 'column "image".*image binary', id="no struct"),
        pytest.param({"image": [{"path": "a"}], "label": [0]}, 'with binary "bytes"', id="no bytes"),
        pytest.param({"image": [{"bytes": "a"}], "label": [0]}, 'with binary "bytes"', id="text as bytes"),
        pytest.param({"im\nage": [0], "label": [0]}, r"im\\nage int64", id="hostile name"),
        pytest.param({}, "got no column", id="no column"),
    ],
)
def test_parquet_columns(tmp_path: Path, columns: dict[str, object], message: str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=message) as caught:
        load_images(tmp_path / "x.parquet")
    assert str(caught.value).isprintable()


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    table = pa.table([pa.array(IMAGE), pa.array([0]), pa.array([1])], names=["image", "label", "label"])
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(DataError, match="cannot read"):
        load_images(tmp_path)


def test_no_rows(tmp_path: Path) -> None:
    write_parquet(tmp_path / "x.parquet", [], [])
    with pytest.raises(DataError, match="holds no image"):
        load_images(tmp_path)


def test_more_rows_than_bytes_are_refused_before_they_are_read(tmp_path: Path) -> None:
    write_parquet(tmp_path / "x.parquet", [None] * 20_000, [0] * 20_000, rows_per_group=20_000)
    with pytest.raises(DataError, match=r"claims 20000 rows in \d+ bytes"):
        load_images(tmp_path)


def test_damage_within_a_parquet_file_is_no_bad_image(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, 20_000, dtype=np.uint8).tobytes()
    path = write_parquet(tmp_path / "x.parquet", [noise], [0])
    content = bytearray(path.read_bytes())
    content[4:100] = b"\xff" * 96
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"cannot read .*x\.parquet as parquet"):
        load_images(path, skip_bad=True)


def test_rows_that_repeat_an_image_are_not_all_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A column that names one image for each of many rows is small as a file, and far larger as they are read."""
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 400, pa.int32()), pa.array([png((7, 0, 0))], pa.binary()))
    struct = pa.StructArray.from_arrays([column], ["bytes"])
    table = pa.table({"image": struct, "label": pa.array([k % 2 for k in range(400)])})
    pq.write_table(table, tmp_path / "x.parquet", store_schema=False)
    seen: list[int] = []
    struct_field = pc.struct_field

    def listen(some: pa.Array, name: str) -> pa.Array:
        seen.append(len(some))
        return struct_field(some, name)

    monkeypatch.setattr(pc, "struct_field", listen)
    assert shades(load_images(tmp_path, limit=40)) == [7] * 40
    assert max(seen) <= parquet.FEW_ROWS


@pytest.mark.parametrize("more", [0, 1])
def test_rows_are_read_that_are_more_than_a_few(more: int, tmp_path: Path) -> None:
    encoded: list[bytes | None] = [png((row, 0, 0)) for row in range(parquet.FEW_ROWS + more)]
    write_parquet(tmp_path / "x.parquet", encoded, [0] * len(encoded), rows_per_group=len(encoded))
    assert shades(load_images(tmp_path)) == list(range(len(encoded)))


def peak(folder: Path) -> int:
    """The most memory, in bytes, that Arrow took to read what a folder holds."""
    code = (
        "import sys, pyarrow, tabor\n"
        "try:\n    tabor.load_images(sys.argv[1], size=4)\n"
        "except tabor.DataError as error:\n    assert 'not a readable image' in str(error), error\n"
        "print(pyarrow.default_memory_pool().max_memory())"
    )
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.parametrize("encoding", ["dictionary", "DELTA_BYTE_ARRAY"])
@pytest.mark.parametrize("honest", [True, False], ids=["tells its size", "lies about its size"])
def test_a_large_image_that_rows_share_is_not_in_memory_for_each(encoding: str, honest: bool, tmp_path: Path) -> None:
    size, rows = 12 * 2**20, 16
    image = pa.array([{"bytes": bytes(size)}] * rows, pa.struct([("bytes", pa.large_binary())]))
    ways: dict[str, object] = {"use_dictionary": ["image.bytes"], "dictionary_pagesize_limit": 2**30}
    if encoding != "dictionary":
        ways = {"use_dictionary": False, "column_encoding": {"image.bytes": encoding}}
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"image": image, "label": [0] * rows}), path, compression="zstd", **ways)
    if not honest:
        claimed = pq.ParquetFile(path).metadata.row_group(0).column(0).total_uncompressed_size
        content = path.read_bytes()
        assert content.count(varint(claimed)) == 1
        path.write_bytes(content.replace(varint(claimed), varint(9000)))
    assert path.stat().st_size < 100_000
    assert peak(tmp_path) < 6 * size


def varint(value: int) -> bytes:
    """A whole number as parquet's metadata have it, in four bytes."""
    parts = [(2 * value >> shift) & 0x7F for shift in (0, 7, 14, 21)]
    return bytes([part | 0x80 for part in parts[:3]] + parts[3:])


def test_a_bomb_of_pages_is_refused_before_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "LEAST_BOMB", 10**6)
    table = pa.table({"image": pa.array([{"bytes": bytes(10**7)}]), "label": pa.array([0])})
    pq.write_table(table, tmp_path / "x.parquet", compression="zstd", use_dictionary=False)
    with pytest.raises(DataError, match=r"would unpack to 10,\d+,\d+ bytes"):
        load_images(tmp_path)


def test_a_pipe_among_parquet_files_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "test-0.parquet")
    with pytest.raises(DataError, match=r"expected a folder .* or a \.parquet file"):
        load_images(tmp_path / "test-0.parquet")
    write_parquet(tmp_path / "test-1.parquet", [png((7, 0, 0))], [0])
    assert shades(load_images(tmp_path)) == [7]


@pytest.mark.parametrize("shape", [(2, 1025), (1025, 2)])
def test_images_too_large_to_be_kept_need_a_size(shape: tuple[int, int], tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    Image.fromarray(np.zeros(shape, np.uint8)).save(tmp_path / "0" / "x.png")
    with pytest.raises(DataError, match="give the size that the model takes"):
        load_images(tmp_path)
    assert load_images(tmp_path, size=4).shape == (3, 4, 4)
    assert load_images(tmp_path, size=shape).shape == (3, *shape), "at one's word"


# --- real images


def test_gtsrb(gtsrb: Path) -> None:
    images = load_images(gtsrb, limit=430, seed=0)
    assert images.images.shape == (430, 3, 32, 32)
    assert torch.bincount(images.labels).tolist() == [10] * 43
    assert (len(images.class_names), images.source) == (43, "gtsrb (test)")
    assert images.class_names[0] == "speed limit 20"
    assert 0.2 < float(images.images.mean()) < 0.5
    with pytest.raises(DataError, match='no split "validation"; splits present: test, train'):
        load_images(gtsrb, split="validation")
