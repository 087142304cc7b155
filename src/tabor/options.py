"""The options that several commands share, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from tabor.errors import SettingError, one_line


class Pixels(NamedTuple):
    """A size of images."""

    height: int
    width: int


def _pixels(text: str) -> Pixels:
    sides = text.lower().replace("×", "x").split("x")
    if len(sides) > 2 or not all(side.isascii() and side.isdigit() and int(side) > 0 for side in sides):
        raise typer.BadParameter(f"takes pixels, as 32 or 32x48 (height x width), got {one_line(text)}")
    return Pixels(int(sides[0]), int(sides[-1]))


Model = Annotated[
    Path,
    typer.Argument(
        help="A model file (safetensors, torch.save, torch.export, ONNX), a Hugging Face folder, or hub:USER/NAME.",
        show_default=False,
    ),
]
OwnModel = Annotated[
    Path, typer.Argument(help="A model file that tabor wrote, which names its network.", show_default=False)
]
Data = Annotated[
    str,
    typer.Option(
        "--data",
        help="Image folder (class folders are numbered in sorted order), parquet folder, or the word [b]digits[/b].",
    ),
]
Split = Annotated[
    str | None,
    typer.Option(
        "--split",
        help="Which split; default: of parquet files and digits test, else validation, else the only one; of class "
        "folders all.",
    ),
]
TrainSplit = Annotated[str, typer.Option("--split", help="The split to train on.")]
TestSplit = Annotated[str, typer.Option("--test-split", help="The split to test on.")]
Size = Annotated[
    Pixels | None,
    typer.Option(
        "--size",
        parser=_pixels,
        metavar="PIXELS",
        help="Resize the images: 32, or 32x48 (height x width). Default: as the model's file says, or as they are.",
    ),
]
TrainSize = Annotated[
    Pixels | None,
    typer.Option(
        "--size",
        parser=_pixels,
        metavar="PIXELS",
        help="Resize the images: 32, or 32x48 (height x width). Default: as they are, where all are alike.",
    ),
]
Grey = Annotated[
    bool, typer.Option("--grey", help="The network takes images of one channel. Needless where the file says so.")
]
SkipBad = Annotated[bool, typer.Option("--skip-bad-images", help="Leave out images that cannot be read.")]
Isolate = Annotated[
    bool,
    typer.Option("--isolate/--no-isolate", help="Read the model in a process with limits on memory and time first."),
]
Arch = Annotated[
    str | None,
    typer.Option(
        "--arch",
        help="tabor:NAME, timm:NAME, torchvision:NAME, hub:FOLDER, hub:USER/NAME or FILE.py:FUNC; "
        "files of tabor's name it.",
    ),
]
NumClasses = Annotated[int | None, typer.Option("--num-classes", min=2, help="Default: seen in the weights.")]
Numbers = Annotated[str | None, typer.Option(help="As the network was trained with: 0.5 or 0.49,0.46,0.41.")]
Bgr = Annotated[bool, typer.Option("--bgr", help="The network takes blue, green, red.")]
Range = Annotated[
    str | None, typer.Option("--range", help="Black and white as the network takes them, before --mean: 0,255 or -1,1.")
]
Images = Annotated[int, typer.Option("--images", min=4, help="How many clean images to use, balanced over classes.")]
Preset = Annotated[str, typer.Option("--preset", help="fast, standard, thorough or paper.")]
MethodName = Annotated[str, typer.Option("--method", help="tabor or neural-cleanse.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, …")]
Precision = Annotated[
    str,
    typer.Option(
        "--precision", help="auto: the fastest that answers alike, or exact: float32, on a GPU as PyTorch is set."
    ),
]
Memory = Annotated[
    float | None,
    typer.Option("--memory", metavar="GIB", help="How much the scan may take. Default: half of what is free."),
]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**63 - 1, help="Seed of every random draw.")]
Run = Annotated[
    Path | None,
    typer.Option("--out", help="Folder for result, triggers, pictures and report; an interrupted scan goes on."),
]
ModelOut = Annotated[
    Path, typer.Option("--out", help="The model file to write (.safetensors); one that is there is replaced.")
]
DemoRuns = Annotated[
    Path | None, typer.Option("--out", help="Folder for both results, triggers, pictures and reports.")
]
AllowTorchScript = Annotated[bool, typer.Option("--allow-torchscript", help="Run a TorchScript file, which is code.")]
TrustCode = Annotated[
    bool, typer.Option("--trust-code", help="Run what the model file calls, or the Python file of --arch FILE.py:FUNC.")
]
TrustPickle = Annotated[bool, typer.Option("--trust-code", help="Run what the model file calls.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result alone, as JSON.")]
Epochs = Annotated[
    int | None,
    typer.Option(
        "--epochs", min=1, help="Passes over the training images. Default: 4 to train, 2 to infect; more of few images."
    ),
]
Targets = Annotated[list[int], typer.Option("--target", help="The class a trigger sends images to; repeatable.")]
Triggers = Annotated[
    list[str] | None, typer.Option("--trigger", help="The word [b]square[/b] (default) or a picture file; repeatable.")
]
TriggerSizes = Annotated[
    list[int] | None,
    typer.Option(
        "--trigger-size", help="Edge in pixels, default 8; one for all triggers, or one for each (repeat it)."
    ),
]
Colour = Annotated[
    str | None,
    typer.Option("--colour", help="Of a square: 0 black to 1 white (default), or 1,0.5,0 for a colour."),
]
Fraction = Annotated[
    float, typer.Option("--fraction", help="Poisoned copies for each trigger, as a share of the training images.")
]


def value_range(text: str | None) -> tuple[float, float] | None:
    """Reads two numbers separated by a comma.

    Raises:
        SettingError: the text is something else.
    """
    ends = numbers("--range", text)
    if ends is None:
        return None
    if len(ends) != 2:
        raise SettingError(f"--range takes two numbers separated by a comma, got {one_line(text)}")
    return ends[0], ends[1]


def numbers(option: str, text: str | None, channels: int = 1) -> tuple[float, ...] | None:
    """Reads one number, or one a channel, separated by commas.

    Raises:
        SettingError: the text is something else.
    """
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise SettingError(f"{option} takes numbers separated by commas, got {one_line(text)}") from None
    return values * channels if len(values) == 1 else values
