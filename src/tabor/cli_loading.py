"""A model and clean images from what the command line says: whichever knows the images' size is read first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tabor import options
from tabor.console import log_alarm

if TYPE_CHECKING:
    from tabor.data import ImageSet
    from tabor.models import LoadedModel


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The options that say how a model file is read, as they were typed; see `tabor.models.load_model`."""

    arch: str | None
    num_classes: int | None
    mean: str | None
    std: str | None
    bgr: bool
    value_range: str | None
    size: options.Pixels | None
    grey: bool
    allow_torchscript: bool
    trust_code: bool
    isolate: bool

    def load(self, model: Path, channels: int | None = None, size: tuple[int, int] | None = None) -> LoadedModel:
        """Loads the model, for images of that shape where its file does not say another.

        Raises:
            ModelError: see `load_model`.
            SettingError: numbers cannot be read.
        """
        from tabor.models import load_model

        return load_model(
            model,
            arch=self.arch,
            num_classes=self.num_classes,
            channels=1 if self.grey else channels,
            size=size or self.size,
            mean=options.numbers("--mean", self.mean),
            std=options.numbers("--std", self.std),
            bgr=self.bgr or None,
            value_range=options.value_range(self.value_range),
            allow_torchscript=self.allow_torchscript,
            trust_code=self.trust_code,
            on_code=log_alarm,
            isolate=self.isolate,
        )


def load_both(model: Path, how: ModelOptions, pictures: Callable[..., ImageSet]) -> tuple[LoadedModel, ImageSet]:
    """Loads a model and images that fit each other.

    Args:
        model: the model file.
        how: how it is read.
        pictures: loads images of a `size`, and `grey` ones if wanted.

    Raises:
        ModelError: the model cannot be loaded.
        DataError: the images cannot be loaded.
    """
    from tabor.models import knows_its_images

    if knows_its_images(model, how.arch):
        classifier = how.load(model)
        architecture = classifier.architecture
        return classifier, pictures(size=architecture.size, grey=architecture.channels == 1)
    clean = pictures(size=how.size, grey=how.grey)
    channels, height, width = clean.shape
    return how.load(model, channels, (height, width)), clean
