"""What all classes share when patches are sought: the images, the unit of evidence, and what each window hides."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tabor.access import Classifier
from tabor.data import ImageSet
from tabor.trigger import crop, stamp
from tabor.windows import Window

STAMPED_AT_ONCE = 256
"""Images stamped in one go: more only leaves the cache."""

CLEAR = 2.5
"""Log-odds of keeping a right answer (92 %) from which a window hides nothing of the object."""


def leads(logits: Tensor) -> Tensor:
    """Returns how far each logit lies above the highest other one of its row, shape (N, classes) as the logits."""
    top = logits.topk(2, dim=1)
    highest = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, top.indices[:, :1], True)
    return logits - torch.where(highest, top.values[:, 1:], top.values[:, :1])


def paint(windows: Sequence[Window], colours: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Returns masks (K, 1, H, W) of windows and patterns (K, C, H, W) that are all of one colour (K, C)."""
    masks = torch.stack([window.mask(height, width) for window in windows]).to(colours.device)
    return masks, colours[:, :, None, None].expand(-1, -1, height, width)


class Ground:
    """A model and the clean images that patches are sought with.

    Args:
        classifier: the model.
        images: clean images in a balanced order, on the classifier's device.
        price: what covering the whole image costs, in units.
        slenderness: what it costs that a window is e times as long as wide, in units: triggers are compact.
        hiding: what it costs, in units, that the odds that the model keeps a right answer with a window blacked out are
            e times lower than `CLEAR`.
        seen: share of its accuracy that the model must keep where a window is blacked out, in [0, 1].
        cropped: images that tell what a window hides.

    Attributes:
        unit: mean lead of the class that a clean image goes to: the evidence of a real image.
    """

    def __init__(
        self,
        classifier: Classifier,
        images: ImageSet,
        *,
        price: float,
        slenderness: float,
        hiding: float,
        seen: float,
        cropped: int,
    ) -> None:
        self.classifier, self.images, self.labels = classifier, images.images, images.labels
        self.price, self.slenderness, self.hiding = price, slenderness, hiding
        self.seen, self.cropped = seen, cropped
        logits = classifier.predict(self.images)
        self.unit = max(float(leads(logits).amax(1).mean()), 1e-6)
        self._right = int((logits.argmax(1) == self.labels)[:cropped].sum())
        self._costs: dict[Window, float] = {}

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        height, width = self.images.shape[2:]
        return height, width

    def leads(self, images: Tensor, windows: Sequence[Window], colours: Tensor) -> Tensor:
        """Returns every class's lead, in units, for each patch on each image, shape (K, N, classes).

        Gradients flow to the colours (K, C).
        """
        masks, patterns = paint(windows, colours, *self.size)
        stamped = stamp(images, masks[:, None], patterns[:, None]).flatten(0, 1)
        return leads(self.classifier.logits(stamped)).unflatten(0, (len(windows), len(images))) / self.unit

    @torch.no_grad()
    def judged(self, images: Tensor, windows: Sequence[Window], colours: Tensor) -> Tensor:
        """Like `leads` without gradients, in parts that fit the cache."""
        several = max(1, STAMPED_AT_ONCE // len(images))
        parts = range(0, len(windows), several)
        return torch.cat([self.leads(images, windows[k : k + several], colours[k : k + several]) for k in parts])

    def costs(self, windows: Sequence[Window]) -> Tensor:
        """Returns what windows cost, in units, shape (K,): covering pixels, being slender, and hiding the object.

        A window that hides too much of the object is out of the question (∞): the sign of a class pasted over the
        object is no trigger.
        """
        pixels = math.prod(self.size)
        costs = [
            self.price * w.area / pixels + self.slenderness * abs(math.log(w.height / w.width)) + self._hidden(w)
            for w in windows
        ]
        return torch.tensor(costs, device=self.images.device)

    @torch.no_grad()
    def _hidden(self, window: Window) -> float:
        """The cost of hiding the object; the odds are Laplace's estimate."""
        if window not in self._costs:
            images, labels = self.images[: self.cropped], self.labels[: self.cropped]
            mask = window.mask(*self.size).to(images.device)
            right = int((self.classifier.predict(crop(images, mask)).argmax(1) == labels).sum())
            kept, lost = min(right, self._right), max(self._right - right, 0)
            cost = self.hiding * max(CLEAR - math.log((kept + 1) / (lost + 1)), 0.0)
            self._costs[window] = cost if right and right >= self.seen * self._right else math.inf
        return self._costs[window]
