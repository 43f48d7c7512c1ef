"""Samplers on a problem whose answer is known: data that are normal numbers. Arrays are numpy's.

For data with mean M and deviation S the best prediction has a closed form, and the path without fresh noise
leads from x at level t straight to M + S (x - mean at t) / (deviation at t).
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from audiogen_core.errors import OptionError
from audiogen_mlx.stable_audio import schedules
from audiogen_mlx.stable_audio.diffusion import SAMPLERS, Prediction, Step, Task

M, S = 0.7, 0.4
SHAPE = (1, 4, 2000)


def clean(x: np.ndarray, alpha: float, sigma: float) -> np.ndarray:
    """The mean of the data that may lie behind x = alpha data + sigma noise."""
    variance = (alpha * S) ** 2 + sigma**2
    return M + alpha * S**2 / variance * (x - alpha * M)


def flow(x: np.ndarray, t: float) -> Prediction:
    if t == 0:
        return Prediction(M - x, M - x)  # not asked for where it counts
    velocity = (x - clean(x, 1 - t, t)) / t
    return Prediction(velocity, velocity)


def rotated(x: np.ndarray, t: float) -> Prediction:
    alpha, sigma = math.cos(t * math.pi / 2), math.sin(t * math.pi / 2)
    velocity = (alpha * x - clean(x, alpha, sigma)) / sigma
    return Prediction(velocity, velocity)


def run(name: str, steps: int, **options: object) -> list[Step]:
    method = SAMPLERS[name]
    draws = np.random.default_rng(1)
    task = Task(
        flow if method.flow else rotated,
        np.random.default_rng(0).standard_normal(SHAPE),
        lambda: draws.standard_normal(SHAPE),
        steps,
        **({"sigma_max": 1.0 if method.shares else 80.0, "sigma_min": 0.01} | options),  # type: ignore[arg-type]
    )
    return list(method.run(task))


def exact(name: str) -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal(SHAPE)
    if SAMPLERS[name].shares:
        return M + S * noise
    return M + S * (80.0 * noise - M) / math.hypot(S, 80.0)


SURE = [name for name, method in SAMPLERS.items() if not method.stochastic]
BY_CHANCE = [name for name, method in SAMPLERS.items() if method.stochastic and not method.flow]


@pytest.mark.parametrize("name", SURE)
def test_more_steps_come_nearer_to_the_exact_end(name: str) -> None:
    errors = [np.abs(run(name, steps)[-1].after - exact(name)).max() for steps in (16, 64)]
    assert errors[1] < 0.9 * errors[0]
    assert errors[1] < 0.2  # flows end in one long step from t = 0.12, however many there are


@pytest.mark.parametrize(("better", "plain"), [("dpmpp", "euler"), ("rk4", "euler"), ("k-heun", "v-ddim")])
def test_higher_orders_are_nearer(better: str, plain: str) -> None:
    errors = [np.abs(run(name, 32)[-1].after - exact(name)).mean() for name in (better, plain)]
    assert errors[0] < errors[1]


@pytest.mark.parametrize("name", BY_CHANCE)
def test_fresh_noise_leads_to_the_right_distribution(name: str) -> None:
    final = run(name, 100)[-1].after
    assert final.mean() == pytest.approx(M, abs=0.02)
    assert final.std() == pytest.approx(S, abs=0.03)


def test_pingpong_of_a_distilled_model_keeps_the_distribution() -> None:
    def distilled(x: np.ndarray, t: float) -> Prediction:
        """A model that leads from any level to the end of its path at once."""
        end = M + S * (x - (1 - t) * M) / math.hypot((1 - t) * S, t)
        return Prediction((x - end) / t, x)

    draws = np.random.default_rng(1)
    task = Task(distilled, draws.standard_normal(SHAPE), lambda: draws.standard_normal(SHAPE), 8)
    final = list(SAMPLERS["pingpong"].run(task))[-1].after
    assert final.mean() == pytest.approx(M, abs=0.02)
    assert final.std() == pytest.approx(S, abs=0.02)


@pytest.mark.parametrize("name", SAMPLERS)
def test_steps_join_and_levels_fall(name: str) -> None:
    steps = run(name, 5)
    assert [step.index for step in steps] == [0, 1, 2, 3, 4]
    levels = [step.level for step in steps]
    assert levels == sorted(levels, reverse=True)
    for before, after in pairwise(steps):
        assert np.array_equal(before.after, after.before)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_single_step_is_allowed(name: str) -> None:
    (step,) = run(name, 1)
    assert np.isfinite(step.after).all()


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "cosine-dpm"])
def test_a_low_level_leaves_a_clip_almost_as_it_was(name: str) -> None:
    clip = M + S * np.random.default_rng(5).standard_normal(SHAPE)
    found = run(name, 8, sigma_max=0.02, init=clip)[-1].after
    assert np.abs(found - clip).mean() < (0.2 if name == "pingpong" else 0.05)


def test_a_sampler_may_be_left_at_any_step() -> None:
    calls = []

    def counted(x: np.ndarray, t: float) -> Prediction:
        calls.append(t)
        return flow(x, t)

    steps = SAMPLERS["euler"].run(Task(counted, np.zeros(SHAPE), lambda: np.zeros(SHAPE), 50))
    next(steps)
    next(steps)
    assert len(calls) == 2


@pytest.mark.parametrize(
    "call",
    [
        lambda: schedules.rectified_flow(0),
        lambda: schedules.rectified_flow(4, 0.0),
        lambda: schedules.rectified_flow(4, 1.5),
        lambda: schedules.linear(4, math.nan),
        lambda: schedules.polyexponential(4, 0.3, math.inf),
        lambda: schedules.polyexponential(4, 0.3, 0.2),
        lambda: schedules.polyexponential(4, 0.3, 500.0, 0.0),
        lambda: schedules.DistributionShift(max_length=5, min_length=5),
    ],
)
def test_schedules_that_cannot_be(call) -> None:
    with pytest.raises(OptionError):
        call()


def test_a_shift_keeps_both_ends_and_moves_the_rest_to_noise() -> None:
    times = schedules.linear(10)
    shifted = schedules.DistributionShift()(times, 1024)
    assert (shifted[0], shifted[-1]) == (1.0, 0.0)
    assert (shifted[1:-1] > times[1:-1]).all()
