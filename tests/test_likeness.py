"""Whether what a patch does is owed to how its class looks, on a network that answers to that and to a planted one."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tabor.access import Classifier
from tabor.data import ImageSet
from tabor.likeness import Looks, _in_particular, _on_average
from tabor.suspect import OWED
from tabor.trigger import Trigger
from tabor.windows import Window

from .closed_form import CPU

SIGN, CORNER = Window(2, 2, 6, 6), Window(8, 8, 12, 12)
STRIPES = torch.tensor([0.2, 0.8, 0.2, 0.8]).repeat(4, 1)
BOARD = STRIPES.clone()
BOARD[1::2] = 1 - BOARD[1::2]
WEIGHTS = torch.tensor([[-1.0, -0.9], [1.0, 0.9], [0.1, -0.2]])


class Signs(nn.Module):
    """Class 1 for faint upright stripes in one place, as its images have them, or a bold chessboard in a corner."""

    def seen(self, images: Tensor) -> Tensor:
        def like(window: Window, picture: Tensor) -> Tensor:
            inside = images[:, 0, window.top : window.bottom, window.left : window.right] - 0.5
            return (inside * (picture - 0.5)).sum((1, 2))

        return torch.stack([40 * like(SIGN, STRIPES), 20 * like(CORNER, BOARD)], 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.seen(images) @ WEIGHTS.T


class Wide(Signs):
    """The same, which sees much else that its logits do not hang on, and more of it than of the board by chance."""

    def forward(self, images: Tensor) -> Tensor:
        besides = 3 * images.flatten(1) @ torch.randn(144, 40, generator=torch.Generator().manual_seed(0))
        weights = torch.cat([WEIGHTS, torch.zeros(3, 40)], 1)
        return torch.cat([self.seen(images), besides], 1) @ weights.T


class Huge(Signs):
    """The same, with features near the end of single precision."""

    def forward(self, images: Tensor) -> Tensor:
        return (1e36 * self.seen(images)) @ (1e-36 * WEIGHTS.T)


class Unlayered(Signs):
    """The same, whose logits are no product of features that anybody sees."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([(self.seen(images) * row).sum(1) for row in WEIGHTS], 1)


def signs(seed: int = 0, classes: int = 2) -> ImageSet:
    generator = torch.Generator().manual_seed(seed)
    images = 0.5 + 0.03 * torch.randn(24, 1, 12, 12, generator=generator)
    labels = torch.arange(24) % classes
    images[labels == 1, 0, SIGN.top : SIGN.bottom, SIGN.left : SIGN.right] += 0.3 * (STRIPES - 0.5)
    return ImageSet(images.clamp(0, 1), labels, ("none", "striped", "never"))


def looks(network: nn.Module | None = None, halves: tuple[ImageSet, ImageSet] | None = None) -> Looks:
    return Looks(Classifier(network or Signs(), CPU, (1, 12, 12)), halves or (signs(), signs(1)), 8)


def trigger(window: Window, picture: Tensor) -> Trigger:
    mask, pattern = torch.zeros(1, 12, 12), torch.zeros(1, 12, 12)
    mask[:, window.top : window.bottom, window.left : window.right] = 1
    pattern[:, window.top : window.bottom, window.left : window.right] = picture
    return Trigger(mask, pattern)


def both() -> Trigger:
    """Half of what each does."""
    one, other = trigger(SIGN, 0.5 + 0.25 * (STRIPES - 0.5)), trigger(CORNER, 0.5 + 0.5 * (BOARD - 0.5))
    return Trigger(one.mask + other.mask, one.pattern + other.pattern)


def test_what_looks_like_the_class_is_told_from_what_was_planted() -> None:
    natural = looks().likeness(trigger(SIGN, STRIPES), 1)
    planted = looks().likeness(trigger(CORNER, BOARD), 1)
    assert natural is not None
    assert planted is not None
    assert natural > 0.9
    assert planted < 0.1 < OWED


@pytest.mark.parametrize("stamped", [trigger(SIGN, STRIPES), trigger(CORNER, BOARD), both()])
@pytest.mark.parametrize("target", [0, 1])
def test_it_is_the_share_of_the_effect_along_the_way_to_the_class(stamped: Trigger, target: int) -> None:
    network, halves = Signs(), (signs(), signs(1))

    def mean_of(images: list[Tensor]) -> list[float]:
        rows = [network.seen(image[None])[0].tolist() for image in images]
        return [sum(column) / len(rows) for column in zip(*rows, strict=True)]

    every = [pair for half in halves for pair in zip(half.images, half.labels.tolist(), strict=True)]
    own = mean_of([image for image, label in every if label == target])
    rest = mean_of([image for image, label in every if label != target])
    way = [a - b for a, b in zip(own, rest, strict=True)]
    others = [image for image, label in zip(halves[1].images, halves[1].labels, strict=True) if label != target][:8]
    before, after = mean_of(others), mean_of([stamped.stamp(image) for image in others])
    change = [a - b for a, b in zip(after, before, strict=True)]
    speaks = [
        float(WEIGHTS[target][f]) - sum(float(WEIGHTS[k][f]) for k in range(3) if k != target) / 2 for f in (0, 1)
    ]
    effect = sum(c * s for c, s in zip(change, speaks, strict=True))
    along = sum(c * w for c, w in zip(change, way, strict=True)) / sum(w * w for w in way)
    owed = along * sum(w * s for w, s in zip(way, speaks, strict=True))
    found = looks(network, halves).likeness(stamped, target)
    if effect <= 0:
        assert found is None
    else:
        assert found == pytest.approx(owed / effect, rel=1e-3)


