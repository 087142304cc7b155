"""Photographs' victims made of a classifier that one has."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tabor.attacks.plant import Plant
from tabor.cli import main
from tabor.errors import SettingError
from tabor.experiments import SCALES, Workshop
from tabor.experiments.own_base import FINE_TUNING, with_base
from tabor.models import Architecture, load_model
from tabor.models.build import initialise
from tabor.models.safetensors_file import write_model
from tabor.position import Position
from tabor.training import TrainSettings, accuracy


def written(
    path: Path, size: tuple[int, int], *, name: str = "timm:resnet10t", channels: int = 3, seed: int = 0
) -> Path:
    architecture = Architecture(name=name, num_classes=10, channels=channels, size=size)
    write_model(path, initialise(architecture, seed).state_dict(), architecture, {})
    return path


def test_images_and_triggers_are_as_large_as_the_base_has_them(tmp_path: Path) -> None:
    base = written(tmp_path / "base.safetensors", (112, 112))
    cpu, gpu = (with_base(SCALES[name], base).imagenet for name in ("cpu", "gpu"))
    assert (cpu.base, cpu.edge, cpu.arch, cpu.deep) == (base, 112, "timm:resnet10t", "timm:resnet10t")
    assert cpu.sizes == {20: 10, 60: 30, 100: 50}
    assert gpu.sizes == {20: 10, 40: 20, 60: 30, 80: 40, 100: 50}
    assert cpu.size == gpu.size == 20
    assert cpu.infection == gpu.infection == FINE_TUNING
    assert "at 112×112 and timm:resnet10t" in cpu.stand_in
    assert cpu.stand_in.endswith("with triggers as much smaller as the images")
    assert dataclasses.replace(with_base(SCALES["cpu"], base), imagenet=SCALES["cpu"].imagenet) == SCALES["cpu"]


def test_at_the_size_of_the_paper_its_triggers_are_its_own(tmp_path: Path) -> None:
    setting = with_base(SCALES["gpu"], written(tmp_path / "base.safetensors", (224, 224))).imagenet
    assert setting.sizes == SCALES["gpu"].imagenet.sizes
    assert setting.size == 40
    assert "smaller" not in setting.stand_in


def test_what_cannot_be_a_base_is_told(tmp_path: Path) -> None:
    square, wide = written(tmp_path / "s.safetensors", (32, 32)), written(tmp_path / "w.safetensors", (32, 48))
    with pytest.raises(SettingError, match=r"the scale ci has no photographs that .*s.safetensors could tell apart"):
        with_base(SCALES["ci"], square)
    with pytest.raises(SettingError, match=r"w.safetensors takes images of 32×48, the experiments have square ones"):
        with_base(SCALES["cpu"], wide)


def test_victims_are_made_of_it_and_those_of_another_base_or_seed_are_not_taken_for_its_own(tmp_path: Path) -> None:
    ci, plant = SCALES["ci"], Plant("square", 2, Position.TOP, 1)
    made = []
    for weights, seed in ((0, 0), (1, 0), (1, 1)):
        (folder := tmp_path / str(weights)).mkdir(exist_ok=True)
        base = written(folder / "base.safetensors", (12, 12), name="tabor:digits4", channels=1, seed=weights)
        setting = dataclasses.replace(ci.gtsrb, base=base, edge=12, infection=TrainSettings(epochs=1))
        shop = Workshop(scale=ci, setting=setting, work=tmp_path / "work", device="cpu", seed=seed)
        assert shop.base("tabor:gtsrb6") == base
        made.append(shop.victim([plant]))
        assert shop.victim([plant]) == made[-1]
    assert len(set(made)) == 3
    assert all(path.name.startswith("base-") for path in made)


def test_a_base_of_other_classes_is_refused(tmp_path: Path) -> None:
    architecture = Architecture(name="tabor:digits4", num_classes=11, channels=1, size=(12, 12))
    base = tmp_path / "base.safetensors"
    write_model(base, initialise(architecture, 0).state_dict(), architecture, {})
    setting = dataclasses.replace(SCALES["ci"].gtsrb, base=base, edge=12)
    shop = Workshop(scale=SCALES["ci"], setting=setting, work=tmp_path, device="cpu")
    with pytest.raises(SettingError, match=r"base.safetensors tells 11 classes apart, digits has 10"):
        shop.victim([Plant("square", 2, Position.TOP, 1)])


def test_its_accuracy_is_measured_where_its_file_does_not_say_it(tmp_path: Path) -> None:
    shop = Workshop(scale=SCALES["ci"], setting=SCALES["ci"].gtsrb, work=tmp_path, device="cpu")
    shop = dataclasses.replace(shop, setting=dataclasses.replace(shop.setting, edge=12))
    base = written(tmp_path / "base.safetensors", (12, 12), name="tabor:digits4", channels=1)
    assert shop.clean_accuracy(base) == accuracy(load_model(base), shop.test.images, shop.test.labels)
    architecture = load_model(base).architecture
    write_model(base, initialise(architecture, 0).state_dict(), architecture, {"clean_accuracy": 0.25})
    assert shop.clean_accuracy(base) == 0.25


def test_2_a_base_is_looked_at_before_anything_is_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["reproduce", "table1b", "--work", str(tmp_path), "--out", str(tmp_path)]
    assert main([*arguments, "--base", str(tmp_path / "none.safetensors"), "--scale", "cpu"]) == 2
    assert "there is no model file" in capsys.readouterr().err
    base = written(tmp_path / "s.safetensors", (32, 32))
    assert main([*arguments, "--base", str(base)]) == 2
    assert "the scale ci has no photographs" in capsys.readouterr().err
