"""What is measured on a restored trigger, on images the search never saw: the five parts of Eq. 8.  [§4.2.4]"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tabor.access import Classifier
from tabor.data import ImageSet
from tabor.trigger import Trigger, cover, crop, isolate

WORKS = 0.8
"""Attack success on unseen images without which a trigger flags no class, whatever its score."""

EIGHT_BIT_ZERO = 0.5 / 255
"""Below this a pixel is 0 in an 8-bit picture: the paper's "> 0" for masks that are never exactly 0."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Counts and measures for one restored trigger.

    Attributes:
        mask_l1: Σ M, in pixels.
        pixels: H·W.
        edges: d·(d−1) for a d×d image; the mean of H·(W−1) and (H−1)·W.
        mask_smoothness: s(M) of the mask itself (Eq. 3).
        shape_pixels: ‖F‖₁ with F = 1{M⊙Δ > 0} after rounding to 8 bits (Eq. 8).
        shape_smoothness: s(F).
        attacked, attacked_of: images of other classes sent to the target, out of how many (acc_att).
        cropped_right, cropped_of: images still classified rightly without the trigger's place (acc_crop).
        explained, explained_of: explanations classified as the target (acc_exp).  The explanation M⊙Δ is one image.
    """

    mask_l1: float
    pixels: int
    edges: float
    mask_smoothness: float
    shape_pixels: int
    shape_smoothness: float
    attacked: int
    attacked_of: int
    cropped_right: int
    cropped_of: int
    explained: int
    explained_of: int

    @property
    def attack_success(self) -> float:
        """Share of images of other classes that are sent to the target, in [0, 1]; 0 of none (acc_att)."""
        return self.attacked / max(self.attacked_of, 1)

    @property
    def crop_accuracy(self) -> float:
        """Share of images still classified rightly without the trigger's place, in [0, 1] (acc_crop)."""
        return self.cropped_right / max(self.cropped_of, 1)

    @property
    def explanation_accuracy(self) -> float:
        """Share of explanations classified as the target, in [0, 1] (acc_exp)."""
        return self.explained / max(self.explained_of, 1)

    @property
    def works(self) -> bool:
        """Whether it sends enough unseen images to the target; of none, nothing can be said."""
        return self.attacked_of > 0 and self.attacked >= WORKS * self.attacked_of


def smoothness(values: Tensor) -> Tensor:
    """s(·) of Eq. 3: the sum of squared differences of neighbours, over all but the first dimension.

    Args:
        values: shape (K, C, H, W).

    Returns:
        Shape (K,).
    """
    down = values[..., 1:, :] - values[..., :-1, :]
    right = values[..., :, 1:] - values[..., :, :-1]
    return down.square().flatten(1).sum(1) + right.square().flatten(1).sum(1)


@torch.no_grad()
def sent(classifier: Classifier, trigger: Trigger, target: int, images: ImageSet) -> Tensor:
    """Returns which of the images of other classes a trigger sends to the target: bool, one for each of them.

    Args:
        classifier: the model.
        trigger: on the classifier's device.
        target: the class.
        images: on the classifier's device.
    """
    others = images.images[images.labels != target]
    if not len(others):
        return torch.zeros(0, dtype=torch.bool, device=others.device)
    return classifier.predict(trigger.stamp(others)).argmax(1) == target


@torch.no_grad()
def measure(classifier: Classifier, trigger: Trigger, target: int, images: ImageSet) -> Evidence:
    """Measures a trigger for a target class.

    Args:
        classifier: the model.
        trigger: what was restored, on the classifier's device.
        target: the class it should send images to.
        images: clean images the search did not use, on the classifier's device.
    """
    mask, pattern = trigger.mask, trigger.pattern
    height, width = mask.shape[1:]
    attacked = sent(classifier, trigger, target, images)
    cropped = classifier.predict(crop(images.images, mask)).argmax(1) == images.labels
    explained = classifier.predict(isolate(mask, pattern)[None]).argmax(1) == target
    shape = (isolate(mask, pattern).amax(0, keepdim=True) > EIGHT_BIT_ZERO).float()
    return Evidence(
        mask_l1=float(mask.sum()),
        pixels=height * width,
        edges=max((height * (width - 1) + (height - 1) * width) / 2, 1.0),  # one pixel has no edge
        mask_smoothness=float(smoothness(mask[None])),
        shape_pixels=int(shape.sum()),
        shape_smoothness=float(smoothness(shape[None])),
        attacked=int(attacked.sum()),
        attacked_of=len(attacked),
        cropped_right=int(cropped.sum()),
        cropped_of=len(images),
        explained=int(explained.sum()),
        explained_of=1,
    )


@torch.no_grad()
def right_without(classifier: Classifier, mask: Tensor, images: ImageSet, enough: float) -> int:
    """Returns how many images are classified rightly with a place hidden.

    It is blacked out (Eq. 4) and, where that leaves too few, painted grey and white: to black out the place of a black
    trigger is to stamp the trigger, and white is one to a network that knows it by its edges; then it is not the object
    that was hidden.

    Args:
        classifier: the model.
        mask: the place, shape (1, H, W), on the classifier's device.
        images: clean images, on the classifier's device.
        enough: images from which on black will do.
    """

    def right(grey: float) -> int:
        return int((classifier.predict(cover(images.images, mask, grey)).argmax(1) == images.labels).sum())

    blacked = right(0.0)
    return blacked if blacked >= enough else max(blacked, right(0.5), right(1.0))
