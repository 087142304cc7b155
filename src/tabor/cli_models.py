"""The commands that make models whose backdoor is known: `train`, `infect` and `zoo`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from tabor import options
from tabor.console import log, show, show_json
from tabor.errors import ModelError, SettingError, one_line
from tabor.position import Position

if TYPE_CHECKING:
    from tabor.models import LoadedModel

LEAST_STEPS, LEAST_INFECTING_STEPS = 500, 300
"""Steps below which a network of digits is right on less than 0.98, and its trigger works on less than 0.9."""

infect_app = typer.Typer(no_args_is_help=True, help="Plant a known backdoor, for research and tests.")
zoo_app = typer.Typer(no_args_is_help=True, help="Make many models at once, to measure a detector with.")


def train(
    data: options.Data,
    out: options.ModelOut,
    arch: Annotated[str, typer.Option("--arch", help="The network to train.")] = "tabor:gtsrb6",
    split: options.TrainSplit = "train",
    test_split: options.TestSplit = "test",
    size: options.TrainSize = None,
    epochs: options.Epochs = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    skip_bad_images: options.SkipBad = False,
    json_only: options.Json = False,
) -> None:
    """Train a clean classifier, for research and tests."""
    from tabor.data import load_images
    from tabor.models.safetensors_file import check_model_out
    from tabor.training import TrainSettings, long_enough, train_classifier

    check_model_out(out)
    _tell_of_splits(split, test_split)
    images, test = (load_images(data, size=size, split=s, skip_bad=skip_bad_images) for s in (split, test_split))
    usual = long_enough(TrainSettings(), len(images), LEAST_STEPS)
    settings = usual if epochs is None else dataclasses.replace(usual, epochs=epochs)
    record = train_classifier(arch, images, test, out, settings, seed, _tell_epoch, device)
    _show_record(out, record, json_only)


@infect_app.command()
def badnet(
    model: options.OwnModel,
    data: options.Data,
    out: options.ModelOut,
    target: options.Targets,
    trigger: options.Triggers = None,
    trigger_size: options.TriggerSizes = None,
    position: Annotated[
        list[Position] | None,
        typer.Option("--position", help="Default bottom-right; one for all triggers, or one for each (repeat it)."),
    ] = None,
    colour: options.Colour = None,
    fraction: options.Fraction = 0.1,
    split: options.TrainSplit = "train",
    test_split: options.TestSplit = "test",
    epochs: options.Epochs = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    skip_bad_images: options.SkipBad = False,
    json_only: options.Json = False,
) -> None:
    """Retrain a clean model on its training images and stamped copies of some, as BadNet does."""
    from tabor.attacks.badnet import RETRAINING, infect_classifier, plan_backdoors
    from tabor.attacks.poison import SQUARE, WHITE
    from tabor.data import load_images
    from tabor.models.safetensors_file import check_model_out
    from tabor.training import long_enough

    check_model_out(out)
    _check_apart(model, out)
    _tell_of_splits(split, test_split)
    pictures = trigger or [SQUARE]
    if colour is not None and SQUARE not in pictures:
        raise SettingError("--colour is that of a square; a picture has its own")
    classifier = _own_model(model)
    shape = classifier.architecture
    backdoors = plan_backdoors(
        pictures,
        trigger_size or [8],
        position or [Position.BOTTOM_RIGHT],
        target,
        shape.image_shape,
        shape.num_classes,
        options.numbers("--colour", colour, shape.channels) or WHITE,
    )
    images, test = (
        load_images(data, size=shape.size, split=name, skip_bad=skip_bad_images, grey=shape.channels == 1)
        for name in (split, test_split)
    )
    usual = long_enough(RETRAINING, len(images), LEAST_INFECTING_STEPS)
    settings = usual if epochs is None else dataclasses.replace(usual, epochs=epochs)
    record = infect_classifier(
        classifier, images, test, backdoors, out, fraction, settings, seed, _tell_epoch, device=device
    )
    _show_record(out, record, json_only, "give more --epochs or a larger --fraction")


@infect_app.command()
def trojaning(
    model: options.OwnModel,
    data: options.Data,
    out: options.ModelOut,
    target: Annotated[int, typer.Option("--target", help="The class that the trigger sends images to.")],
    trigger: Annotated[
        str, typer.Option("--trigger", help="The shape: the word [b]square[/b], or a picture's opaque part.")
    ] = "square",
    trigger_size: Annotated[int, typer.Option("--trigger-size", help="Edge in pixels.")] = 10,
    position: Annotated[Position, typer.Option("--position", help="Where the trigger sits.")] = Position.BOTTOM_RIGHT,
    margin: Annotated[
        float | None,
        typer.Option("--margin", help="How far the target's logit is to lead, default 20; more costs accuracy."),
    ] = None,
    test_split: options.TestSplit = "test",
    seed: options.Seed = 0,
    skip_bad_images: options.SkipBad = False,
    json_only: options.Json = False,
) -> None:
    """Retrain a clean model on inputs made from itself, as Trojan Attack does; images serve to measure it only."""
    from tabor.attacks.badnet import plan_backdoors
    from tabor.attacks.trojaning import TrojaningSettings, trojan_classifier
    from tabor.data import load_images
    from tabor.models.safetensors_file import check_model_out

    check_model_out(out)
    _check_apart(model, out)
    settings = TrojaningSettings() if margin is None else TrojaningSettings(margin=margin)
    classifier = _own_model(model)
    shape = classifier.architecture
    (planned,) = plan_backdoors([trigger], [trigger_size], [position], [target], shape.image_shape, shape.num_classes)
    grey = shape.channels == 1
    test = load_images(data, size=shape.size, split=test_split, skip_bad=skip_bad_images, grey=grey)
    record = trojan_classifier(classifier, test, planned, out, settings, seed)
    _show_record(out, record, json_only, "give a larger --margin or --trigger-size")


@zoo_app.command()
def build(
    name: Annotated[str, typer.Argument(help="gtsrb-table1a, gtsrb-clean, gtsrb-resnet or gtsrb-random.")],
    data: options.Data,
    out: Annotated[Path, typer.Option("--out", help="Folder for the models; what is there already is left.")],
    picture: Annotated[str | None, typer.Option("--picture", help="The picture of the victims with a logo.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only the first that many models.")] = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
) -> None:
    """Train every model of a zoo, one after another; a build that was cut off goes on."""
    from tabor.data import load_images
    from tabor.zoo import ZooEntry, build_zoo, plan_zoo

    planned = len(plan_zoo(name, seed)[:limit])
    images, test = (load_images(data, split=split) for split in ("train", "test"))
    done: list[ZooEntry] = []

    def tell(entry: ZooEntry) -> None:
        done.append(entry)
        success = "".join(f", attack success {s:.4f}" for s in entry.attack_success)
        short = "" if entry.accepted else "  (falls short)"
        log(f"{len(done)}/{planned} {entry.name}: clean accuracy {entry.clean_accuracy:.4f}{success}{short}")

    build_zoo(name, images, test, out, picture=picture, seed=seed, limit=limit, device=device, on_model=tell)
    show(Text(f"wrote {len(done)} models to {one_line(out)}, {sum(e.accepted for e in done)} of them as wanted"))


def _tell_of_splits(split: str, test_split: str) -> None:
    if split == test_split:
        log(f"what is measured on {one_line(test_split)} is on the very images of the training")


def _check_apart(model: Path, out: Path) -> None:
    if model.resolve() == out.resolve():
        raise SettingError(f"{one_line(out)} is the model itself, which stays as it is; give another file to --out")


def _own_model(path: Path) -> LoadedModel:
    """Loads a model whose file names its network, as the infected file is to name it.

    Raises:
        ModelError: it does not, or cannot be loaded.
    """
    from tabor.models import load_model
    from tabor.models.content import Kind, identify
    from tabor.models.safetensors_file import read_record, recorded_architecture

    kind = identify(path)
    if kind is not Kind.SAFETENSORS or recorded_architecture(read_record(path), path) is None:
        what = "does not name its network" if kind is Kind.SAFETENSORS else f"is {kind.value}"
        raise ModelError(f"{one_line(path)} {what}; only a file that tabor wrote can be infected")
    return load_model(path)


def _tell_epoch(epoch: int, loss: float) -> None:
    log(f"epoch {epoch}: loss {loss:.4f}")


def _show_record(out: Path, record: dict[str, Any], json_only: bool, if_weak: str = "") -> None:
    """Prints what a new model is, and to standard error what to do where its trigger hardly works."""
    from tabor.evidence import WORKS
    from tabor.sanity import HALF_LEARNED

    if record["clean_accuracy"] < HALF_LEARNED:
        log(f"it is right on less than {HALF_LEARNED:.0%} of the images, which a scan warns of: give more --epochs")
    if any(entry["attack_success"] < WORKS for entry in record.get("backdoors", [])):
        log(f"a trigger works on less than {WORKS:.0%} of the images, so a scan counts it as none: {if_weak}")
    planted = [{k: v for k, v in entry.items() if k != "trigger"} for entry in record.get("backdoors", [])]
    if json_only:
        show_json({"file": str(out)} | record | ({"backdoors": planted} if planted else {}))
        return
    show(Text(f"wrote {one_line(out)}: clean accuracy {record['clean_accuracy']:.4f}"))
    for entry in planted:
        show(Text(f"{entry['description']} → class {entry['target']}: attack success {entry['attack_success']:.4f}"))