@pytest.mark.parametrize("stamped", [trigger(SIGN, STRIPES), trigger(CORNER, BOARD), both()])
def test_what_is_familiar_lies_where_the_images_of_the_class_differ_from_all_others(stamped: Trigger) -> None:
    """Of 24 images of the class 12 directions count, of which two features have but two: all of the effect."""
    assert looks().familiarity(stamped, 1) == pytest.approx(1)


def test_the_directions_are_those_that_the_images_have_most_in() -> None:
    differences = torch.randn(8, 20, generator=torch.Generator().manual_seed(0)).double() * torch.arange(20, 0, -1)
    found = _in_particular(differences)
    assert found.shape == (4, 20)
    assert torch.allclose(found @ found.T, torch.eye(4).double(), atol=1e-9)
    # The eigenvectors of the second moments, largest first.
    values, vectors = torch.linalg.eigh(differences.T @ differences)
    for k in range(4):
        assert abs(float(found[k] @ vectors[:, -1 - k])) == pytest.approx(1, abs=1e-6)
        assert float((differences @ found[k]).square().sum()) == pytest.approx(float(values[-1 - k]))


def test_of_one_image_there_is_one_direction_and_of_none_that_differs_none() -> None:
    assert torch.allclose(_in_particular(torch.tensor([[3.0, 4.0]])).abs(), torch.tensor([[0.6, 0.8]]))
    assert _in_particular(torch.zeros(4, 2)).shape == _on_average(torch.zeros(4, 2)).shape == (0, 2)


@pytest.mark.parametrize(("count", "known"), [(19, False), (20, True)])
def test_of_a_class_with_few_images_nobody_knows_what_is_familiar(count: int, known: bool) -> None:
    every = signs()
    of_class = (every.labels == 1).nonzero().flatten()
    more = signs(1)
    also = torch.cat(
        [(more.labels == 1).nonzero().flatten()[: count - len(of_class)], (more.labels == 0).nonzero().flatten()]
    )
    seen = looks(Wide(), (every, more.select(also)))
    assert seen.known(1) is known
    assert (seen.familiarity(trigger(CORNER, BOARD), 1) is not None) is known
    assert seen.likeness(trigger(CORNER, BOARD), 1) is not None


def test_a_picture_of_what_few_images_of_the_class_show_is_familiar_and_not_alike() -> None:
    halves = signs(), signs(1)
    odd = halves[0].images.clone()
    odd[1, 0, CORNER.top : CORNER.bottom, CORNER.left : CORNER.right] = BOARD  # of class 1
    seen = looks(Wide(), (replace(halves[0], images=odd), halves[1]))
    like, familiar = (share(trigger(CORNER, BOARD), 1) for share in (seen.likeness, seen.familiarity))
    assert like is not None
    assert familiar is not None
    assert like < OWED < familiar
    foreign = looks(Wide()).familiarity(trigger(CORNER, BOARD), 1)
    assert foreign is not None
    assert foreign < OWED


@pytest.mark.parametrize("stamped", [trigger(SIGN, STRIPES), trigger(CORNER, BOARD)])
@pytest.mark.parametrize("target", [0, 1])
def test_what_is_not_familiar_is_strange(stamped: Trigger, target: int) -> None:
    seen = looks(Wide())
    strange, familiar = seen.strangeness(stamped, target), seen.familiarity(stamped, target)
    images = signs(1).images[signs(1).labels != target][:8]
    change = (Signs().seen(stamped.stamp(images)) - Signs().seen(images)).mean(0)
    effect = float(change @ (WEIGHTS[target] - (WEIGHTS.sum(0) - WEIGHTS[target]) / 2))
    assert strange is not None  # also where the effect speaks against the class
    if familiar is None:
        assert effect < 0
    else:
        assert strange == pytest.approx((1 - familiar) * effect, rel=1e-3)


@pytest.mark.parametrize(
    ("seen", "target"),
    [
        pytest.param(looks(Unlayered()), 1, id="no last layer that is a product"),
        pytest.param(looks(), 2, id="no images of the class"),
        pytest.param(looks(halves=(signs(), signs(1, classes=1))), 0, id="no others to stamp it on"),
        pytest.param(looks(), 0, id="it speaks against the class"),
    ],
)
def test_where_it_cannot_be_told_there_is_none(seen: Looks, target: int) -> None:
    assert seen.likeness(trigger(SIGN, STRIPES), target) is None
    assert seen.familiarity(trigger(SIGN, STRIPES), target) is None


def test_nobody_knows_what_is_strange_to_a_class_with_few_images() -> None:
    few = looks(halves=(signs(), signs(1, classes=1)))  # 12 of class 1
    assert not few.known(1)
    assert few.strangeness(trigger(CORNER, BOARD), 1) is None


def test_features_may_be_huge_or_none_at_all() -> None:
    for share in (looks(Huge()).likeness, looks(Huge()).familiarity):
        assert share(trigger(SIGN, STRIPES), 1) == pytest.approx(1, abs=0.1)
    broken = looks()
    assert broken._clean is not None
    broken._clean.seen[3] = math.nan
    assert broken.likeness(trigger(SIGN, STRIPES), 1) is None
    assert broken.familiarity(trigger(SIGN, STRIPES), 1) is None


def test_classes_that_look_alike_tell_nothing() -> None:
    grey = ImageSet(torch.full((24, 1, 12, 12), 0.5), torch.arange(24) % 2, ("none", "striped", "never"))
    assert looks(halves=(grey, grey)).likeness(trigger(SIGN, STRIPES), 1) is None
    assert looks(halves=(grey, grey)).familiarity(trigger(SIGN, STRIPES), 1) is None
