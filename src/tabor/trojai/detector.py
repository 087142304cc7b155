"""One model, one probability."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from tabor.errors import TaborError, one_line
from tabor.files import check_writable, write_text
from tabor.models import load_model
from tabor.result import ScanResult
from tabor.scanning import scan
from tabor.solver import Progress
from tabor.trojai.examples import load_examples
from tabor.trojai.metaparameters import DEFAULTS_FILE, SCHEMA_FILE, read_metaparameters, shipped

LONGEST = 64
"""Bytes; a result is one number."""


def infer(
    model: Path,
    result: Path,
    examples: Path,
    *,
    metaparameters: Path | None = None,
    schema: Path | None = None,
    scratch: Path | None = None,
    trust_code: bool = False,
    on_code: Callable[[str], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> ScanResult:
    """Scans a model, and writes the probability that it is backdoored as the one line of a file.

    The file is there if and only if the scan came to its end: where it fails, an earlier one is gone too, so that
    nobody takes another model's answer for this one's.  TrojAI counts a missing result as 0.5, what a result that
    says nothing should count as; but a file with 0.5 in it would hide the failure.

    Args:
        model: any file that `load_model` reads; TrojAI's are pickled modules, which need `trust_code`.
        result: the file to write.
        examples: folder of clean images; see `load_examples`.
        metaparameters: the settings; None: those shipped.
        schema: a JSON Schema of the operator's own that they have to satisfy as well.
        scratch: folder for files made on the way.
        trust_code: whether what the model file calls may run.
        on_code: called with what is about to run, in words, before it runs.
        on_progress: called after every round of the scan.

    Raises:
        TaborError: the scan cannot be done, or the file not be written.
    """
    _forget(result)
    check_writable(result)
    settings = read_metaparameters(metaparameters, schema)
    images = load_examples(examples, settings.images_per_class, settings.crop_size, settings.seed)
    channels, *size = images.shape
    classifier = load_model(
        model,
        channels=channels,
        size=(size[0], size[1]),
        trust_code=trust_code,
        on_code=on_code,
        scratch=scratch,
    )
    found = scan(
        classifier,
        images,
        preset=settings.preset,
        method=settings.method,
        seed=settings.seed,
        on_progress=on_progress,
    )
    write_text(result, f"{found.score}\n")
    return found


def configure(metaparameters: Path | None, schema: Path | None) -> list[Path]:
    """Writes the default metaparameters and their schema where such files are not there yet; returns those written.

    There is nothing to learn: the laws of clean models that scores are held against are part of the package.

    Raises:
        TaborError: a file cannot be written, or metaparameters that are there do not satisfy their schema.
    """
    written = []
    for path, name in ((metaparameters, DEFAULTS_FILE), (schema, SCHEMA_FILE)):
        if path is not None and not path.exists():
            write_text(path, shipped(name))
            written.append(path)
    read_metaparameters(metaparameters, schema)
    return written


def _forget(result: Path) -> None:
    """Removes an earlier result, and nothing else that a mistaken path may name."""
    try:
        if result.is_file() and result.stat().st_size > LONGEST:
            raise TaborError(f"{one_line(result)} is no result of tabor trojai and is left alone; give another file")
        with contextlib.suppress(FileNotFoundError):
            result.unlink()
    except OSError as error:
        raise TaborError(f"cannot write {one_line(result)}: {one_line(error.strerror)}") from None
