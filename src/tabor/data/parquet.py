"""Images in parquet files as Hugging Face data sets store them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from tabor.data.listing import Encoded, Listing
from tabor.errors import DataError, one_line

FEW_ROWS = 16
"""That are read at once, where rows that repeat an image share it in memory; else one is."""

LARGEST_RATIO, LEAST_BOMB = 100, 2**27
"""A file that unpacks to more than so many times its size, and to more bytes than that, was made to do harm."""


def list_parquet(path: Path, split: str | None) -> Listing:
    """Lists the images of one parquet file, or of one split of a folder of parquet files.

    Each file has a column `image`, a struct with the encoded `bytes`, and an integer column `label`. The
    struct's `path` is never followed: it could name any file of this machine. Class names come from the
    `huggingface` metadata of the schema.

    Args:
        path: a .parquet file, or a folder with files named SPLIT-*.parquet in it or in its folder data/.
        split: None stands for "test" if present, else "validation", else the only split.

    Raises:
        DataError: the split is unknown, a file cannot be read, or a column is missing or of the wrong type.
    """
    present = _splits(path)
    chosen = _choose(path, split, present)
    files = [_open(file) for file in present[chosen]]
    return Listing(
        labels=torch.from_numpy(np.concatenate([file.labels for file in files])),
        class_names=files[0].class_names,
        source=one_line(path.resolve().name) + (f" ({one_line(chosen)})" if path.is_dir() else ""),
        read=lambda positions: _read(files, positions),
    )


def parquet_files(folder: Path) -> list[Path]:
    """Returns the parquet files in a folder or else in its subfolder data/, sorted by name."""
    return _plain(folder.glob("*.parquet")) or _plain(folder.glob("data/*.parquet"))


def _plain(paths: Iterable[Path]) -> list[Path]:
    return sorted(path for path in paths if path.is_file())  # a pipe would be waited for


@dataclass(frozen=True)
class _File:
    path: Path
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]


def _splits(path: Path) -> dict[str, list[Path]]:
    splits: dict[str, list[Path]] = {}
    for file in [path] if path.is_file() else parquet_files(path):
        splits.setdefault(file.stem.partition("-")[0], []).append(file)
    return splits


def _choose(path: Path, split: str | None, present: dict[str, list[Path]]) -> str:
    defaults: list[str] = [name for name in ("test", "validation") if name in present]
    if not defaults and len(present) == 1:
        defaults = list(present)
    chosen = split if split is not None else next(iter(defaults), None)
    if chosen in present:
        return chosen
    names = one_line(", ".join(sorted(present)))
    if chosen is None:
        raise DataError(f"{one_line(path)} has several splits; choose one with --split: {names}")
    raise DataError(f'{one_line(path)} has no split "{one_line(chosen)}"; splits present: {names}')


def _open(path: Path) -> _File:
    with _refusing(path), pq.ParquetFile(path) as file:
        _check(path, file.schema_arrow)
        _check_amount(path, file.metadata)
        column = file.read(columns=["label"]).column("label")
        if column.null_count:
            raise DataError(f'{one_line(path)}: {column.null_count} rows have no value in column "label"')
        labels = np.array(column.cast(pa.int64()).to_numpy())
        metadata = (file.schema_arrow.metadata or {}).get(b"huggingface", b"{}")
    if len(labels) and labels.min() < 0:
        raise DataError(
            f'{one_line(path)}: column "label" holds {labels.min()}, and -1 commonly means unlabelled; '
            f"use a split that has labels"
        )
    return _File(path, labels, _class_names(metadata))


def _check(path: Path, schema: pa.Schema) -> None:
    types = {field.name: field.type for field in schema}
    image = types.get("image")
    if image is None or not pa.types.is_struct(image) or not _holds_bytes(image):
        raise DataError(
            f'{one_line(path)} must have a column "image" that is a struct with binary "bytes"; got {_columns(types)}'
        )
    if "label" not in types or not pa.types.is_integer(types["label"]):
        raise DataError(f'{one_line(path)} must have an integer column "label"; got {_columns(types)}')


def _check_amount(path: Path, metadata: pq.FileMetaData) -> None:
    """Refuses a small file that would expand into endless rows or bytes: each image takes more than a byte."""
    groups, size = [metadata.row_group(k) for k in range(metadata.num_row_groups)], path.stat().st_size
    rows = max(metadata.num_rows, sum(group.num_rows for group in groups))
    if rows > size:
        raise DataError(f"{one_line(path)} claims {rows} rows in {size} bytes")
    columns = (group.column(k) for group in groups for k in range(group.num_columns))
    unpacked = sum(c.total_uncompressed_size for c in columns if c.path_in_schema in ("image.bytes", "label"))
    if unpacked > max(LARGEST_RATIO * size, LEAST_BOMB):
        raise DataError(f"{one_line(path)} would unpack to {unpacked:,} bytes, over {LARGEST_RATIO} times its size")


def _holds_bytes(struct: pa.StructType) -> bool:
    fields = {field.name: field.type for field in struct}
    return "bytes" in fields and (pa.types.is_binary(fields["bytes"]) or pa.types.is_large_binary(fields["bytes"]))


def _columns(types: dict[str, pa.DataType]) -> str:
    return one_line(", ".join(f"{name} {kind}" for name, kind in types.items()), 120) or "no column"


def _class_names(metadata: bytes) -> tuple[str, ...]:
    """The names in Hugging Face's metadata, or none where it is absent or of another form."""
    try:
        names = json.loads(metadata)["info"]["features"]["label"]["names"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return ()
    return tuple(one_line(name) for name in names) if isinstance(names, list) else ()


def _read(files: list[_File], positions: NDArray[np.int64]) -> Iterator[tuple[str, Encoded]]:
    start = 0
    for file in files:
        end = start + len(file.labels)
        yield from _read_file(file.path, _between(positions, start, end))
        start = end


def _read_file(path: Path, rows: NDArray[np.int64]) -> Iterator[tuple[str, Encoded]]:
    """Reads only the row groups that hold a wanted row."""
    if len(rows) == 0:
        return
    with _refusing(path):
        file, few = _sharing(path)
    with file:
        start = 0
        for group in range(file.num_row_groups):
            end = start + file.metadata.row_group(group).num_rows
            wanted = _between(rows, start, end)
            with _refusing(path):
                for row, encoded in zip(wanted, _group_bytes(file, group, wanted, few), strict=True):
                    yield f"{path.name} row {start + row}", encoded
            start = end


def _sharing(path: Path) -> tuple[pq.ParquetFile, int]:
    """Opens a file so that rows that repeat an image share it in memory too, and says how many to read at once.

    What a file says of its sizes is not relied upon: nothing checks it. Of what it says of its encodings, Arrow does.
    """
    file = pq.ParquetFile(path)
    groups = (file.metadata.row_group(k) for k in range(file.num_row_groups))
    columns = (group.column(k) for group in groups for k in range(group.num_columns))
    encodings = {encoding for c in columns if c.path_in_schema == "image.bytes" for encoding in c.encodings}
    if any(encoding.startswith("DELTA") for encoding in encodings):  # which Arrow does not read so
        return file, 1
    return pq.ParquetFile(path, metadata=file.metadata, read_dictionary=["image.bytes"]), FEW_ROWS


def _group_bytes(file: pq.ParquetFile, group: int, rows: NDArray[np.int64], few: int) -> Iterator[bytes | None]:
    """Yields what the wanted rows of a row group hold, of which so few are read at once."""
    if len(rows) == 0:
        return
    start = 0
    for batch in file.iter_batches(few, row_groups=[group], columns=["image.bytes"]):
        stored = pc.struct_field(batch.column("image"), "bytes")
        for row in _between(rows, start, start + len(batch)):
            yield stored[row].as_py()  # one by one: each is a copy
        start += len(batch)
        if start > rows[-1]:
            break


def _between(rows: NDArray[np.int64], start: int, end: int) -> NDArray[np.int64]:
    """The ascending `rows` within [start, end), counted from start."""
    first, last = np.searchsorted(rows, [start, end])
    return rows[first:last] - start


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except (pa.ArrowException, OSError, ValueError, LookupError) as error:
        raise DataError(f"cannot read {one_line(path)} as parquet: {one_line(error, 120)}") from None
