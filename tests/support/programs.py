"""The command lines of the packages."""

from __future__ import annotations

from importlib import import_module

import click

PROGRAMS = {
    "audiogen-core": ("audiogen_core.main", "commands"),
    "audiogen-mlx": ("audiogen_mlx.cli", "cli"),
    "audiogen-onnx": ("audiogen_onnx.cli", "cli"),
    "audiogen-minigpt": ("audiogen_minigpt.cli", "commands"),
}
"""Program -> where its command line is: module and name."""


def program(name: str) -> click.Group:
    """The command line of a program."""
    module, variable = PROGRAMS[name]
    found: click.Group = getattr(import_module(module), variable)
    return found
