"""Random draws that depend on what they are for and on nothing else."""

from __future__ import annotations

import hashlib


def key(seed: int, stream: int, step: int) -> int:
    """Returns a generator seed for one stream of draws; hashed, as torch's generator takes only the low 32 bits."""
    digest = hashlib.blake2b(f"{seed}/{stream}/{step}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
