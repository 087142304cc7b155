"""The interface of NIST's TrojAI challenge: one model and a few images in, one probability out."""

from tabor.trojai.detector import configure, infer
from tabor.trojai.metaparameters import Metaparameters

__all__ = ["Metaparameters", "configure", "infer"]
