"""Every mask of VampNet's own builders, for the same arguments and the same draws."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from audiogen_core.noise import RecordedNoise
from audiogen_onnx.vampnet import mask as masks

STORED = np.load(Path(__file__).parents[1] / "fixtures" / "vampnet" / "masks.npz")
CODES = STORED["z"]
ALL = masks.full_mask(CODES)
NONE = masks.empty_mask(CODES)
RATE, HOP = 16_000, 8  # of the small model that made the arrays


def same(made: np.ndarray, name: str) -> None:
    assert made.dtype == np.bool_
    np.testing.assert_array_equal(made, STORED[name].astype(bool))


def named(prefix: str) -> list[str]:
    return [name for name in STORED.files if name.startswith(prefix)]


def test_full_and_empty() -> None:
    same(ALL, "full")
    same(NONE, "empty")


@pytest.mark.parametrize("name", named("inpaint_"))
def test_inpaint(name: str) -> None:
    prefix, suffix = map(int, name.split("_")[1:])
    same(masks.inpaint(CODES, prefix, suffix), name)


@pytest.mark.parametrize("name", named("periodic_p"))
def test_periodic(name: str) -> None:
    period, width = (int(part[1:]) for part in name.split("_")[1:])
    same(masks.periodic_mask(CODES, period, width), name)


@pytest.mark.parametrize("name", named("codebook_"))
def test_codebooks(name: str) -> None:
    codebooks = int(name.rpartition("_")[2])
    if name.startswith("codebook_mask"):
        same(masks.codebook_mask(NONE, codebooks), name)
    else:
        same(masks.codebook_unmask(ALL, codebooks), name)


def test_codebook_unmask_of_none_changes_nothing() -> None:
    same(masks.codebook_unmask(ALL, None), "full")


def test_and_or() -> None:
    first, second = STORED["r1"].astype(bool), STORED["r2"].astype(bool)
    same(masks.mask_and(first, second), "and_")
    same(masks.mask_or(first, second), "or_")


def test_apply() -> None:
    made = masks.apply_mask(CODES, STORED["r1"].astype(bool), 999)
    np.testing.assert_array_equal(made, STORED["apply_999"])
    assert made.dtype == CODES.dtype


@pytest.mark.parametrize("name", ["r1", "r2"])
def test_random_from_draws_on_either_side_of_the_probability(name: str) -> None:
    draws = np.where(STORED[name], 0.2, 0.8)
    same(masks.random(CODES, 0.5, noise=RecordedNoise([draws])), name)
    same(masks.linear_random(CODES, 0.5, noise=RecordedNoise([draws])), name)


@pytest.mark.parametrize("probability", [0, 1])
def test_linear_random_at_its_ends(probability: int) -> None:
    same(masks.linear_random(CODES, probability), f"linear_random_{probability}")


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_time_stretch(factor: int) -> None:
    same(masks.time_stretch_mask(CODES, factor), f"time_stretch_{factor}")


@pytest.mark.parametrize("share", ["0.0", "0.2", "0.9", "1.0"])
def test_dropout(share: str) -> None:
    start, drawn = STORED["r1"].astype(bool), STORED[f"dropout_{share}_idx"]
    same(masks.dropout(start, float(share), frames=drawn), f"dropout_{share}")
    draws = RecordedNoise([(drawn[None] + 0.5) / CODES.shape[-1]])
    same(masks.dropout(start, float(share), noise=draws, compat="upstream"), f"dropout_{share}")


@pytest.mark.parametrize("index", range(5))
@pytest.mark.parametrize("draws", ["given", "from noise"])
def test_build(index: int, draws: str) -> None:
    options = json.loads(str(STORED[f"build_{index}_kw"]))
    roll, dropped = int(STORED[f"build_{index}_roll"]), STORED[f"build_{index}_drop_idx"]
    known = {
        "rand_mask_intensity": "random_intensity",
        "periodic_prompt": "period",
        "periodic_prompt_width": "period_width",
        "upper_codebook_mask": "keep",
        "_dropout": "dropout_share",
        "ncc": "conditioning_codebooks",
    }
    ours = {known[name]: value for name, value in options.items() if name in known}
    for name in ("prefix", "suffix"):
        ours[name] = masks.seconds_to_frames(options.get(f"{name}_s", 0), RATE, HOP)
    if draws == "given":
        same(masks.build(CODES, roll=max(roll, 0), dropout_frames=dropped, **ours), f"build_{index}")
        return
    arrays = [np.array([(roll + 0.5) / ours.get("period", 7)])] if roll >= 0 else []
    arrays += [(dropped[None] + 0.5) / CODES.shape[-1]] if len(dropped) else []
    noise = RecordedNoise(arrays)
    same(masks.build(CODES, noise=noise, compat="upstream", **ours), f"build_{index}")
    assert noise.left == 0


def test_schedule() -> None:
    np.testing.assert_allclose(masks.gamma(STORED["gamma_r"]), STORED["gamma"], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(masks.inverse_gamma(STORED["gamma"]), STORED["invgamma"], atol=1e-6)


def test_frames_of_seconds() -> None:
    made = [masks.seconds_to_frames(seconds, RATE, HOP) for seconds in STORED["s2t_seconds"]]
    assert made == STORED["s2t"].tolist()
    assert masks.seconds_to_frames(10, 44_100, 768) == 575
    assert masks.frames_to_seconds(575, 44_100, 768) == pytest.approx(10.0136, abs=1e-4)


def test_every_stored_array_is_looked_at() -> None:
    """Guards against a fixture that grows while the tests do not."""
    looked_at = (
        "full", "empty", "inpaint_", "periodic_p", "codebook_", "r1", "r2", "and_", "or_", "apply_999", "z",
        "linear_random_", "time_stretch_", "dropout_", "build_", "gamma", "invgamma", "s2t",
    )  # fmt: skip
    assert [name for name in STORED.files if not name.startswith(looked_at)] == []
