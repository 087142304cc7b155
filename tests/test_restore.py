"""Whole triggers as patches, on a network whose answer to a trigger is known by its making."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tabor.access import Classifier
from tabor.data import ImageSet
from tabor.restore import Restorer, RestoreSettings, lead, roughness
from tabor.suspects import restore_suspects
from tabor.trigger import Trigger
from tabor.windows import Window

WINDOW = Window(8, 8, 12, 12)


class Planted(nn.Module):
    """Class k for images as bright as k at the upper left; class 2 the more of the window is white."""

    def forward(self, images: Tensor) -> Tensor:
        inside = WINDOW.mask(*images.shape[2:]).to(images)
        outside = 1 - inside
        white = (images * inside).sum((1, 2, 3)) / inside.sum() / images.shape[1]
        around = (images * outside)[:, :, 4:, 4:].mean((1, 2, 3))
        bright = images[:, :, :3, :3].mean((1, 2, 3))
        return torch.stack([4 - 8 * bright, 8 * bright - 4, 20 * white - 12 - 5 * around], 1)


def images() -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    values = 0.3 * torch.rand(32, 1, 12, 12, generator=generator)
    labels = torch.arange(32) % 2
    values[labels == 1, :, :3, :3] += 0.7
    return ImageSet(values, labels, ("dark", "bright", "planted"))


def test_the_lead_is_over_the_highest_other() -> None:
    logits = torch.tensor([[1.0, 5.0, 2.0], [1.0, 5.0, 2.0]])
    assert lead(logits, torch.tensor([1, 0])).tolist() == [3.0, -4.0]


def test_roughness_counts_only_pairs_inside() -> None:
    pattern = torch.tensor([[[[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]]]])
    mask = torch.tensor([[[[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]]]])
    assert roughness(mask, pattern).tolist() == [1.0]


def test_the_window_is_found_from_a_part() -> None:
    classifier = Classifier(Planted(), torch.device("cpu"), (1, 12, 12))
    part = Trigger(Window(9, 9, 11, 11).mask(12, 12), torch.ones(1, 12, 12))
    restorer = Restorer(classifier, images(), RestoreSettings(), 0)
    patch = restorer.restore(2, part, restorer.survey(2))
    assert patch.window == WINDOW
    assert patch.worth > 1
    assert float(patch.trigger().mask.sum()) == WINDOW.area


def test_suspects_are_measured_and_the_planted_one_is_worth_most() -> None:
    classifier = Classifier(Planted(), torch.device("cpu"), (1, 12, 12))
    faint = Trigger(torch.full((1, 12, 12), 0.1), torch.full((1, 12, 12), 0.5))
    shares: list[float] = []
    halves = images().halves(0)
    suspects = restore_suspects(
        classifier, halves, dict.fromkeys(range(3), faint), {0: 1.0, 1: 1.0}, RestoreSettings(), 0, shares.append
    )
    assert set(suspects) == {0, 1, 2}
    assert suspects[2].works
    assert suspects[2].worth is not None
    assert all(s.worth is None or s.worth <= suspects[2].worth for s in suspects.values())
    assert shares == sorted(shares)
    assert shares[-1] <= 1
