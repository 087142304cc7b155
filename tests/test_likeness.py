"""Whether a patch is a picture of its class, on a network that answers to the class's look and to something planted."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tabor.access import Classifier
from tabor.data import ImageSet
from tabor.errors import DataError
from tabor.ground import Ground
from tabor.likeness import EXAGGERATED, PICTURE, likeness
from tabor.patches import Patch, RestoreSettings
from tabor.windows import Window

SIGN, CORNER = Window(2, 2, 6, 6), Window(8, 8, 12, 12)
STRIPES = torch.tensor([0.2, 0.8, 0.2, 0.8]).repeat(4, 1)
BOARD = STRIPES.clone()
BOARD[1::2] = 1 - BOARD[1::2]


class Signs(nn.Module):
    """Class 1 for faint upright stripes in one place, as its images have them, or a bold chessboard in a corner."""

    def forward(self, images: Tensor) -> Tensor:
        def like(window: Window, picture: Tensor) -> Tensor:
            inside = images[:, 0, window.top : window.bottom, window.left : window.right] - 0.5
            return (inside * (picture - 0.5)).sum((1, 2))

        one = 40 * like(SIGN, STRIPES) + 20 * like(CORNER, BOARD) - 5
        return torch.stack([-one, one, torch.full_like(one, -50.0)], 1)


def ground(images: ImageSet) -> Ground:
    return Ground(Classifier(Signs(), torch.device("cpu"), (1, 12, 12)), images, RestoreSettings())


def signs(seed: int = 0) -> ImageSet:
    generator = torch.Generator().manual_seed(seed)
    images = 0.5 + 0.03 * torch.randn(24, 1, 12, 12, generator=generator)
    labels = torch.arange(24) % 2
    images[labels == 1, 0, SIGN.top : SIGN.bottom, SIGN.left : SIGN.right] += 0.3 * (STRIPES - 0.5)
    return ImageSet(images.clamp(0, 1), labels, ("none", "striped", "never"))


def patch(window: Window, picture: Tensor) -> Patch:
    return Patch(window, picture[None], 3.0)


def test_a_picture_of_the_class_is_told_from_what_was_planted() -> None:
    here = ground(signs())
    assert likeness(here, patch(SIGN, STRIPES), 1, signs(1)) > 2 * PICTURE
    assert likeness(here, patch(CORNER, BOARD), 1, signs(1)) < PICTURE / 2


@pytest.mark.parametrize("planted", [patch(SIGN, STRIPES), patch(CORNER, BOARD), patch(Window(1, 2, 7, 6), STRIPES)])
def test_it_is_the_share_that_the_class_s_exaggerated_look_has_of_the_effect(planted: Patch) -> None:
    images, more = signs(), signs(1)
    others = [image for image, label in zip(images.images, images.labels, strict=True) if label != 1]
    seen = [
        (image, int(label)) for half in (images, more) for image, label in zip(half.images, half.labels, strict=True)
    ]

    def mean_of(wanted: int) -> Tensor:
        picked = [image for image, label in seen if label == wanted]
        return sum(picked, torch.zeros(1, 12, 12)) / len(picked)

    mean, ours = mean_of(0), mean_of(1)
    look = torch.clamp(mean + EXAGGERATED * (ours - mean), 0, 1)

    def lead(shown: Tensor) -> float:
        found = []
        for image in others:
            stamped = image.clone()
            w = planted.window
            stamped[:, w.top : w.bottom, w.left : w.right] = shown[:, w.top : w.bottom, w.left : w.right]
            logits = Signs()(stamped[None])[0].tolist()
            found.append(logits[1] - max(logits[0], logits[2]))
        return sum(found) / len(found)

    nothing = lead(mean)
    expected = (lead(look) - nothing) / (lead(planted.trigger(12, 12).pattern) - nothing)
    assert likeness(ground(images), planted, 1, more) == pytest.approx(expected, rel=1e-4)


def test_a_class_without_images_has_no_look() -> None:
    assert likeness(ground(signs()), patch(SIGN, STRIPES), 2, signs(1)) == 0


def test_of_images_of_the_class_alone_nothing_is_known() -> None:
    images = signs()
    here = ground(images)
    here.labels = torch.ones(24, dtype=torch.int64)
    with pytest.raises(DataError, match="all images are of class 1"):
        likeness(here, patch(SIGN, STRIPES), 1, signs(1))
