"""The network as onnxruntime runs it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from audiogen_core.musicgen.positions import positions
from audiogen_core.ops import Float
from audiogen_onnx.magnet.config import MagnetConfig
from audiogen_onnx.musicgen.decoder import attended
from audiogen_onnx.session import Session

Run = Callable[[NDArray[np.int64], int, int], Float]
"""Codes (R, K, T), a stage and a codebook -> the logits (R, T, N) of that codebook."""

_HIDDEN = np.float32(-3.0e38)  # added to scores of what is not seen


class Network:
    """The graphs of a model's transformer. `run` begins a run."""

    def __init__(self, config: MagnetConfig, network: Session, cross: Session) -> None:
        self.config, self.network, self.cross = config, network, cross
        layers = range(config.network.layers)
        keys = [f"cross_{part}.{index}" for index in layers for part in ("keys", "values")]
        cross.expect(["text"], keys)
        network.expect(["codes", "head", "positions", "hidden", *keys, "cross_bias"], ["logits"])

    def run(self, text: Float | None, mask: NDArray[np.bool_] | None, rows: int) -> Run:
        """A run over some rows, of which the first attend to a text (A, L, width), but where `mask` (A, L) is
        false.
        """
        given = attended(self.cross, self.config.network.width, rows, text, mask)

        def logits(codes: NDArray[np.int64], stage: int, head: int) -> Float:
            frames = codes.shape[2]
            hidden = np.where(seen(frames, stage, self.config), np.float32(0), _HIDDEN)
            inputs = {
                "codes": codes,
                "head": np.array([head]),
                "positions": positions(frames, self.config.network.width)[None],
                "hidden": hidden[None, None],
            }
            made: Float = self.network.run({**inputs, **given})["logits"]
            return made

        return logits


def seen(frames: int, stage: int, config: MagnetConfig) -> NDArray[np.bool_]:
    """What each frame sees of the others: all in the first stage, then those near it. (T, T)."""
    places = np.arange(frames)
    if stage == 0 or config.context < 0:
        return np.ones((frames, frames), np.bool_)
    near: NDArray[np.bool_] = np.abs(places[:, None] - places) <= config.context
    return near
