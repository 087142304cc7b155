"""Which constructor of torchvision or timm builds a network like one in memory, and gives the same answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from tabor.errors import ModelError, one_line
from tabor.models.build import Architecture, build
from tabor.models.outputs import probe
from tabor.models.parts import Given
from tabor.models.state_dict import PROBE_CLASSES, filled, sized

TRAINING_HEADS = {"torchvision:googlenet": ("aux1.", "aux2."), "torchvision:inception_v3": ("AuxLogits.",)}
"""How the names of weights begin that only training uses, and that many networks leave out."""

CLOSE = 1e-4
"""How far answers may lie apart, as a share of the largest."""


def recognised(network: nn.Module, image_shape: tuple[int, int, int]) -> tuple[nn.Module, Architecture, bool]:
    """Returns the same network built by its name, what it is, and whether their answers could be compared.

    Names and shapes of weights do not make a network: where it can be run, the answers to a few random images must
    agree as well.  One that was pickled by another version of its library often cannot be run.

    Args:
        network: in evaluation mode, float32.
        image_shape: (C, H, W) of the images that it takes.

    Raises:
        ModelError: it is of neither library, or none of the constructors of its module fits.
    """
    family = type(network).__module__.partition(".")[0]
    if family not in ("torchvision", "timm"):
        raise ModelError("that is no network of torchvision or timm")
    answers, channels, size = _answers(network, image_shape), image_shape[0], image_shape[1:]
    weights: Mapping[str, Tensor] = network.state_dict()
    fitting = []
    for name in _candidates(network, family):
        classes = PROBE_CLASSES if answers is None else answers.shape[1]
        probing = Architecture(name=f"{family}:{name}", num_classes=classes, channels=channels, size=size)
        try:
            same, architecture = _built(probing, weights, None if answers is None else classes)
        except ModelError:
            continue
        if answers is None or _agree(_answers(same, image_shape), answers):
            return same, architecture, answers is not None
        fitting.append(architecture.name)
    if fitting:
        raise ModelError(f"{one_line(', '.join(fitting), 120)} has such weights but other answers")
    raise ModelError(f"no constructor of {family} builds one with such weights for images of {size[0]}×{size[1]}")


def _candidates(network: nn.Module, family: str) -> Iterator[str]:
    """Names of constructors, likely ones first."""
    module = type(network).__module__
    if family == "torchvision":
        from torchvision import models

        known = models.list_models(module=models)
        yield from (name for name in known if models.get_model_builder(name).__module__ == module)
        return
    import timm

    said = getattr(network, "pretrained_cfg", None) or getattr(network, "default_cfg", None)
    name = said.get("architecture") if isinstance(said, Mapping) else getattr(said, "architecture", None)
    known = timm.list_models(module=module.rpartition(".")[2])
    yield from sorted(known, key=lambda other: other != name)


def _built(
    probing: Architecture, weights: Mapping[str, Tensor], num_classes: int | None
) -> tuple[nn.Module, Architecture]:
    """The network of that name with the weights; heads that only training uses are zero."""
    heads = TRAINING_HEADS.get(probing.name, ())
    used = {name: value for name, value in weights.items() if not name.startswith(heads)} if heads else weights
    architecture = sized(probing, used, Given(num_classes=num_classes), build)
    blank = _blank(architecture, heads) if heads else {}
    return filled(architecture, {**used, **blank}, build).eval(), architecture


def _blank(architecture: Architecture, heads: tuple[str, ...]) -> dict[str, Tensor]:
    with torch.device("meta"):
        state: Mapping[str, Tensor] = build(architecture).state_dict()
    return {name: torch.zeros(v.shape, dtype=v.dtype) for name, v in state.items() if name.startswith(heads)}


def _answers(network: nn.Module, image_shape: tuple[int, int, int]) -> Tensor | None:
    try:
        return probe(network, image_shape)
    except ModelError:
        return None


def _agree(answers: Tensor | None, wanted: Tensor) -> bool:
    if answers is None or answers.shape != wanted.shape:
        return False
    return bool((answers - wanted).abs().max() <= CLOSE * wanted.abs().max().clamp_min(1e-30))
