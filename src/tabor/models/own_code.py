"""A network that a Python file of the user's builds: `--arch FILE.py:FUNCTION`, run only where code is trusted."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tabor.errors import ModelError, one_line
from tabor.models.build import Architecture
from tabor.models.outputs import probe
from tabor.models.parts import Given, Parts
from tabor.models.state_dict import filled, named, sized

TAKEN = ("num_classes", "channels", "size")
"""The keyword arguments that a function is given, of those that it takes."""


def is_own_code(arch: str | None) -> bool:
    """Whether an architecture is named by a Python file and a function in it."""
    file, _, function = (arch or "").rpartition(":")
    return file.endswith(".py") and bool(function)


def fill_own(weights: Mapping[str, Tensor], given: Given) -> Parts:
    """Returns the network that the user's function builds, with the weights.

    The number of classes is read off the weights where the function takes one, and else off the network's answer.

    Raises:
        ModelError: code is not trusted, the file or the function fails, or the weights do not fit its network.
    """
    own = OwnCode(given)
    architecture = dataclasses.replace(Architecture(**named(given)), name=own.name)
    if "num_classes" in own.takes:
        architecture = sized(architecture, weights, given, own.build)
        return Parts(filled(architecture, weights, own.build), architecture)
    network = filled(architecture, weights, own.build).eval()
    classes = probe(network, architecture.image_shape).shape[1]
    if given.num_classes not in (None, classes):
        raise ModelError(f"{own.name} builds a network of {classes} classes, not {given.num_classes}")
    return Parts(network, dataclasses.replace(architecture, num_classes=classes))


class OwnCode:
    """A function in a Python file of the user's; making one runs the file.

    Attributes:
        name: the file's name and the function's.
        takes: which of `TAKEN` the function takes.

    Raises:
        ModelError: code is not trusted, there is no such file or function, or the file fails.
    """

    def __init__(self, given: Given) -> None:
        file, _, function = str(given.arch).rpartition(":")
        self._path = Path(file)
        self.name = one_line(f"{self._path.name}:{function}", 120)
        if not given.trust.code:
            raise ModelError(
                f"--arch {one_line(given.arch)} would run that Python file; "
                f"if you trust it, say so: --trust-code (trust_code=True)"
            )
        if not self._path.is_file():
            raise ModelError(f"there is no Python file {one_line(self._path)}")
        given.trust.tell(f"--trust-code: running {one_line(self._path)}")
        self._function = self._find(function)
        self.takes = _taken_by(self._function)

    def build(self, architecture: Architecture) -> nn.Module:
        """Returns the network that the function builds; it always has memory, whatever the device around it.

        Raises:
            ModelError: the function fails, or returns no network.
        """
        asked: dict[str, Any] = {name: getattr(architecture, name) for name in self.takes}
        with torch.device("cpu"), self._at_home(), self._telling():
            network = self._function(**asked)
        if not isinstance(network, nn.Module):
            raise ModelError(f"{self.name} returned no torch.nn.Module but a {one_line(type(network).__name__)}")
        return network

    def _find(self, function: str) -> Callable[..., Any]:
        name = f"tabor_own_code_{self._path.stem}"
        spec = importlib.util.spec_from_file_location(name, self._path)
        if spec is None or spec.loader is None:
            raise ModelError(f"{one_line(self._path)} is no Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses, among others, look their module up there
        with self._at_home(), self._telling():
            spec.loader.exec_module(module)
        found = getattr(module, function, None)
        if not callable(found):
            raise ModelError(f"{one_line(self._path)} has no function {one_line(function)}")
        wanted: Callable[..., Any] = found
        return wanted

    @contextmanager
    def _at_home(self) -> Iterator[None]:
        """Lets the file import its neighbours, without a trace in the module path or in the folder."""
        path, unwritten = list(sys.path), sys.dont_write_bytecode
        sys.path.insert(0, str(self._path.resolve().parent))
        sys.dont_write_bytecode = True
        try:
            yield
        finally:
            sys.path[:] = path
            sys.dont_write_bytecode = unwritten

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Makes one line of whatever goes wrong in the user's code."""
        try:
            yield
        except (Exception, SystemExit) as error:  # noqa: BLE001 (their code may raise anything)
            place = _line_in(error, self._path)
            what = f"{type(error).__name__}: {one_line(error, 160)}"
            raise ModelError(f"{self.name} failed{place}: {one_line(what)}") from None


def _taken_by(function: Callable[..., Any]) -> tuple[str, ...]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # of some callables nothing is known
        return ()
    named_ones = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters)
    return tuple(name for name in TAKEN if anything or name in named_ones)


def _line_in(error: BaseException, path: Path) -> str:
    """Where in the user's file it went wrong: the innermost line of it, in words."""
    if isinstance(error, SyntaxError) and error.lineno is not None:
        return f" at line {error.lineno} of {one_line(Path(error.filename or path).name, 80)}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path.absolute()]
    return f" at line {frames[-1].lineno} of {one_line(path.name, 80)}" if frames else ""
