"""A VampNet without weights: the demo codec, and networks whose logits are easy to foresee."""

from __future__ import annotations

from functools import cache

import numpy as np

from audiogen_core import codecs
from audiogen_core.codec import Codec
from audiogen_onnx.vampnet.generate import Vampnet
from audiogen_onnx.vampnet.network import Network


class FakeLogits:
    """Logits that depend on the codes around each place, and on nothing else.

    Every call is remembered: the codes that came in.
    """

    def __init__(self, size: int, conditioning: int, *, reach: int = 3, strength: float = 3.0) -> None:
        self.size, self.conditioning, self.reach = size, conditioning, reach
        rng = np.random.default_rng(5)
        self.table = (rng.standard_normal((size + 1, size)) * strength).astype(np.float32)
        self.calls: list[np.ndarray] = []

    def __call__(self, codes: np.ndarray) -> np.ndarray:
        self.calls.append(codes.copy())
        frames = codes.shape[-1]
        ends = [(0, 0)] * (codes.ndim - 1) + [(self.reach, self.reach)]
        padded = np.pad(codes, ends, constant_values=self.size)
        near = sum(
            self.table[padded[..., shift : shift + frames]] / (1 + abs(shift - self.reach))
            for shift in range(2 * self.reach + 1)
        )
        return near[..., self.conditioning :, :, :].astype(np.float32)


def fake_network(name: str, codebooks: int, conditioning: int, size: int, window: int) -> Network:
    return Network(name, FakeLogits(size, conditioning), codebooks, conditioning, size, window)


@cache
def demo_codec() -> Codec:
    return codecs.load("demo")


def fake_vampnet(coarse: int = 2, coarse_seconds: float = 2.0, fine_seconds: float = 0.6) -> Vampnet:
    """The demo codec with networks that see so many seconds at once."""
    codec = demo_codec()
    info = codec.info
    frames = [round(seconds * info.frame_rate) for seconds in (coarse_seconds, fine_seconds)]
    return Vampnet(
        codec,
        fake_network("coarse", coarse, 0, info.codebook_size, frames[0]),
        fake_network("fine", info.codebooks, coarse, info.codebook_size, frames[1]),
    )
