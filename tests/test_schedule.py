from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from tabor.errors import SettingError
from tabor.schedule import AugmentationSettings, augment


def test_augment_by_hand() -> None:
    settings = AugmentationSettings(initial=1.0, step=2.0, success=0.9, smallest=0.5, largest=8.0)
    factor, success = torch.tensor([1.0, 1.0, 8.0, 0.5, 3.0]), torch.tensor([0.9, 0.89, 1.0, 0.0, 1.0])
    assert augment(factor, success, settings).tolist() == [2.0, 0.5, 8.0, 0.5, 6.0]


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: AugmentationSettings(step=1.0), id="step of 1"),
        pytest.param(lambda: AugmentationSettings(success=0.0), id="success of 0"),
        pytest.param(lambda: AugmentationSettings(success=1.01), id="success above 1"),
        pytest.param(lambda: AugmentationSettings(smallest=0.0), id="smallest of 0"),
        pytest.param(lambda: AugmentationSettings(initial=1e-4), id="initial below smallest"),
        pytest.param(lambda: AugmentationSettings(initial=1e5), id="initial above largest"),
        pytest.param(lambda: AugmentationSettings(initial=math.nan), id="initial nan"),
        pytest.param(lambda: AugmentationSettings(step=math.nan), id="step nan"),
    ],
)
def test_refuses_an_augmentation_that_cannot_work(make: Callable[[], AugmentationSettings]) -> None:
    with pytest.raises(SettingError, match="the augmentation needs"):
        make()
