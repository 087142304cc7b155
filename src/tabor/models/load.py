"""`load_model`: a classifier with its provenance, from a file that is never executed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor, nn

from tabor.errors import ModelError, one_line
from tabor.files import sha256
from tabor.models.build import Architecture
from tabor.models.checkpoint import read_checkpoint, refusal
from tabor.models.content import Kind, identify
from tabor.models.outputs import as_logits, recognise
from tabor.models.parts import Given, Parts
from tabor.models.pixels import prepared
from tabor.models.safetensors_file import read_record, read_weights, recorded_architecture
from tabor.models.state_dict import fill


class LoadedModel(nn.Module):
    """A classifier that takes images (N, C, H, W) in [0, 1] and returns logits, and where it came from.

    Attributes:
        architecture: what it is, and what stands before it.
        network: the part that holds the file's weights, without preprocessing.
        output: what the network returns by itself.
        source: the file's name.
        sha256: of the file's bytes; None once the weights are no longer the file's.
        record: what the file says about itself (clean accuracy, true triggers); never trusted for a verdict.
    """

    def __init__(self, parts: Parts, source: str, digest: str) -> None:
        super().__init__()
        self.network = parts.network.eval()
        self.architecture = parts.architecture
        model = prepared(self.network, parts.architecture).eval()
        self.output = recognise(model, parts.architecture.image_shape)
        self.model = as_logits(model, self.output)
        self.source = source
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
    size: tuple[int, int] | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    bgr: bool | None = None,
    value_range: tuple[float, float] | None = None,
) -> LoadedModel:
    """Loads a classifier from a file, whose kind is told by its content.

    What is given overrides what the file's own record says; a file that `tabor` wrote needs nothing but its path.

    Args:
        path: the file.
        arch: "tabor:gtsrb6", "timm:NAME" or "torchvision:NAME", for a file that holds weights alone.
        num_classes: number of logits; None: found from the weights' shapes.
        channels: channels of the images, 3 if nobody says.
        size: (H, W) of the images in pixels, (32, 32) if nobody says.
        mean: per-channel mean the network was trained with; None: it takes images in [0, 1].
        std: the standard deviation that goes with it.
        bgr: whether the network takes blue, green, red.
        value_range: what the network calls black and white, before the normalisation; (0, 1) if nobody says.

    Raises:
        ModelError: no such file, a kind of file that is not read, a file that could run code, an unknown architecture,
            or weights that do not fit it.
    """
    path = Path(path)
    given = Given(
        arch=arch,
        num_classes=num_classes,
        channels=channels,
        size=size,
        mean=mean,
        std=std,
        bgr=bgr,
        value_range=value_range,
    )
    parts = READERS[_readable(path)](path, given)
    return LoadedModel(parts, path.name, sha256(path))


def find_architecture(path: str | Path) -> Architecture | None:
    """Returns the architecture that a file says it has, or None; reads no weights.

    Raises:
        ModelError: no such file, a kind of file that is not read, or a record that makes no sense.
    """
    path = Path(path)
    return recorded_architecture(read_record(path), path) if _readable(path) is Kind.SAFETENSORS else None


def _from_safetensors(path: Path, given: Given) -> Parts:
    record = read_record(path) if given.arch is None else {}
    return fill(path, read_weights(path), record, given)


def _from_checkpoint(path: Path, given: Given) -> Parts:
    return fill(path, read_checkpoint(path, identify(path)), {}, given)


READERS: dict[Kind, Callable[[Path, Given], Parts]] = {
    Kind.SAFETENSORS: _from_safetensors,
    Kind.CHECKPOINT: _from_checkpoint,
    Kind.OLD_CHECKPOINT: _from_checkpoint,
}
"""How each kind of file is read."""


def _readable(path: Path) -> Kind:
    kind = identify(path)
    if kind in READERS:
        return kind
    if kind in (Kind.PICKLE, Kind.TORCHSCRIPT, Kind.PACKAGE, Kind.EXPORTED, Kind.KERAS, Kind.HDF5):
        raise ModelError(refusal(path, kind))
    raise ModelError(f"{one_line(path)} is {kind.value}; tabor reads safetensors files and state dicts of torch.save")
