"""Files that nobody should open, made on the spot.  Those that could run something would create a canary file."""

from __future__ import annotations

import io
import json
import pickle
import stat
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn


class Canary:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


class Script(nn.Module):
    """Something to write as a program."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns its input."""
        return images


def saved(content: object, *, zipped: bool = True) -> bytes:
    """What torch.save writes, as an archive or in the old way."""
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


def archive(records: dict[str, bytes], *, compressed: bool = False, link: str | None = None) -> bytes:
    """A zip archive of any records."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as file:
        for name, content in records.items():
            file.writestr(name, content)
        if link is not None:
            info = zipfile.ZipInfo(link)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            file.writestr(info, "/etc/passwd")
    return stream.getvalue()


def altered_directory(content: bytes, field: int, value: int) -> bytes:
    """An archive whose directory has one byte of every entry changed."""
    first, *entries = content.split(b"PK\x01\x02")
    place = field - 4
    return b"PK\x01\x02".join([first, *(entry[:place] + bytes([value]) + entry[place + 1 :] for entry in entries)])


def torchscript() -> bytes:
    """A TorchScript program."""
    stream = io.BytesIO()
    torch.jit.save(torch.jit.trace(Script(), torch.zeros(1)), stream)
    return stream.getvalue()


def exported() -> bytes:
    """A torch.export program."""
    stream = io.BytesIO()
    torch.export.save(torch.export.export(Script(), (torch.zeros(1),)), stream)
    return stream.getvalue()


def numpy_object(dead: Path) -> bytes:
    """An array of objects."""
    stream = io.BytesIO()
    np.save(stream, np.array([Canary(dead)], dtype=object), allow_pickle=True)
    return stream.getvalue()


def endless(depth: int) -> bytes:
    """A pickle of a list in a list in a list."""
    return b"\x80\x04" + b"]" * depth + b"a" * (depth - 1) + b"."


def holds_itself() -> bytes:
    """A state dict whose `state_dict` is itself."""
    loop: dict[str, Any] = {"epoch": 3}
    loop["state_dict"] = loop
    return saved(loop)


def stolen_header() -> bytes:
    """A safetensors file with a header that claims more than there is."""
    header = json.dumps({"weight": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(16)


def _pickled(dead: Path, protocol: int) -> bytes:
    return pickle.dumps(Canary(dead), protocol)


WEIGHTS = {"weight": torch.zeros(64)}

HOSTILE: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "canary, torch.save": (lambda dead: saved({"w": Canary(dead)}), r"would call .*pathlib\.Path"),
    "canary, old torch.save": (
        lambda dead: saved({"w": Canary(dead)}, zipped=False),
        r"old checkpoint of torch\.save that would call .*pathlib\.Path",
    ),
    "canary beside weights": (lambda dead: saved(WEIGHTS | {"args": Canary(dead)}), r"would call .*pathlib\.Path"),
    "whole module": (lambda dead: saved(Script()), r"would call .*hostile\.Script"),
    **{
        f"canary, pickle {protocol}": (
            partial(_pickled, protocol=protocol),
            r"would call .*pathlib\.P.*Path" if protocol > 1 else "file of no known kind",
        )
        for protocol in range(6)
    },
    "os.system": (lambda dead: b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.", r"would call os\.system"),
    "eval": (lambda dead: b"\x80\x02cbuiltins\neval\nX\x01\x00\x00\x001\x85R.", r"would call builtins\.eval"),
    "a name with control characters": (
        lambda dead: b"\x80\x04\x8c\x05\x1b[2J\n\x8c\x06system\x93.",
        r"would call \\x1b\[2J",
    ),
    "numpy scalar": (lambda dead: saved(WEIGHTS | {"best": np.float64(0.9)}), r"would call numpy"),
    "TorchScript": (lambda dead: torchscript(), "TorchScript program which can run code"),
    "torch.export": (lambda dead: exported(), "torch.export program which can run code"),
    "torch.package": (lambda dead: archive({"m/.data/extern_modules": b"", "m/x.py": b""}), "torch.package archive"),
    "Keras": (lambda dead: archive({"config.json": b"{}", "model.weights.h5": b""}), "Keras model which can run code"),
    "HDF5": (lambda dead: b"\x89HDF\r\n\x1a\n" + bytes(64), "HDF5 file"),
    "NumPy objects": (numpy_object, "is a NumPy file"),
    "any zip": (lambda dead: archive({"readme.txt": b"hello"}), "is a zip archive"),
    "record above its folder": (lambda dead: archive({"m/data.pkl": b"", "../x": b""}), "outside its folder: ../x"),
    "record at an absolute place": (lambda dead: archive({"m/data.pkl": b"", "/etc/x": b""}), "outside its folder"),
    "record with a backslash": (lambda dead: archive({"m/data.pkl": b"", "..\\x": b""}), "outside its folder"),
    "link": (lambda dead: archive({"m/data.pkl": b""}, link="m/link"), "holds a link: m/link"),
    "zip bomb": (lambda dead: archive({"m/data.pkl": bytes(10**7)}, compressed=True), "a zip bomb"),
    "encrypted, says its directory": (
        lambda dead: altered_directory(saved({"w": Canary(dead)}), 8, 1),
        "damaged .*unsupported encryption",
    ),
    "canary, of another name than its directory says": (
        lambda dead: saved({"w": Canary(dead)}).replace(b"archive/data.pkl", b"Xrchive/data.pkl", 1),
        "which can run code",
    ),
    "zip of a later version": (lambda dead: altered_directory(saved(WEIGHTS), 6, 99), "damaged zip archive"),
    "empty data.pkl": (lambda dead: archive({"m/data.pkl": b""}), "damaged"),
    "zip without a directory": (lambda dead: b"PK\x03\x04" + bytes(60), "damaged zip archive"),
    "deep nesting": (lambda dead: archive({"m/data.pkl": endless(100_000), "m/version": b"3\n"}), "tiny"),
    "deep nesting, plain": (lambda dead: endless(100_000), "pickle which can run code"),
    "a pickle that never ends": (lambda dead: b"\x80\x04" + b"]0" * 10**6, "pickle which can run code"),
    "holds itself": (lambda dead: holds_itself(), "holds no weights"),
    "no tensors": (lambda dead: saved({"epoch": 3}), "holds no weights"),
    "a list": (lambda dead: saved([torch.zeros(2)]), "holds no weights"),
    "a tensor": (lambda dead: saved(torch.zeros(2)), "holds no weights"),
    "sparse weights": (lambda dead: saved({"weight": torch.eye(3).to_sparse()}), "sparse, quantised or complex"),
    "complex weights": (
        lambda dead: saved({"weight": torch.ones(3, dtype=torch.cfloat)}),
        "sparse, quantised or complex",
    ),
    "weights without memory": (lambda dead: saved({"weight": torch.ones(3, device="meta")}), "tiny"),
    "weights of another network": (lambda dead: saved(WEIGHTS), "do not fit"),
    "weights of a huge shape": (lambda dead: saved({"head.2.bias": torch.zeros(1).expand(2**40)}), "tiny|fit"),
    "safetensors beyond its end": (lambda dead: stolen_header(), "is no whole safetensors file"),
    "safetensors, huge header": (lambda dead: (2**40).to_bytes(8, "little") + b"{}" * 20, "no known kind"),
    "nothing": (lambda dead: b"", "no known kind"),
    "text": (lambda dead: b"these are no weights\n" * 20, "no known kind"),
    "ONNX, damaged": (lambda dead: b"\x08\x07\x12\x07pytorch" + bytes(40), "an ONNX model that is not read"),
}
"""Each makes a file's content, given where its canary would appear; and what the refusal says."""
