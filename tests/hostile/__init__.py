"""The corpus: files that nobody should open, made on the spot.  Those that could run something have a canary."""

from .archives import ARCHIVES
from .bombs import BOMBS, LONG
from .code import CODE
from .headers import HEADERS, RECORDS
from .makers import Corpus
from .tensors import TENSORS

HOSTILE: Corpus = {
    f"{kind}: {name}": row
    for kind, corpus in {
        "code": CODE,
        "archive": ARCHIVES,
        "tensor": TENSORS,
        "safetensors": HEADERS,
        "long": LONG,
    }.items()
    for name, row in corpus.items()
}
"""Files that are refused whatever the caller says they are."""

__all__ = ["BOMBS", "HOSTILE", "RECORDS"]
