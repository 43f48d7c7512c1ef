"""The whole way through a clip against recorded outputs of the original, fed with its random numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest

from audiogen_core.codec import CodecInfo
from audiogen_core.noise import RecordedNoise
from audiogen_onnx.vampnet.generate import Vampnet
from audiogen_onnx.vampnet.network import Network
from audiogen_onnx.vampnet.pair import stretched
from audiogen_onnx.vampnet.sampling import FillOptions
from audiogen_onnx.vampnet.upstream import UpstreamVamp
from support.exported import exported
from support.vampnet_numpy import FIXTURES, NumpyVampNet

ARRAYS = np.load(FIXTURES / "small_vamp.npz")


@cache
def network(name: str) -> Network:
    model = NumpyVampNet(FIXTURES / "small", name)
    window = int(ARRAYS[f"{name}_chunk_tokens"])
    return Network(name, model.logits, len(model.tables), model.conditioning, model.codebook_size, window)


def recorded(run: str) -> RecordedNoise:
    calls = range(int(ARRAYS[f"{run}_ncalls"]))
    return RecordedNoise([ARRAYS[f"{run}_{kind}{call}"] for call in calls for kind in ("exp", "uni")])


@pytest.mark.parametrize("run", ["v0", "v1", "v2"])
def test_vamp_token_for_token(run):
    kw = json.loads(str(ARRAYS[f"{run}_kw"]))
    batch = (kw.get("batch_size", 1), 1, 1)
    job = UpstreamVamp(
        network("coarse"),
        network("c2f"),
        FillOptions(steps=kw["_sampling_steps"], compat="upstream"),
        kw.get("feedback_steps", 1),
    )
    noise = recorded(run)
    given, mask = stretched(
        np.tile(ARRAYS[f"{run}_codes"], batch),
        np.tile(ARRAYS[f"{run}_mask"] == 1, batch),
        kw.get("time_stretch_factor", 1),
    )
    codes, masked = job.run(given, mask, noise)
    assert np.array_equal(codes, ARRAYS[f"{run}_out"])
    assert np.array_equal(masked, ARRAYS[f"{run}_mask_out"])
    assert noise.left == 0


def stand_in() -> Vampnet:
    """The networks of these tests under the codec's facts alone."""
    coarse, fine = network("coarse"), network("c2f")
    info = CodecInfo("lac", 16_000, 1, 8, fine.codebooks, fine.codebook_size)
    return Vampnet(SimpleNamespace(info=info), replace(coarse, window=999), replace(fine, window=999))


@pytest.mark.parametrize("run", ["v0", "v1", "v2"])
@pytest.mark.parametrize(
    "vampnet", [stand_in, lambda: Vampnet.load(exported(), threads=1)], ids=["numpy", "onnx"]
)
def test_through_the_public_name(run, vampnet):
    kw = json.loads(str(ARRAYS[f"{run}_kw"]))
    coarse, fine = (int(ARRAYS[f"{name}_chunk_tokens"]) * 8 / 16_000 for name in ("coarse", "c2f"))
    made = vampnet().vamp_codes(
        np.tile(ARRAYS[f"{run}_codes"], (kw.get("batch_size", 1), 1, 1)),
        ARRAYS[f"{run}_mask"][0] == 1,
        compat="upstream",
        steps=kw["_sampling_steps"],
        feedback_steps=kw.get("feedback_steps", 1),
        time_stretch_factor=kw.get("time_stretch_factor", 1),
        window_seconds=coarse,
        fine_window_seconds=fine,
        noise=recorded(run),
    )
    assert np.array_equal(made, ARRAYS[f"{run}_out"])
