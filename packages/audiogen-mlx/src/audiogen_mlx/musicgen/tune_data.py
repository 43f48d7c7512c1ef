"""What a MusicGen is tuned on: the clips of a folder as codes, their captions as vectors, and for models that
follow a melody or a style that of each clip itself.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from audiogen_core.audio import Audio
from audiogen_core.errors import AudioError
from audiogen_core.musicgen import melody as melodies
from audiogen_core.musicgen.conditioning import read
from audiogen_core.progress import OnStep
from audiogen_core.training import clips
from audiogen_core.training.clips import Clip, Data, Made
from audiogen_mlx.musicgen.load import Parts
from audiogen_mlx.musicgen.model import Transformer

Texts = dict[str, NDArray[np.float32]]
"""Caption -> its vectors (L, text width)."""

NOTHING = "silence from end to end"
NO_STYLE = "silent, or too short for an excerpt whose style is heard"


def prepare(
    parts: Parts, folder: Path, run: Path, seconds: float, on_step: OnStep | None = None
) -> tuple[Data, Texts]:
    """Encode what is not encoded yet, and read the captions. Raises AudioError; see `clips.prepare`.

    What a clip has `heard`: for a model that follows a melody its features (n, bins); for one that follows a
    style the tokens (n, T, width) of n excerpts of the clip, each of which stands for it.
    """

    def encode(clip: Audio) -> Made | None:
        heard = _heard(parts, clip)
        if heard is not None and not len(heard):
            return None
        return parts.codec.encode(clip).values[: parts.config.codebooks], heard

    data = clips.prepare(
        folder,
        run,
        seconds,
        parts.codec.info,
        encode,
        on_step,
        nothing=NOTHING if parts.config.style is None else NO_STYLE,
        understood=parts.tokenizer.literal().understands,
    )
    captions = dict.fromkeys(clip.caption for clip in (*data.train, *data.held_out))
    return data, {caption: _vectors(parts, caption) for caption in captions}


def _heard(parts: Parts, clip: Audio) -> NDArray[np.float32] | None:
    """The melody or style of a clip, as `Clip` has it; no excerpts where none is long and loud enough."""
    if parts.config.chroma is not None:
        return melodies.chroma(clip, parts.config.chroma)
    if parts.config.style is None:
        return None
    length, excerpts = parts.config.style.seconds, []
    for index in range(int(clip.duration / length)):
        with suppress(AudioError):  # silent there
            excerpts.append(parts.style(clip, start=index * length))
    return np.stack(excerpts) if excerpts else np.zeros((0, 0, 0), np.float32)


def ahead(network: Transformer, clip: Clip, excerpt: int | None) -> NDArray[np.float32] | None:
    """The vectors (C, width) that stand before a clip: those of its melody or style, or with None of no such.

    excerpt  which of its excerpts stands for its style, counted on from the last to the first again
    """
    config, heard = network.config, clip.heard
    if heard is None:
        return None
    if config.chroma is None:
        chosen: NDArray[np.float32] = heard[0 if excerpt is None else excerpt % len(heard)]
        return np.zeros_like(chosen) if excerpt is None else chosen
    features = melodies.null_chroma(1, config.chroma.bins) if excerpt is None else heard
    vectors = network.project_melody(mx.array(melodies.repeated(features, config.melody_frames)))
    return np.array(vectors.astype(mx.float32))


def _vectors(parts: Parts, caption: str) -> NDArray[np.float32]:
    ids, mask = read(parts.tokenizer.literal(), caption)  # as a model does that an adapter is merged into
    return np.array(parts.t5(mx.array(ids), mx.array(mask))[0].astype(mx.float32))
