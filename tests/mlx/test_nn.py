"""The strict loader: shapes come from the module, every tensor has its place, quantised layers stay small."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.nn.layers.convolution import Conv1d
from mlx.nn.layers.linear import Linear as PlainLinear

from audiogen_core.errors import WeightsError
from audiogen_core.weights import StoredArray, Weights
from audiogen_mlx import nn
from support.measured import peak_memory
from support.random_weights import weights_of


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.joined = PlainLinear(64, 96, bias=False)
        self.conv = Conv1d(3, 5, 4, bias=False)


class Network(nn.Module):
    """A matrix in three pieces, a convolution, a matrix by columns, a vector; and what is no parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = [Inner(), Inner()]
        self.out = nn.Linear(64, 8)
        self.scale = mx.ones((7,))
        self._table = mx.zeros((2, 2))


PIECES = {f"layers.{i}.joined.weight": tuple(f"layers.{i}.{one}" for one in "qkv") for i in range(2)}


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = nn.stored_shapes(Network(), PIECES)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def test_shapes_are_those_of_the_module_in_torchs_layout():
    assert nn.stored_shapes(Network(), PIECES) == {
        **{f"layers.{i}.{one}": (32, 64) for i in range(2) for one in "qkv"},
        **{f"layers.{i}.conv.weight": (5, 3, 4) for i in range(2)},
        "out.weight": (8, 64),
        "out.bias": (8,),
        "scale": (7,),
    }


def test_every_parameter_is_filled():
    table, network = arrays(), Network()
    nn.load_strict(network, weights_of(table), pieces=PIECES)
    joined = np.concatenate([table[f"layers.1.{one}"] for one in "qkv"])
    np.testing.assert_array_equal(np.array(network.layers[1].joined.weight), joined)
    np.testing.assert_array_equal(
        np.array(network.layers[0].conv.weight), table["layers.0.conv.weight"].transpose(0, 2, 1)
    )
    x = np.random.default_rng(1).standard_normal((3, 64)).astype(np.float32)
    np.testing.assert_allclose(
        np.array(network.out(mx.array(x))), x @ table["out.weight"].T + table["out.bias"], atol=1e-5
    )


def test_dtypes():
    network = Network()
    nn.load_strict(
        network, weights_of(arrays()), pieces=PIECES, dtype=mx.bfloat16, keep=lambda name: name == "scale"
    )
    assert network.out.weight.dtype == mx.bfloat16
    assert network.scale.dtype == mx.float32


def test_an_axis_of_size_one_is_allowed_where_it_is_said():
    table = arrays()
    longer = table | {"out.weight": table["out.weight"][..., None]}
    network = Network()
    for stored in (table, longer):
        nn.load_strict(network, weights_of(stored), pieces=PIECES, squeezed=["out.weight"])
        np.testing.assert_array_equal(np.array(network.out.weight), table["out.weight"])
    with pytest.raises(WeightsError, match=r"out\.weight \(8, 64, 1\) instead of \(8, 64\)"):
        nn.load_strict(network, weights_of(longer), pieces=PIECES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers.1.k": None, "scale": None}, r"missing \(2\): layers\.1\.k, scale"),
        ({"layers.1.k": np.zeros((32, 63), np.float32)}, r"layers\.1\.k \(32, 63\) instead of \(32, 64\)"),
        ({"more": np.zeros(1, np.float32)}, r"unexpected \(1\): more"),
        ({"scale": np.full(7, np.nan, np.float32)}, "'scale' holds NaN or infinity"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], message: str):
    table = {name: array for name, array in {**arrays(), **change}.items() if array is not None}
    with pytest.raises(WeightsError, match=message):
        nn.load_strict(Network(), weights_of(table), pieces=PIECES)


def test_names_for_other_loaders_are_left():
    table = arrays() | {"codec.weight": np.zeros(1, np.float32)}
    nn.load_strict(Network(), weights_of(table), pieces=PIECES, ignore=[r"codec\..*"])


@pytest.mark.parametrize("bits", [4, 8])
def test_layers_without_a_bias_are_quantised_one_by_one_or_taken_as_they_are_stored(bits: int):
    network = Network()
    nn.quantize(network, bits)
    nn.load_strict(network, weights_of(arrays()), pieces=PIECES)
    layer = network.layers[0].joined
    whole = np.concatenate([arrays()[f"layers.0.{one}"] for one in "qkv"])
    parts = mx.quantize(mx.array(whole), group_size=nn.GROUP, bits=bits)
    for part, expected in zip((layer.weight, layer.scales, layer.biases), parts, strict=True):
        np.testing.assert_array_equal(np.array(part), np.array(expected))
    assert isinstance(network.out, nn.Linear)  # it has a bias

    names = {one.name: one.pieces[0] for one in nn.parameters(network, {}, stored_quantized=True)}
    assert names["layers.0.joined.biases"] == "layers.0.joined.weight.offsets"
    table = {names[name]: np.array(array) for name, array in flat(network)}
    table |= {f"layers.{i}.conv.weight": arrays()[f"layers.{i}.conv.weight"] for i in range(2)}
    again = Network()
    nn.quantize(again, bits)
    nn.load_strict(again, weights_of(table), stored_quantized=True)
    for (name, one), (_, other) in zip(flat(network), flat(again), strict=True):
        np.testing.assert_array_equal(np.array(one), np.array(other), err_msg=name)


def flat(network: nn.Module) -> list[tuple[str, mx.array]]:
    from mlx.utils import tree_flatten

    return list(tree_flatten(network.parameters()))


def test_tensors_are_read_one_at_a_time():
    """Nothing is read before its turn, and what was read is let go."""
    alive: list[str] = []

    class Counted(np.ndarray):
        def __del__(self) -> None:
            alive.remove(self.name)

    def stored(name: str, array: np.ndarray) -> StoredArray:
        def load() -> np.ndarray:
            assert len(alive) < 2, alive
            counted = array.copy().view(Counted)
            counted.name = name
            alive.append(name)
            return counted

        return StoredArray(array.shape, "float32", load)

    table = Weights({name: stored(name, array) for name, array in arrays().items()}, "counted")
    values: Iterator[tuple[str, mx.array]] = nn.tensors(Network(), table, pieces=PIECES)
    assert not alive
    assert [name for name, _ in values] == [one.name for one in nn.parameters(Network(), PIECES)]
    assert not alive


def test_the_modules_of_a_bias_add_it_to_the_whole_product():
    layer = nn.Linear(16, 4)
    x = mx.array(np.random.default_rng(0).standard_normal((5, 16)).astype(np.float32))
    np.testing.assert_array_equal(np.array(layer(x)), np.array(x @ layer.weight.T + layer.bias))


def test_models_that_are_gone_leave_nothing():
    """Layers draw numbers when they are made, and mlx remembers how until somebody asks for one."""
    stored = arrays()

    def come_and_go(times: int) -> None:
        for _ in range(times):
            nn.load_strict(Network(), weights_of(stored), pieces=PIECES)

    come_and_go(100)
    before = peak_memory(reset=True)
    come_and_go(600)
    assert peak_memory() - before < 4 << 20  # 12 MB where it is remembered
