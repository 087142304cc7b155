"""What an interrupted scan leaves behind, so that it goes on where it stopped.

Another scan of the model, that differs in the masks' settings only, takes its patches over (`scan(like=)`).

`journal.jsonl` holds a first line that says what is being scanned and how, and then one line a finished class, whose
trigger lies beside it in `partial/` until the scan is whole, and one for each class that was looked at closely.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import tabor
from tabor import strict_json
from tabor.access import Classifier
from tabor.class_finding import ClassStatus
from tabor.data import ImageSet
from tabor.errors import TaborError, one_line
from tabor.files import check_no_link, check_plain, write_text
from tabor.models import LoadedModel
from tabor.result import FIGURES_FOLDER, LARGEST_RESULT, REPORT_FILE, RESULT_FILE, TRIGGERS_FILE
from tabor.solver import Candidate
from tabor.suspect import Suspect
from tabor.trigger import Trigger

JOURNAL_FILE = "journal.jsonl"
PARTIAL_FOLDER = "partial"

LARGEST_JOURNAL = 2**26
"""Bytes: a thousand times what one of a thousand classes has."""

ANSWERED = 16
"""Images whose answers tell one model from another."""

ROUNDING = 1e-3
"""By how much of the largest answer one and the same model's differ, where other threads or cores compute them."""


def fingerprint(
    model: nn.Module,
    classifier: Classifier,
    images: ImageSet,
    targets: Sequence[int],
    record: dict[str, Any],
    seed: int,
) -> dict[str, Any]:
    """Everything that the searches depend on.

    The weights alone do not make a model: its architecture, its normalisation and plain attributes count too, so its
    answers to a few clean images are part of it.
    """
    few = images.images[:ANSWERED].to(classifier.device)
    answers = [[round(logit, 4) for logit in row] for row in classifier.predict(few).tolist()]
    digest = None
    architecture = {"name": type(model).__name__}
    if isinstance(model, LoadedModel):
        digest, architecture = model.sha256, dataclasses.asdict(model.architecture)
    weights = digest or _digest(model.state_dict().values())
    return {
        "model": {"weights": weights, "architecture": architecture, "answers": answers},
        "engine": {"device": classifier.device.type, "faster copy": classifier.hastened},
        "images": _digest([images.images, images.labels]),
        "classes": list(targets),
        "settings": record,
        "seed": seed,
        "version": tabor.__version__,
    }


