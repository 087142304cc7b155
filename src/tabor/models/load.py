"""`load_model`: a classifier with its provenance, from a file that is never executed."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tabor.draws import seeded
from tabor.errors import ModelError, one_line
from tabor.models.build import import_family
from tabor.models.checkpoint import NeedsCodeError, read_checkpoint, refusal
from tabor.models.content import Kind, identify
from tabor.models.exported import read_exported
from tabor.models.folder import fingerprint, settings_files, weight_files
from tabor.models.hub import HUB, located
from tabor.models.huggingface import fill_any, is_hub, read_folder
from tabor.models.isolation import Limits, check_unchanged, rehearsed, state_of
from tabor.models.onnx_file import import_onnx, read_onnx
from tabor.models.onnx_graph.external import files_beside
from tabor.models.outputs import as_logits, recognise
from tabor.models.own_code import fill_own, is_own_code
from tabor.models.parts import Given, Parts, Trust, nobody
from tabor.models.pickled import read_pickled
from tabor.models.pixels import prepared
from tabor.models.safetensors_file import read_record, read_weights
from tabor.models.torchscript import read_torchscript


class LoadedModel(nn.Module):
    """A classifier that takes images (N, C, H, W) in [0, 1] and returns logits, and where it came from.

    Attributes:
        architecture: what it is, and what stands before it.
        network: the part that holds the file's weights, without preprocessing.
        output: what the network returns by itself.
        source: the file's name, or "hub:USER/NAME@COMMIT".
        sha256: of the file's bytes; of a folder's, and of an ONNX model that keeps weights beside it, those of all that
            hold weights; None once tabor has changed its weights.
        record: what the file says about itself (clean accuracy, true triggers); never trusted for a verdict.
    """

    def __init__(self, parts: Parts, source: str, digest: str) -> None:
        super().__init__()
        self.network = parts.network.eval()
        self.architecture = parts.architecture
        model = prepared(self.network, parts.architecture).eval()
        self.output = recognise(model, parts.architecture.image_shape)
        self.model = as_logits(model, self.output)
        self.source = one_line(source)
        self.sha256: str | None = digest
        self.record = dict(parts.record)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits (N, num_classes)."""
        logits: Tensor = self.model(images)
        return logits


def load_model(
    path: str | Path,
    *,
    arch: str | None = None,
    num_classes: int | None = None,
    channels: int | None = None,
    size: int | tuple[int, int] | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    bgr: bool | None = None,
    value_range: tuple[float, float] | None = None,
    allow_torchscript: bool = False,
    trust_code: bool = False,
    on_code: Callable[[str], None] | None = None,
    scratch: Path | None = None,
    isolate: bool = True,
) -> LoadedModel:
    """Loads a classifier from a file, whose kind is told by its content.

    What is given overrides what the file's own record says; a file that `tabor` wrote needs nothing but its path.

    Args:
        path: the file, a Hugging Face folder, or "hub:USER/NAME" for one that is fetched, "@REVISION" behind it or not.
        arch: "tabor:gtsrb6", "timm:NAME" or "torchvision:NAME", for a file that holds weights alone; "hub:FOLDER" or
            "hub:USER/NAME" for the network and the preprocessing of that one, with the weights of this; where code is
            trusted also "FILE.py:FUNCTION", a function that builds the network.
        num_classes: number of logits; None: found from the weights' shapes.
        channels: channels of the images, 3 if nobody says.
        size: (H, W) of the images in pixels, or one number for a square; (32, 32) if nobody says.
        mean: per-channel mean the network was trained with; None: as the file says, else it takes images in [0, 1].
        std: the standard deviation that goes with it.
        bgr: whether the network takes blue, green, red.
        value_range: what the network calls black and white, before the normalisation; (0, 1) if nobody says.
        allow_torchscript: whether a TorchScript program may be run.
        trust_code: whether a Python file named by `arch` may be run, and what a pickle calls.
        on_code: called with what is about to run, in words, before it runs.
        scratch: folder for files made on the way; None: the system's.
        isolate: read a file of a format with a parser of its own, and a Hugging Face folder, in a process with limits
            first, which costs seconds; needless for files of one's own making.

    Raises:
        ModelError: no such file, a kind of file that is not read, a file that could run code, one that its reader
            cannot bear, an unknown architecture, or weights that do not fit it.
    """
    path, source = located(path)
    given = Given(
        arch=arch,
        num_classes=num_classes if num_classes is None else _whole(num_classes),
        channels=channels if channels is None else _whole(channels),
        size=(size, size) if isinstance(size, int) else size,
        mean=mean if mean is None else _numbers(mean),
        std=std if std is None else _numbers(std),
        bgr=bgr,
        value_range=value_range,
        trust=Trust(torchscript=allow_torchscript, code=trust_code, tell=on_code or nobody, scratch=scratch),
    )
    kind = _readable(path)
    files = _files(path, kind)
    read = [path, *files, *(settings_files(path) if kind is Kind.HUGGINGFACE else [])]
    before = [state_of(file) for file in read]
    described = kind is Kind.HUGGINGFACE
    rehearsing = isolate and kind in REHEARSED and not trust_code and not (described and is_hub(arch))
    limits = Limits.of(sum(file.stat().st_size for file in files), described) if rehearsing else None
    with nullcontext() if limits is None else rehearsed(path, given, limits):
        _import_libraries(kind, given)  # while the child reads
    check_unchanged(read, before)
    with seeded(0, torch.device("cpu")):  # a network is built with random weights first
        parts = READERS[kind](path, replace(given, rehearsed=rehearsing))
    digest = fingerprint(files)
    check_unchanged(read, before)
    return LoadedModel(parts, source, digest)


