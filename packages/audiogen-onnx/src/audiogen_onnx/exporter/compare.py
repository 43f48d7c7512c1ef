"""Whether exported graphs do what torch does: the exporter refuses a folder that disagrees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from audiogen_core.codec import Codec
from audiogen_core.errors import ModelError
from audiogen_onnx.exporter.model import VampNet
from audiogen_onnx.session import Session
from audiogen_onnx.vampnet.verify import STRAY_CODES, random_codes

TOLERANCE = 1e-4
"""How far numbers may lie apart when the largest is 1 or less; in proportion when it is larger."""

AUDIO_TOLERANCE = 1e-3
"""The same for a decoder's samples, whose many convolutions enlarge what rounding leaves: -60 dB."""

NETWORK_CASES = ((1, 1), (2, 7), (1, 100), (1, 173))
CODEC_CASES = ((1, 1), (2, 7), (1, 23))
"""(batch, frames) of the comparisons."""


def compare_network(net: VampNet, path: Path, cases: tuple[tuple[int, int], ...] = NETWORK_CASES) -> float:
    """The largest difference between a network's graph and torch. Raises ModelError when it is too large."""
    session, furthest = Session(path), 0.0
    for batch, frames in cases:
        codes = random_codes(net.config.codebooks, net.config.codebook_size, batch, frames)
        logits = session.run({"codes": codes})["logits"]
        with torch.inference_mode():
            expected = net(torch.from_numpy(codes)).numpy()
        furthest = max(furthest, _difference(logits, expected, f"{path.name} at {frames} frames"))
    return furthest


def compare_codec(codec: Codec, encoder: Path, decoder: Path) -> None:
    """Raise ModelError unless the codec's graphs give torch's codes and torch's audio."""
    encode, decode, info = Session(encoder), Session(decoder), codec.info
    rng = np.random.default_rng(0)
    for batch, frames in CODEC_CASES:
        shape = (batch, info.channels, frames * info.hop_length)
        audio = rng.uniform(-0.5, 0.5, shape).astype(np.float32)
        codes = encode.run({"audio": audio})["codes"]
        expected = np.stack([np.concatenate(list(codec.encode_blocks([clip])), axis=1) for clip in audio])
        strays = float((codes != expected).mean()) if codes.shape == expected.shape else 1.0
        if strays > STRAY_CODES:
            raise ModelError(
                f"{encoder.name}: {strays:.1%} of its codes differ from torch's at {frames} frames; "
                "the graph is wrong, nothing was written"
            )
        sound = decode.run({"codes": expected.astype(np.int64)})["audio"]
        clips = np.stack([np.concatenate(list(codec.decode_blocks([item])), axis=1) for item in expected])
        _difference(sound, clips, f"{decoder.name} at {frames} frames", AUDIO_TOLERANCE)


def _difference(made: NDArray[Any], expected: NDArray[Any], where: str, allowed: float = TOLERANCE) -> float:
    """The largest difference, in proportion to the largest value above 1. Raises ModelError."""
    if made.shape != expected.shape:
        raise ModelError(
            f"{where}: has the shape {made.shape}, torch's is {expected.shape}; nothing was written"
        )
    scale = max(1.0, float(np.abs(expected).max()))
    difference = float(np.abs(made - expected).max()) / scale
    if not difference <= allowed:  # also when it is NaN
        raise ModelError(
            f"{where}: differs from torch by {difference:.1e}, allowed is {allowed}; nothing was written"
        )
    return difference
