"""What is mlx's own in the verbs: which ways a device takes, that they agree, and state that is carried on.

What every adapter has in common is tests/core/test_ops.py.
"""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from audiogen_core.errors import OptionError
from audiogen_core.ops import LstmLayer
from audiogen_core.ops.numpy_ops import NumpyOps
from audiogen_mlx import cpu
from audiogen_mlx.ops import ConvWeight, MlxOps, TransposeWeight


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng([*shape]).standard_normal(shape).astype(np.float32)


@pytest.fixture(params=[True, False], ids=["cpu", "gpu"])
def ops(request):
    return MlxOps(on_cpu=request.param)


def test_the_device_decides_unless_told():
    on_cpu = mx.default_device() == mx.Device(mx.cpu)
    assert MlxOps().on_cpu == on_cpu
    assert MlxOps(on_cpu=not on_cpu).on_cpu != on_cpu
    assert MlxOps(on_cpu=True).chunk_seconds < MlxOps(on_cpu=False).chunk_seconds


@pytest.mark.parametrize("inputs", [3, 12])
@pytest.mark.parametrize("outputs", [1, 6, 24])
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [(1, 1, 1), (7, 1, 1), (3, 1, 4), (8, 4, 1), (5, 2, 1)]
)
def test_both_ways_of_a_convolution_agree(inputs, outputs, kernel, stride, dilation):
    weight, bias = random(outputs, inputs, kernel), random(outputs)
    for length in ((kernel - 1) * dilation + 1, 50, 51, 53):
        x = random(2, inputs, length)
        made = [
            each.numpy(
                each.conv(
                    each.signal(x),
                    each.conv_weight(weight),
                    each.vector(bias),
                    stride=stride,
                    dilation=dilation,
                )
            )
            for each in (MlxOps(on_cpu=True), MlxOps(on_cpu=False))
        ]
        np.testing.assert_allclose(made[0], made[1], rtol=0, atol=3e-5)


def test_taps_are_taken_where_they_are_fewer_numbers():
    assert ConvWeight(random(1, 64, 7)).suits_taps(1, 1)
    assert ConvWeight(random(32, 64, 3)).suits_taps(1, 2)
    assert not ConvWeight(random(64, 1, 7)).suits_taps(1, 1)
    assert ConvWeight(random(128, 64, 8)).suits_taps(4, 1)
    assert not ConvWeight(random(128, 64, 7)).suits_taps(4, 1)  # taps must fill whole strides
    assert not ConvWeight(random(128, 64, 8)).suits_taps(4, 2)


def test_a_weight_serves_one_layer_and_is_held_once():
    weight = ConvWeight(random(8, 8, 4))
    assert weight.plain is weight.plain
    assert weight._array is None
    with pytest.raises(OptionError, match="taps of stride 2"):
        weight.taps(2)
    back = TransposeWeight(random(8, 8, 4))
    assert back.folded(2).shape == (16, 2, 8)
    with pytest.raises(OptionError, match="stride 4"):
        back.folded(4)


def test_an_lstm_carries_its_state_from_chunk_to_chunk(ops):
    layers = [LstmLayer(random(32, 8) / 3, random(32, 8) / 3, random(32)) for _ in range(2)]
    lstm, x = ops.lstm(layers), random(2, 8, 30)
    whole, _ = lstm(ops.signal(x), None)
    first, state = lstm(ops.signal(x[..., :13]), None)
    second, _ = lstm(ops.signal(x[..., 13:]), state)
    joined = np.concatenate([ops.numpy(first), ops.numpy(second)], axis=2)
    np.testing.assert_allclose(joined, ops.numpy(whole), rtol=0, atol=1e-6)
    expected, _ = NumpyOps().lstm(layers)(x, None)
    np.testing.assert_allclose(joined, expected, rtol=0, atol=1e-5)


def test_exponentials_hold_at_the_ends_of_their_range(ops):
    x = np.array([[[-1e30, -200.0, -1.0, -1e-6, 0.0, 1e-6, 50.0, 1e30]]], np.float32)
    expected = np.where(x > 0, x, np.expm1(np.minimum(x, 0, dtype=np.float64)))
    np.testing.assert_allclose(ops.numpy(ops.elu(ops.signal(x))), expected, rtol=1e-6, atol=1.2e-7)
    np.testing.assert_allclose(ops.numpy(ops.tanh(ops.signal(x))), np.tanh(x), rtol=0, atol=1e-6)


def test_a_cut_signal_goes_through_numpy_as_it_is():
    """A view with gaps in memory, more rows than one block, and a batch."""
    x = mx.array(random(2, 5000, 40))[:, 3:-2, 4:31]
    made = np.array(cpu.blockwise(cpu.elu, x))
    source = np.array(x)
    np.testing.assert_allclose(made, np.where(source > 0, source, np.expm1(np.minimum(source, 0))), atol=2e-7)
    assert source.size > 3 * cpu.BLOCK


def test_the_gpus_way_can_be_compiled():
    """No verb of it evaluates: a codec over it goes into mx.compile whole."""
    ops = MlxOps(on_cpu=False)
    conv, back = ops.conv_weight(random(6, 4, 3)), ops.conv_transpose_weight(random(6, 4, 4))
    alpha = ops.vector(np.abs(random(6)))

    def network(x: mx.array) -> mx.array:
        y = ops.elu(ops.conv(ops.pad(x, 2, 2, "reflect"), conv))
        y = ops.snake(ops.tanh(ops.gelu(y)), alpha)
        return ops.conv_transpose(y, back, stride=2)

    x = ops.signal(random(1, 4, 20))
    np.testing.assert_allclose(np.array(mx.compile(network)(x)), np.array(network(x)), rtol=0, atol=1e-5)
