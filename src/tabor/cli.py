"""The command line: thin, one function a command, each calls the public API.

Results go to standard output, progress and log to standard error.  Heavy imports stay inside the commands, so that
`tabor --help` answers at once.
"""

from __future__ import annotations

import logging
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from tabor import cli_models, cli_patch, cli_reproduce, cli_trojai, options
from tabor.allocator import keep_freed
from tabor.console import log, show, show_json
from tabor.errors import SettingError, TaborError, one_line, out_of_memory
from tabor.exit_code import ExitCode

if TYPE_CHECKING:
    from tabor.result import ScanResult

SHOWN_CLASSES = 8

AGAIN = "goes on when the same command is given again"
GOES_ON = {"scan": [f"a scan with --out {AGAIN}"], "zoo": [f"a zoo {AGAIN}"], "reproduce": [f"an experiment {AGAIN}"]}
"""What to know of a command that was interrupted."""

# Typer exports no usage error of its own, but the base of the one it exports is what its parser raises.
USAGE_ERROR: Any = typer.BadParameter.__bases__[0]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Finds, shows and removes backdoors in image classifiers.",
    epilog="Exit codes of a scan: 0 no trigger found, 1 backdoor found, 2 it failed, 3 undecided, 4 wrong usage.",
)
app.command()(cli_patch.patch)
app.command()(cli_models.train)
app.command()(cli_reproduce.reproduce)
app.command()(cli_trojai.trojai)
app.add_typer(cli_models.infect_app, name="infect")
app.add_typer(cli_models.zoo_app, name="zoo")


def _print_version(wanted: bool) -> None:
    if wanted:
        from tabor import __version__

        show(Text(f"tabor {__version__}"))
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Finds, shows and removes backdoors in image classifiers."""
    keep_freed()


@app.command()
def scan(
    model: options.Model,
    data: options.Data,
    arch: options.Arch = None,
    num_classes: options.NumClasses = None,
    mean: options.Numbers = None,
    std: options.Numbers = None,
    bgr: options.Bgr = False,
    value_range: options.Range = None,
    split: options.Split = None,
    images: options.Images = 512,
    size: options.Size = None,
    grey: options.Grey = False,
    preset: options.Preset = "standard",
    method: options.MethodName = "tabor",
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    memory: options.Memory = None,
    seed: options.Seed = 0,
    out: options.Run = None,
    skip_bad_images: options.SkipBad = False,
    allow_torchscript: options.AllowTorchScript = False,
    trust_code: options.TrustCode = False,
    isolate: options.Isolate = True,
    json_only: options.Json = False,
) -> int:
    """Search a classifier for a planted trigger, class by class, and say whether one stands out."""
    from tabor.cli_loading import ModelOptions, load_both
    from tabor.data import load_images
    from tabor.progress import live
    from tabor.report import write_run
    from tabor.scanning import scan as run_scan

    _check_apart(out, data)
    how = ModelOptions(
        arch=arch,
        num_classes=num_classes,
        mean=mean,
        std=std,
        bgr=bgr,
        value_range=value_range,
        size=size,
        grey=grey,
        allow_torchscript=allow_torchscript,
        trust_code=trust_code,
        isolate=isolate,
    )
    pictures = partial(load_images, data, split=split, limit=images, seed=seed, skip_bad=skip_bad_images)
    classifier, clean = load_both(model, how, pictures)
    with live("scanning") as on_progress:
        result = run_scan(
            classifier,
            clean,
            preset=preset,
            method=method,
            seed=seed,
            device=device,
            precision=precision,
            memory=memory,
            out=out,
            on_progress=on_progress,
        )
    if out is not None:
        log(f"wrote {one_line(write_run(out, result, clean))}")
    _show(result, json_only)
    return ExitCode.of(result.verdict)


@app.command()
def demo(seed: options.Seed = 0, out: options.DemoRuns = None, json_only: options.Json = False) -> int:
    """Train an infected and a clean model on handwritten digits, and scan both: no file or download needed."""
    from tabor.demo import run_demo
    from tabor.progress import live
    from tabor.report import write_run

    outcome = run_demo(seed, log, live, out)
    for name, result in (("infected", outcome.infected), ("clean", outcome.clean)):
        if out is not None:
            log(f"wrote {one_line(write_run(out / name, result, outcome.images))}")
        if not json_only:
            show(Text(f"\nThe {name} model", style="bold"))
            _show(result, json_only)
    if json_only:
        show_json({"infected": outcome.infected.to_dict(), "clean": outcome.clean.to_dict(), "right": outcome.right})
    log("both verdicts are right" if outcome.right else "a verdict is wrong")
    return ExitCode.NO_TRIGGER_FOUND if outcome.right else ExitCode.FAILED


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="The folder of a finished scan.", show_default=False)],
    data: Annotated[str | None, typer.Option("--data", help="Clean images, to show the trigger on one.")] = None,
    split: options.Split = None,
    json_only: options.Json = False,
) -> None:
    """Write the report of a finished scan again, and print its result."""
    from tabor.data import load_images
    from tabor.report import write_run
    from tabor.result import ScanResult

    result = ScanResult.load(run)
    height, width = next(iter(result.triggers.values())).mask.shape[1:]
    channels = next(iter(result.triggers.values())).pattern.shape[0]
    images = (
        load_images(data, size=(height, width), split=split, limit=len(result.classes), grey=channels == 1)
        if data is not None
        else None
    )
    scanned = result.data["source"]
    if images is not None and images.source != scanned:
        log(f"the scan was of {one_line(scanned)}: the pictures show its triggers on images of {images.source}")
    log(f"wrote {one_line(write_run(run, result, images))}")
    _show(result, json_only)


def main(argv: list[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    try:
        code = typer.main.get_command(app).main(args=argv, prog_name="tabor", standalone_mode=False)
        if code == ExitCode.INTERRUPTED:  # typer catches Ctrl-C itself
            command = next(iter(sys.argv[1:] if argv is None else argv), "")
            log("; ".join(["interrupted", *GOES_ON.get(command, [])]))
        return int(code or 0)
    except USAGE_ERROR as error:
        error.show()
        return ExitCode.USAGE
    except TaborError as error:
        Console(stderr=True).print(Text.assemble(("error: ", "bold red"), one_line(error, 1000)), soft_wrap=True)
        return ExitCode.FAILED
    except Exception as error:  # noqa: BLE001 (Python would exit with 1, which here means a backdoor)
        if out_of_memory(error):
            log("error: there is too little memory; give fewer --images, or a scan less of it with --memory")
            return ExitCode.FAILED
        log(f"error: {type(error).__name__}: {one_line(error, 1000)} (a fault of tabor itself; please report it)")
        return ExitCode.FAILED


def run() -> None:
    """The console script `tabor`."""
    sys.exit(main())


def _check_apart(out: Path | None, data: str) -> None:
    if out is not None and Path(data).is_dir() and out.resolve().is_relative_to(Path(data).resolve()):
        raise SettingError(
            f"{one_line(out)} lies among the images of --data and would be taken for one of their classes; "
            f"give another folder to --out"
        )


def _show(result: ScanResult, json_only: bool) -> None:
    from tabor.report.terminal import summary, table

    if json_only:
        show_json(result.to_dict())
    else:
        show(table(result, SHOWN_CLASSES))
        show(summary(result))
