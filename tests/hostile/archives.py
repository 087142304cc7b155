"""Archives that no honest writer makes: bombs, links, places outside, directories that lie; and other containers."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
from functools import partial
from pathlib import Path

from tabor.models.content import LARGEST_DIRECTORY, TORCH_MAGIC

from .makers import Canary, Corpus, altered_directory, archive, checkpoint, safetensors_file, saved, weights


def twice(name: str) -> bytes:
    """An archive with two records of one name."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("m/data.pkl", b"\x80\x02}.")
        file.NameToInfo.clear()
        file.writestr(name, b"\x80\x02].")
    return stream.getvalue()


def overlapping() -> bytes:
    """Many entries of a directory for the same compressed bytes."""
    content = archive({"m/data.pkl": bytes(10**5)}, compressed=True)
    start = content.index(b"PK\x01\x02")
    entry, end = content[start:-22], content[-22:]
    entries = [entry.replace(b"m/data.pkl", f"m/{i:08d}".encode()) for i in range(500)]
    return content[:start] + b"".join(entries) + _end(end, 500, 500 * len(entry), start)


def _end(end: bytes, count: int, size: int, offset: int) -> bytes:
    return end[:8] + struct.pack("<HHII", count, count, size, offset) + end[20:]


def elsewhere(dead: Path) -> bytes:
    """Two archives in one: what the directory at the end says, and what the one says that it points to."""
    harmful, harmless = saved({"w": Canary(dead)}), checkpoint(b"}")
    size, offset = struct.unpack("<II", harmless[-10:-2])
    directory = harmless[offset : offset + size]
    return harmful + directory + _end(harmless[-22:], 2, size, 0)


def large_directory() -> bytes:
    """An archive whose directory takes long to read."""
    content = archive({"m/data.pkl": b"\x80\x02}."})
    start = content.index(b"PK\x01\x02")
    entry = content[start:-22]
    many = LARGEST_DIRECTORY // len(entry) + 1
    return content[:start] + entry * many + _end(content[-22:], 0xFFFF, len(entry) * many, start)


def lying_about_sizes() -> bytes:
    """A bomb whose directory says that it is none."""
    content = archive({"m/data.pkl": bytes(10**7)}, compressed=True)
    start = content.index(b"PK\x01\x02")
    return content[: start + 24] + struct.pack("<I", 100) + content[start + 28 :]


def nested() -> bytes:
    """A bomb in an archive in an archive."""
    bomb = archive({"m/data.pkl": bytes(10**7)}, compressed=True)
    return archive({"m/data.pkl": b"\x80\x02}.", "m/data/0": archive({"x": bomb}), "m/version": b"3\n"})


