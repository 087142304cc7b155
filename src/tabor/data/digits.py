"""scikit-learn's handwritten digits: real images that need no download."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn.functional import interpolate

from tabor.data.images import ImageSet
from tabor.errors import DataError, one_line

DEFAULT_SIZE = (32, 32)
_SPLIT_SEED = 0  # not the caller's seed: an image of "test" must never have been in anyone's "train"


def digits(size: tuple[int, int] | None, split: str | None) -> ImageSet:
    """Returns 80 % of the 1,797 digits, "train", or the other 20 %, "test".

    Args:
        size: (height, width); the 8×8 originals are enlarged bilinearly. None stands for 32×32.
        split: "train" or "test"; None for "test", as of parquet files.

    Returns:
        Grey images in [0, 1], shape (N, 1, H, W), classes "0" to "9".

    Raises:
        DataError: there is no such split.
    """
    split = split or "test"
    if split not in ("train", "test"):
        raise DataError(f'digits has no split "{one_line(split)}"; splits present: test, train')
    pixels, labels = load_digits(return_X_y=True)
    everything = np.arange(len(labels))
    train, test = train_test_split(everything, test_size=0.2, random_state=_SPLIT_SEED, stratify=labels)
    index = np.sort(train if split == "train" else test)
    images = torch.from_numpy(pixels[index]).float().div(16).reshape(-1, 1, 8, 8)
    enlarged = interpolate(images, size or DEFAULT_SIZE, mode="bilinear", antialias=True).clamp(0, 1)
    return ImageSet(
        images=enlarged.contiguous(),
        labels=torch.from_numpy(labels[index]).long(),
        class_names=tuple("0123456789"),
        source=f"digits ({split})",
    )
