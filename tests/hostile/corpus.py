"""The corpus: files that nobody should open, made on the spot.  Those that could run something have a canary."""

from __future__ import annotations

from ..models.hostile_exported import HOSTILE_EXPORTED
from .archives import ARCHIVES
from .bombs import BOMBS, LONG
from .code import CODE
from .headers import HEADERS, RECORDS
from .makers import Corpus
from .tensors import TENSORS

try:
    from ..models.hostile_onnx import HOSTILE_ONNX
except ImportError:  # of the extra `onnx`
    HOSTILE_ONNX = {}


def joined(**corpora: Corpus) -> Corpus:
    """Several as one."""
    return {f"{kind}: {name}": row for kind, corpus in corpora.items() for name, row in corpus.items()}


HOSTILE = joined(code=CODE, archive=ARCHIVES, tensor=TENSORS, safetensors=HEADERS, long=LONG)
"""Files that are refused whatever the caller says they are."""

PROGRAMS = joined(exported=HOSTILE_EXPORTED, ONNX=HOSTILE_ONNX)
"""Files that are networks themselves; tests/models/ goes through all of them."""

__all__ = ["BOMBS", "HOSTILE", "PROGRAMS", "RECORDS"]