def _digest(values: Iterable[object]) -> str:
    """Of the dense tensors among them: a module may have state of another kind, which shows in its answers."""
    digest = hashlib.sha256()
    for value in values:
        if isinstance(value, Tensor) and value.layout == torch.strided:
            plain = value.detach().cpu().resolve_conj().resolve_neg().contiguous()  # which may be views that compute
            digest.update(plain.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


class Journal:
    """The journal of one run.

    Args:
        folder: the run's folder.
        fingerprint: everything that the searches depend on, as plain values; a journal with another one is begun anew.
        like: folder of another run; what it measured of patches is taken over where all that patches depend on is the
            same.

    Attributes:
        finished: the candidates that an earlier, interrupted run left, by class.
        told: what becomes of an earlier run in the folder, in words; None where there is none.

    Raises:
        TaborError: the folder cannot be written.
    """

    def __init__(self, folder: Path, fingerprint: Mapping[str, Any], like: Path | None = None) -> None:
        self._path = folder / JOURNAL_FILE
        self._partial = folder / PARTIAL_FOLDER
        check_no_link(self._partial)
        plain = json.loads(json.dumps({"scan": fingerprint}))
        first, entries = _read(self._path)
        plain = _but_for_rounding(plain, first)
        whole = (folder / RESULT_FILE).exists()
        if "scan" not in first:
            _check_no_other(folder)
        if first != plain:
            entries = []
            _forget(folder)
        self.finished = dict(self._candidates(entries))
        if not self.finished:  # a scan that was whole is made again, and so are its patches
            entries = []
            self.close()
        self._measured = ({} if like is None else _patches_like(like, plain)) | _measured(entries)
        self.told = _told(first, plain, len(self.finished), whole)
        # Written anew also when it goes on: its last line may have been cut off.
        lines = [_line(candidate) for candidate in self.finished.values()]
        lines += [_suspect_line(target, measured) for target, measured in self._measured.items()]
        write_text(self._path, "\n".join([json.dumps(plain, sort_keys=True), *lines]) + "\n")

    def _candidates(self, entries: Iterable[Mapping[str, Any]]) -> Iterator[tuple[int, Candidate]]:
        for entry in entries:
            try:
                target, status, steps = int(entry["class"]), ClassStatus(entry["status"]), int(entry["steps"])
                yield target, Candidate(target, status, Trigger.load(self._trigger_path(target)), steps)
            except (ValueError, KeyError, TypeError, OverflowError, TaborError):
                continue  # no line of a class, or one whose trigger is gone: search that class again

    def suspects(self, device: torch.device) -> dict[int, Suspect]:
        """Returns what an earlier run measured of the classes that it looked at closely, by class."""
        found = {}
        for target, measured in self._measured.items():
            try:
                found[target] = Suspect.from_measured(measured, device)
            except (AttributeError, ValueError, KeyError, TypeError, OverflowError):
                continue  # damaged: look at that class again
        return found

    def _trigger_path(self, target: int) -> Path:
        return self._partial / f"class-{target}.safetensors"

    def add(self, candidate: Candidate) -> None:
        """Records a finished class.

        Raises:
            TaborError: the folder cannot be written.
        """
        candidate.trigger.to("cpu").save(self._trigger_path(candidate.target))
        self._append(_line(candidate))

    def add_suspect(self, target: int, suspect: Suspect) -> None:
        """Records a class that was looked at closely.

        Raises:
            TaborError: the folder cannot be written.
        """
        self._append(_suspect_line(target, suspect.measured()))

    def _append(self, line: str) -> None:
        try:
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(line + "\n")
        except OSError as error:
            raise TaborError(f"cannot write {one_line(self._path)}: {one_line(error.strerror)}") from None

    def close(self) -> None:
        """Removes the parts that the saved result has made superfluous; the journal itself stays as a record."""
        _empty(self._partial, "class-*.safetensors")


def _told(first: Mapping[str, Any], plain: Mapping[str, Any], finished: int, whole: bool) -> str | None:
    """Says what becomes of the run that is in a folder, of which this is the first line."""
    if not isinstance(first.get("scan"), dict):
        return None
    other = [name for name, value in plain["scan"].items() if first["scan"].get(name) != value]
    if other:
        return f"what another scan left there is replaced; it differs in {', '.join(other)}"
    if finished:
        return f"going on with the scan that was interrupted there, which has searched {finished} classes"
    return "the scan there was whole already and is made again; tabor report shows it" if whole else None


def _check_no_other(folder: Path) -> None:
    """Makes sure that a folder without a scan's journal holds no file named like a scan's, which may be anybody's.

    Raises:
        TaborError: it does, and they are not of a run whose journal is gone or ruined.
    """
    others = [name for name in (REPORT_FILE, TRIGGERS_FILE, RESULT_FILE, JOURNAL_FILE) if (folder / name).exists()]
    if others == [JOURNAL_FILE] and (folder / PARTIAL_FOLDER).exists():
        return
    if others and "schema_version" not in _parse(_text(folder / RESULT_FILE, LARGEST_RESULT)):
        raise TaborError(
            f"{one_line(folder)} holds a {others[0]} that no scan wrote, and would be written over; take another folder"
        )


def _forget(folder: Path) -> None:
    """Removes what another scan found: it would be taken for what this one, should it be interrupted, found."""
    try:
        for name in (RESULT_FILE, TRIGGERS_FILE, REPORT_FILE):
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise TaborError(f"cannot write {one_line(folder)}: {one_line(error.strerror)}") from None
    _empty(folder / FIGURES_FOLDER, "class-*.png")


def _empty(folder: Path, own: str) -> None:
    """Removes a folder inside a run, but for files that a scan did not write, and those that a link leads to."""
    if folder.is_symlink():
        return
    with suppress(OSError):
        for path in folder.glob(own):
            path.unlink()
        folder.rmdir()


def _read(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Reads the first line and the others, but for one that was cut off by an interruption."""
    first, *entries = [*map(_parse, _text(path, LARGEST_JOURNAL).splitlines())] or [{}]
    return first, [entry for entry in entries if entry]


def _text(path: Path, most: int) -> str:
    """A file's text; nothing where there is no such file, or none of that kind and at most so many bytes."""
    try:
        check_plain(path, most)
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _parse(text: str) -> dict[str, Any]:
    try:
        entry = strict_json.loads(text)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}


def _measured(entries: Iterable[Mapping[str, Any]]) -> dict[int, Any]:
    return {e["patch"]: e["measured"] for e in entries if isinstance(e.get("patch"), int) and "measured" in e}


def _but_for_rounding(header: dict[str, Any], first: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a first line with the answers of another one, where they differ in their last digits alone.

    These depend on the threads, and on how many images at once the memory lets through.
    """
    try:
        mine, theirs = (torch.tensor(line["scan"]["model"]["answers"]) for line in (header, first))
        near = mine.shape == theirs.shape and bool((mine - theirs).abs().max() <= ROUNDING * mine.abs().max())
    except (KeyError, TypeError, ValueError, RuntimeError):
        near = False
    if not near:
        return header
    scan = header["scan"]
    return {"scan": scan | {"model": scan["model"] | {"answers": first["scan"]["model"]["answers"]}}}


def _patches_like(folder: Path, header: dict[str, Any]) -> dict[int, Any]:
    first, entries = _read(folder / JOURNAL_FILE)
    try:
        same = _of_patches(first) == _of_patches(_but_for_rounding(header, first))
    except (AttributeError, KeyError, TypeError, ValueError):
        same = False
    return _measured(entries) if same else {}


def _of_patches(header: Mapping[str, Any]) -> list[Any]:
    """What patches depend on, of the first line of a journal.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: it is none, or its method does not say how it seeks patches.
    """
    scan = header["scan"]
    (restoring,) = [
        own["restoring"] for own in scan["settings"].values() if isinstance(own, dict) and "restoring" in own
    ]
    others = ("model", "engine", "images", "seed", "version")
    return [restoring, scan["settings"]["precision"], *(scan[key] for key in others)]


def _line(candidate: Candidate) -> str:
    return json.dumps({"class": candidate.target, "status": candidate.status, "steps": candidate.steps})


def _suspect_line(target: int, measured: Mapping[str, Any]) -> str:
    return json.dumps({"patch": target, "measured": measured})
