"""The settings of each scale, where their data are looked for, and where their models go."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from PIL import Image

from tabor.attacks.plant import Plant
from tabor.attacks.poison import BLACK
from tabor.cli import main
from tabor.errors import SettingError
from tabor.experiments import SCALES, Setting, Workshop, workshop
from tabor.models.build import Architecture, build
from tabor.position import Position
from tabor.training import TrainSettings


def test_a_missing_data_set_is_named(tmp_path: Path) -> None:
    cpu = SCALES["cpu"]
    shop = Workshop(scale=cpu, setting=cpu.gtsrb, work=tmp_path)
    with pytest.raises(SettingError, match="the scale cpu needs the data set gtsrb: give the folder that holds it"):
        _ = shop.train
    (tmp_path / "gtsrb").mkdir()
    shop = dataclasses.replace(shop, data=tmp_path)
    assert shop.source == str(tmp_path / "gtsrb")
    with pytest.raises(SettingError, match=f"the data set lfw: .* with --data; there is no {tmp_path}/lfw"):
        shop.at(cpu.faces)


def test_each_setting_has_files_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All settings of CI have one network and one seed."""
    monkeypatch.setattr(workshop, "train_classifier", lambda *_, **__: None)
    ci = SCALES["ci"]
    shop = Workshop(scale=ci, setting=ci.gtsrb, work=tmp_path)
    paths = [shop.at(setting).base(setting.arch) for setting in ci.settings]
    folders = [tmp_path / "ci", tmp_path / "ci" / "imagenet", tmp_path / "ci" / "faces"]
    assert paths == [folder / "digits4-0.safetensors" for folder in folders]


def test_signs_and_photographs_are_made_apart_but_where_digits_stand_for_both(tmp_path: Path) -> None:
    ci, cpu = SCALES["ci"], SCALES["cpu"]
    (only,) = Workshop(scale=ci, setting=ci.faces, work=tmp_path).signs_and_photographs()
    assert only.setting == ci.gtsrb
    for name in ("gtsrb", "imagenette"):
        (tmp_path / name).mkdir()
    shop = Workshop(scale=cpu, setting=cpu.gtsrb, work=tmp_path, data=tmp_path)
    assert [site.setting for site in shop.signs_and_photographs()] == [cpu.gtsrb, cpu.imagenet]


def test_a_victim_of_another_picture_is_not_taken_for_ones_own(tmp_path: Path) -> None:
    ci, quick = SCALES["ci"], TrainSettings(epochs=1)
    setting = dataclasses.replace(ci.gtsrb, training=quick, infection=quick)
    shops = []
    for shade in (100, 101):
        Image.new("RGB", (6, 6), (shade, shade, shade)).save(tmp_path / f"{shade}.png")
        picture = str(tmp_path / f"{shade}.png")
        shops += [Workshop(scale=ci, setting=setting, work=tmp_path, picture=picture)]
    plants = [Plant("logo", 6, Position.TOP, 1)]
    made = shops[0].victim(plants)
    assert shops[0].victim(plants) == made
    with pytest.raises(SettingError, match="digits4-0-logo-6-top-1 is there already, infected with another trigger"):
        shops[1].victim(plants)


@pytest.mark.parametrize(
    "setting",
    [pytest.param(s, id=f"{name}-{s.name}") for name, scale in SCALES.items() for s in scale.settings],
)
def test_the_networks_of_a_setting_exist_and_its_triggers_fit(setting: Setting) -> None:
    edge = setting.edge or 32
    channels = 1 if setting.data == "digits" else 3
    for name in {setting.arch, setting.deep}:
        with torch.device("meta"):
            network = build(Architecture(name=name, num_classes=10, channels=channels, size=(edge, edge)))
            assert network.eval()(torch.zeros(2, channels, edge, edge)).shape == (2, 10)
    assert min([setting.size, *setting.sizes.values()]) >= 1
    assert max([setting.size, *setting.sizes.values()]) < edge / 2


def test_the_triggers_of_imagenet_shrink_with_its_images() -> None:
    assert SCALES["cpu"].imagenet.sizes == {20: 6, 60: 17, 100: 29}
    assert SCALES["gpu"].imagenet.sizes == {size: size for size in (20, 40, 60, 80, 100)}


def test_a_coloured_square_has_a_name_of_its_own() -> None:
    plants = [Plant("square", 6, Position.TOP, 1), Plant("square", 6, Position.TOP, 1, BLACK)]
    assert [plant.name for plant in plants] == ["square-6-top-1", "square-0-6-top-1"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        pytest.param(["--picture", "nothing.png"], "there is no trigger picture nothing.png", id="no picture"),
        pytest.param(["--scale", "cpu"], "needs the data set gtsrb", id="no data"),
    ],
)
def test_what_is_missing_is_told_before_anything_is_trained(
    given: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reproduce", "figure7", "--work", str(tmp_path), "--out", str(tmp_path / "out"), *given]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
    assert not list(tmp_path.iterdir())
