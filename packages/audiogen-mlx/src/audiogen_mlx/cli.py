"""The `audiogen-mlx` command: options, load, verb, save."""

from __future__ import annotations

from audiogen_core.cli import app, run

cli = app("audiogen-mlx", "audiogen-mlx", "MusicGen and Stable Audio Open in MLX.")


def main() -> None:
    """Entry point of the command."""
    run(cli)
