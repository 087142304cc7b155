"""How a scan reaches a classifier: a private, frozen copy that answers with float32 logits and counts its work.

The caller's model is never touched, so there is nothing to put back when a scan fails half-way: not its training
flag, not its `requires_grad`, not its memory layout, not its device.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn

from tabor.engine import best_dtype, bytes_per_image, folded, images_at_once, in_parts
from tabor.errors import ModelError, SettingError, dimensions, one_line

EVALUATION_BATCH = 256
"""Images a pass where no gradient is needed; more only leaves the cache."""

PRECISIONS = ("auto", "exact")

AGREEMENT = 0.98
"""Share of images that a faster copy of a network must send to the network's own class."""


class Classifier:
    """A model as the scan sees it: images in [0, 1] in, finite float32 logits out.

    It is the network itself that answers until `hasten` finds a faster copy for the search.

    Args:
        model: any module that returns logits (N, classes).
        device: where to run.
        image_shape: (C, H, W) of the images.

    Attributes:
        num_classes: number of logits.
        image_passes: images sent through the network so far.
        images_at_once: of how many images a pass may be kept for the way back; `limit_memory` sets it.
        dtype: in which the search computes.

    Raises:
        ModelError: the model is no module, cannot be copied, fails on such images, or does not return finite logits
            (N, classes).
    """

    def __init__(self, model: nn.Module, device: torch.device, image_shape: tuple[int, int, int]) -> None:
        if not isinstance(model, nn.Module):
            raise ModelError(f"a model is a torch.nn.Module, got {type(model).__name__}; tabor.load_model reads a file")
        try:
            network = copy.deepcopy(model).float().to(device)
        except (RuntimeError, TypeError, AttributeError) as error:
            raise ModelError(f"the model cannot be copied for the scan: {one_line(error)}") from None
        self._network = network.eval().requires_grad_(False)
        self._image_shape = image_shape
        self.device = device
        grey = torch.full((2, *image_shape), 0.5, device=device)
        logits = self._lay_out(grey)
        _check_answer(logits)
        self.num_classes = logits.shape[1]
        self.image_passes = 0
        self.images_at_once = sys.maxsize
        self.dtype = torch.float32
        self._fast = self._network

    def _lay_out(self, images: Tensor) -> Tensor:
        """Lays the channels last, which convolutions like, unless the model flattens with view(), which does not."""
        last: Exception | None = None
        for layout in (torch.channels_last, torch.contiguous_format):
            self._layout = layout
            self._network.to(memory_format=layout)
            try:
                with torch.no_grad():
                    return self._network(images.clone(memory_format=layout))
            except Exception as error:  # noqa: BLE001 (a stranger's forward may raise anything)
                last = error
        raise ModelError(
            f"the model fails on images of {dimensions(images.shape[1:])} (channels×height×width): {one_line(last)}; "
            f"give the size it was trained on with --size"
        )

    def hasten(self, images: Tensor, dtype: torch.dtype | None = None) -> None:
        """Lets the search run on a faster copy of the network, if there is one that answers alike.

        Args:
            images: clean images to compare the answers on, shape (N, C, H, W).
            dtype: of the copy; None: the device's best, `engine.best_dtype`.
        """
        wanted = best_dtype(self.device) if dtype is None else dtype
        smaller = folded(self._network, images[:2].clone(memory_format=self._layout))
        if smaller is self._network and wanted == torch.float32:
            return
        answers = self.predict(images).argmax(1)
        for kind in dict.fromkeys((wanted, torch.float32)):
            self._fast = smaller if kind == torch.float32 else copy.deepcopy(smaller).to(kind)
            self.dtype = kind
            if self._agreement(images, answers) >= AGREEMENT:
                return
        self._fast, self.dtype = self._network, torch.float32

    @torch.no_grad()
    def _agreement(self, images: Tensor, answers: Tensor) -> float:
        """Share of the images that the search's copy sends to these classes."""
        try:
            return float((self._by_parts(self.logits, images).argmax(1) == answers).float().mean())
        except Exception:  # noqa: BLE001 (a stranger's forward may know one number type only)
            return 0.0

    @property
    def answered_at_once(self) -> int:
        """How many images go through the network at once where nothing is kept for the way back."""
        return min(EVALUATION_BATCH, self.images_at_once)

    @property
    def hastened(self) -> bool:
        """Whether the search runs on a faster copy of the network."""
        return self._fast is not self._network

    def altered(self, change: Callable[[nn.Module], None], images: Tensor) -> Classifier:
        """Returns a classifier like this one of a changed copy of the network: as fast, and with the same memory.

        Args:
            change: alters a copy of the network itself, float32, on the device.
            images: clean images to compare a faster copy's answers on, shape (N, C, H, W).

        Raises:
            ModelError: what has become of the network is no classifier any more; and what `change` raises.
        """
        network = copy.deepcopy(self._network)
        change(network)
        changed = Classifier(network, self.device, self._image_shape)
        changed.images_at_once = self.images_at_once
        if self.hastened:
            changed.hasten(images, self.dtype)
        return changed

    def limit_memory(self, limit: int | None) -> None:
        """Keeps the search within so many bytes of this process, or of the GPU; None: half of what is free.

        It does so by sending fewer images at once through the network, one at least; on a CPU no more than go fast.
        """
        shape = self._image_shape
        grey = torch.full((1, *shape), 0.5, device=self.device, dtype=self.dtype).contiguous(memory_format=self._layout)
        self.images_at_once = images_at_once(self.device, limit, bytes_per_image(self._fast, grey))

    def logits(self, images: Tensor) -> Tensor:
        """Returns float32 logits (N, num_classes) of images (N, C, H, W), by the search's copy of the network.

        Gradients flow to the images.

        Raises:
            ModelError: a logit is not a finite number.
        """
        self.image_passes += len(images)
        # The network may work in place on the copy.
        own = images.to(self.dtype, memory_format=self._layout, copy=True)
        logits = in_parts(self._fast, own, self.images_at_once).float()
        _check_finite(logits)
        return logits

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """Returns the network's own logits (N, num_classes), without gradients, in batches that fit the cache."""

        def answer(part: Tensor) -> Tensor:
            self.image_passes += len(part)
            logits: Tensor = self._network(part.clone(memory_format=self._layout)).float()
            _check_finite(logits)
            return logits

        return self._by_parts(answer, images)

    def _by_parts(self, answer: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        return torch.cat([answer(part) for part in images.split(self.answered_at_once)])


def _check_answer(logits: object) -> None:
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != 2:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ModelError(f"the model must return logits of shape (N, classes), for 2 images it returned {got}")
    if logits.shape[1] < 2:
        raise ModelError(f"the model has {logits.shape[1]} class; a backdoor needs at least 2")
    _check_finite(logits)


def _check_finite(logits: Tensor) -> None:
    if not bool(torch.isfinite(logits).all()):
        raise ModelError("the model's outputs are not finite numbers (NaN or infinity), so nothing can be measured")


def gradients(losses: Callable[[Tensor, Tensor], Tensor], mask: Tensor, pattern: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the gradients of per-class losses (K,) for masks (K, 1, H, W) and patterns (K, C, H, W).

    White box: automatic differentiation.  A class's loss depends on its own mask and pattern only, so the gradient
    of the sum holds every class's own gradient; it is 0 where the loss does not depend on them at all.

    Raises:
        ModelError: a gradient is not finite.
    """
    mask, pattern = mask.detach().requires_grad_(), pattern.detach().requires_grad_()
    total = losses(mask, pattern).sum()
    if not total.requires_grad:
        return torch.zeros_like(mask), torch.zeros_like(pattern)
    mask_gradient, pattern_gradient = torch.autograd.grad(
        total, (mask, pattern), allow_unused=True, materialize_grads=True
    )
    if not bool(torch.isfinite(mask_gradient).all() & torch.isfinite(pattern_gradient).all()):
        raise ModelError("the gradients of the model's outputs are not finite numbers, so no trigger can be searched")
    return mask_gradient, pattern_gradient


def choose_device(name: str) -> torch.device:
    """Returns the device of that name; "auto" takes a CUDA device where there is one.

    Raises:
        SettingError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device).cpu()  # which the device "meta", that has no memory, cannot do
    except (RuntimeError, AssertionError) as error:
        raise SettingError(f"cannot use the device {one_line(name)}: {one_line(error, 120)}") from None
    return device
