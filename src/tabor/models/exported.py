"""Programs of `torch.export` (`.pt2`), read as data: nothing that a file says is evaluated, unpickled or imported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tabor.errors import ModelError, one_line
from tabor.models.build import Architecture
from tabor.models.exported_graph.archive import ProgramError, opened, read_program, read_tensors
from tabor.models.exported_graph.network import Chunked, OneByOne, Program, Step
from tabor.models.exported_graph.signature import Shapes, Signature, read_shapes, read_signature
from tabor.models.exported_graph.steps import read_steps
from tabor.models.exported_graph.types import computed_in_float32, held, is_plain
from tabor.models.parts import Given, Parts
from tabor.models.pixels import Prepared

NAME = "torch.export"

PROBES = 3

CLOSE = 0.01
"""Two answers are the same when they differ by less than this part of how much answers to different images differ."""

ROUNDING = 1e-4
"""Of the largest answer: what the order of float32's additions may change."""

CONVERT = 'or convert it: safetensors.torch.save_file(model.state_dict(), "model.safetensors")'


def read_exported(path: Path, given: Given) -> Parts:
    """Returns the program as a network, with the image shape and the classes that it says and that a run confirms.

    Raises:
        ModelError: the file is damaged, uses what is not run here, is no classifier, or contradicts what is given.
    """
    if given.arch is not None:
        raise ModelError(f"{one_line(path)} is a torch.export program, which is its own network; leave out --arch")
    with _told(path), opened(path) as records:
        written = read_program(records)
        signature = read_signature(written)
        shapes = read_shapes(written, signature)
        architecture = _architecture(path, shapes, given)
        steps = read_steps(written, signature, None if shapes.any_batch else shapes.batch)
        tensors = read_tensors(records)
        if not is_plain(tensors, steps, shapes.dtype):
            images = torch.full((shapes.batch, *architecture.image_shape), 0.5, dtype=shapes.dtype)
            steps = computed_in_float32(_program(signature, tensors, steps).eval(), steps, images)
        program = _program(signature, {name: held(tensor) for name, tensor in tensors.items()}, steps).eval()
        network = for_any_batch(program, shapes.batch, architecture, fixed=not shapes.any_batch)
    return Parts(network, architecture)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except ModelError:
        raise
    except ProgramError as error:
        raise ModelError(
            f"{one_line(path)} is a torch.export program that {error}; if you trust it, export it again, {CONVERT}"
        ) from None
    except Exception as error:  # noqa: BLE001 (a stranger's JSON may lack anything, and an operator may fail anyhow)
        reason = f"{type(error).__name__}: {one_line(error, 120)}"
        raise ModelError(
            f"{one_line(path)} is a torch.export program, damaged or not made for images ({reason}); "
            f"if you trust it, export it again, {CONVERT}"
        ) from None


def _architecture(path: Path, shapes: Shapes, given: Given) -> Architecture:
    channels, height, width = shapes.image
    fixed: dict[str, Any] = {"num_classes": shapes.classes, "channels": channels}
    if not shapes.any_size:
        fixed["size"] = (height, width)
    said = given.changes()
    for name, value in fixed.items():
        if said.setdefault(name, value) != value:
            raise ModelError(
                f"{one_line(path)} was exported with {name.replace('_', ' ')} {value}, which cannot be changed; "
                f"got {said[name]}"
            )
    return Architecture(name=NAME, **({"size": (height, width)} | said))


def _program(signature: Signature, tensors: Mapping[str, Tensor], steps: Sequence[Step]) -> Program:
    fetched = {**signature.parameters, **signature.buffers}
    missing = [name for name in fetched.values() if name not in tensors]
    if missing:
        raise ProgramError(f"lacks {len(missing)} of its tensors ({one_line(missing[0], 80)})")
    parameters = {name: tensors[name] for name in signature.parameters.values()}
    buffers = {name: tensors[name] for name in signature.buffers.values() if name not in parameters}
    return Program(parameters, buffers, fetched, signature.image, signature.answer, steps)


@torch.no_grad()
def for_any_batch(program: nn.Module, batch: int, architecture: Architecture, fixed: bool) -> nn.Module:
    """Returns a network that shows the program one image at a time, or where it takes `batch` alone as many.

    Args:
        program: takes `batch` images at a time, and perhaps others.
        batch: the number of images that it was exported with.
        architecture: the shape of the images, and what becomes of them before the program.
        fixed: whether it was exported for so many images alone.

    Raises:
        ProgramError: it does not answer as it says, or its answer to an image depends on the others in a batch.
    """
    probes = Prepared(nn.Identity(), architecture)(_probes(architecture.image_shape))
    chunked = Chunked(program, batch).eval()
    expected = chunked(probes)
    if expected.shape != (PROBES, architecture.num_classes) or not expected.is_floating_point():
        raise ProgramError(f"answers {tuple(expected.shape)} where {(PROBES, architecture.num_classes)} are wanted")
    tolerance = CLOSE * float((expected.amax(0) - expected.amin(0)).max())
    alone = OneByOne(program).eval()
    # Where all probes get the same answer, nothing tells whether a batch mixes them up.
    if tolerance > 0 and _agrees(alone, probes, expected, tolerance):
        return alone
    # torch.vmap does not take every program.  Of a fixed batch, filled up with copies of itself, an image has other
    # neighbours than among the probes; else it has none.
    last = chunked if fixed else Chunked(program, 1).eval()
    tolerance = max(tolerance, ROUNDING * float(expected.abs().max()))
    if not _agrees(last, probes[:1], expected[:1], tolerance):
        raise ProgramError("answers to an image differently when others are in the batch; export it after model.eval()")
    return last


def _probes(image_shape: tuple[int, int, int]) -> Tensor:
    """Images (PROBES, C, H, W) in [0, 1] that differ in their noise, in their colours and in their contrast."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(PROBES, *image_shape, generator=generator)
    colours = torch.rand(PROBES, image_shape[0], 1, 1, generator=generator)
    weight = torch.linspace(0.2, 0.9, PROBES).view(-1, 1, 1, 1)
    return weight * noise + (1 - weight) * colours


def _agrees(network: nn.Module, images: Tensor, expected: Tensor, tolerance: float) -> bool:
    try:
        answers = network(images)
    except Exception:  # noqa: BLE001 (a program made for another batch may fail anywhere)
        return False
    return answers.shape == expected.shape and bool(((answers - expected).abs() <= tolerance).all())
