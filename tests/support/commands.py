"""Calling a command line inside the test process."""

from __future__ import annotations

import inspect

import click
from click.testing import CliRunner, Result


def call(commands: click.Group, *arguments: object) -> Result:
    """What a command did: exit_code, stdout and stderr apart (which old versions have to be asked for)."""
    apart = "mix_stderr" in inspect.signature(CliRunner.__init__).parameters
    runner = CliRunner(**({"mix_stderr": False} if apart else {}))
    return runner.invoke(commands, [str(argument) for argument in arguments])