def tarred(first: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    """What PyTorch wrote before 0.2: a tar archive, here of one member of any kind."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as file:
        for name in (first, "storages", "tensors", "pickle"):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            file.addfile(info)
    return stream.getvalue()


def tar_that_begins_like_a_checkpoint() -> bytes:
    """A tar archive whose first member has the magic number of old checkpoints for a name."""
    content = bytearray(tarred("x" * len(TORCH_MAGIC), tarfile.SYMTYPE, "/dev/zero"))
    content[: len(TORCH_MAGIC)] = TORCH_MAGIC
    content[148:156] = b" " * 8
    content[148:156] = f"{sum(content[:512]):06o}\0 ".encode()
    return bytes(content)


def holding(records: tuple[str, ...], dead: Path) -> bytes:
    """An archive with empty records of these names."""
    return archive(dict.fromkeys(records, b""))


TWO_MODELS = {
    "checkpoint, program": (("m/data.pkl", "m/models/model.json"), "program and also a checkpoint"),
    "checkpoint, format of programs": (("m/data.pkl", "m/archive_format"), "program and also a checkpoint"),
    "checkpoint, old program": (
        ("m/data.pkl", "serialized_exported_program.json"),
        "program and also a checkpoint",
    ),
    "checkpoint in capitals, program": (("m/DATA.PKL", "m/models/model.json"), "program and also a checkpoint"),
    "checkpoint in no folder, program": (("./data.pkl", "m/models/model.json"), "program and also a checkpoint"),
    "checkpoint, Keras": (("m/data.pkl", "config.json", "model.weights.h5"), "checkpoint .* and also a Keras model"),
    "checkpoint, TorchScript to some": (
        ("m/data.pkl", "m/CONSTANTS.PKL", "m/code/x.py"),
        "TorchScript program and also a checkpoint",
    ),
    "TorchScript, program": (
        ("m/data.pkl", "m/constants.pkl", "m/code/x.py", "m/models/model.json"),
        "TorchScript program and also a torch.export program",
    ),
}
"""Records by which an archive is two models, depending on what opens it."""

ARCHIVES: Corpus = {
    "any zip": (lambda dead: archive({"readme.txt": b"hello"}), "is a zip archive"),
    "record above its folder": (lambda dead: archive({"m/data.pkl": b"", "../x": b""}), "outside its folder: ../x"),
    "record at an absolute place": (lambda dead: archive({"m/data.pkl": b"", "/etc/x": b""}), "outside its folder"),
    "record with a backslash": (lambda dead: archive({"m/data.pkl": b"", "..\\x": b""}), "outside its folder"),
    "record with a forged line": (
        lambda dead: archive({"m/data.pkl": b"", "../\x1b[2J\nverdict: clean": b""}),
        r"outside its folder: \.\./\\x1b\[2J\\nverdict",
    ),
    "record twice": (lambda dead: twice("m/data.pkl"), "two records of one name"),
    "record twice, once in capitals": (lambda dead: twice("m/DATA.PKL"), "two records of one name"),
    "record whose name goes on": (
        lambda dead: archive({"m/data.pkl": b"", "m/data.pklX": b""}).replace(b"data.pklX", b"data.pkl\0"),
        "a record of two names: m/data.pkl",
    ),
    **{f"two models: {name}": (partial(holding, records), told) for name, (records, told) in TWO_MODELS.items()},
    "two models: a safetensors file, an archive behind it": (
        lambda dead: safetensors_file({}, archive({"m/data.pkl": b""})),
        "a safetensors file and also a zip archive",
    ),
    "two models: an old checkpoint, an archive behind it": (
        lambda dead: saved(weights(), zipped=False) + saved(weights()),
        "an old checkpoint of torch.save and also a zip archive",
    ),
    "two models: ONNX, an archive with a comment behind it": (
        lambda dead: b"\x08\x08\x12\x00" + archive({"m/data.pkl": b""}, comment=b"PK\x05\x06 is not here"),
        "an ONNX model and also a zip archive",
    ),
    "link": (lambda dead: archive({"m/data.pkl": b""}, link="m/link"), "holds a link: m/link"),
    "zip bomb": (lambda dead: archive({"m/data.pkl": bytes(10**7)}, compressed=True), "a zip bomb"),
    "zip bomb in a zip": (lambda dead: nested(), "holds no weights"),
    "zip bomb of overlapping records": (lambda dead: overlapping(), "a zip bomb"),
    "zip bomb that says it is none": (lambda dead: lying_about_sizes(), "checkpoint .* damaged"),
    "more records than a model has": (lambda dead: large_directory(), "directory of 20,000,0.. bytes"),
    "two archives in one": (elsewhere, "its directory is not where it says"),
    "archive behind something": (lambda dead: b"PK\x03\x04" + checkpoint(b"}"), "its directory is not where it says"),
    "archive before something": (lambda dead: checkpoint(b"}") + b"PK\x05\x06", "does not end with its directory"),
    "archive with a comment": (
        lambda dead: archive({"m/data.pkl": b"\x80\x02}."}, comment=b"x" * 30),
        "does not end with its directory",
    ),
    "encrypted, says its directory": (
        lambda dead: altered_directory(saved({"w": Canary(dead)}), 8, 1),
        "damaged .*unsupported encryption",
    ),
    "canary, of another name than its directory says": (
        lambda dead: saved({"w": Canary(dead)}).replace(b"archive/data.pkl", b"Xrchive/data.pkl", 1),
        "which can run code",
    ),
    "zip of a later version": (lambda dead: altered_directory(saved(weights()), 6, 99), "damaged zip archive"),
    "zip of another method": (lambda dead: altered_directory(saved(weights()), 10, 14), "damaged"),
    "empty data.pkl": (lambda dead: archive({"m/data.pkl": b""}), "damaged"),
    "zip without a directory": (lambda dead: b"PK\x03\x04" + bytes(60), "damaged zip archive"),
    "zip that is all directory": (lambda dead: b"PK\x03\x04PK\x05\x06" + bytes(18), "damaged zip archive"),
    "tar": (lambda dead: tarred("sys_info"), r"tar archive \(PyTorch before 0\.2"),
    "tar of pipes": (lambda dead: tarred("x", tarfile.FIFOTYPE), "tar archive"),
    "tar of links": (lambda dead: tarred("x", tarfile.SYMTYPE, "/dev/zero"), "tar archive"),
    "tar above its folder": (lambda dead: tarred("../../x"), "tar archive"),
    "tar that begins like a checkpoint": (lambda dead: tar_that_begins_like_a_checkpoint(), "tar archive"),
    "gzip": (lambda dead: gzip.compress(saved({"w": Canary(dead)})), "compressed file"),
    "gzip bomb": (lambda dead: gzip.compress(bytes(10**7)), "compressed file"),
    "bz2": (lambda dead: bz2.compress(saved({"w": Canary(dead)})), "compressed file"),
    "xz": (lambda dead: lzma.compress(saved({"w": Canary(dead)})), "compressed file"),
    "7z": (lambda dead: b"7z\xbc\xaf\x27\x1c" + bytes(60), "compressed file"),
    "rar": (lambda dead: b"Rar!\x1a\x07\x01\x00" + bytes(60), "compressed file"),
    "zstd": (lambda dead: b"\x28\xb5\x2f\xfd" + bytes(60), "compressed file"),
}
