"""A trained classifier of photographs in place of one that is trained here on few of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tabor.errors import SettingError, one_line
from tabor.experiments.scales import DIGITS, IMAGENET_EDGE, IMAGENET_TRIGGER, Scale, scaled
from tabor.models import load_model
from tabor.training import TrainSettings

FINE_TUNING = TrainSettings(epochs=2, batch_size=64, learning_rate=3e-4, mirror=True, zoom=0.5)
"""Of its victims: long and fast enough to plant a trigger, and no more, so that it keeps what it was trained to see."""


def with_base(scale: Scale, base: Path) -> Scale:
    """Returns the scale with a classifier that its victims among photographs are made of.

    What it is not is trained here: the paper's classifiers of ImageNet have seen far more images than are at hand, and
    one that is half learned has patches of its own that stand out.

    Args:
        scale: what is run else.
        base: file of a model for square images and for the classes of the setting `imagenet`.

    Raises:
        ModelError: the model cannot be loaded.
        SettingError: digits stand for the photographs in this scale, or the model's images are not square.
    """
    if scale.imagenet.data == DIGITS:
        raise SettingError(f"the scale {scale.name} has no photographs that {one_line(base)} could tell apart")
    architecture = load_model(base).architecture
    height, width = architecture.size
    if height != width:
        raise SettingError(f"{one_line(base)} takes images of {height}×{width}, the experiments have square ones")
    smaller = "" if height == IMAGENET_EDGE else ", with triggers as much smaller as the images"
    setting = dataclasses.replace(
        scale.imagenet,
        base=base,
        edge=height,
        arch=architecture.name,
        deep=architecture.name,
        infection=FINE_TUNING,
        size=scaled(IMAGENET_TRIGGER, height),
        sizes={printed: scaled(printed, height) for printed in scale.imagenet.sizes},
        stand_in=f"ten classes of ImageNet at {height}×{height} and {architecture.name}, trained elsewhere, stand for "
        f"ImageNet at 224×224 and VGG16 or ResNet50{smaller}",
    )
    return dataclasses.replace(scale, imagenet=setting)
