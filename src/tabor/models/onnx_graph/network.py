"""The module that walks the steps of a graph."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tabor.models.onnx_graph.node import Node, Numbers, Operator
from tabor.models.onnx_graph.plan import Argument, Plan, Value, as_tuple
from tabor.models.onnx_graph.types import HALVES

RUNNING_STATISTICS = {"BatchNormalization": (3, 4)}
"""The inputs of an operator that are no weights."""


@dataclass(frozen=True)
class _Held:
    """The name of a constant that the module holds."""

    name: str


@dataclass(frozen=True)
class _Step:
    operator: Operator
    node: Node
    sources: tuple[Value | _Held | Numbers | None, ...]
    forget: tuple[str, ...]


class GraphNetwork(nn.Module):
    """A network from an ONNX graph, whose weights are parameters and whose other constants are buffers.

    Every operator sees the images that the file was made for, one or a few, whatever the batch is; `torch.vmap` does
    so for all of them at once.  So a number in the graph that stands for the batch does no harm, and no image's answer
    depends on what else is in the batch.

    Args:
        plan: what is to be done.
        batch: images that the file takes at once.
        channels_last: whether it takes them as (N, H, W, C).
        element: the type in which it takes them.
    """

    def __init__(self, plan: Plan, batch: int, channels_last: bool, element: torch.dtype = torch.float32) -> None:
        super().__init__()
        self._element = element
        self._image, self._answer = plan.image, plan.answer
        self._batch, self._channels_last = batch, channels_last
        held: dict[int, str] = {}  # by identity: what two steps share stays shared
        self._steps = tuple(
            _Step(
                step.operator,
                step.node,
                tuple(self._source(step.node.op, place, a, held) for place, a in enumerate(step.arguments)),
                step.forget,
            )
            for step in plan.steps
        )

    def _source(self, op: str, place: int, argument: Argument, held: dict[int, str]) -> Value | _Held | Numbers | None:
        if not isinstance(argument, Tensor):
            return argument
        if id(argument) not in held:
            weight = argument.is_floating_point() and argument.ndim > 0 and place not in RUNNING_STATISTICS.get(op, ())
            name = held[id(argument)] = f"{'weight' if weight else 'constant'}{len(held)}"
            if weight:
                self.register_parameter(name, nn.Parameter(argument))
            else:
                self.register_buffer(name, argument)
        return _Held(held[id(argument)])

    def forward(self, images: Tensor) -> Tensor:
        """Returns the answers (N, num_classes) to images (N, C, H, W)."""
        count, images = len(images), _as_fed(images, self._element)
        if rest := count % self._batch:
            images = torch.cat([images, images[-1:].expand(self._batch - rest, -1, -1, -1)])
        groups = images.unflatten(0, (len(images) // self._batch, self._batch))
        answers: Tensor = torch.vmap(self._answer_to)(groups)
        return answers.flatten(0, 1)[:count]

    def _answer_to(self, images: Tensor) -> Tensor:
        values = {self._image: images.permute(0, 2, 3, 1) if self._channels_last else images}
        for step in self._steps:
            inputs = [self._input(source, values) for source in step.sources]
            outputs = as_tuple(step.operator.compute(step.node, *inputs))
            values.update(zip(step.node.outputs, outputs, strict=False))
            for name in step.forget:
                del values[name]
        return values[self._answer].flatten(1)

    def _input(self, source: Value | _Held | Numbers | None, values: dict[str, Tensor]) -> Tensor | Numbers | None:
        if isinstance(source, Value):
            return values[source.name]
        return getattr(self, source.name) if isinstance(source, _Held) else source


def _as_fed(images: Tensor, element: torch.dtype) -> Tensor:
    """Images as they are in the type in which they are fed in; gradients go through as if they were not rounded.

    Else a file could tell a scan's images from real ones, which are whole numbers where they are bytes.
    """
    if element not in (torch.uint8, *HALVES):
        return images
    fixed = images.detach()
    near = fixed.round() if element == torch.uint8 else fixed.to(element).to(images.dtype)
    return images + (near - fixed)
