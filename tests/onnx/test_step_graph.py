"""One step of sampling as a graph: given the original's recorded noise it gives the original's codes."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from audiogen_onnx.exporter import model, network, weights
from audiogen_onnx.exporter import step as step_graph
from audiogen_onnx.session import Session
from support.vampnet_numpy import FIXTURES

CASES = [("small", f"g{case}") for case in (0, 2, 3, 4, 5, 6)] + [("big", "g0"), ("big", "g1")]
"""All that were recorded but small g1, which filters by top_p: a step's graph has no filters."""


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    """(size, checkpoint) -> the session of its step graph, and its geometry."""
    made = {}
    for size in ("small", "big"):
        vectors = weights.load_codec(FIXTURES / size / "codec.pth", "numpy").codebook_vectors()
        for name in ("coarse", "c2f"):
            checkpoint = weights.load(FIXTURES / size / f"{name}.pth", vectors)
            path = tmp_path_factory.mktemp("graphs") / f"{name}.onnx"
            network.write(checkpoint, model.build(checkpoint).distance_table().numpy(), path)
            step_graph.write(path, path.with_name("step.onnx"))
            made[size, name] = Session(path.with_name("step.onnx"), threads=1), checkpoint.config
    return made


def test_both_graphs_share_their_weights(steps):
    session, _ = steps["small", "coarse"]
    names = sorted(path.name for path in session.path.parent.iterdir())
    assert names == ["coarse.onnx", "coarse.onnx.data", "step.onnx"]


@pytest.mark.parametrize(("size", "case"), CASES)
def test_recorded_generations_are_repeated(steps, size, case):
    with np.load(FIXTURES / f"{size}_generate.npz") as file:
        recorded = {key[len(case) + 1 :]: file[key] for key in file.files if key.startswith(f"{case}_")}
    session, config = steps[size, str(recorded["model"])]
    options = json.loads(str(recorded["kw"]))
    made = _generate(session, config, recorded, options)
    np.testing.assert_array_equal(made, recorded["out"])


def _generate(session, config, recorded, options):
    """The original's loop: the schedule counts the masks of the whole batch."""
    count = options["_sampling_steps"]
    start, given = recorded["start"], config.conditioning_codebooks
    codes = np.where(recorded["mask"] == 1, config.codebook_size, start)
    codes[:, :given] = start[:, :given]
    first = int((codes == config.codebook_size).sum())
    for step in range(count):
        left = np.float32((step + 1) / count)
        masked = int(np.floor(np.clip(np.cos(left * np.float32(math.pi / 2)), 1e-10, 1) * np.float32(first)))
        open_places = (codes[:, given:] == config.codebook_size).sum(axis=(1, 2))[:, None]
        following = np.full_like(open_places, masked)
        if step != count - 1:
            following = np.maximum(1, np.minimum(open_places - 1, masked))
        draws = step / count <= options.get("sample_cutoff", 1.0)
        noise = recorded["exp"][step] if draws else np.ones_like(recorded["exp"][0])
        out = session.run(
            {
                "codes": codes,
                "exponential": noise,
                "uniform": recorded["uniform"][step],
                "masked_next": following,
                "temperature": np.array(1, np.float32),
                "mask_temperature": np.array(10.5 * (1 - left), np.float32),
            }
        )
        codes = out["next_codes"]
    np.testing.assert_array_equal(out["next_codes"], out["drawn_codes"])
    return out["drawn_codes"]


def test_confidence_is_the_log_probability_of_what_was_drawn(steps):
    session, config = steps["small", "c2f"]
    rng = np.random.default_rng(0)
    codes = rng.integers(0, config.codebook_size, (1, config.codebooks, 4))
    codes[:, config.conditioning_codebooks :, :2] = config.codebook_size
    places = 4 * config.predicted_codebooks
    out = session.run(
        {
            "codes": codes,
            "exponential": np.ones((1, places, config.codebook_size), np.float32),
            "uniform": np.full((1, places), 0.5, np.float32),
            "masked_next": np.array([[1]]),
            "temperature": np.array(1, np.float32),
            "mask_temperature": np.array(0, np.float32),
        }
    )
    sure, given = out["confidence"], config.conditioning_codebooks
    assert (sure[:, :, :2] < 0).all()
    assert (sure[:, :, 2:] == 0).all()
    np.testing.assert_array_equal(out["drawn_codes"][:, :given], codes[:, :given])
    again = np.argwhere(out["next_codes"] == config.codebook_size)
    (place,) = again.tolist()
    least = np.unravel_index(sure.argmin(), sure.shape)
    assert place == [least[0], least[1] + given, least[2]]
