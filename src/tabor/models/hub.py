"""Models by their names on the Hugging Face Hub: only data is fetched, and the commit is recorded."""

from __future__ import annotations

import os
from pathlib import Path

from tabor.errors import ModelError, one_line
from tabor.models.folder import CONFIG, INDEX, PREPROCESSOR, WEIGHTS

HUB = "hub:"

SETTINGS_FILES = [CONFIG, PREPROCESSOR]
WEIGHT_FILES = [WEIGHTS, INDEX, "model-*.safetensors"]


def located(path: str | Path, *, weights: bool = True) -> tuple[Path, str]:
    """Returns where a model lies, and the name under which it is recorded.

    "hub:FOLDER" is that folder if there is one; "hub:USER/NAME" and "hub:USER/NAME@REVISION" are fetched by
    huggingface_hub, which knows the cache, the endpoint, the token, and whether it may use the network at all.

    Args:
        path: a file, a folder, or a name that begins with "hub:".
        weights: whether the weights are wanted, or the settings alone.

    Raises:
        ModelError: huggingface_hub is not installed, or the model cannot be had.
    """
    text = str(path)
    if not text.startswith(HUB):
        return Path(path), Path(path).name
    name = text.removeprefix(HUB)
    if os.path.isdir(name):  # unlike Path.is_dir, also False where the name is unusable
        return Path(name), Path(name).name
    folder = _fetched(name, SETTINGS_FILES + (WEIGHT_FILES if weights else []))
    return folder, f"{HUB}{name.partition('@')[0]}@{folder.name}"


def _fetched(name: str, patterns: list[str]) -> Path:
    repository, _, revision = name.partition("@")
    try:
        import huggingface_hub
    except ImportError:
        raise ModelError(f"{one_line(HUB + name)} needs huggingface_hub: pip install 'tabor[hub]'") from None
    try:
        folder = huggingface_hub.snapshot_download(
            repository, revision=revision or None, allow_patterns=patterns, library_name="tabor"
        )
    except Exception as error:  # noqa: BLE001 (the network and a stranger's server may fail in any way)
        raise ModelError(f"cannot fetch {one_line(HUB + name)}: {_reason(error)}") from None
    return Path(folder)


def _reason(error: Exception) -> str:
    """The first line of the library's explanation, which goes on for many, with what it is called."""
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {one_line(first, 200)}"
