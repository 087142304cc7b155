"""What is in an experiment's folder already is not done again, unless the model was replaced since."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from tabor.experiments import SCALES, workshop
from tabor.experiments.workshop import Workshop
from tabor.methods.tabor import Tabor
from tabor.models import Architecture, LoadedModel, load_model
from tabor.models.build import initialise
from tabor.models.safetensors_file import write_model
from tabor.presets import METHODS, choose
from tabor.repair.patching import Change, PatchOutcome
from tabor.repair.unlearning import UnlearningSettings
from tabor.result import ScanResult

from .made_up import result

TINY = Architecture(name="tabor:digits4", num_classes=3, channels=1, size=(12, 12))


def fresh(path: Path, seed: int) -> None:
    write_model(path, initialise(TINY, seed).state_dict(), TINY, {})


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """Whose scans and patches are made up at once."""

    def scan(model: LoadedModel, _: object, *, out: Path, **__: object) -> ScanResult:
        method, solver = choose("tabor", "fast", 360)
        settings = {"solver": asdict(solver), "tabor": method.describe(), "precision": "float32"}
        made = replace(result(2), model={**result(2).model, "sha256": model.sha256}, settings=settings)
        made.save(out)
        return made

    def patch(model: LoadedModel, *_: object, **__: object) -> PatchOutcome:
        numbers: dict[str, Any] = {"images_used": 1, "images_measured": 1, "seed": 0, "seconds": 0.0}
        none: dict[str, Any] = {"restored": (), "plain": (), "planted": ()}
        return PatchOutcome(
            model=model, clean_accuracy=Change(1.0, 1.0), settings=UnlearningSettings(), **none, **numbers
        )

    monkeypatch.setattr(workshop, "scan", scan)
    monkeypatch.setattr(workshop, "patch", patch)
    monkeypatch.setattr(workshop, "load_images", lambda *_, **__: None)
    return Workshop(scale=SCALES["ci"], setting=SCALES["ci"].gtsrb, work=tmp_path)


def test_a_model_is_scanned_and_patched_anew_where_it_was_replaced(shop: Workshop, tmp_path: Path) -> None:
    told: list[str] = []
    shop, path = replace(shop, tell=told.append), tmp_path / "m.safetensors"
    for seed in (0, 0, 1):
        fresh(path, seed)
        found = shop.scan(path)
        assert found.model["sha256"] == load_model(path).sha256
        assert shop.record(shop.patched(path, found))["patched"]["sha256"] == found.model["sha256"]
    assert told == 2 * ["scanning m-tabor", "patching m"]


def test_a_model_is_scanned_anew_where_the_method_has_changed(
    shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    shop, path = replace(shop, tell=told.append), tmp_path / "m.safetensors"
    fresh(path, 0)
    shop.scan(path)
    monkeypatch.setitem(cast("dict[str, Any]", METHODS), "tabor", partial(Tabor, mask_dropout=0.2))
    shop.scan(path)
    replace(shop, seed=1).scan(path)
    assert told == 3 * ["scanning m-tabor"]
