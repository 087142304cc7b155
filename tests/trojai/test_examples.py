"""Example images in the two layouts of the challenge, and what else may lie in such a folder."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tabor.errors import DataError
from tabor.trojai.examples import load_examples


def picture(path: Path, size: tuple[int, int] = (12, 12), shade: int = 100) -> None:
    """A grey picture, white in its middle 8 × 8."""
    pixels = np.full((*size, 3), shade, np.uint8)
    top, left = (size[0] - 8) // 2, (size[1] - 8) // 2
    pixels[top : top + 8, left : left + 8] = 255
    Image.fromarray(pixels).save(path)


def labelled(folder: Path, number: int, label: object) -> None:
    picture(folder / f"{number}.png")
    (folder / f"{number}.json").write_text(label if isinstance(label, str) else json.dumps(label))


def test_classes_in_the_names(tmp_path: Path) -> None:
    for label, number in ((0, 1), (0, 2), (3, 1), (11, 35)):
        picture(tmp_path / f"class_{label}_example_{number}.png", (256, 256))
    images = load_examples(tmp_path, 20, 0, seed=0)
    assert images.shape == (3, 224, 224)
    assert sorted(images.labels.tolist()) == [0, 0, 3, 11]
    assert load_examples(tmp_path, 20, 8, seed=0).images.min() == 1  # the white middle
    assert images.class_name(11) == "11"


def test_classes_in_files_beside(tmp_path: Path) -> None:
    for number, label in ((1088, 71), (1089, 129), (7, 0)):
        labelled(tmp_path, number, label)
    images = load_examples(tmp_path, 20, 0, seed=0)
    assert images.shape == (3, 12, 12)
    assert sorted(images.labels.tolist()) == [0, 71, 129]
    assert load_examples(tmp_path, 20, 8, seed=0).images.min() == 1


def test_at_most_so_many_of_each_class_by_the_seed(tmp_path: Path) -> None:
    for label, count in ((0, 9), (1, 2)):
        for number in range(count):
            picture(tmp_path / f"class_{label}_example_{number}.png", shade=10 * number)
    drawn = load_examples(tmp_path, 3, 12, seed=1)
    assert sorted(drawn.labels.tolist()) == [0, 0, 0, 1, 1]
    assert drawn.images.equal(load_examples(tmp_path, 3, 12, seed=1).images)
    shades = {float(load_examples(tmp_path, 1, 12, seed=seed).images[0, 0, 0, 0]) for seed in range(9)}
    assert len(shades) > 1


@pytest.mark.parametrize(
    "label", ["-1", "1.5", "true", '"3"', "[3]", "", "NaN", "9" * 60, "1e2", " " * 200 + "3", "[" * 90]
)
def test_what_is_no_label_is_not_used(label: str, tmp_path: Path) -> None:
    labelled(tmp_path, 1, 4)
    labelled(tmp_path, 2, label)
    picture(tmp_path / "unlabelled.png")
    picture(tmp_path / "class_x_example_1.png")
    (tmp_path / "config.json").write_text('{"number_classes": 3}')
    (tmp_path / "class_1_example_1.png").mkdir()
    assert load_examples(tmp_path, 20, 0, seed=0).labels.tolist() == [4]


def test_bad_pictures_are_left_out_with_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    labelled(tmp_path, 1, 0)
    labelled(tmp_path, 2, 1)
    for number in (3, 4):
        (tmp_path / f"{number}.png").write_bytes(b"no picture")
        (tmp_path / f"{number}.json").write_text("1")
    with caplog.at_level(logging.WARNING, logger="tabor"):  # libraries change the level of all
        assert len(load_examples(tmp_path, 20, 0, seed=0)) == 2
    (record,) = caplog.records
    assert record.message.startswith(f"skipped 2 of 4 images of {tmp_path.name}; the first: ")


def test_what_cannot_be_used_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read the folder"):
        load_examples(tmp_path / "missing", 20, 0, seed=0)
    with pytest.raises(DataError, match="holds no labelled image; expected class_2_example_35"):
        load_examples(tmp_path, 20, 0, seed=0)
    picture(tmp_path / "class_0_example_1.png")
    with pytest.raises(DataError, match=r"holds no image that can be read; .*12×12, smaller than the crop of 224×224"):
        load_examples(tmp_path, 20, 0, seed=0)
    (tmp_path / "class_0_example_1.png").unlink()
    labelled(tmp_path, 1, 0)
    picture(tmp_path / "1.png", (12, 14))
    labelled(tmp_path, 2, 1)
    with pytest.raises(DataError, match="differ in size"):
        load_examples(tmp_path, 20, 0, seed=0)
