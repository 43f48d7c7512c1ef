"""What sampling alone takes for ten seconds at full size: schedule, noise, filters, windows; no network."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest

from audiogen_core.codec import CodecInfo
from audiogen_onnx.vampnet.generate import Vampnet
from audiogen_onnx.vampnet.network import Network
from audiogen_onnx.vampnet.options import VampOptions
from support.bench import report

pytestmark = pytest.mark.benchmark

INFO = CodecInfo("lac", 44_100, 1, 768, 14, 1024)
FRAMES = 575
CASES = {"default": {}, "top_p": {"top_p": 0.9}, "typical": {"typical_mass": 0.15}}


class Ready:
    """Logits that are there already: looking them up takes no time to speak of."""

    def __init__(self, kept: int) -> None:
        self.kept = kept
        self.logits: dict[tuple[int, ...], np.ndarray] = {}

    def __call__(self, codes: np.ndarray) -> np.ndarray:
        shape = (1, codes.shape[1] - self.kept, codes.shape[2], INFO.codebook_size)
        if shape not in self.logits:
            rng = np.random.default_rng(0)
            self.logits[shape] = rng.standard_normal(shape, dtype=np.float32) * 2
        return self.logits[shape]


def test_seconds_of_sampling_in_ten_seconds_of_sound():
    networks = (
        Network("coarse", Ready(0), 4, 0, INFO.codebook_size, 575),
        Network("fine", Ready(4), 14, 4, INFO.codebook_size, 173),
    )
    vampnet = Vampnet(SimpleNamespace(info=INFO), *networks)
    codes = np.random.default_rng(1).integers(0, INFO.codebook_size, (INFO.codebooks, FRAMES))
    mask = np.ones(codes.shape, bool)
    mask[:3, ::7] = False
    steps = vampnet.pair.steps(mask[None], VampOptions())
    for name, options in CASES.items():
        vampnet.vamp_codes(codes, mask, seed=1, **options)
        began = time.perf_counter()
        made = vampnet.vamp_codes(codes, mask, seed=1, **options)
        took = time.perf_counter() - began
        figure = f"{name}: {took:.3f} s, {took / steps * 1000:.1f} ms for each of {steps} steps"
        report("VampNet, sampling alone for 10 s at full size", [figure])
        assert np.array_equal(made[~mask], codes[~mask])
