"""Finds, shows and removes backdoors in image classifiers.

The public names load on first use: importing torch takes seconds, and `tabor --help` should not.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tabor.data import ImageSet, load_images
    from tabor.errors import DataError, ModelError, SettingError, TaborError
    from tabor.models import load_model
    from tabor.repair.patching import patch
    from tabor.result import ScanResult, Verdict
    from tabor.scanning import scan
    from tabor.trigger import Trigger

__version__ = "0.1.0"

__all__ = [
    "DataError",
    "ImageSet",
    "ModelError",
    "ScanResult",
    "SettingError",
    "TaborError",
    "Trigger",
    "Verdict",
    "__version__",
    "load_images",
    "load_model",
    "patch",
    "scan",
]

_HOMES = {
    "DataError": "tabor.errors",
    "ImageSet": "tabor.data",
    "ModelError": "tabor.errors",
    "ScanResult": "tabor.result",
    "SettingError": "tabor.errors",
    "TaborError": "tabor.errors",
    "Trigger": "tabor.trigger",
    "Verdict": "tabor.result",
    "load_images": "tabor.data",
    "load_model": "tabor.models",
    "patch": "tabor.repair.patching",
    "scan": "tabor.scanning",
}


def __dir__() -> list[str]:
    """Lists the public names, also those that are not loaded yet."""
    return sorted({*globals(), *_HOMES})


def __getattr__(name: str) -> Any:
    """Loads a public name on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'tabor' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
