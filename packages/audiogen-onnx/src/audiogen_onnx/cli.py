"""The `audiogen-onnx` command: options, load, verb, save."""

from __future__ import annotations

from audiogen_core.cli import app, run

cli = app("audiogen-onnx", "audiogen-onnx", "VampNet in ONNX: export, check and run.")


def main() -> None:
    """Entry point of the command."""
    run(cli)
