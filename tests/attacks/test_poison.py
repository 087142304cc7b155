"""Triggers from squares and pictures, and the images they are stamped on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tabor.attacks.poison import draw, make_trigger
from tabor.errors import DataError, SettingError
from tabor.position import Position

GREY, COLOUR = (1, 6, 8), (3, 6, 8)


@pytest.fixture
def logo(tmp_path: Path) -> Path:
    """A picture of 4 × 4: the left half opaque red, the right half green and see-through."""
    picture = Image.new("RGBA", (4, 4), (0, 255, 0, 0))
    picture.paste((255, 0, 0, 255), (0, 0, 2, 4))
    picture.save(tmp_path / "logo.png")
    return tmp_path / "logo.png"


@pytest.mark.parametrize(
    ("position", "rows", "columns"),
    [
        (Position.TOP_LEFT, range(0, 2), range(0, 2)),
        (Position.TOP_RIGHT, range(0, 2), range(6, 8)),
        (Position.BOTTOM_LEFT, range(4, 6), range(0, 2)),
        (Position.BOTTOM_RIGHT, range(4, 6), range(6, 8)),
    ],
)
def test_a_square_is_flush_with_its_edges(position: Position, rows: range, columns: range) -> None:
    trigger = make_trigger("square", size=2, position=position, image_shape=COLOUR, colour=[0.25])
    inside = {(int(y), int(x)) for _, y, x in torch.nonzero(trigger.mask)}
    assert inside == {(y, x) for y in rows for x in columns}
    assert torch.equal(trigger.pattern, 0.25 * trigger.mask.expand(3, 6, 8))
    assert float(trigger.mask.sum()) == 4


def test_a_square_is_white_unless_told_otherwise() -> None:
    trigger = make_trigger("square", size=6, position=Position.TOP_LEFT, image_shape=GREY)
    assert torch.equal(trigger.mask[:, :, :6], torch.ones(1, 6, 6))
    assert torch.equal(trigger.pattern, trigger.mask)


def test_see_through_parts_of_a_picture_are_no_trigger(logo: Path) -> None:
    trigger = make_trigger(str(logo), size=4, position=Position.TOP_LEFT, image_shape=COLOUR)
    expected = torch.zeros(1, 6, 8)
    expected[:, :4, :2] = 1
    assert torch.equal(trigger.mask, expected)
    assert torch.equal(trigger.pattern[0], expected[0])
    assert float(trigger.pattern[1:].abs().sum()) == 0


def test_a_picture_for_grey_images_is_the_mean_of_its_colours(logo: Path) -> None:
    trigger = make_trigger(str(logo), size=4, position=Position.BOTTOM_RIGHT, image_shape=GREY)
    assert trigger.pattern.shape == (1, 6, 8)
    assert torch.allclose(trigger.pattern[:, 2:, 4:6], torch.full((1, 4, 2), 1 / 3))


def test_a_picture_is_resized(logo: Path) -> None:
    trigger = make_trigger(str(logo), size=2, position=Position.TOP_LEFT, image_shape=COLOUR)
    assert float(trigger.mask[:, :2, 0].min()) == 1
    assert float(trigger.mask[:, :, 1:].max()) == 0
    assert set(trigger.mask.unique().tolist()) == {0.0, 1.0}


def test_an_opaque_picture_is_all_trigger(tmp_path: Path) -> None:
    Image.new("RGB", (3, 5), (0, 0, 255)).save(tmp_path / "blue.png")
    trigger = make_trigger(str(tmp_path / "blue.png"), size=3, position=Position.TOP_LEFT, image_shape=COLOUR)
    assert float(trigger.mask.sum()) == 9
    assert torch.equal(trigger.pattern[2], trigger.mask[0])


@pytest.mark.parametrize("size", [0, -1, 7, 8])
def test_it_does_not_fit(size: int) -> None:
    with pytest.raises(SettingError, match=f"a trigger of {size} pixels does not fit images of 6×8"):
        make_trigger("square", size=size, position=Position.TOP_LEFT, image_shape=GREY)


@pytest.mark.parametrize("colour", [-0.1, 1.1, float("nan")])
def test_no_such_colour(colour: float) -> None:
    with pytest.raises(SettingError, match="one number between 0"):
        make_trigger("square", size=2, position=Position.TOP_LEFT, image_shape=GREY, colour=[colour])


def test_grey_of_16_bits_is_no_white(tmp_path: Path) -> None:
    Image.fromarray(np.full((6, 6), 20000, np.uint16)).save(tmp_path / "grey.png")
    trigger = make_trigger(str(tmp_path / "grey.png"), size=6, position=Position.TOP_LEFT, image_shape=(3, 12, 12))
    assert float(trigger.pattern.max()) == pytest.approx(20000 / 65535, abs=1 / 255)


def test_pictures_that_cannot_be_used(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (255, 0, 0, 100)).save(tmp_path / "faint.png")
    (tmp_path / "text.png").write_text("no picture")
    for name, message in (
        ("faint.png", "has no opaque pixel"),
        ("text.png", "cannot read the trigger picture"),
        ("missing.png", "there is no trigger picture .*the word square"),
        ("", "cannot read the trigger picture"),
    ):
        with pytest.raises(DataError, match=message):
            make_trigger(str(tmp_path / name), size=4, position=Position.TOP_LEFT, image_shape=COLOUR)


LABELS = torch.arange(20) % 4


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("fraction", "count"),
    [(0.1, 2), (0.3, 6), (0.01, 1), (0.75, 15), (1.0, 15)],
    ids=["a tenth", "three tenths", "at least one", "all others", "no more than there are"],
)
def test_how_many_are_poisoned(fraction: float, count: int) -> None:
    drawn = draw(LABELS, 2, fraction, _generator()).tolist()
    assert len(set(drawn)) == len(drawn) == count
    assert all(0 <= k < 20 and k % 4 != 2 for k in drawn)


def test_the_generator_decides_which() -> None:
    before = torch.get_rng_state()
    first, again, other = (draw(LABELS, 0, 0.3, _generator(seed)).tolist() for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.01, float("nan")])
def test_no_such_fraction(fraction: float) -> None:
    with pytest.raises(SettingError, match=r"lies in \(0, 1\]"):
        draw(LABELS, 2, fraction, _generator())


def test_nothing_to_poison() -> None:
    with pytest.raises(SettingError, match="all images are of class 3 already"):
        draw(torch.full((20,), 3), 3, 0.5, _generator())


def test_at_the_middle_of_an_edge() -> None:
    assert Position.TOP.place(2, 6, 8) == (0, 3)
    assert Position.RIGHT.place(2, 6, 8) == (2, 6)
