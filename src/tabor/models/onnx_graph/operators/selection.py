"""Operators that take parts, or put parts together."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tabor.models.onnx_graph.node import Node, Numbers, Operator
from tabor.models.onnx_graph.operators.shapes import axis_of

_PADDING = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


def _concatenate(node: Node, *inputs: Tensor) -> Tensor:
    return torch.cat(inputs, axis_of(node, inputs[0], node.integer("axis", 0)))


def _gather(node: Node, x: Tensor, places: Tensor) -> Tensor:
    axis = axis_of(node, x, node.integer("axis", 0))
    flat = _from_the_front(places, x.shape[axis]).flatten()
    return x.index_select(axis, flat).reshape((*x.shape[:axis], *places.shape, *x.shape[axis + 1 :]))


def _gather_elements(node: Node, x: Tensor, places: Tensor) -> Tensor:
    axis = axis_of(node, x, node.integer("axis", 0))
    return x.gather(axis, _from_the_front(places, x.shape[axis]))


def _from_the_front(places: Tensor, size: int) -> Tensor:
    return torch.where(places < 0, places + size, places)


def _scatter(node: Node, x: Tensor, places: Tensor, updates: Tensor) -> Tensor:
    if node.text("reduction", "none") != "none":
        raise node.refuse("a reduction")
    return x.index_put(places.unbind(-1), updates)


def _slice(
    node: Node,
    x: Tensor,
    starts: list[int] | None = None,
    ends: list[int] | None = None,
    axes: list[int] | None = None,
    steps: list[int] | None = None,
) -> Tensor:
    if node.opset < 10:
        starts, ends, axes = (node.integers(name) for name in ("starts", "ends", "axes"))
    starts, ends = starts or [], ends or []
    axes, steps = axes or list(range(len(starts))), steps or [1] * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise node.refuse("starts, ends, axes and steps that do not belong together")
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        place = axis_of(node, x, axis)
        chosen = range(x.shape[place])[start:end:step]
        if step > 0:
            x = x[(slice(None),) * place + (slice(chosen.start, chosen.stop, step),)]
        else:
            x = x.index_select(place, torch.arange(chosen.start, chosen.stop, step, device=x.device))
    return x


def _split(node: Node, x: Tensor, sizes: list[int] | None = None) -> tuple[Tensor, ...]:
    axis = axis_of(node, x, node.integer("axis", 0))
    sizes = sizes or node.integers("split")
    if sizes is None:
        return x.split(-(-x.shape[axis] // len(node.outputs)), axis)
    if min(sizes) < 0 or sum(sizes) != x.shape[axis]:
        raise node.refuse("parts that do not add up")
    return x.split(sizes, axis)


def _pad(
    node: Node, x: Tensor, pads: list[int] | None = None, value: Numbers | None = None, axes: list[int] | None = None
) -> Tensor:
    mode, fill = node.text("mode", "constant"), value[0] if value else node.number("value", 0.0)
    pads = pads if node.opset >= 11 else node.integers("pads")
    places = [axis_of(node, x, axis) for axis in axes] if axes else list(range(x.ndim))
    if pads is None or len(pads) != 2 * len(places) or mode not in _PADDING:
        raise node.refuse("pads that do not fit, or of no known kind")
    sides = [0, 0] * x.ndim
    for count, place in enumerate(places):
        from_the_end = 2 * (x.ndim - 1 - place)
        sides[from_the_end : from_the_end + 2] = pads[count], pads[count + len(places)]
    if mode == "constant":
        return F.pad(x, sides, value=fill)
    while len(sides) > 2 and sides[-2:] == [0, 0]:  # PyTorch reflects the last axes only
        del sides[-2:]
    return F.pad(x, sides, mode=_PADDING[mode])


def _resize(
    node: Node, x: Tensor, second: Numbers | None = None, scales: Numbers | None = None, sizes: list[int] | None = None
) -> Tensor:
    if node.opset < 11:
        scales = second
    size = list(sizes) if sizes else [int(n * s) for n, s in zip(x.shape, scales or [], strict=True)]
    if x.ndim != 4 or size[:2] != list(x.shape[:2]) or "axes" in node.attributes:
        raise node.refuse("axes that are not those of an image")
    mode, align = _interpolation(node)
    return F.interpolate(x, size[2:], mode=mode, align_corners=align, antialias=bool(node.integer("antialias", 0)))


def _interpolation(node: Node) -> tuple[str, bool | None]:
    """How PyTorch calls the way in which a node resizes, and whether corners lie on corners."""
    mode, default = node.text("mode", "nearest"), "half_pixel" if node.opset >= 11 else "asymmetric"
    where = node.text("coordinate_transformation_mode", default)
    if mode == "nearest" and where == "asymmetric" and (node.opset < 11 or node.text("nearest_mode", "") == "floor"):
        return "nearest", None
    if mode == "nearest" and where == "half_pixel":
        return "nearest-exact", None
    smooth = {"linear": "bilinear", "cubic": "bicubic"}.get(mode)
    if smooth and where in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        return smooth, where == "align_corners"
    raise node.refuse(f"the mode {mode}, {where}")


def _upsample(node: Node, x: Tensor, scales: Numbers | None = None) -> Tensor:
    given = node.attributes.get("scales") if node.opset < 9 else scales
    return _resize(node, x, list(given) if isinstance(given, tuple | list) else None)


SELECTION: dict[str, Operator] = {
    "Concat": Operator(_concatenate),
    "Gather": Operator(_gather),
    "GatherElements": Operator(_gather_elements),
    "Pad": Operator(_pad, numbers=(1, 2, 3)),
    "Resize": Operator(_resize, numbers=(1, 2, 3)),
    "ScatterND": Operator(_scatter),
    "Slice": Operator(_slice, numbers=(1, 2, 3, 4)),
    "Split": Operator(_split, numbers=(1,)),
    "Upsample": Operator(_upsample, numbers=(1,)),
}
