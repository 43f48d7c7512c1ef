"""The command lines of the packages."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import typer

PROGRAMS = {
    "audiogen-core": ("audiogen_core.main", "commands"),
    "audiogen-mlx": ("audiogen_mlx.cli", "cli"),
    "audiogen-onnx": ("audiogen_onnx.cli", "cli"),
    "audiogen-minigpt": ("audiogen_minigpt.cli", "commands"),
}
"""Program -> where its command line is: module and name."""


def command_line(name: str) -> typer.Typer:
    """The command line of a program, as it is written."""
    module, variable = PROGRAMS[name]
    found: typer.Typer = getattr(import_module(module), variable)
    return found


def program(name: str) -> Any:
    """The command line of a program, as it is parsed: `commands`, and their `params`."""
    return typer.main.get_command(command_line(name))
