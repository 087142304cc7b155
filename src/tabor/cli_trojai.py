"""The command `trojai`: the arguments of NIST's TrojAI challenge, in the forms that its harness has used."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from tabor import options
from tabor.console import log, log_alarm
from tabor.errors import one_line
from tabor.exit_code import ExitCode


class Mode(enum.StrEnum):
    """What the harness asks for."""

    INFER = "infer"
    CONFIGURE = "configure"


def _file(name: str, what: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(f"--{name}", help=what)
    return option


def _unused(name: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(f"--{name}", help="Accepted; not used.", hidden=True)
    return option


Unused = Path | None


def trojai(
    mode: Annotated[Mode, typer.Argument(help="Older harnesses leave the word out.")] = Mode.INFER,
    model: Annotated[Path | None, _file("model_filepath", "The model; TrojAI's are pickled modules.")] = None,
    result: Annotated[Path | None, _file("result_filepath", "The file to write: one line, one probability.")] = None,
    scratch: Annotated[Path | None, _file("scratch_dirpath", "Folder for files made on the way.")] = None,
    examples: Annotated[Path | None, _file("examples_dirpath", "Folder of clean images.")] = None,
    metaparameters: Annotated[Path | None, _file("metaparameters_filepath", "JSON; default: those shipped.")] = None,
    schema: Annotated[Path | None, _file("schema_filepath", "Its JSON Schema; default: the one shipped.")] = None,
    trust_code: options.TrustPickle = False,
    learned_parameters: Annotated[Unused, _unused("learned_parameters_dirpath")] = None,
    round_training_dataset: Annotated[Unused, _unused("round_training_dataset_dirpath")] = None,
    source_dataset: Annotated[Unused, _unused("source_dataset_dirpath")] = None,
    features: Annotated[Unused, _unused("features_filepath")] = None,
    scale_parameters: Annotated[Unused, _unused("scale_parameters_filepath")] = None,
    configure_models: Annotated[Unused, _unused("configure_models_dirpath")] = None,
    automatic: Annotated[bool, _unused("automatic_configuration")] = False,
    configure_mode: Annotated[bool, typer.Option("--configure_mode", hidden=True)] = False,
) -> int:
    """Write the probability that a model is backdoored, as the detectors of TrojAI do.

    TrojAI's own models are pickled modules, which are read only with --trust-code.  Where the scan cannot be done no
    result is written, which counts as 0.5.
    """
    from tabor.progress import live
    from tabor.trojai import configure, infer

    if mode is Mode.CONFIGURE or configure_mode:
        written = configure(metaparameters, schema)
        log("there is nothing to learn" + "".join(f"; wrote {one_line(path)}" for path in written))
        return ExitCode.NO_TRIGGER_FOUND
    needed = {"model_filepath": model, "result_filepath": result, "examples_dirpath": examples}
    if model is None or result is None or examples is None:
        raise typer.BadParameter(f"give --{next(name for name, path in needed.items() if path is None)}")
    with live("scanning") as on_progress:
        found = infer(
            model,
            result,
            examples,
            metaparameters=metaparameters,
            schema=schema,
            scratch=scratch,
            trust_code=trust_code,
            on_code=log_alarm,
            on_progress=on_progress,
        )
    for warning in found.warnings:
        log(warning)
    log(f"wrote {one_line(result)}: {found.score:.2f}, {found.reason}")
    return ExitCode.of(found.verdict)
