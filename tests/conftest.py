"""Fixtures that several folders of tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def gtsrb() -> Path:
    """The folder of the real traffic signs, in $TABOR_DATA or ../shared/data beside the repository."""
    folder = Path(os.environ.get("TABOR_DATA") or REPOSITORY.parent / "shared" / "data") / "gtsrb"
    if not folder.is_dir():
        pytest.skip("the real GTSRB images are not here; TABOR_DATA names the folder that holds gtsrb/")
    return folder
