"""onnxruntime as the judge: it must answer to random images as our network does."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tabor.errors import ModelError, one_line

OF_SPREAD, OF_LARGEST = 1e-3, 1e-5
"""How far a class's answer may differ, as shares of its spread over the images and of its largest: the order of sums
differs."""

ELEMENTS = {1: "float32", 2: "uint8", 10: "float16", 11: "float64"}
"""The types in which images are fed in, by the standard's numbers for them."""


def check_answers(network: nn.Module, images: Tensor, judge: Judge) -> None:
    """Compares a network's answers to random images with those of onnxruntime.

    Args:
        network: ours.
        images: (N, C, H, W) as the network takes them; N is a multiple of each of the judge's batches.
        judge: runs the file itself.

    Raises:
        ModelError: onnxruntime refuses the file, the answers differ, or are no finite numbers.
    """
    try:
        with torch.no_grad():
            ours = network(images)
    except Exception as error:  # noqa: BLE001 (a number in the graph may be out of its range anywhere)
        raise ModelError(f"it cannot be computed: {one_line(error, 160)}") from None
    if not bool(torch.isfinite(ours).all()):
        raise ModelError("its answers to random images are not finite numbers (NaN or infinity)")
    for batch in judge.batches:
        theirs = torch.cat([judge.answers(part).reshape(-1, ours.shape[1]) for part in images.split(batch)])
        allowed = _allowed(theirs)
        far = (ours - theirs).abs().amax(0)
        if not bool((far <= allowed).all()):
            worst = int((far - allowed).argmax())
            raise ModelError(
                f"onnxruntime, given {batch} random images at a time, answers otherwise than tabor's reading of it: "
                f"by {far[worst]:.1e} in class {worst}, and {allowed[worst]:.1e} is allowed; so it is not used"
            )


def _allowed(answers: Tensor) -> Tensor:
    """How far each class's answer may differ, (classes,).

    A class that is the same for all images, or near 0, is as coarse as most are; one whose answers are huge, as no
    image ever gets it, makes no other class coarser.
    """
    spread, largest = answers.amax(0) - answers.amin(0), answers.abs().amax(0)
    return OF_SPREAD * spread.maximum(spread.median()) + OF_LARGEST * largest.maximum(largest.median())


class Judge:
    """onnxruntime on one core, with the checked model alone: no libraries, no settings from the file.

    Args:
        proto: the checked model, with all its weights in it.
        answer: the name of the output.
        element: the type of the input, by the standard's number.
        channels_last: whether it takes images as (N, H, W, C).
        batches: how many images it is given at a time.

    Raises:
        ModelError: onnxruntime refuses the model.
    """

    def __init__(self, proto: Any, answer: str, element: int, channels_last: bool, batches: tuple[int, ...]) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.enable_cpu_mem_arena = options.enable_mem_pattern = False
        options.log_severity_level = 4  # or it writes a stranger's strings to standard error
        self.batches = batches
        self._answer, self._element, self._channels_last = answer, ELEMENTS[element], channels_last
        try:
            self._session = onnxruntime.InferenceSession(
                proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # noqa: BLE001 (it raises errors of many kinds)
            raise ModelError(f"onnxruntime refuses it: {one_line(error, 160)}") from None

    def answers(self, images: Tensor) -> Tensor:
        """Returns the answers to images (N, C, H, W), given all at a time."""
        laid_out = images.permute(0, 2, 3, 1) if self._channels_last else images
        fed = laid_out.contiguous().numpy().astype(self._element)
        name = self._session.get_inputs()[0].name
        try:
            return torch.from_numpy(self._session.run([self._answer], {name: fed})[0]).float()
        except Exception as error:  # noqa: BLE001 (it raises errors of many kinds)
            raise ModelError(f"onnxruntime cannot run it: {one_line(error, 160)}") from None
