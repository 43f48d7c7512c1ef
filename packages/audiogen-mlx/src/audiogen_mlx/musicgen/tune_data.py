"""What a MusicGen is tuned on: the clips of a folder as codes, and their captions as vectors."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from audiogen_core.audio import Audio
from audiogen_core.musicgen.conditioning import read
from audiogen_core.progress import OnStep
from audiogen_core.training import clips
from audiogen_core.training.clips import Codes, Data
from audiogen_mlx.musicgen.load import Parts

Texts = dict[str, NDArray[np.float32]]
"""Caption -> its vectors (L, text width)."""


def prepare(
    parts: Parts, folder: Path, run: Path, seconds: float, on_step: OnStep | None = None
) -> tuple[Data, Texts]:
    """Encode what is not encoded yet, and read the captions. Raises AudioError; see `clips.prepare`."""

    def encode(clip: Audio) -> Codes:
        codes: Codes = parts.codec.encode(clip).values[: parts.config.codebooks]
        return codes

    data = clips.prepare(folder, run, seconds, parts.codec.info, encode, on_step)
    captions = dict.fromkeys(clip.caption for clip in (*data.train, *data.held_out))
    return data, {caption: _vectors(parts, caption) for caption in captions}


def _vectors(parts: Parts, caption: str) -> NDArray[np.float32]:
    ids, mask = read(parts.tokenizer, caption)
    return np.array(parts.t5(mx.array(ids), mx.array(mask))[0].astype(mx.float32))
