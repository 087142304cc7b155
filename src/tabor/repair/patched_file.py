"""The file of a patched model: a new one, with the record of what was done to which model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tabor.backdoor import as_recorded
from tabor.errors import ModelError, TaborError, one_line
from tabor.models import LoadedModel
from tabor.models.content import Kind, identify
from tabor.models.own_code import is_own_code
from tabor.models.safetensors_file import check_model_out, write_model
from tabor.repair.rounds import Repair

FAMILIES = ("tabor", "timm", "torchvision")
"""Networks that can be built again from their name, so that a file of their weights is a model."""


def check_has_name(model: Path, arch: str | None) -> None:
    """Makes sure, before anything is run, that a file can name the network.

    Raises:
        ModelError: it comes from a Python file, or the model's file is itself the program or cannot be read.
    """
    if is_own_code(arch):
        raise _nameless(arch)
    if os.path.isfile(model) and identify(model) in (Kind.TORCHSCRIPT, Kind.EXPORTED, Kind.ONNX):
        raise _nameless(str(model))


def check_can_write(model: LoadedModel, out: Path) -> None:
    """Finds out before the work whether the patched model can be written there.

    Raises:
        ModelError: the network cannot be built again from its name.
        TaborError: there is something already, the folder cannot be written, or the name is another format's.
    """
    family, colon, _ = model.architecture.name.partition(":")
    if family not in FAMILIES or not colon:
        raise _nameless(model.source)
    _check_new(out)
    check_model_out(out)


def write_patched(out: Path, model: LoadedModel, repair: Repair) -> dict[str, Any]:
    """Writes the patched weights as a safetensors file that names its network.

    Args:
        out: a path where nothing is yet.
        model: the model that was patched.
        repair: what became of it.

    Returns:
        The record that the file carries: `clean_accuracy` and `backdoors` (the true ones, where they are known, with
        their attack success) as measured after patching, and `patched`: from what, how, and with what effect.

    Raises:
        TaborError: there is something already, or the file cannot be written.
    """
    _check_new(out)
    outcome = repair.outcome
    patched = outcome.model
    if not isinstance(patched, LoadedModel):
        raise ModelError("only a model that was loaded from a file can be written as one")
    record = {
        "clean_accuracy": outcome.clean_accuracy.after,
        "backdoors": [as_recorded(effect.backdoor, effect.success.after) for effect in outcome.planted],
        "patched": {"source": model.source, "sha256": model.sha256} | repair.to_dict(),
    }
    write_model(out, patched.network.state_dict(), patched.architecture, record)
    return record


def _nameless(shown: str | None) -> ModelError:
    return ModelError(
        f"{one_line(shown)} is no network that a safetensors file can name ({', '.join(FAMILIES)}), so the "
        f"patched weights cannot be written; from Python, tabor.patch returns the patched model"
    )


def _check_new(out: Path) -> None:
    if os.path.lexists(out):  # unlike Path.exists, also True for a link to nothing
        raise TaborError(f"{one_line(out)} exists already; a patched model is written to a new file")
