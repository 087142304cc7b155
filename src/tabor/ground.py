"""What all classes share when patches are sought: the images, the unit of evidence, and what each window hides."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tabor.access import Classifier
from tabor.data import ImageSet
from tabor.errors import DataError
from tabor.evidence import right_without
from tabor.patches import Patch, RestoreSettings, paint, plain_colours
from tabor.trigger import stamp
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


def on_others(values: Tensor, labels: Tensor) -> Tensor:
    """Returns the means of values (K, N, classes) over the images that are not of each class, shape (K, classes).

    −∞ for a class of which all images are.
    """
    others = (labels[:, None] != torch.arange(values.shape[2], device=labels.device)).float()
    return ((values * others).sum(1) / others.sum(0)).nan_to_num(nan=-torch.inf)


class Ground:
    """A model and the clean images that patches are sought with.

    Args:
        classifier: the model.
        images: clean images in a balanced order, on the classifier's device.
        settings: what windows cost.

    Attributes:
        plain: plain colours that windows are tried in, shape (colours, C).
        unit: mean lead of the class that a clean image goes to: the evidence of a real image.
        fewest_others: images of other classes, of the class with the fewest of them.
    """

    def __init__(self, classifier: Classifier, images: ImageSet, settings: RestoreSettings) -> None:
        self.classifier, self.images, self.labels = classifier, images.images, images.labels
        self.settings = settings
        self.plain = plain_colours(self.images.shape[1]).to(self.images.device)
        logits = classifier.predict(self.images)
        self.unit = max(float(leads(logits).amax(1).mean()), 1e-6)
        self.fewest_others = len(self.labels) - int(torch.unique(self.labels, return_counts=True)[1].max())
        self._some = ImageSet(self.images[: settings.cropped], self.labels[: settings.cropped], ())
        self._right = int((logits.argmax(1) == self.labels)[: settings.cropped].sum())
        self._seen: dict[Window, int] = {}

    @property
    def stamped_at_once(self) -> int:
        """How many stamped images go through the network in one pass."""
        return min(STAMPED_AT_ONCE, self.classifier.images_at_once)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        height, width = self.images.shape[2:]
        return height, width

    def not_of(self, target: int) -> Tensor:
        """Returns the positions of the images of other classes, int64.

        Raises:
            DataError: all images are of that class.
        """
        others = (self.labels != target).nonzero().flatten()
        if len(others) == 0:
            raise DataError(f"all images are of class {target}, so none could be misclassified as it")
        return others

    def leads(
        self, images: Tensor, windows: Sequence[Window], colours: Tensor, outlines: Tensor | None = None
    ) -> Tensor:
        """Returns every class's lead, in units, for each patch on each image, shape (K, N, classes).

        Args:
            images: shape (N, C, H, W), or (K, N, C, H, W) where each patch has images of its own.
            windows: K of them.
            colours: shape (K, C, G, G); gradients flow to them.
            outlines: how far each covers the image, shape (K, 1, G, G); None: wholly.
        """
        masks, patterns = paint(windows, colours, *self.size, outlines)
        stamped = stamp(images, masks[:, None], patterns[:, None])
        return leads(self.classifier.logits(stamped.flatten(0, 1))).unflatten(0, stamped.shape[:2]) / self.unit

    @torch.no_grad()
    def judged(
        self, places: Tensor, windows: Sequence[Window], colours: Tensor, outlines: Tensor | None = None
    ) -> Tensor:
        """Like `leads` without gradients, of the images at these places, (N,) or (K, N), in parts that fit."""
        several = max(1, self.stamped_at_once // places.shape[-1])
        found = []
        for k in range(0, len(windows), several):
            images = self.images[places if places.dim() == 1 else places[k : k + several]]
            own = slice(k, k + several)
            found.append(self.leads(images, windows[own], colours[own], None if outlines is None else outlines[own]))
        return torch.cat(found)

    @torch.no_grad()
    def worth(self, patch: Patch, target: int, images: Tensor) -> float:
        """Returns what a patch is worth for a class by the network itself; the search may run on a rounded copy."""
        stamped = patch.trigger(*self.size).to(images.device).stamp(images)
        found = leads(self.classifier.predict(stamped))[:, target].mean() / self.unit
        return float(found - self.costs([patch.window])[0])

    def shape_costs(self, windows: Sequence[Window]) -> Tensor:
        """Returns what windows cost, in units, shape (K,), for covering pixels and for being slender."""
        pixels = math.prod(self.size)
        price, slenderness = self.settings.price, self.settings.slenderness
        costs = [price * w.area / pixels + slenderness * abs(math.log(w.height / w.width)) for w in windows]
        return torch.tensor(costs, device=self.images.device)

    def costs(self, windows: Sequence[Window]) -> Tensor:
        """Returns what windows cost in all, in units, shape (K,): for their shape, and for hiding the object.

        ∞ where a window hides too much of it.  The odds of keeping a right answer are Laplace's estimate.
        """
        hiding = [self._hiding(window) for window in windows]
        return self.shape_costs(windows) + torch.tensor(hiding, device=self.images.device)

    def hides(self, window: Window) -> bool:
        """Whether a window hides too much of the object: the sign of a class pasted over it is no trigger."""
        kept = self._kept(window)
        return kept == 0 or kept < self.settings.least_kept * self._right

    def _hiding(self, window: Window) -> float:
        if self.hides(window):
            return math.inf
        kept = min(self._kept(window), self._right)
        return self.settings.hiding * max(CLEAR - math.log((kept + 1) / (self._right - kept + 1)), 0.0)

    def _kept(self, window: Window) -> int:
        """How many of some images are classified rightly with the window hidden."""
        if window not in self._seen:
            mask = window.mask(*self.size).to(self.images.device)
            self._seen[window] = right_without(
                self.classifier, mask, self._some, self.settings.least_kept * self._right
            )
        return self._seen[window]
