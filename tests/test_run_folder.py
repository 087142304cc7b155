"""What a scan finds in the folder that it is to write into: one's own files, or what a stranger put there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from tabor.class_finding import ClassStatus
from tabor.errors import TaborError
from tabor.journal import JOURNAL_FILE, LARGEST_JOURNAL, PARTIAL_FOLDER, Journal
from tabor.result import FIGURES_FOLDER, REPORT_FILE, RESULT_FILE, TRIGGERS_FILE
from tabor.solver import Candidate
from tabor.trigger import Trigger

FINGERPRINT = {"model": "abc", "seed": 0}


def add_class(folder: Path, target: int) -> None:
    trigger = Trigger(torch.ones(1, 3, 4), torch.ones(2, 3, 4))
    Journal(folder, FINGERPRINT).add(Candidate(target, ClassStatus.CONVERGED, trigger, steps=3))


def write(path: Path, text: str = "mine") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_ones_own_files_in_a_runs_folders_are_left(tmp_path: Path) -> None:
    add_class(tmp_path, 3)
    picture = write(tmp_path / FIGURES_FOLDER / "class-3-mask.png")
    own = [
        write(tmp_path / FIGURES_FOLDER / "figure1.pdf"),
        write(tmp_path / FIGURES_FOLDER / "raw" / "data.csv"),
        write(tmp_path / PARTIAL_FOLDER / "chapter1.tex"),
    ]
    Journal(tmp_path, FINGERPRINT | {"seed": 1}).close()
    assert all(path.read_text() == "mine" for path in own)
    assert not picture.exists()
    assert [path.name for path in (tmp_path / PARTIAL_FOLDER).iterdir()] == ["chapter1.tex"]


def test_a_link_to_ones_own_pictures_is_left_with_what_it_leads_to(tmp_path: Path) -> None:
    own = write(tmp_path / "mine" / "class-3-mask.png")
    add_class(tmp_path / "run", 3)
    (tmp_path / "run" / FIGURES_FOLDER).symlink_to(tmp_path / "mine")
    Journal(tmp_path / "run", FINGERPRINT | {"seed": 1})
    assert own.exists()


@pytest.mark.parametrize("name", [REPORT_FILE, RESULT_FILE, TRIGGERS_FILE])
@pytest.mark.parametrize("journal", [None, "my diary"])
def test_a_file_that_no_scan_wrote_is_not_written_over(name: str, journal: str | None, tmp_path: Path) -> None:
    own = write(tmp_path / name, "[1, 2]")
    if journal is not None:
        write(tmp_path / JOURNAL_FILE, journal)
    with pytest.raises(TaborError, match=f"holds a {name} that no scan wrote"):
        Journal(tmp_path, FINGERPRINT)
    assert own.read_text() == "[1, 2]"
    assert journal is None or (tmp_path / JOURNAL_FILE).read_text() == journal


def test_a_diary_is_no_journal_and_is_not_written_over(tmp_path: Path) -> None:
    own = write(tmp_path / JOURNAL_FILE, "my diary")
    with pytest.raises(TaborError, match=f"holds a {JOURNAL_FILE} that no scan wrote"):
        Journal(tmp_path, FINGERPRINT)
    assert own.read_text() == "my diary"


def test_a_run_without_its_journal_is_still_a_run(tmp_path: Path) -> None:
    write(tmp_path / RESULT_FILE, '{"schema_version": 1}')
    write(tmp_path / REPORT_FILE)
    Journal(tmp_path, FINGERPRINT)
    assert [path.name for path in tmp_path.iterdir()] == [JOURNAL_FILE]


def test_a_pipe_in_a_triggers_place_is_not_waited_for(tmp_path: Path) -> None:
    for target in (3, 4):
        add_class(tmp_path, target)
    (tmp_path / PARTIAL_FOLDER / "class-3.safetensors").unlink()
    os.mkfifo(tmp_path / PARTIAL_FOLDER / "class-3.safetensors")
    assert list(Journal(tmp_path, FINGERPRINT).finished) == [4]


def test_a_journal_of_endless_length_is_none(tmp_path: Path) -> None:
    add_class(tmp_path, 3)
    with (tmp_path / JOURNAL_FILE).open("a") as stream:
        stream.truncate(LARGEST_JOURNAL + 1)
    assert Journal(tmp_path, FINGERPRINT).finished == {}
