"""The file of a patched model: it loads, it says what was done, and it replaces nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tabor.errors import ModelError, TaborError
from tabor.models import LoadedModel, load_model
from tabor.repair.patched_file import check_can_write, write_patched
from tabor.repair.patching import patch
from tabor.repair.rounds import Repair
from tabor.repair.unlearning import UnlearningSettings
from tabor.result import ScanResult

from .conftest import Victim

Found = Callable[..., ScanResult]


@pytest.fixture
def model(victim: Victim) -> LoadedModel:
    return victim.load()


@pytest.fixture
def repair(victim: Victim, model: LoadedModel, found: Found) -> Repair:
    return Repair(patch(model, found(), victim.images, settings=UnlearningSettings(steps=2), device="cpu"))


def test_the_file_answers_as_the_patched_model(
    victim: Victim, model: LoadedModel, repair: Repair, tmp_path: Path
) -> None:
    out = tmp_path / "patched.safetensors"
    check_can_write(model, out)
    record = write_patched(out, model, repair)
    loaded = load_model(out)
    images = victim.images.images
    assert torch.equal(loaded(images), repair.outcome.model(images))
    assert not torch.equal(loaded(images), model(images))
    assert loaded.architecture == model.architecture
    assert {key: value for key, value in loaded.record.items() if key != "architecture"} == record


def test_the_record_says_what_was_done_to_which_model(model: LoadedModel, repair: Repair, tmp_path: Path) -> None:
    record = write_patched(tmp_path / "patched", model, repair)
    outcome = repair.outcome
    assert record["clean_accuracy"] == outcome.clean_accuracy.after
    assert record["patched"]["source"] == "infected.safetensors"
    assert record["patched"]["sha256"] == model.sha256
    assert record["patched"]["settings"]["steps"] == 2
    assert record["patched"]["rescans"] == []
    (backdoor,) = record["backdoors"]
    assert backdoor["attack_success"] == outcome.planted[0].success.after
    assert backdoor["trigger"] == model.record["backdoors"][0]["trigger"]


def test_nothing_else_of_a_strangers_record_is_carried_over(model: LoadedModel, repair: Repair, tmp_path: Path) -> None:
    model.record["comment"] = float("nan")
    write_patched(tmp_path / "patched", model, repair)
    assert "comment" not in load_model(tmp_path / "patched").record


def test_a_patched_file_can_be_patched_again(victim: Victim, found: Found, repair: Repair, tmp_path: Path) -> None:
    write_patched(tmp_path / "once", victim.load(), repair)
    once = load_model(tmp_path / "once")
    again = patch(once, found(), victim.images, settings=UnlearningSettings(steps=2), device="cpu")
    record = write_patched(tmp_path / "twice", once, Repair(again))
    assert record["patched"]["sha256"] == once.sha256
    assert again.planted[0].success.before == repair.outcome.planted[0].success.after


@pytest.mark.parametrize("kind", ["a file", "a link to nothing", "a folder"])
def test_what_is_there_is_not_replaced(kind: str, model: LoadedModel, repair: Repair, tmp_path: Path) -> None:
    out = tmp_path / "there"
    if kind == "a file":
        out.write_text("precious")
    elif kind == "a folder":
        out.mkdir()
    else:
        out.symlink_to(tmp_path / "nothing")
    for attempt in (lambda: check_can_write(model, out), lambda: write_patched(out, model, repair)):
        with pytest.raises(TaborError, match="exists already"):
            attempt()
    assert {path.name for path in tmp_path.iterdir()} == {"there"}
    assert kind != "a file" or out.read_text() == "precious"


@pytest.mark.parametrize("name", ["onnx", "timm", "hub:someone/something"])
def test_networks_without_a_name_are_refused(name: str, model: LoadedModel, tmp_path: Path) -> None:
    model.architecture = dataclasses.replace(model.architecture, name=name)
    with pytest.raises(ModelError, match=r"no network that a safetensors file can name .* tabor\.patch"):
        check_can_write(model, tmp_path / "new")


def test_a_model_that_is_no_file_is_refused(victim: Victim, model: LoadedModel, found: Found, tmp_path: Path) -> None:
    settings = UnlearningSettings(steps=1)
    outcome = patch(model.network, found(), victim.images, settings=settings, device="cpu")
    with pytest.raises(ModelError, match="loaded from a file"):
        write_patched(tmp_path / "new", model, Repair(outcome))
