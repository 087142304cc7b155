"""What is in an experiment's folder already is not done again, unless the model was replaced since."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from tabor.attacks.plant import Plant
from tabor.experiments import SCALES, workshop
from tabor.experiments.workshop import Workshop
from tabor.methods.tabor import Tabor
from tabor.models import Architecture, LoadedModel, load_model
from tabor.models.build import initialise
from tabor.models.safetensors_file import write_model
from tabor.position import Position
from tabor.presets import METHODS, choose
from tabor.repair.patching import Change, PatchOutcome
from tabor.repair.unlearning import UnlearningSettings
from tabor.result import ScanResult
from tabor.zoo.build import ENOUGH_SUCCESS

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


def test_a_scan_is_told_its_folder_its_images_and_which_other_it_is_like(
    shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[Any, dict[str, Any]]] = []

    def scan(_: LoadedModel, images: object, **how: Any) -> ScanResult:
        told.append((images, how))
        return result()

    monkeypatch.setattr(workshop, "load_images", lambda source, **how: (source, how))
    monkeypatch.setattr(workshop, "scan", scan)
    fresh(tmp_path / "m.safetensors", 0)
    shop.scan(tmp_path / "m.safetensors")
    replace(shop, seed=3).scan(tmp_path / "m.safetensors", label="again", like="tabor")
    assert [images for images, _ in told] == [
        ("digits", {"split": "test", "size": None, "limit": 360, "seed": seed}) for seed in (0, 3)
    ]
    scans = tmp_path / "ci" / "scans"
    assert [(how["out"], how["like"]) for _, how in told] == [
        (scans / "m-tabor", None),
        (scans / "m-again", scans / "m-tabor"),
    ]
    assert [(how["preset"], how["seed"]) for _, how in told] == [("fast", 0), ("fast", 3)]


def test_a_base_is_trained_and_its_victim_infected_as_the_setting_says(
    shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    images = [object(), object()]

    def train(arch: str, *how: Any, **_: Any) -> None:
        told.append((arch, *how))
        fresh(how[2], 0)

    monkeypatch.setattr(workshop, "load_images", lambda *_, split, **__: images[split == "test"])
    monkeypatch.setattr(workshop, "train_classifier", train)
    monkeypatch.setattr(workshop, "infect_classifier", lambda *how, **more: told.append((how, more)))
    setting = replace(shop.setting, fraction=0.3)
    victim = replace(shop, setting=setting, seed=2, device="cpu").victim([Plant("square", 2, Position.TOP, 1)])
    base, (infected, more) = told
    assert base == ("tabor:digits4", *images, tmp_path / "ci" / "digits4-2.safetensors", setting.training, 2)
    assert [backdoor.target for backdoor in infected[3]] == [1]
    assert (*infected[1:3], *infected[4:]) == (*images, victim, 0.3, setting.infection, 2)
    assert more == {"rounds": 3, "enough": ENOUGH_SUCCESS, "device": "cpu"}
