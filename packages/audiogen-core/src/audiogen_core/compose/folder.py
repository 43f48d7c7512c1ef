"""A folder of composed pieces with their captions."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from audiogen_core.compose.piece import Piece, check_style, compose
from audiogen_core.compose.styles import DEFAULT_STYLES
from audiogen_core.compose.synth import SAMPLE_RATE
from audiogen_core.errors import AudioError, OptionError
from audiogen_core.files import atomic_path, require_room
from audiogen_core.recipe import Recipe
from audiogen_core.values import closed

CAPTIONS = "captions.jsonl"
SEEDS_PER_FOLDER = 100_000  # folders of different seeds share no piece


@closed()
def write_folder(
    folder: str | Path,
    *,
    minutes: float,
    seed: int,
    styles: Sequence[str] | None = None,
    piece_seconds: float = 60.0,
    force: bool = False,
    on_step: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Compose `minutes` of music into 16-bit WAV files and `captions.jsonl`; returns the audio paths.

    Piece i depends on (seed, i) alone; styles take turns. Each line of the captions holds `path`,
    `caption`, `seconds`, the piece's attributes and its notes as [onset, length, instrument, pitch] in
    frames of 75 Hz. Each audio file carries the recipe that makes it again.

    Raises OptionError for a length that is not positive, a negative seed, an unknown style, or a folder
    with other files in it (unless `force`); AudioError when the disk is full or may not be written to.
    """
    if not (math.isfinite(minutes) and minutes > 0):
        raise OptionError(f"minutes must be positive, got {minutes}")
    if not (math.isfinite(piece_seconds) and piece_seconds > 0):
        raise OptionError(f"piece_seconds must be positive, got {piece_seconds}")
    if seed < 0:
        raise OptionError(f"seed must not be negative, got {seed}")
    names = [check_style(style) for style in styles] if styles else list(DEFAULT_STYLES)
    if minutes * 60 > piece_seconds * SEEDS_PER_FOLDER:
        raise OptionError(f"{minutes} minutes in pieces of {piece_seconds} s are more than 100,000 pieces")
    count = math.ceil(minutes * 60 / piece_seconds - 1e-9)
    folder = _prepare(Path(folder), force, minutes * 60 * 2 * SAMPLE_RATE)
    paths, lines = [], []
    for index in range(count):
        seconds = min(piece_seconds, minutes * 60 - index * piece_seconds)
        piece = compose(seed * SEEDS_PER_FOLDER + index, seconds=seconds, style=names[index % len(names)])
        path = folder / f"piece-{index:05d}.wav"
        piece.audio.save(path, recipe=_recipe(piece, seconds), force=force)
        paths.append(path)
        lines.append(_line(piece, path))
        if on_step:
            on_step(index + 1, count)
    with atomic_path(folder / CAPTIONS, AudioError) as temporary:
        temporary.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return paths


def _prepare(folder: Path, force: bool, needed: float) -> Path:
    if folder.exists() and not folder.is_dir():
        raise OptionError(f"{folder}: a file, not a folder; choose another output")
    require_room(folder / CAPTIONS, needed)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        used = next(folder.iterdir(), None)
    except OSError as error:
        raise AudioError(f"{folder}: cannot be used as an output folder ({error.strerror})") from error
    if used is not None and not force:
        raise OptionError(f"{folder}: not empty; choose a new folder, or use force to write into it", "force")
    return folder


def _recipe(piece: Piece, seconds: float) -> Recipe:
    from audiogen_core.version import version

    settings = {"seconds": seconds, "style": piece.attributes["style"], "caption": piece.caption}
    return Recipe(
        package="audiogen-core",
        version=version(),
        model="compose",
        revision="1",
        seed=piece.attributes["seed"],
        settings=settings,
        inputs={},
    )


def _line(piece: Piece, path: Path) -> str:
    facts = {
        "path": path.name,
        "caption": piece.caption,
        "seconds": round(piece.audio.duration, 3),
        **piece.attributes,
        "notes": piece.notes,
    }
    return json.dumps(facts, ensure_ascii=False, separators=(",", ":"))
