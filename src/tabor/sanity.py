"""Whether a model is right about the clean images at all; where it is not, which preprocessing would make it so."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch
from torch import nn

from tabor.data import ImageSet
from tabor.errors import one_line
from tabor.models import LoadedModel
from tabor.models.pixels import prepared

LOW_ACCURACY = 0.5
"""Clean accuracy below which the preprocessing, or the images, are probably wrong."""

HALF_LEARNED = 0.75
"""Clean accuracy below which natural patches may be as strong as planted ones: in clean classifiers of photographs they
were where it is 0.61 to 0.68; of four from 0.80 on, none has a patch that works (docs/results/calibration.md)."""

NAMED = 3
"""Classes whose numbers are said, so that a person sees how folders were numbered."""

TRIED_ON = 128
"""Images that other preprocessings are tried on."""

CLEARLY_BETTER = 1.5
"""A preprocessing is recommended that makes the model right so many times as often, and on half of the images."""

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
BYTES = {"value_range": (0.0, 255.0)}
CAFFE = BYTES | {"mean": (103.939, 116.779, 123.68), "std": (1.0, 1.0, 1.0), "bgr": True}

COMMON: dict[str, dict[str, Any]] = {
    "no --mean, --std, --bgr and --range": {},
    "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225": IMAGENET,
    "--mean 0.5 --std 0.5": HALF,
    "--range 0,255": BYTES,
    "--bgr": {"bgr": True},
    "--bgr --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225": IMAGENET | {"bgr": True},
    "--bgr --mean 0.5 --std 0.5": HALF | {"bgr": True},
    "--range 0,255 --bgr": BYTES | {"bgr": True},
    "--range 0,255 --bgr --mean 103.939,116.779,123.68 --std 1": CAFFE,
}
"""Preprocessings that many networks are trained with, by the options that say so."""


def accuracy_warning(model: nn.Module, images: ImageSet, clean_accuracy: float, at_once: int) -> str | None:
    """Returns what to tell a person whose model is wrong about many clean images, None where it is not.

    Args:
        model: the model as it was given.
        images: the clean images.
        clean_accuracy: of the model on them, in [0, 1].
        at_once: images that may go through the network together.
    """
    if clean_accuracy >= HALF_LEARNED:
        return None
    if clean_accuracy >= LOW_ACCURACY:
        return (
            f"the model is right on only {clean_accuracy:.0%} of the clean images: what was learned half answers to "
            f"patches that nobody planted as strongly as to planted ones, so take the verdict for a hint"
        )
    told = (
        f"the model is right on only {clean_accuracy:.0%} of the clean images: the preprocessing, the labels or "
        f"the images are probably not those it was trained for, and the verdict means little (class folders are "
        f"numbered in sorted order{_first_classes(images)})"
    )
    better = _better(model, images, clean_accuracy, at_once) if isinstance(model, LoadedModel) else None
    return told if better is None else f"{told}; with {better[0]} it would be right on {better[1]:.0%}"


def _first_classes(images: ImageSet) -> str:
    named = [f"{one_line(name, 40)} = {index}" for index, name in enumerate(images.class_names[:NAMED])]
    return f": {', '.join(named)}" if named else ""


@torch.no_grad()
def _better(model: LoadedModel, images: ImageSet, clean_accuracy: float, at_once: int) -> tuple[str, float] | None:
    """The common preprocessing with which the model is right most often, if that is clearly better."""
    some = images.balanced(TRIED_ON, seed=0)
    pictures, labels = some.images, some.labels
    plain = dataclasses.replace(model.architecture, mean=None, std=None, bgr=False, value_range=(0.0, 1.0))
    found: dict[str, float] = {}
    network = copy.deepcopy(model.network).float().eval().to(pictures.device)  # the caller's stays as it is
    for options, changes in COMMON.items() if plain.channels == 3 else ():
        other = prepared(network, dataclasses.replace(plain, **changes)).eval()
        answers = torch.cat([other(part).argmax(1) for part in pictures.split(at_once)])
        found[options] = float((answers == labels).float().mean())
    best = max(found, key=lambda options: found[options], default=None)
    if best is None or found[best] < max(LOW_ACCURACY, CLEARLY_BETTER * clean_accuracy):
        return None
    return best, found[best]
