"""The command that takes a backdoor out of a model: `patch`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from tabor import options
from tabor.cli_loading import ModelOptions
from tabor.console import log, show, show_json
from tabor.errors import SettingError, TaborError, one_line
from tabor.exit_code import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from tabor.data import ImageSet
    from tabor.repair.patching import PatchOutcome
    from tabor.repair.rounds import Repair
    from tabor.result import ScanResult

Named = Annotated[
    Path,
    typer.Argument(
        help="A model file (safetensors, torch.save) or a folder of timm's, of a network that has a name.",
        show_default=False,
    ),
]
NamedArch = Annotated[
    str | None,
    typer.Option("--arch", help="tabor:NAME, timm:NAME or torchvision:NAME; files of tabor's name it."),
]
Runs = Annotated[list[Path], typer.Option("--run", help="Folder of a finished scan of the model; repeatable.")]
PatchedOut = Annotated[Path, typer.Option("--out", help="The model file to write (.safetensors); must not exist.")]
Rescan = Annotated[bool, typer.Option("--rescan", help="Scan the patched model, and patch again while that helps.")]
RescanPreset = Annotated[
    str | None, typer.Option("--preset", help="Of the rescan: fast, standard, thorough or paper; default: the run's.")
]
RescanPrecision = Annotated[
    str | None, typer.Option("--precision", help="Of the rescan: auto or exact; default: auto.")
]
RescanMemory = Annotated[
    float | None, typer.Option("--memory", metavar="GIB", help="Of the rescan. Default: half of what is free.")
]


def patch(
    model: Named,
    run: Runs,
    data: options.Data,
    out: PatchedOut,
    arch: NamedArch = None,
    num_classes: options.NumClasses = None,
    mean: options.Numbers = None,
    std: options.Numbers = None,
    bgr: options.Bgr = False,
    value_range: options.Range = None,
    split: options.Split = None,
    images: options.Images = 512,
    rescan: Rescan = False,
    preset: RescanPreset = None,
    precision: RescanPrecision = None,
    memory: RescanMemory = None,
    device: options.Device = "auto",
    seed: options.Seed = 0,
    skip_bad_images: options.SkipBad = False,
    trust_code: options.TrustPickle = False,
    isolate: options.Isolate = True,
    json_only: options.Json = False,
) -> int:
    """Unlearn the triggers that a scan found, and write the patched model to a new file.

    The network must be one of tabor's, timm's or torchvision's, which a file can name.
    """
    from tabor.data import load_images
    from tabor.files import sha256
    from tabor.repair.patched_file import check_can_write, check_has_name, write_patched
    from tabor.repair.patching import check_run
    from tabor.repair.patching import patch as patch_model
    from tabor.repair.rounds import Repair, patch_and_rescan
    from tabor.result import ScanResult

    check_has_name(model, arch)
    results = [ScanResult.load(folder) for folder in run]
    if model.is_file():  # before it is loaded with what that run says of another one
        check_run(model.name, sha256(model), results)
    asked = {"preset": preset, "precision": precision, "memory": memory}
    settings = _of_rescan(asked, results[0], images) if rescan else _of_none(asked)
    channels, height, width = _image_shape(results)
    size = options.Pixels(height, width)
    how = ModelOptions(
        arch=arch,
        num_classes=num_classes,
        mean=mean,
        std=std,
        bgr=bgr,
        value_range=value_range,
        size=size,
        grey=channels == 1,
        allow_torchscript=False,  # a program's weights cannot be written as a model again
        trust_code=trust_code,
        isolate=isolate,
    )
    classifier = how.load(model, channels)
    check_can_write(classifier, out)
    clean = load_images(data, size=size, split=split, limit=images, seed=seed, skip_bad=skip_bad_images, grey=how.grey)
    if rescan:
        again = _scanner(clean, settings | {"seed": seed, "device": device})
        repair = patch_and_rescan(classifier, results, clean, again, seed=seed, device=device, on_round=_tell)
    else:
        repair = Repair(patch_model(classifier, results, clean, seed=seed, device=device))
    write_patched(out, classifier, repair)
    if json_only:
        show_json({"file": str(out)} | repair.to_dict())
    else:
        _show(out, repair)
    return _exit_code(repair)


def _image_shape(results: list[ScanResult]) -> tuple[int, int, int]:
    shapes = {tuple(trigger.pattern.shape) for result in results for trigger in result.triggers.values()}
    if len(shapes) != 1:
        raise TaborError("the runs are of images of different sizes; give runs of one model")
    channels, height, width = shapes.pop()
    return channels, height, width


def _of_none(asked: dict[str, Any]) -> dict[str, Any]:
    given = next((name for name, value in asked.items() if value is not None), None)
    if given is not None:
        raise SettingError(f"--{given} is that of the scan after the patching; give --rescan as well")
    return {}


def _of_rescan(asked: dict[str, Any], first: ScanResult, images: int) -> dict[str, Any]:
    """What the rescan is given: the first run's method, and its preset where none is asked for.

    What cannot be scanned so is told before the patching.
    """
    from tabor.presets import choose
    from tabor.scanning import check_cost

    defaults = {"method": first.method, "preset": first.preset, "precision": "auto"}
    settings = defaults | {name: value for name, value in asked.items() if value is not None}
    choose(settings["method"], settings["preset"], images)
    check_cost(settings["precision"], settings.get("memory"))
    return settings


def _scanner(images: ImageSet, settings: dict[str, Any]) -> Callable[[nn.Module], ScanResult]:
    """What scans a patched model, with a progress line."""
    from tabor.progress import live
    from tabor.scanning import scan

    def rescan(model: nn.Module) -> ScanResult:
        with live("scanning the patched model") as on_progress:
            return scan(model, images, on_progress=on_progress, **settings)

    return rescan


def _tell(outcome: PatchOutcome) -> None:
    accuracy = outcome.clean_accuracy
    log(
        f"unlearned {len(outcome.restored)} restored triggers in {outcome.seconds:.0f} s: "
        f"clean accuracy {accuracy.before:.4f} → {accuracy.after:.4f}"
    )


def _show(out: Path, repair: Repair) -> None:
    outcome = repair.outcome
    table = Table("", box=SIMPLE_HEAD)
    table.add_column("before", justify="right")
    table.add_column("after", justify="right")
    rows = [("clean accuracy", outcome.clean_accuracy)]
    for kind, effects in (("", (*outcome.restored, *outcome.plain)), ("planted: ", outcome.planted)):
        rows += [
            (f"attack success, class {e.backdoor.target}, {kind}{one_line(e.backdoor.description, 40)}", e.success)
            for e in effects
        ]
    for name, change in rows:
        table.add_row(Text(name), f"{change.before:.4f}", f"{change.after:.4f}")
    show(table)
    for number, rescan in enumerate(repair.rescans, start=1):
        show(Text(f"Scanned after patching {number}: {one_line(rescan.reason)}"))
    if not outcome.unlearned:
        show(Text("A trigger that was unlearned still works.", style="bold red"))
    show(Text(f"wrote {one_line(out)}, measured on {outcome.images_measured} images that it was not patched with"))


def _exit_code(repair: Repair) -> ExitCode:
    if not repair.outcome.unlearned:
        return ExitCode.BACKDOOR_FOUND
    return ExitCode.of(repair.rescans[-1].verdict) if repair.rescans else ExitCode.NO_TRIGGER_FOUND
