"""The adapters against torch's own functions: every verb, on every adapter, means the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from audiogen_core.errors import OptionError
from audiogen_core.ops import Attention, resolve


def adapter(name: str):
    """An adapter; mlx takes other ways on a CPU than elsewhere, and both run here."""
    if name.startswith("mlx"):
        from audiogen_mlx.ops import MlxOps

        return MlxOps(on_cpu=name == "mlx-cpu")
    return resolve(name)


@pytest.fixture(params=["numpy", "torch", "mlx-cpu", "mlx-gpu"])
def ops(request):
    return adapter(request.param)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def same(ops, made, expected: torch.Tensor, atol: float = 2e-5) -> None:
    np.testing.assert_allclose(ops.numpy(made), expected.numpy(), rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "length"),
    [(1, 1, 1, 5), (7, 1, 1, 40), (3, 1, 9, 40), (4, 2, 1, 33), (16, 8, 1, 16), (3, 2, 2, 9000)],
)
def test_conv(ops, kernel, stride, dilation, length):
    x, weight, bias = random(2, 3, length), random(5, 3, kernel), random(5)
    made = ops.conv(
        ops.signal(x), ops.conv_weight(weight), ops.vector(bias), stride=stride, dilation=dilation
    )
    same(ops, made, F.conv1d(*map(torch.tensor, (x, weight, bias)), stride=stride, dilation=dilation))


@pytest.mark.parametrize(("kernel", "stride"), [(4, 2), (10, 5), (7, 3), (3, 3), (2, 3), (16, 8)])
def test_conv_transpose(ops, kernel, stride):
    x, weight, bias = random(2, 3, 50), random(3, 5, kernel), random(5)
    made = ops.conv_transpose(
        ops.signal(x), ops.conv_transpose_weight(weight), ops.vector(bias), stride=stride
    )
    same(ops, made, F.conv_transpose1d(*map(torch.tensor, (x, weight, bias)), stride=stride))


def test_depthwise_conv(ops):
    x, weight, bias = random(2, 6, 30), random(6, 1, 7), random(6)
    made = ops.depthwise_conv(ops.signal(x), ops.depthwise_weight(weight), ops.vector(bias))
    same(ops, made, F.conv1d(*map(torch.tensor, (x, weight, bias)), groups=6))


@pytest.mark.parametrize("mode", ["reflect", "constant"])
@pytest.mark.parametrize(("left", "right"), [(0, 0), (3, 0), (0, 4), (5, 5)])
def test_pad_and_trim(ops, mode, left, right):
    x = random(1, 2, 6)
    padded = ops.pad(ops.signal(x), left, right, mode)
    same(ops, padded, F.pad(torch.tensor(x), (left, right), mode=mode))
    same(ops, ops.trim(padded, left, right), torch.tensor(x))


def test_pointwise_verbs(ops):
    x = random(2, 4, 11) * 3
    signal, tensor = ops.signal(x), torch.tensor(x)
    same(ops, ops.elu(signal), F.elu(tensor))
    same(ops, ops.gelu(signal), F.gelu(tensor))
    same(ops, ops.tanh(signal), torch.tanh(tensor))
    same(ops, ops.power(signal * signal + 0.1, 0.3), torch.pow(tensor * tensor + 0.1, 0.3))
    alpha, beta = np.abs(random(4)) + 0.5, np.abs(random(4, seed=1)) + 0.5
    column = torch.tensor(alpha)[:, None]
    made = ops.snake(signal, ops.vector(alpha))
    same(ops, made, tensor + torch.sin(column * tensor) ** 2 / column)
    made = ops.snake(signal, ops.vector(alpha), ops.vector(beta))
    same(ops, made, tensor + torch.sin(column * tensor) ** 2 / torch.tensor(beta)[:, None])
    same(ops, ops.scale(signal, ops.vector(alpha)), tensor * column)


def test_norms(ops):
    x, weight, bias = random(2, 4, 11), random(4), random(4, seed=1)
    signal, tensor = ops.signal(x), torch.tensor(x)
    adopted = ops.vector(weight), ops.vector(bias)
    torched = torch.tensor(weight), torch.tensor(bias)
    same(ops, ops.group_norm(signal, *adopted, 1e-5), F.group_norm(tensor, 1, *torched))
    expected = F.layer_norm(tensor.transpose(1, 2), (4,), *torched, 1e-6).transpose(1, 2)
    same(ops, ops.layer_norm(signal, *adopted, 1e-6), expected)
    same(ops, ops.unit(signal), F.normalize(tensor, dim=1))


@pytest.mark.parametrize(("channels", "seconds"), [(32, 1), (1, 60)])
def test_group_norm_of_a_long_clip(ops, channels, seconds):
    """At 48 kHz, and not centred, as after an activation."""
    x, weight, bias = 0.5 * random(1, channels, 48_000 * seconds) + 1.5, random(channels), random(channels)
    made = ops.group_norm(ops.signal(x), ops.vector(weight), ops.vector(bias), 1e-5)
    exact = [torch.tensor(array, dtype=torch.float64) for array in (x, weight, bias)]
    same(ops, made, torch.group_norm(exact[0], 1, exact[1], exact[2], 1e-5), atol=5e-6)


@pytest.mark.parametrize(("window", "hop", "samples"), [(32, 8, 32), (1280, 320, 9_000), (24, 12, 65)])
def test_spectrum(ops, window, hop, samples):
    x, shape = random(2, 1, samples), np.hanning(window)
    frames = torch.tensor(x[:, 0], dtype=torch.float64).unfold(-1, window, hop) * torch.tensor(shape)
    expected = torch.fft.rfft(frames).transpose(1, 2)
    made = ops.spectrum(ops.signal(x), shape, hop)
    same(ops, made, torch.cat([expected.real, expected.imag], dim=1), atol=1e-4)


@pytest.mark.parametrize("name", ["numpy", "torch", "mlx-cpu"])
def test_spectrum_of_what_is_quiet_beside_something_loud(name):
    """A hum at full scale leaves no rounding noise in the bins above: they keep seven digits."""
    ops, window, time = adapter(name), np.hanning(1281)[:-1], np.arange(24_000)
    x = (0.9 * np.sin(2 * np.pi * time * 5 / 1280)).astype(np.float32)[None, None]
    made = ops.numpy(ops.spectrum(ops.signal(x), window, 320))[0, 20:640]
    frames = np.lib.stride_tricks.sliding_window_view(x[0, 0], 1280)[::320]
    exact = np.fft.rfft(frames * window).real.T[20:640]
    assert np.abs(exact).max() < 1e-4
    np.testing.assert_allclose(made, exact, rtol=0, atol=1e-10)


def test_channels_stack_and_concat(ops):
    x = random(1, 4, 6)
    signal = ops.signal(x)
    parts = [ops.channels(signal, 0, 1), ops.channels(signal, 1, 4)]
    same(ops, ops.stack(parts), torch.tensor(x))
    same(ops, ops.concat([ops.trim(signal, 0, 2), ops.trim(signal, 4, 0)]), torch.tensor(x))
    assert ops.length(signal) == 6


def test_nearest_and_lookup(ops):
    book, x = random(32, 5), random(2, 5, 20, seed=3)
    distance = torch.cdist(torch.tensor(x).transpose(1, 2), torch.tensor(book)[None])
    found = ops.nearest(ops.signal(x), ops.codebook(book))
    np.testing.assert_array_equal(ops.indices_numpy(found), distance.argmin(-1).numpy())
    looked_up = ops.numpy(ops.lookup(found, ops.codebook(book)))
    np.testing.assert_array_equal(looked_up, book[ops.indices_numpy(found)].transpose(0, 2, 1))


def test_gelu_is_accurate_over_its_whole_range():
    x = np.linspace(-8, 8, 4001, dtype=np.float32).reshape(1, 1, -1)
    numpy = resolve("numpy")
    np.testing.assert_allclose(numpy.gelu(x), F.gelu(torch.tensor(x)).numpy(), rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", ["jax", "numpy:0", "torch:nonsense", ""])
def test_unknown_ops_are_refused(name):
    with pytest.raises(OptionError):
        resolve(name)


def test_folding_puts_step_after_step(ops):
    x = random(2, 3, 12)
    folded = ops.fold(ops.signal(x), 4)
    expected = torch.tensor(x).reshape(2, 3, 3, 4).permute(0, 3, 1, 2).reshape(2, 12, 3)
    same(ops, folded, expected, atol=0)
    same(ops, ops.unfold(folded, 4), torch.tensor(x), atol=0)
    vector = random(5)
    same(ops, ops.spread(ops.vector(vector), folded), torch.tensor(vector)[:, None].expand(2, 5, 3), atol=0)


def test_activations_of_transformers(ops):
    x, gamma, beta = random(2, 4, 11) * 3, random(4), random(4, seed=1)
    signal, tensor = ops.signal(x), torch.tensor(x)
    same(ops, ops.silu(signal), F.silu(tensor))
    same(ops, ops.sine(signal, 3.1), torch.sin(3.1 * tensor))
    made = ops.dynamic_tanh(signal, 0.7, ops.vector(gamma), ops.vector(beta))
    same(ops, made, torch.tanh(0.7 * tensor) * torch.tensor(gamma)[:, None] + torch.tensor(beta)[:, None])


def attended(how: Attention, *arrays: np.ndarray) -> torch.Tensor:
    """Attention written out: each step with each, what is not seen left out."""
    query, key, value = (torch.tensor(array).unflatten(1, (how.heads, -1)).double() for array in arrays)
    length, half = query.shape[-1], how.turned // 2
    place = torch.arange(length, dtype=torch.float64)
    seen = (place[None] - place[:, None] >= -how.window[0]) & (place[None] - place[:, None] <= how.window[1])
    if how.segment:
        seen = place[None] // how.segment == place[:, None] // how.segment
        place = place % how.segment
    angles = 10_000.0 ** (-torch.arange(half) * 2 / how.turned)[:, None] * place  # (half, T)

    def turned(x: torch.Tensor) -> torch.Tensor:
        first, second, rest = x.tensor_split((half, 2 * half), dim=2)
        cosine, sine = torch.cos(angles), torch.sin(angles)
        return torch.cat([first * cosine - second * sine, second * cosine + first * sine, rest], dim=2)

    scores = turned(query).transpose(2, 3) @ turned(key) / query.shape[2] ** 0.5
    weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    return (value @ weights.transpose(2, 3)).flatten(1, 2).float()


@pytest.mark.parametrize(
    "how",
    [
        Attention(2, 4, segment=6),
        Attention(3, 2, segment=12),
        Attention(2, 4, window=(3, 1)),
        Attention(1, 8, window=(0, 2)),
        Attention(2, 4, window=(40, 17)),
    ],
)
@pytest.mark.parametrize("length", [12, 24, 204])
def test_attention(ops, how, length):
    """Segments and windows, of signals shorter and longer than the blocks that are worked on."""
    arrays = [random(2, 12 * how.heads, length, seed=seed) for seed in range(3)]
    made = ops.attention(*(ops.signal(array) for array in arrays), how)
    same(ops, made, attended(how, *arrays))
