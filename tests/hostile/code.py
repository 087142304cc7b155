"""Files that would run something: each would create its canary."""

from __future__ import annotations

import io
import pickle
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import torch

from .makers import Canary, Corpus, Script, archive, call, checkpoint, saved, text, weights

LAMBDA = (
    b'{"class_name": "Sequential", "config": {"layers": [{"class_name": "Lambda", "config": {"function": "4wE="}}]}}'
)


def torchscript() -> bytes:
    """A TorchScript program."""
    stream = io.BytesIO()
    torch.jit.save(torch.jit.trace(Script(), torch.zeros(1)), stream)
    return stream.getvalue()


def package(dead: Path) -> bytes:
    """A torch.package archive whose only model is a canary."""
    return archive(
        {
            "m/.data/extern_modules": b"pathlib\n",
            "m/.data/version": b"6\n",
            "m/m.pkl": pickle.dumps(Canary(dead), 2),
            "m/x.py": f"open({str(dead)!r}, 'w')".encode(),
        }
    )


def numpy_objects(dead: Path, *, together: bool = False) -> bytes:
    """An array of objects, alone or as a record of an archive."""
    stream, objects = io.BytesIO(), np.array([Canary(dead)], dtype=object)
    if together:
        np.savez(stream, weight=objects)
    else:
        np.save(stream, objects, allow_pickle=True)
    return stream.getvalue()


def joblib_file(dead: Path, compress: object) -> bytes:
    """What joblib writes."""
    stream = io.BytesIO()
    joblib.dump({"w": np.zeros(9), "model": Canary(dead)}, stream, compress=compress)
    return stream.getvalue()


def pickled(dead: Path, protocol: int) -> bytes:
    """A pickle of any age."""
    return pickle.dumps(Canary(dead), protocol)


def by_path(dead: Path) -> bytes:
    """Pickle opcodes that touch the canary with nothing but names that a checkpoint needs besides."""
    return call("pathlib.Path.touch", call("pathlib.PosixPath", text(str(dead))))


def instance(dead: Path) -> bytes:
    """The oldest opcode that calls something."""
    return b"(" + text(f"touch '{dead}'") + b"ios\nsystem\n."


CODE: Corpus = {
    "canary, torch.save": (lambda dead: saved({"w": Canary(dead)}), r"would call .*pathlib\.Path"),
    "canary, old torch.save": (
        lambda dead: saved({"w": Canary(dead)}, zipped=False),
        r"old checkpoint of torch\.save that would call .*pathlib\.Path",
    ),
    "canary beside weights": (
        lambda dead: saved(weights() | {"args": Canary(dead)}),
        r"would call .*pathlib\.Path",
    ),
    "canary for a name": (lambda dead: checkpoint(b"}" + by_path(dead) + b"K\x01s"), r"would call pathlib\.Path"),
    "canary in a function of PyTorch": (
        lambda dead: checkpoint(call("torch.hub._load_local", text(str(dead.parent)), text("model"))),
        r"would call torch\.hub\._load_local",
    ),
    "canary in an operator of PyTorch": (
        lambda dead: checkpoint(call("torch.ops.load_library", text(str(dead)))),
        r"would call torch\.ops\.load_library",
    ),
    "os.system in a checkpoint": (
        lambda dead: checkpoint(call("os.system", text(f"touch '{dead}'"))),
        r"would call os\.system",
    ),
    "os.system under its old name": (
        lambda dead: checkpoint(call("posix.system", text(f"touch '{dead}'"))),
        r"would call posix\.system",
    ),
    "whole module": (lambda dead: saved(Script()), r"would call .*makers\.Script"),
    "whole module, old": (lambda dead: saved(Script(), zipped=False), r"would call .*makers\.Script"),
    **{
        f"canary, pickle {protocol}": (
            partial(pickled, protocol=protocol),
            r"would call .*pathlib\.P.*Path" if protocol > 1 else "file of no known kind",
        )
        for protocol in range(6)
    },
    "os.system": (lambda dead: b"\x80\x02" + call("os.system", text(f"touch '{dead}'")) + b".", r"call os\.system"),
    "os.system, oldest opcode": (lambda dead: b"\x80\x02" + instance(dead), r"would call os\.system"),
    "eval": (
        lambda dead: b"\x80\x02" + call("builtins.eval", text(f"open({str(dead)!r}, 'w')")) + b".",
        r"would call builtins\.eval",
    ),
    "a name with control characters": (
        lambda dead: b"\x80\x04\x8c\x05\x1b[2J\n\x8c\x06system\x93.",
        r"would call \\x1b\[2J",
    ),
    "a name without end": (
        lambda dead: checkpoint(call("os." + "x" * 1000)),
        r"would call os\.xxx.*…",
    ),
    "numpy scalar": (lambda dead: saved(weights() | {"best": np.float64(0.9)}), r"would call numpy"),
    "TorchScript": (lambda dead: torchscript(), "TorchScript program which can run code"),
    "TorchScript that says it is weights": (
        lambda dead: archive({"m/data.pkl": b"\x80\x02}.", "m/code/x.py": b"", "m/version": b"3\n"}),
        "TorchScript program",
    ),
    "torch.package": (package, "torch.package archive which can run code"),
    "Keras": (
        lambda dead: archive({"config.json": b"{}", "model.weights.h5": b""}),
        "Keras model which can run code",
    ),
    "Keras with a Lambda layer": (
        lambda dead: archive({"config.json": LAMBDA, "model.weights.h5": b"", "metadata.json": b"{}"}),
        r"Keras model that would call keras\.layers\.Lambda",
    ),
    "HDF5": (lambda dead: b"\x89HDF\r\n\x1a\n" + bytes(64), "HDF5 file .* which can run code"),
    "HDF5 with a Lambda layer": (
        lambda dead: b"\x89HDF\r\n\x1a\n" + bytes(640) + LAMBDA,
        r"HDF5 file .* that would call keras\.layers\.Lambda",
    ),
    "joblib": (partial(joblib_file, compress=0), r"would call joblib\.numpy_pickle\.NumpyArrayWrapper"),
    "joblib, zlib": (partial(joblib_file, compress=3), r"compressed file \(joblib writes those\)"),
    "joblib, gzip": (partial(joblib_file, compress=("gzip", 3)), "compressed file"),
    "joblib, bz2": (partial(joblib_file, compress=("bz2", 3)), "compressed file"),
    "joblib, xz": (partial(joblib_file, compress=("xz", 3)), "compressed file"),
    "joblib, lzma": (partial(joblib_file, compress=("lzma", 3)), "compressed file"),
    "NumPy objects": (numpy_objects, "is a NumPy file"),
    "NumPy objects in an archive": (partial(numpy_objects, together=True), "is a zip archive"),
}
