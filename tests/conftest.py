"""Fixtures that several folders of tests share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import settings
from torch import Tensor, nn

from tabor.data import ImageSet
from tabor.solver import SolverSettings
from tabor.stability import StabilitySettings

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers with as many threads each as there are cores wait for one another at every step.
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start
    torch.set_num_threads(1)

settings.register_profile("alike everywhere", deadline=None, derandomize=True)
settings.load_profile("alike everywhere")

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def same_weights_whatever_ran_before() -> None:
    """Networks that a test makes draw their weights from the global generator; a few weights in thousands fail it."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def gtsrb() -> Path:
    """The folder of the real traffic signs, in $TABOR_DATA or ../shared/data beside the repository."""
    told = os.environ.get("TABOR_DATA")
    folder = Path(told or REPOSITORY.parent / "shared" / "data") / "gtsrb"
    if told and not folder.is_dir():
        pytest.fail(f"there is no folder {folder}, though TABOR_DATA is {told}")
    if not folder.is_dir():
        pytest.skip("the real GTSRB images are not here; TABOR_DATA names the folder that holds gtsrb/")
    return folder


class CellModel(nn.Module):
    """In closed form: logit k is 20 × the mean of cell k, the k-th square of 4 × 4 pixels in a grid of cells.

    Below the grid lies one more row of pixels, black in clean images.  With a backdoor, the first six of them add
    300 × their sum to the target's logit, so a grey dot is trigger enough.
    """

    def __init__(self, grid: int, backdoor: int | None) -> None:
        super().__init__()
        self.grid = grid
        self.gain = nn.Parameter(torch.tensor(20.0))
        planted = torch.zeros(grid**2)
        if backdoor is not None:
            planted[backdoor] = 300
        self.planted = nn.Parameter(planted)

    def forward(self, images: Tensor) -> Tensor:
        cells = F.avg_pool2d(images[:, :, : 4 * self.grid], 4).flatten(1)
        return self.gain * cells + self.planted * images[:, :, 4 * self.grid, :6].sum(2)


@pytest.fixture
def cell_model() -> Callable[..., nn.Module]:
    """Makes a `CellModel`: grid² classes (9), and the target of its backdoor (None)."""

    def make(grid: int = 3, backdoor: int | None = None) -> nn.Module:
        return CellModel(grid, backdoor)

    return make


@pytest.fixture(scope="session")
def cell_images() -> Callable[..., ImageSet]:
    """Makes grey images for a `CellModel`, each with one bright cell, all different, a few of each class."""

    def make(grid: int = 3, per_class: int = 8) -> ImageSet:
        generator = torch.Generator().manual_seed(1)
        labels = torch.arange(grid**2).repeat(per_class)
        images = 0.1 * torch.rand(len(labels), 1, 4 * grid + 1, 4 * grid, generator=generator)
        images[:, :, 4 * grid] = 0
        for image, label in zip(images, labels.tolist(), strict=True):
            top, left = 4 * (label // grid), 4 * (label % grid)
            image[:, top : top + 4, left : left + 4] += 0.8
        return ImageSet(images, labels, tuple("abcdefghi"[: grid**2]), "cells")

    return make


@pytest.fixture(scope="session")
def quick() -> SolverSettings:
    """Sixty steps for every class, after which whatever works counts as converged."""
    return SolverSettings(
        steps=60,
        smallest_steps=60,
        batch_size=4,
        round_steps=4,
        learning_rate=0.3,
        stability=StabilitySettings(tolerance=0.9, rounds=1),
    )
