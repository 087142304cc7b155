"""`tabor reproduce`: an experiment of the paper, and its outcome beside the printed one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from tabor import options
from tabor.console import log, show, show_json
from tabor.errors import SettingError, one_line
from tabor.exit_code import ExitCode


def reproduce(
    name: Annotated[
        str, typer.Argument(help="table1a, table1b, tables4-6, figure6, figure7, figure8, figure9 or figure10.")
    ],
    scale: Annotated[
        str, typer.Option("--scale", help="ci: minutes, on digits; cpu: hours, small images; gpu: ImageNet at 224×224.")
    ] = "ci",
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder with the folders gtsrb, imagenette and lfw; ci needs none.")
    ] = None,
    picture: Annotated[str | None, typer.Option("--picture", help="The second trigger; default: a square.")] = None,
    base: Annotated[
        Path | None,
        typer.Option("--base", help="A trained classifier of imagenette, infected in place of one trained here."),
    ] = None,
    work: Annotated[
        Path, typer.Option("--work", help="Folder for models and scans; what is there is not done again.")
    ] = Path("experiments"),
    out: Annotated[Path, typer.Option("--out", help="Folder for NAME.md, NAME.json and NAME.png.")] = Path("results"),
    device: options.Device = "auto",
    seed: options.Seed = 0,
    json_only: options.Json = False,
) -> int:
    """Run an experiment of the paper and write its table and picture."""
    from tabor.access import choose_device
    from tabor.attacks.poison import make_trigger
    from tabor.experiments import EXPERIMENTS, SCALES, Workshop, write
    from tabor.experiments.own_base import with_base
    from tabor.files import check_writable
    from tabor.position import Position

    for kind, given, known in (("experiment", name, EXPERIMENTS), ("scale", scale, SCALES)):
        if given not in known:
            raise SettingError(f"unknown {kind} {one_line(given)}; use {', '.join(known)}")
    where = str(choose_device(device))
    chosen = SCALES[scale] if base is None else with_base(SCALES[scale], base)
    if picture is not None:  # one that cannot be read is told of now, not after a model was trained
        edge = chosen.gtsrb.size
        make_trigger(picture, size=edge, position=Position.TOP_LEFT, image_shape=(3, edge, edge))
    workshop = Workshop(
        scale=chosen, setting=chosen.gtsrb, work=work, data=data, picture=picture, device=where, seed=seed, tell=log
    )
    check_writable(out / f"{name}.json")  # and not after hours of work
    report = EXPERIMENTS[name](workshop)
    command = f"tabor reproduce {name} --scale {scale}"
    command += " --data DATA" if data else ""
    command += f" --picture {Path(picture).name}" if picture else ""
    command += f" --base {base.name}" if base else ""
    command += f" --seed {seed}" if seed else ""
    paths = write(report, name, command, where, out)
    if json_only:
        show_json({"experiment": name, "rows": list(report.figures), "wrong": list(report.wrong)})
    else:
        show(Text("\n".join(report.wrong) or "everything came out as it must"))
    log(f"wrote {', '.join(one_line(path) for path in paths)}")
    return ExitCode.FAILED if report.wrong else ExitCode.NO_TRIGGER_FOUND
