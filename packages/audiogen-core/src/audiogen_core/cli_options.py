"""The options that commands of several packages have, and what the running command was told about output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer


@dataclass
class State:
    """What the options of the running command said about output."""

    quiet: bool = False
    verbose: bool = False
    debug: bool = False
    play: bool = False

    def clear(self) -> None:
        """As before any option."""
        self.quiet = self.verbose = self.debug = self.play = False


state = State()


def option(name: str, help: str, *others: str, **more: Any) -> Any:
    """An option `--name` of typer's, for `Annotated`; `others` are further names of it."""
    return typer.Option(f"--{name}", *others, help=help, **more)


def _remember(name: str) -> Callable[[bool], bool]:
    def callback(value: bool) -> bool:
        if value:
            setattr(state, name, True)
        return value

    return callback


def _play(value: bool) -> bool:
    if value:
        from audiogen_core import playback

        playback.library()  # before any long work
    return _remember("play")(value)


ModelOption = Annotated[str, option("model", "Catalogue name, hub id or path.", "-m", metavar="NAME|PATH")]
OutputOption = Annotated[Path, option("output", "Where the result goes.", "-o", metavar="PATH")]
SeedOption = Annotated[
    int | None, option("seed", "Seed of the random numbers; drawn and shown when absent.", min=0)
]
JsonOption = Annotated[bool, option("json", "Print the result as JSON.")]
QuietOption = Annotated[bool, option("quiet", "No progress, no hints.", "-q", callback=_remember("quiet"))]
VerboseOption = Annotated[
    bool, option("verbose", "Say more about each step.", "-v", callback=_remember("verbose"))
]
DryRunOption = Annotated[bool, option("dry-run", "Show what would be done, and stop.")]
OfflineOption = Annotated[bool, option("offline", "Never use the network.")]
ForceOption = Annotated[bool, option("force", "Write over what is there.", "-f")]
DebugOption = Annotated[bool, option("debug", "Show the traceback of an error.", callback=_remember("debug"))]
PlayOption = Annotated[bool, option("play", "Play what was made; needs audiogen-core[play].", callback=_play)]
