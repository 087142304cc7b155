"""What hostile files are made with: a canary, PyTorch's and zip's own writers, and an assembler of pickles."""

from __future__ import annotations

import io
import json
import stat
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from tabor.models.build import Architecture, initialise

Corpus: TypeAlias = Mapping[str, tuple[Callable[[Path], bytes], str]]
"""From a name to what makes a file's content, given where its canary would appear, and what the refusal says."""

TINY = Architecture(name="tabor:digits4", num_classes=3, channels=1, size=(12, 12))
"""What every hostile file is loaded as, so that nothing but what is wrong with it can be in the way."""


def weights() -> dict[str, Tensor]:
    """The weights of an honest network."""
    return initialise(TINY, seed=0).state_dict()


class Canary:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


class Script(nn.Module):
    """Something to write as a program."""

    def forward(self, images: Tensor) -> Tensor:
        """Returns its input."""
        return images


def saved(content: object, *, zipped: bool = True) -> bytes:
    """What torch.save writes, as an archive or in the old way."""
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


def archive(
    records: Mapping[str, bytes], *, compressed: bool = False, link: str | None = None, comment: bytes = b""
) -> bytes:
    """A zip archive of any records."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as file:
        for name, content in records.items():
            file.writestr(name, content)
        if link is not None:
            info = zipfile.ZipInfo(link)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            file.writestr(info, "/etc/passwd")
        file.comment = comment
    return stream.getvalue()


def altered_directory(content: bytes, field: int, value: int) -> bytes:
    """An archive whose directory has one byte of every entry changed."""
    first, *entries = content.split(b"PK\x01\x02")
    place = field - 4
    return b"PK\x01\x02".join([first, *(entry[:place] + bytes([value]) + entry[place + 1 :] for entry in entries)])


def checkpoint(body: bytes, **data: bytes) -> bytes:
    """An archive as of torch.save, with a pickle of one's own and the contents of its storages by their keys."""
    records = {f"m/data/{key.removeprefix('s')}": content for key, content in data.items()}
    return archive({"m/data.pkl": b"\x80\x02" + body + b".", "m/version": b"3\n", **records})


def safetensors_file(header: object, data: bytes = b"") -> bytes:
    """A safetensors file with a header of one's own."""
    text = header.encode() if isinstance(header, str) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


# A pickle's parts


def text(value: str) -> bytes:
    """A string."""
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    """A whole number."""
    size = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def several(*items: bytes) -> bytes:
    """A tuple."""
    return b"(" + b"".join(items) + b"t"


def numbers(values: tuple[int, ...]) -> bytes:
    """A tuple of whole numbers."""
    return several(*map(number, values))


def named(name: str) -> bytes:
    """What stands under "module.name"."""
    module, _, last = name.rpartition(".")
    return f"c{module}\n{last}\n".encode()


def call(name: str, *arguments: bytes) -> bytes:
    """What the function "module.name" returns."""
    return named(name) + several(*arguments) + b"R"


def table(entries: Mapping[str, bytes]) -> bytes:
    """A dict with names for keys."""
    return b"}(" + b"".join(text(name) + value for name, value in entries.items()) + b"u"


def storage(numel: int, *, key: str = "0", kind: str = "torch.FloatStorage", device: str = "cpu") -> bytes:
    """A storage that claims a number of elements."""
    return several(text("storage"), named(kind), text(key), text(device), number(numel)) + b"Q"


def tensor(memory: bytes, size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> bytes:
    """A tensor in a storage."""
    hooks = call("collections.OrderedDict")
    return call(
        "torch._utils._rebuild_tensor_v2", memory, number(offset), numbers(size), numbers(stride), b"\x89", hooks
    )


LITTLE = tensor(storage(4), (4,), (1,))
"""Four numbers."""
