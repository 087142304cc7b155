"""Plans of zoos, and a small one built, cut off, and gone on with."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tabor.attacks.plant import Plant
from tabor.data import load_images
from tabor.errors import SettingError, TaborError
from tabor.position import Position
from tabor.zoo import ZOOS, build, build_zoo, load_zoo, plan_zoo
from tabor.zoo.plans import CleanPlan, VictimPlan


def plan_small(monkeypatch: pytest.MonkeyPatch, picture: str) -> VictimPlan:
    """Plans the zoo "small" of a clean model and a victim, and returns the victim's plan."""
    base = CleanPlan(arch="tabor:digits4", seed=1, epochs=1)
    victim = VictimPlan(base=base, plant=Plant(picture, 6, Position.TOP, 3), seed=0)
    monkeypatch.setitem(ZOOS, "small", lambda _: [base, victim])
    return victim


@pytest.mark.parametrize("name", sorted(ZOOS))
def test_plans(name: str) -> None:
    plans = plan_zoo(name, 0)
    names = [plan.name for plan in plans]
    assert len(set(names)) == len(names)
    assert plans == plan_zoo(name, 0)
    for k, plan in enumerate(plans):
        assert isinstance(plan, CleanPlan) or plan.base in plans[:k]


def test_table_1a_has_its_20_victims() -> None:
    victims = [plan for plan in plan_zoo("gtsrb-table1a", 0) if isinstance(plan, VictimPlan)]
    assert len(victims) == 20
    assert {plan.plant.target for plan in victims} == {33}
    assert {plan.plant.size for plan in victims} == {6, 8, 10, 12, 14}


def test_unknown_zoo() -> None:
    with pytest.raises(SettingError, match="unknown zoo nothing"):
        plan_zoo("nothing", 0)


def test_no_zoo_in_a_folder(tmp_path: Path) -> None:
    with pytest.raises(TaborError, match="holds no zoo"):
        load_zoo(tmp_path)


def test_a_logo_needs_its_picture(tmp_path: Path) -> None:
    digits = load_images("digits", split="test", limit=20)
    with pytest.raises(SettingError, match="give its picture"):
        build_zoo("gtsrb-table1a", digits, digits, tmp_path)


def test_nothing_is_trained_for_a_folder_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "_make", lambda *_: pytest.fail("it was trained"))
    (tmp_path / "file").write_text("")
    digits = load_images("digits", limit=20)
    with pytest.raises(TaborError, match=r"cannot write .*zoo\.json: Not a directory"):
        build_zoo("gtsrb-clean", digits, digits, tmp_path / "file")


def test_a_zoo_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan_small(monkeypatch, "square")
    train, test = (load_images("digits", split=split, limit=200) for split in ("train", "test"))
    entries = build_zoo("small", train, test, tmp_path)
    assert [entry.targets for entry in entries] == [(), (3,)]
    assert load_zoo(tmp_path) == entries
    monkeypatch.setattr(build, "_make", lambda *_: pytest.fail("made again"))
    assert build_zoo("small", train, test, tmp_path) == entries


def test_a_clean_model_of_another_zoo_is_not_taken_for_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for epochs, name in ((1, "short"), (2, "long")):
        monkeypatch.setitem(
            ZOOS, name, lambda _, epochs=epochs: [CleanPlan(arch="tabor:digits4", seed=1, epochs=epochs)]
        )
    train = load_images("digits", split="train", limit=100)
    build_zoo("short", train, train, tmp_path)
    with pytest.raises(SettingError, match="digits4-clean-1 is there already, trained for 1 epochs and not 2"):
        build_zoo("long", train, train, tmp_path)


def test_a_victim_of_another_picture_is_not_taken_for_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = plan_small(monkeypatch, "logo")
    pictures = [str(tmp_path / f"{shade}.png") for shade in (100, 101)]
    for picture, shade in zip(pictures, (100, 101), strict=True):
        Image.new("RGB", (6, 6), (shade, shade, shade)).save(picture)
    train = load_images("digits", split="train", limit=100)
    built = build_zoo("small", train, train, tmp_path / "zoo", picture=pictures[0])
    assert build_zoo("small", train, train, tmp_path / "zoo", picture=pictures[0]) == built
    with pytest.raises(SettingError, match=f"{victim.name} is there already, infected with another trigger"):
        build_zoo("small", train, train, tmp_path / "zoo", picture=pictures[1])


@pytest.mark.parametrize(
    ("accuracy", "success", "accepted"),
    [
        pytest.param(0.94, 0.98, True, id="half a point lost"),
        pytest.param(0.93, 1.0, False, id="more than a point lost"),
        pytest.param(0.95, 0.97, False, id="the attack fails too often"),
    ],
)
def test_a_victim_counts_if_it_is_good_at_both(
    accuracy: float, success: float, accepted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = [{"target": 1, "attack_success": success}]
    record = {"clean_accuracy": accuracy, "base_accuracy": 0.945, "backdoors": planted}
    monkeypatch.setattr(build, "read_record", lambda _: record)
    assert build._entry(Path("m.safetensors")).accepted is accepted
