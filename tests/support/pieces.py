"""Codecs made to work in pieces so small that every seam is tried."""

from __future__ import annotations

from audiogen_core.codec import Autoencoder, Codec
from audiogen_core.layers import Convolutional, Rechunk


def cut_small(made: Codec | Autoencoder, frames: float) -> None:
    """Let every block of a codec work on so many frames at a time, whatever steps it has in a frame."""
    for side, rate in (("_encoder", float(made.info.hop_length)), ("_decoder", 1.0)):
        stages = []
        for stage in getattr(made, side):
            if isinstance(stage, Convolutional):
                rate *= stage.up / stage.down
            stages.append(Rechunk(max(1, round(frames * rate))) if isinstance(stage, Rechunk) else stage)
        assert stages != getattr(made, side)
        setattr(made, side, stages)
