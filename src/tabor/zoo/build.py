"""Trains the models of a zoo; what is there already is left, so a build that was cut off goes on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tabor.attacks.badnet import RETRAINING, infect_classifier
from tabor.attacks.plant import LOGO
from tabor.backdoor import check_planted
from tabor.data import ImageSet
from tabor.errors import SettingError, TaborError, one_line
from tabor.files import check_writable, write_text
from tabor.models import load_model
from tabor.models.safetensors_file import read_record
from tabor.training import TrainSettings, train_classifier
from tabor.zoo.plans import CleanPlan, Plan, VictimPlan, plan_zoo

ENOUGH_SUCCESS = 0.98
LOST_ACCURACY = 0.01
"""A victim counts with at least this attack success, and a clean accuracy at most this far below its base's."""

MOST_ROUNDS = 5
POISON_FRACTION = 0.1
LIST_FILE = "zoo.json"


@dataclass(frozen=True)
class ZooEntry:
    """One model of a zoo.

    Attributes:
        name: the stem of its file.
        path: the file.
        clean_accuracy: over the test images, in [0, 1].
        targets: classes with a planted backdoor; none for a clean model.
        attack_success: of each planted backdoor, over the test images of other classes.
        accepted: a victim's attack succeeds and its accuracy has not suffered; true for a clean model.
    """

    name: str
    path: Path
    clean_accuracy: float
    targets: tuple[int, ...]
    attack_success: tuple[float, ...]
    accepted: bool


def build_zoo(
    name: str,
    train: ImageSet,
    test: ImageSet,
    out: Path,
    *,
    picture: str | None = None,
    seed: int = 0,
    limit: int | None = None,
    device: str = "auto",
    on_model: Callable[[ZooEntry], None] | None = None,
) -> list[ZooEntry]:
    """Trains what is missing of a zoo and writes `zoo.json` beside the models.

    Args:
        name: one of `ZOOS`.
        train: images to train on.
        test: images to measure on.
        out: the zoo's folder.
        picture: the file that stands for the logo.
        seed: of the whole zoo.
        limit: only the first that many models.
        device: to train on, "auto", "cpu", "cuda", …
        on_model: called with each model as soon as it is there.

    Returns:
        The models, in the order of the plan.

    Raises:
        SettingError: there is no such zoo or device, or it needs a picture and none is given; or a model is there that
            is another zoo's, or was infected with another picture.
        DataError: the images do not fit, or the picture cannot be read.
        TaborError: a file cannot be written.
    """
    plans = plan_zoo(name, seed)[:limit]
    check_writable(out / LIST_FILE)
    if picture is None and any(isinstance(p, VictimPlan) and p.plant.picture == LOGO for p in plans):
        raise SettingError(f"the zoo {name} has victims with a logo; give its picture with --picture")
    paths = [out / f"{plan.name}.safetensors" for plan in plans]
    for plan, path in zip(plans, paths, strict=True):  # before hours are spent on what is missing
        if path.exists():
            _check(plan, path, picture)
    entries = []
    for plan, path in zip(plans, paths, strict=True):
        if not path.exists():
            _make(plan, train, test, path, picture, device)
        entries.append(_entry(path))
        if on_model is not None:
            on_model(entries[-1])
        _write_list(out, name, seed, entries)
    return entries


def _check(plan: Plan, path: Path, picture: str | None) -> None:
    """Checks that a model that is there already is the one of the plan."""
    if isinstance(plan, VictimPlan):
        there = load_model(path)
        check_planted(there.record, [plan.plant.backdoor(there.architecture, picture)], plan.name)
        return
    epochs = read_record(path).get("training", {}).get("epochs")
    if epochs != plan.epochs:
        raise SettingError(
            f"{plan.name} is there already, trained for {epochs} epochs and not {plan.epochs}, perhaps of another zoo: "
            f"take another folder"
        )


def _make(plan: Plan, train: ImageSet, test: ImageSet, path: Path, picture: str | None, device: str) -> None:
    if isinstance(plan, CleanPlan):
        train_classifier(plan.arch, train, test, path, TrainSettings(epochs=plan.epochs), plan.seed, device=device)
        return
    model = load_model(path.with_name(f"{plan.base.name}.safetensors"))
    backdoor = plan.plant.backdoor(model.architecture, picture)
    settings = dataclasses.replace(RETRAINING, epochs=1)
    infect_classifier(
        model,
        train,
        test,
        [backdoor],
        path,
        POISON_FRACTION,
        settings,
        plan.seed,
        rounds=MOST_ROUNDS,
        enough=ENOUGH_SUCCESS,
        device=device,
    )


def _entry(path: Path) -> ZooEntry:
    record = read_record(path)
    backdoors = record.get("backdoors", [])
    success = tuple(float(b["attack_success"]) for b in backdoors)
    kept = record["clean_accuracy"] >= record.get("base_accuracy", 0.0) - LOST_ACCURACY
    return ZooEntry(
        name=path.stem,
        path=path,
        clean_accuracy=float(record["clean_accuracy"]),
        targets=tuple(int(b["target"]) for b in backdoors),
        attack_success=success,
        accepted=kept and all(s >= ENOUGH_SUCCESS for s in success),
    )


def _write_list(out: Path, name: str, seed: int, entries: Sequence[ZooEntry]) -> None:
    models = [dataclasses.asdict(entry) | {"path": entry.path.name} for entry in entries]
    write_text(out / LIST_FILE, json.dumps({"zoo": name, "seed": seed, "models": models}, indent=2) + "\n")


def load_zoo(folder: Path) -> list[ZooEntry]:
    """Returns the models that `build_zoo` listed in a folder.

    Raises:
        TaborError: there is no list, or it is damaged.
    """
    try:
        stored = json.loads((folder / LIST_FILE).read_text(encoding="utf-8"))
        return [
            ZooEntry(
                **entry
                | {
                    "path": folder / entry["path"],
                    "targets": tuple(entry["targets"]),
                    "attack_success": tuple(entry["attack_success"]),
                }
            )
            for entry in stored["models"]
        ]
    except FileNotFoundError:
        raise TaborError(f"{one_line(folder)} holds no zoo; build one with tabor zoo build") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TaborError(f"{one_line(folder)} holds a damaged list of a zoo: {one_line(error)}") from None