def _whole(value: object) -> int:
    """NumPy's number as Python's, which JSON can hold."""
    try:
        return operator.index(value)  # type: ignore[arg-type]  # which is asked here
    except TypeError:
        raise ModelError(f"num_classes and channels are whole numbers, got {one_line(value, 40)}") from None


def _numbers(values: Iterable[object]) -> tuple[float, ...]:
    try:
        return tuple(float(value) for value in values)  # type: ignore[arg-type]  # which is asked here
    except (TypeError, ValueError):
        raise ModelError(f"mean and std are tuples of numbers, got {one_line(values, 40)}") from None


def _import_libraries(kind: Kind, given: Given) -> None:
    import_family(given.arch)
    if kind is Kind.ONNX:
        import_onnx()


def rehearse(path: Path, given: Given) -> None:
    """Does what `load_model` does with a file, as far as a stranger's bytes decide how that goes.

    Raises:
        ModelError: as `load_model`.
    """
    kind = _readable(path)
    if kind in CHECKPOINTS:  # the network that its weights belong to is none of the file's
        read_checkpoint(path, kind)
    else:
        LoadedModel(READERS[kind](path, given), path.name, "")


def knows_its_images(path: str | Path, arch: str | None = None) -> bool:
    """Whether a model says by itself which images it takes; else it is loaded for the images at hand.

    Args:
        path: as for `load_model`.
        arch: likewise.

    Raises:
        ModelError: no such file, or a kind of file that is not read.
    """
    if arch is not None:
        return is_hub(arch)
    return str(path).startswith(HUB) or _readable(Path(path)) in SELF_DESCRIBING


def _from_safetensors(path: Path, given: Given) -> Parts:
    record = read_record(path) if given.arch is None else {}
    return _filled(path, read_weights(path), record, given)


def _from_checkpoint(path: Path, given: Given) -> Parts:
    kind, record = identify(path), dict[str, Any]()
    try:
        weights = read_checkpoint(path, kind)
    except NeedsCodeError:
        if not given.trust.code:
            raise
        weights, record = read_pickled(path, kind, given)
    return _filled(path, weights, record, given)


def _filled(path: Path, weights: Mapping[str, Tensor], record: Mapping[str, Any], given: Given) -> Parts:
    return fill_own(weights, given) if is_own_code(given.arch) else fill_any(path, weights, record, given)


READERS: dict[Kind, Callable[[Path, Given], Parts]] = {
    Kind.SAFETENSORS: _from_safetensors,
    Kind.CHECKPOINT: _from_checkpoint,
    Kind.OLD_CHECKPOINT: _from_checkpoint,
    Kind.TORCHSCRIPT: read_torchscript,
    Kind.HUGGINGFACE: read_folder,
    Kind.EXPORTED: read_exported,
    Kind.ONNX: read_onnx,
}
"""How each kind of file is read."""

CHECKPOINTS = (Kind.CHECKPOINT, Kind.OLD_CHECKPOINT)

SELF_DESCRIBING = (Kind.SAFETENSORS, Kind.HUGGINGFACE, Kind.EXPORTED, Kind.ONNX)
"""Kinds that say which images the network takes, if anything does."""

REHEARSED = (*CHECKPOINTS, Kind.EXPORTED, Kind.ONNX, Kind.HUGGINGFACE)
"""Kinds with a parser of their own, or with settings of which only trying tells what they make a network take.  Of
safetensors files every bound is checked; code is trusted or refused."""


def _files(path: Path, kind: Kind) -> list[Path]:
    """The files that hold a model's weights."""
    if kind is Kind.HUGGINGFACE:
        return weight_files(path)
    return [path, *files_beside(path)] if kind is Kind.ONNX else [path]


def _readable(path: Path) -> Kind:
    kind = identify(path)
    if kind in READERS:
        return kind
    if kind in (Kind.PICKLE, Kind.PACKAGE, Kind.KERAS, Kind.HDF5):
        raise ModelError(refusal(path, kind))
    raise ModelError(
        f"{one_line(path)} is {kind.value}; tabor reads safetensors files, state dicts of torch.save, ONNX models, "
        f"torch.export programs and Hugging Face folders"
    )
