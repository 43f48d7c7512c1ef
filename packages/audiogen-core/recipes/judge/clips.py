"""The clips that are judged, and those they are judged beside."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audiogen_core.audio import Audio
from audiogen_core.codec import Codec
from audiogen_core.codes import Codes
from audiogen_core.compose import compose
from audiogen_core.errors import AudioError

REFERENCE = 2_000_200_000
"""Seeds of the pieces that distances are measured from."""

HELD_OUT = 2_000_100_000
"""Seeds of the pieces that stand for real music. No model has seen either."""

FACTS = ("style", "tempo", "key", "lead")


@dataclass(frozen=True, eq=False)
class Clip:
    """A clip and what its caption says of it.

    audio  from its beginning, which is the beginning of a bar
    facts  style, tempo, key, lead: those that the caption names
    start  seconds; only what comes later is judged (a prompt that a model goes on with is not)
    codes  int (codebooks, frames) where they are known
    """

    audio: Audio
    facts: dict[str, str]
    start: float = 0.0
    codes: NDArray[np.int32] | None = None


def load(folder: Path, seconds: float) -> list[Clip]:
    """The clips of a folder, by its captions.jsonl: a line each, as `audiogen-core compose` writes them.

    A line holds "path" and what the caption says: any of "style", "tempo", "key", "lead"; "start" in seconds
    where only a continuation is judged; "codes", the path of a file of codes. Clips are cut `seconds` after
    their start. Raises AudioError.
    """
    path = folder / "captions.jsonl"
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise AudioError(f"{path}: a line of JSON for each clip is needed ({error})") from error
    clips = []
    for row in rows:
        start = float(row.get("start", 0.0))
        audio = Audio.load(folder / row["path"]).trim(start + seconds)
        codes = Codes.load(folder / row["codes"]).values if "codes" in row else None
        clips.append(Clip(audio, {key: row[key] for key in FACTS if row.get(key)}, start, codes))
    if not clips:
        raise AudioError(f"{path}: names no clips")
    return clips


def composed(first: int, count: int, seconds: float) -> list[Clip]:
    """Pieces by their seeds."""
    pieces = [compose(first + i, seconds=seconds) for i in range(count)]
    return [Clip(piece.audio, {key: piece.attributes[key] for key in FACTS}) for piece in pieces]


def reconstructed(clips: Sequence[Clip], codec: Codec, codebooks: int) -> list[Clip]:
    """The same clips as the codec gives them back, with their codes."""
    made = []
    for clip in clips:
        codes = codec.encode(clip.audio, codebooks)
        made.append(replace(clip, audio=codec.decode(codes), codes=codes.values))
    return made


def unigram(clips: Sequence[Clip], codec: Codec, seed: int = 0) -> list[Clip]:
    """Noise of the right colour: every code drawn by itself, as often as it occurs in these clips."""
    draws = np.random.Generator(np.random.PCG64(seed))
    known = [clip.codes for clip in clips if clip.codes is not None]
    pools = np.concatenate(known, axis=1)
    made = []
    for clip in clips:
        frames = round(clip.audio.duration * codec.info.frame_rate)
        values = np.stack([draws.choice(pool, frames) for pool in pools]).astype(np.int32)
        codes = Codes(values, codec.info.codebook_size, codec.info.frame_rate, codec.info.name)
        made.append(replace(clip, audio=codec.decode(codes), codes=values))
    return made
