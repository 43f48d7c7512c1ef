"""Drawing and filling against recorded outputs of the original, fed with its recorded random numbers."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest

from audiogen_core.noise import RecordedNoise
from audiogen_onnx.vampnet.draw import Filters, draw, typical
from audiogen_onnx.vampnet.sampling import fill, least_sure
from support.vampnet_numpy import FIXTURES, NumpyVampNet

SAMPLING = np.load(FIXTURES / "sampling.npz")
GENERATED = {size: np.load(FIXTURES / f"{size}_generate.npz") for size in ("small", "big")}
RUNS = [(size, name.split("_")[0]) for size, arrays in GENERATED.items() for name in arrays if "_out" in name]


@cache
def network(size: str, name: str) -> NumpyVampNet:
    return NumpyVampNet(FIXTURES / size, name)


def options(kw: dict) -> dict:
    """The original's names for the options, turned into ours."""
    filtering = kw.get("typical_filtering", True)
    names = {"_sampling_steps": "steps"}
    plain = {names.get(name, name): value for name, value in kw.items() if name != "typical_filtering"}
    return {"typical_mass": 0.15 if filtering else None, **plain}


@pytest.mark.parametrize("size", ["small", "big"])
@pytest.mark.parametrize("name", ["coarse", "c2f"])
def test_the_network_of_these_tests_is_the_original(size, name):
    arrays = np.load(FIXTURES / f"{size}_transformer.npz")
    found = [key for key in arrays if key.startswith(f"{name}_T") and key.endswith("_codes")]
    assert len(found) >= 2
    for key in found:
        logits = network(size, name).logits(arrays[key])  # (B, P, F, N)
        flat = logits.transpose(0, 3, 2, 1).reshape(len(logits), logits.shape[3], -1)
        assert np.abs(flat - arrays[key.replace("_codes", "_logits")]).max() < 1e-4


@pytest.mark.parametrize("name", [name for name in SAMPLING if name.startswith("typical_")])
def test_the_typical_filter(name):
    mass, least = name.removeprefix("typical_m").split("_k")
    expected = SAMPLING[name]
    assert np.array_equal(
        typical(SAMPLING["logits"].reshape(-1, 64), float(mass), int(least)).reshape(expected.shape), expected
    )


@pytest.mark.parametrize("case", range(8))
def test_a_draw(case):
    kw = json.loads(str(SAMPLING[f"sample_{case}_kw"]))
    sampled = kw.pop("sample", True)
    kw = {name: value for name, value in kw.items() if not name.startswith("typical")}  # no effect there
    noise = SAMPLING[f"sample_{case}_exp"].reshape(-1, 64) if sampled else None
    tokens, chances = draw(SAMPLING["logits"].reshape(-1, 64), noise, Filters(**kw))
    assert np.array_equal(tokens, SAMPLING[f"sample_{case}_tok"].ravel())
    assert np.allclose(chances, SAMPLING[f"sample_{case}_prob"].ravel(), atol=1e-6)


@pytest.mark.parametrize("case", range(3))
def test_which_places_are_masked_again(case):
    found = least_sure(
        SAMPLING["topk_probs"],
        SAMPLING[f"topk_{case}_num"],
        SAMPLING[f"topk_{case}_temp"][:, None],
        SAMPLING[f"topk_{case}_uniform"],
    )
    assert np.array_equal(found, SAMPLING[f"topk_{case}_mask"])


def recorded(arrays: np.lib.npyio.NpzFile, run: str) -> RecordedNoise:
    """Both kinds of noise in the order of the draws; the last steps may have drawn no tokens."""
    tokens, places = arrays[f"{run}_exp"], arrays[f"{run}_uniform"]
    steps = [[*tokens[step : step + 1], places[step]] for step in range(len(places))]
    return RecordedNoise([array for step in steps for array in step])


@pytest.mark.parametrize(("size", "run"), RUNS)
def test_generate_token_for_token(size, run):
    arrays = GENERATED[size]
    model = network(size, str(arrays[f"{run}_model"]))
    noise = recorded(arrays, run)
    codes = fill(
        arrays[f"{run}_start"],
        arrays[f"{run}_mask"] == 1,
        model.logits,
        conditioning_codebooks=model.conditioning,
        noise=noise,
        compat="upstream",
        **options(json.loads(str(arrays[f"{run}_kw"]))),
    )
    assert np.array_equal(codes, arrays[f"{run}_out"])
    assert noise.left == 0


@pytest.mark.parametrize("run", ["g0", "g3"])
def test_one_item_without_the_axis_of_the_batch(run):
    arrays = GENERATED["small"]
    model = network("small", str(arrays[f"{run}_model"]))
    codes = fill(
        arrays[f"{run}_start"][0],
        arrays[f"{run}_mask"][0] == 1,
        model.logits,
        conditioning_codebooks=model.conditioning,
        noise=recorded(arrays, run),
        steps=len(arrays[f"{run}_uniform"]),
    )
    assert np.array_equal(codes, arrays[f"{run}_out"][0])  # one item: both ways of counting agree
