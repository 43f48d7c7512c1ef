"""DAC at full size, random weights: our adapters beside transformers' module.

Prints ratios; asserts no time. `run.py` beside this file makes the table.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from audiogen_core import codecs
from support.bench import race
from support.figures import compare

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
    for side, times in (("encode", encode), ("decode", decode)):
        title = f"DAC 44 kHz, {SECONDS} s, one thread"
        compare(title, side, times, peer="transformers", aims={"torch": 1 / 1.1}, audio=SECONDS)
    assert set(encode) == set(decode) == {"transformers", "torch", "numpy"}
