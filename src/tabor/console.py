"""Where the commands write: results to standard output, progress and log to standard error."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text

LEAST_WIDTH = 80
"""Characters that tables are made for."""


def log(message: str) -> None:
    """Writes a line to standard error."""
    Console(stderr=True).print(Text(message), soft_wrap=True)


def log_alarm(message: str) -> None:
    """Writes a line to standard error, in red."""
    Console(stderr=True).print(Text(message, style="bold red"), soft_wrap=True)


def show(what: RenderableType) -> None:
    """Writes a result to standard output; in a narrow terminal a table's lines run on, and no number is cut off."""
    console = Console()
    console.width = max(console.width, LEAST_WIDTH)
    console.print(what, soft_wrap=isinstance(what, Text), crop=False)


def show_json(value: Any) -> None:
    """Writes a result to standard output as JSON."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
