"""Guidance: the two formulas, their limits, and how rows are grouped."""

from __future__ import annotations

import math

import mlx.core as mx
import numpy as np
import pytest

from audiogen_core.errors import OptionError
from audiogen_core.musicgen import conditioning
from audiogen_core.musicgen.options import Options

RNG = np.random.default_rng(5)
ASKED, STYLE, OTHER = (RNG.standard_normal((2, 4, 8)).astype(np.float32) for _ in range(3))


def arrays(*parts: np.ndarray) -> list[mx.array]:
    return [mx.array(part) for part in parts]


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_plain(scale):
    made = conditioning.guided(*arrays(ASKED, OTHER), scale)
    np.testing.assert_allclose(np.array(made), (1 - scale) * OTHER + scale * ASKED, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("scale", "style_scale"), [(3.0, 5.0), (1.0, 5.0), (3.0, 0.0)])
def test_dual(scale, style_scale):
    made = conditioning.guided_by_both(*arrays(ASKED, STYLE, OTHER), scale, style_scale)
    expected = OTHER + scale * (STYLE + style_scale * (ASKED - STYLE) - OTHER)
    np.testing.assert_allclose(np.array(made), expected, rtol=0, atol=1e-4)


def test_dual_with_a_style_scale_of_one_is_plain():
    made = conditioning.guided_by_both(*arrays(ASKED, STYLE, OTHER), 3.0, 1.0)
    np.testing.assert_allclose(
        np.array(made), np.array(conditioning.guided(*arrays(ASKED, OTHER), 3.0)), rtol=0, atol=1e-5
    )


def test_groups_of_rows():
    two = conditioning.combined(mx.array(np.concatenate([ASKED, OTHER])), 3.0)
    np.testing.assert_array_equal(np.array(two), np.array(conditioning.guided(*arrays(ASKED, OTHER), 3.0)))
    three = conditioning.combined(mx.array(np.concatenate([ASKED, STYLE, OTHER])), 3.0, 5.0)
    expected = conditioning.guided_by_both(*arrays(ASKED, STYLE, OTHER), 3.0, 5.0)
    np.testing.assert_array_equal(np.array(three), np.array(expected))


@pytest.mark.parametrize("scale", [-0.1, 100.1, math.nan, math.inf])
def test_scale_out_of_range(scale):
    with pytest.raises(OptionError, match="guidance_scale must be from 0 to 100"):
        Options("x", guidance_scale=scale)


@pytest.mark.parametrize("scale", [0, 1, 3.5, 100])
def test_scale_in_range(scale):
    assert Options("x", guidance_scale=scale).guidance_scale == scale
