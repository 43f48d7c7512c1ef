"""How a MusicGen is opened in onnxruntime; what it can be asked is in `audiogen_core.musicgen.options`."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Annotated

from audiogen_core.jobs import JobLoad
from audiogen_core.options import Place, hidden, option, place


@dataclass(frozen=True)
class Load(JobLoad):
    """How a MusicGen is opened."""

    model: Annotated[Place, place("Catalogue name, hub id or path.", "-m", metavar="NAME|PATH")] = (
        "musicgen-small"
    )
    _: KW_ONLY
    providers: Annotated[
        tuple[str, ...] | None,
        option(
            "onnxruntime's execution provider; more than once for a choice.",
            "--provider",
            local=True,
            advanced=True,
        ),
    ] = None
    verify: Annotated[
        bool, hidden("Check the hash of every file first, not only names and sizes.", local=True)
    ] = False
