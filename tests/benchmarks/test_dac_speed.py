"""DAC at full size, random weights: our adapters beside transformers' module.

Run with `uv run pytest -m benchmark -s tests/benchmarks`. Prints ratios; asserts no time.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from audiogen_core import codecs
from support.bench import race, report

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(1200)]

SECONDS = 3


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_dac_beside_transformers(tmp_path):
    from transformers import DacConfig, DacModel

    theirs = DacModel(DacConfig(sampling_rate=44100)).eval()
    theirs.save_pretrained(tmp_path)
    ours = {name: codecs.load_codec(tmp_path, name) for name in ("torch", "numpy")}
    frames = SECONDS * 44100 // 512
    clip = np.random.default_rng(0).normal(size=(1, frames * 512)).astype(np.float32) * 0.1
    with torch.inference_mode():
        stored = theirs.encode(torch.tensor(clip[None])).audio_codes
        codes = stored[0].numpy()
        encode = race(
            {
                "transformers": lambda: theirs.encode(torch.tensor(clip[None])),
                **{name: lambda c=codec: list(c.encode_blocks([clip])) for name, codec in ours.items()},
            },
            rounds=2,
        )
        decode = race(
            {
                "transformers": lambda: theirs.decode(audio_codes=stored),
                **{name: lambda c=codec: list(c.decode_blocks([codes])) for name, codec in ours.items()},
            },
            rounds=2,
        )
    rows = [
        f"{side:6} {name:13} {times[name]:6.2f} s  {SECONDS / times[name]:5.2f}x real time  "
        f"{times[name] / times['transformers']:.2f} of transformers' time"
        for side, times in (("encode", encode), ("decode", decode))
        for name in times
    ]
    report(f"DAC 44 kHz, {SECONDS} s, one thread", rows)
    assert set(encode) == set(decode) == {"transformers", "torch", "numpy"}
