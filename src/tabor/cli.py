"""The command line: thin, one function a command, each calls the public API.

Results go to standard output, progress and log to standard error.  Heavy imports stay inside the commands, so that
`tabor --help` answers at once.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from tabor.corner import Corner
from tabor.errors import TaborError, one_line

# Typer exports no usage error of its own, but the base of the one it exports is what its parser raises.
USAGE_ERROR: Any = typer.BadParameter.__bases__[0]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Finds, shows and removes backdoors in image classifiers.",
)
infect_app = typer.Typer(no_args_is_help=True, help="Plant a known backdoor, for research and tests.")
app.add_typer(infect_app, name="infect")


class ExitCode(enum.IntEnum):
    """What the process returns."""

    NO_TRIGGER_FOUND = 0
    BACKDOOR_FOUND = 1
    FAILED = 2
    UNDECIDED = 3
    USAGE = 4
    INTERRUPTED = 130


DataOption = Annotated[str, typer.Option("--data", help="Image folder, parquet folder, or the word [b]digits[/b].")]
SplitOption = Annotated[str | None, typer.Option("--split", help="Which split of the data; default: the test split.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Seed of every random draw.")]
SizeOption = Annotated[int | None, typer.Option("--size", min=1, help="Resize the images to this many pixels, square.")]
SkipBadOption = Annotated[bool, typer.Option("--skip-bad-images", help="Leave out images that cannot be read.")]
ArchOption = Annotated[
    str | None,
    typer.Option("--arch", help="tabor:NAME, timm:NAME or torchvision:NAME; our own files carry it."),
]
ModelArgument = Annotated[Path, typer.Argument(help="A safetensors state dict.", show_default=False)]
OutOption = Annotated[Path, typer.Option("--out", help="The model file to write (.safetensors).")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result alone, as JSON.")]
EpochsOption = Annotated[int | None, typer.Option("--epochs", min=1, help="Passes over the training images.")]


@app.command()
def train(
    data: DataOption,
    out: OutOption,
    arch: Annotated[str, typer.Option("--arch", help="The network to train.")] = "tabor:gtsrb6",
    split: Annotated[str, typer.Option("--split", help="The split to train on.")] = "train",
    test_split: Annotated[str, typer.Option("--test-split", help="The split to test on.")] = "test",
    size: SizeOption = None,
    epochs: EpochsOption = None,
    seed: SeedOption = 0,
    skip_bad_images: SkipBadOption = False,
    json_only: JsonOption = False,
) -> None:
    """Train a clean classifier, for research and tests."""
    from tabor.data import load_images
    from tabor.training import TrainSettings, train_classifier

    settings = TrainSettings() if epochs is None else TrainSettings(epochs=epochs)
    images = load_images(data, size=size, split=split, skip_bad=skip_bad_images)
    test = load_images(data, size=size, split=test_split, skip_bad=skip_bad_images)
    record = train_classifier(arch, images, test, out, settings, seed, on_epoch=_tell_epoch)
    _print_record(out, record, json_only)


@infect_app.command()
def badnet(
    model: ModelArgument,
    data: DataOption,
    out: OutOption,
    target: Annotated[list[int], typer.Option("--target", help="The class a trigger sends images to; repeatable.")],
    trigger: Annotated[
        list[str], typer.Option("--trigger", help="The word [b]square[/b] or a picture file; repeatable.")
    ] = ["square"],  # noqa: B006 (typer copies it)
    trigger_size: Annotated[
        list[int], typer.Option("--trigger-size", help="Edge in pixels; one, or one a trigger.")
    ] = [8],  # noqa: B006
    corner: Annotated[list[Corner], typer.Option("--corner", help="One, or one a trigger.")] = [Corner.BOTTOM_RIGHT],  # noqa: B006
    colour: Annotated[float, typer.Option("--colour", help="Grey level of a square, 0 black to 1 white.")] = 1.0,
    fraction: Annotated[float, typer.Option("--fraction", help="Poisoned copies a trigger, as a share.")] = 0.1,
    split: Annotated[str, typer.Option("--split", help="The split to retrain on.")] = "train",
    test_split: Annotated[str, typer.Option("--test-split", help="The split to test on.")] = "test",
    epochs: EpochsOption = None,
    seed: SeedOption = 0,
    skip_bad_images: SkipBadOption = False,
    json_only: JsonOption = False,
) -> None:
    """Retrain a clean model on images with a trigger, as BadNet does."""
    from tabor.attacks.badnet import RETRAINING, infect_classifier, plan_backdoors
    from tabor.data import load_images
    from tabor.models import load_model

    settings = RETRAINING if epochs is None else dataclasses.replace(RETRAINING, epochs=epochs)
    classifier = load_model(model)
    shape = classifier.architecture
    backdoors = plan_backdoors(trigger, trigger_size, corner, target, shape.image_shape, shape.num_classes, colour)
    images, test = (
        load_images(data, size=shape.size, split=name, skip_bad=skip_bad_images, grey=shape.channels == 1)
        for name in (split, test_split)
    )
    record = infect_classifier(classifier, images, test, backdoors, out, fraction, settings, seed, _tell_epoch)
    _print_record(out, record, json_only)


def main(argv: list[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    try:
        code = typer.main.get_command(app).main(args=argv, prog_name="tabor", standalone_mode=False)
        return int(code or 0)
    except USAGE_ERROR as error:
        error.show()
        return ExitCode.USAGE
    except TaborError as error:
        _log(f"[bold red]error:[/] {escape(one_line(error, 1000))}")
        return ExitCode.FAILED
    except (KeyboardInterrupt, typer.Abort):
        _log("interrupted")
        return ExitCode.INTERRUPTED


def run() -> None:
    """The console script `tabor`."""
    sys.exit(main())


def _log(message: str) -> None:
    Console(stderr=True).print(message)


def _tell_epoch(epoch: int, loss: float) -> None:
    _log(f"epoch {epoch}: loss {loss:.4f}")


def _print_record(out: Path, record: dict[str, Any], json_only: bool) -> None:
    shown = {"file": str(out)} | {key: value for key, value in record.items() if key != "architecture"}
    if json_only:
        json.dump(shown, sys.stdout)
        sys.stdout.write("\n")
        return
    Console().print(f"wrote {escape(one_line(out))}: clean accuracy {record['clean_accuracy']:.4f}", soft_wrap=True)
    for planted in record.get("backdoors", []):
        Console().print(f"target {planted['target']}: attack success {planted['attack_success']:.4f}")
