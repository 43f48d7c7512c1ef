"""Weights read strictly: safetensors and its shards, taking, rules."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from audiogen_core import weights
from audiogen_core.errors import WeightsError
from audiogen_core.formats.stored import StoredArray
from audiogen_core.weights import Drop, FuseWeightNorm, Int8Rows, Rename, Split, Weights
from support.forge import safetensors

FIXTURES = Path(__file__).parents[1] / "fixtures" / "encodec"


def held(**arrays: Any) -> Weights:
    """Weights of arrays in memory; "__" in a name stands for a dot."""
    table = {}
    for name, array in arrays.items():
        values = np.asarray(array)
        stored = StoredArray(values.shape, str(values.dtype), lambda values=values: values)  # type: ignore[misc]
        table[name.replace("__", ".")] = stored
    return Weights(table, "memory")


def test_safetensors_bit_for_bit_in_every_dtype(tmp_path: Path) -> None:
    bits = np.random.default_rng(5).integers(0, 255, 64, dtype=np.uint8)
    tree = {
        str(dtype): torch.from_numpy(bits.copy()).view(dtype).reshape(2, -1)
        for dtype in (
            torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32,
            torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64,
        )
    }  # fmt: skip
    tree |= {"bool": torch.tensor([True, False]), "scalar": torch.tensor(2.5), "empty": torch.zeros(0, 3)}
    save_file(tree, tmp_path / "model.safetensors", {"format": "pt"})
    found = weights.read(tmp_path)
    assert set(found) == set(tree)
    for name, value in tree.items():
        expected = (value.float() if value.dtype is torch.bfloat16 else value).numpy()
        assert (found[name].dtype, found[name].shape) == (expected.dtype, expected.shape)
        assert found[name].tobytes() == expected.tobytes()


@pytest.mark.parametrize("folder", ["24k", "32k"])
def test_the_encodec_fixtures(folder: str) -> None:
    from safetensors.numpy import load_file

    path = FIXTURES / folder / "model.safetensors"
    found = weights.read(path)
    expected = load_file(path)
    assert set(found) == set(expected)
    assert all(found[name].tobytes() == expected[name].tobytes() for name in expected)


def test_values_are_read_one_at_a_time(tmp_path: Path) -> None:
    save_file({f"t{index}": torch.ones(250_000) for index in range(20)}, tmp_path / "model.safetensors")
    tracemalloc.start()
    found = weights.read(tmp_path)
    for name in found:
        assert found.take(name, (250_000,)).sum() == 250_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


def sharded(folder: Path, kind: str = "safetensors") -> Path:
    parts = [{"a": torch.ones(2), "b": torch.zeros(3)}, {"c": torch.full((4,), 2.0)}]
    table: dict[str, str] = {}
    for number, part in enumerate(parts, 1):
        name = f"model-{number}-of-2.{kind}"
        if kind == "safetensors":
            save_file(part, folder / name)
        else:
            torch.save(part, folder / name)
        table |= dict.fromkeys(part, name)
    index = folder / (
        "model.safetensors.index.json" if kind == "safetensors" else "pytorch_model.bin.index.json"
    )
    index.write_text(json.dumps({"metadata": {"total_size": 36}, "weight_map": table}))
    return index


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_shards_by_index_and_by_folder(tmp_path: Path, kind: str) -> None:
    index = sharded(tmp_path, kind)
    for path in (index, tmp_path):
        found = weights.read(path)
        assert {name: found.shape(name) for name in found} == {"a": (2,), "b": (3,), "c": (4,)}
        np.testing.assert_array_equal(found["c"], [2, 2, 2, 2])


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    index = sharded(tmp_path)
    (tmp_path / "model-2-of-2.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"shards are missing: model-2-of-2\.safetensors"):
        weights.read(index)


def test_shards_that_differ_from_the_index(tmp_path: Path) -> None:
    index = sharded(tmp_path)
    table = json.loads(index.read_text())
    table["weight_map"] |= {"d": "model-1-of-2.safetensors"}
    del table["weight_map"]["b"]
    index.write_text(json.dumps(table))
    with pytest.raises(WeightsError, match=r"model-1-of-2.*missing \(1\): d; unexpected \(1\): b"):
        weights.read(index)


@pytest.mark.parametrize(
    "shard", ["../model.safetensors", "/etc/passwd", "a\\b.safetensors", "x.bin", "", 7, None]
)
def test_a_shard_lies_beside_its_index(tmp_path: Path, shard: object) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(WeightsError, match=r"is not the name of a \.safetensors file beside the index"):
        weights.read(index)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', "[" * 9999, "\udcff"]
)
def test_a_damaged_index(tmp_path: Path, text: str) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(WeightsError, match="index of shards"):
        weights.read(index)


def test_what_a_folder_may_hold(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no weights in this folder"):
        weights.read(tmp_path)
    torch.save({"old": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    assert list(weights.read(tmp_path)) == ["old"]
    save_file({"b": torch.ones(1)}, tmp_path / "adapter.safetensors")
    assert list(weights.read(tmp_path)) == ["b"]
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    assert list(weights.read(tmp_path)) == ["a"]
    (tmp_path / "model.safetensors").rename(tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match=r"several weight files.*adapter\.safetensors, other\.safetensors"):
        weights.read(tmp_path)


def test_other_names_and_other_files(tmp_path: Path) -> None:
    (tmp_path / "weights.npy").write_bytes(b"x")
    with pytest.raises(WeightsError, match="not a weight file by its name"):
        weights.read(tmp_path / "weights.npy")
    with pytest.raises(WeightsError, match="no such file or folder"):
        weights.read(tmp_path / "absent.safetensors")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes of POSIX")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match="not a regular file"):
        weights.read(tmp_path)


def test_a_wrapper_is_looked_into(tmp_path: Path) -> None:
    for wrapper in ("state_dict", "best_state"):
        torch.save(
            {wrapper: {"a": torch.ones(2)}, "xp.cfg": "x: 1", "extra": torch.ones(1)}, tmp_path / "x.pth"
        )
        assert list(weights.read(tmp_path / "x.pth")) == ["a"]
    torch.save({"model": {"a": torch.ones(2)}, "list": [torch.ones(1)], "epoch": 3}, tmp_path / "x.pth")
    assert list(weights.read(tmp_path / "x.pth")) == ["model.a", "list.0"]


def test_two_tensors_of_one_name(tmp_path: Path) -> None:
    torch.save({"a": {"b": torch.ones(2)}, "a.b": torch.ones(2)}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=r"two tensors are named 'a\.b'"):
        weights.read(tmp_path / "x.pth")


def test_a_prefix_keeps_a_part(tmp_path: Path) -> None:
    save_file({"vae.a": torch.ones(1), "dit.a": torch.ones(2)}, tmp_path / "model.safetensors")
    found = weights.read_network(tmp_path, weights.Network("a", below="vae."))
    assert list(found) == ["a"]
    found.take("a", (1,))
    found.finish()
    with pytest.raises(WeightsError, match=r"no tensor's name starts with 'unet\.' among 2"):
        weights.read_network(tmp_path, weights.Network("a", below="unet."))


GOOD = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


def entry(**changes: Any) -> dict[str, Any]:
    return {"a": GOOD["a"] | changes}


BAD_HEADERS = {
    "nothing": b"",
    "too short": b"\2\0\0\0\0\0\0\0{",
    "a length beyond the file": safetensors(GOOD, bytes(8), length=1000),
    "an absurd length": safetensors(GOOD, bytes(8), length=(1 << 64) - 1),
    "no JSON": safetensors(None, bytes(8), raw=b"{not json}"),
    "no UTF-8": safetensors(None, bytes(8), raw=b'{"\xff": 1}'),
    "no object": safetensors([GOOD], bytes(8)),
    "nested without end": safetensors(None, raw=b"[" * 100_000),
    "a number of many digits": safetensors(None, raw=b'{"a": ' + b"9" * 10_000 + b"}"),
    "a name twice": safetensors(
        None, bytes(8), raw=b'{"a": %b, "a": %b}' % ((json.dumps(GOOD["a"]).encode(),) * 2)
    ),
    "a key twice": safetensors(
        None, bytes(8), raw=json.dumps(GOOD).replace("{", '{"x": 1, "x": 1, ').encode()
    ),
    "metadata of numbers": safetensors(GOOD | {"__metadata__": {"a": 1}}, bytes(8)),
    "metadata in a list": safetensors(GOOD | {"__metadata__": ["a"]}, bytes(8)),
    "an entry that is no object": safetensors({"a": [1]}, bytes(8)),
    "an entry without shape": safetensors({"a": {"dtype": "F32", "data_offsets": [0, 8]}}, bytes(8)),
    "an entry with more": safetensors(entry(strides=[1]), bytes(8)),
    "an unknown dtype": safetensors(entry(dtype="F8_E4M3"), bytes(8)),
    "a dtype in a list": safetensors(entry(dtype=["F32"]), bytes(8)),
    "another dtype": safetensors(entry(dtype="F64"), bytes(8)),
    "another shape": safetensors(entry(shape=[3]), bytes(8)),
    "a negative shape": safetensors(entry(shape=[-1, -2]), bytes(8)),
    "a shape of flags": safetensors(entry(shape=[2, True]), bytes(8)),
    "a shape of floats": safetensors(entry(shape=[2.0]), bytes(8)),
    "a shape in a text": safetensors(entry(shape="2"), bytes(8)),
    "a shape that wraps": safetensors(entry(shape=[1 << 33, 1 << 33]), bytes(8)),
    "many dimensions": safetensors(entry(shape=[2] + [1] * 64), bytes(8)),
    "one offset": safetensors(entry(data_offsets=[8]), bytes(8)),
    "offsets of floats": safetensors(entry(data_offsets=[0, 8.0]), bytes(8)),
    "offsets reversed": safetensors(entry(data_offsets=[8, 0]), bytes(8)),
    "negative offsets": safetensors(entry(data_offsets=[-8, 0]), bytes(8)),
    "beyond the file": safetensors(entry(data_offsets=[8, 16]), bytes(8)),
    "cut data": safetensors(GOOD, bytes(7)),
    "trailing data": safetensors(GOOD, bytes(9)),
    "an overlap": safetensors(
        GOOD | {"b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}, bytes(12)
    ),
    "a gap": safetensors(GOOD | {"b": {"dtype": "F32", "shape": [1], "data_offsets": [12, 16]}}, bytes(16)),
    "a gap at the start": safetensors(entry(data_offsets=[4, 12]), bytes(12)),
    "one place twice": safetensors(GOOD | {"b": GOOD["a"]}, bytes(8)),
    "too many tensors": safetensors(
        {str(index): {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for index in range(20_001)}
    ),
}


@pytest.mark.parametrize("what", sorted(BAD_HEADERS))
def test_a_header_that_lies_is_refused(tmp_path: Path, what: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(BAD_HEADERS[what])
    with pytest.raises(WeightsError, match=r"model\.safetensors"):
        weights.read(path)


def test_the_forge_makes_what_others_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors(GOOD | {"__metadata__": {"a": "b"}}, bytes(8)))
    np.testing.assert_array_equal(weights.read(path)["a"], [0, 0])


def test_a_long_name_is_shortened_in_the_message(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors({"x\n" * 10_000: {"dtype": "?"}}))
    with pytest.raises(WeightsError) as caught:
        weights.read(path)
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


def test_take_gives_what_was_asked_for() -> None:
    found = held(a=np.ones((2, 3), np.float16), n=np.arange(3), b=np.asfortranarray(np.ones((4, 5))))
    taken = found.take("a", (2, 3))
    assert (taken.dtype, taken.shape) == (np.float32, (2, 3))
    assert found.take("a", (None, 3), dtype=None).dtype == np.float16
    assert found.take("b", (4, 5)).flags.c_contiguous
    assert found.take("n", (3,), dtype=np.int32).dtype == np.int32
    found.finish()


def test_take_refuses_what_does_not_fit() -> None:
    found = held(
        encoder__weight=np.ones((2, 3)), bad=np.array([1.0, np.nan]), inf=np.array([-np.inf]), huge=[1e300]
    )
    with pytest.raises(WeightsError, match=r"'encoder\.weight' has shape \(2, 3\), expected \(3, 2\)"):
        found.take("encoder.weight", (3, 2))
    with pytest.raises(WeightsError, match=r"expected \(6,\)"):
        found.take("encoder.weight", (6,))
    with pytest.raises(
        WeightsError, match=r"'encoder\.weigth' is missing among 4 tensors; the closest name is 'encod"
    ):
        found.take("encoder.weigth", (2, 3))
    with pytest.raises(WeightsError, match="is float64, expected int32"):
        found.take("encoder.weight", (2, 3), dtype=np.int32)
    for name, size in (("bad", 2), ("inf", 1), ("huge", 1)):
        with pytest.raises(WeightsError, match=f"'{name}' holds NaN or infinity"):
            found.take(name, (size,))


def test_finish_lists_the_first_ten_left_over() -> None:
    found = held(**{f"t{index:02}": np.ones(1) for index in range(13)})
    found.take("t00", (1,))
    with pytest.raises(WeightsError, match=r"unexpected \(12\): t01, .*, t10, \.\.\.$"):
        found.finish()
    with pytest.raises(WeightsError, match=r"unexpected \(2\): t11, t12$"):
        found.finish(ignore=[r"t0\d", "t10"])
    found.finish(ignore=["t.*"])


def test_take_all_lists_every_problem_at_once() -> None:
    found = held(a=np.ones(2), b=np.ones(3), extra=np.ones(1))
    with pytest.raises(
        WeightsError, match=r"missing \(2\): c, d; misshapen \(1\): b \(3,\).*unexpected \(1\): extra"
    ):
        found.take_all({"a": (2,), "b": (4,), "c": (1,), "d": (1,)})
    taken = found.take_all({"a": (2,), "b": (None,)})
    assert sorted(taken) == ["a", "b"]


def test_take_any_takes_the_first_there_is() -> None:
    found = held(new=np.ones(2))
    assert found.take_any(["old", "new"], (2,)).shape == (2,)
    found.finish()
    with pytest.raises(WeightsError, match="'old' is missing"):
        found.take_any(["old", "older"], (2,))


def test_weights_are_a_mapping() -> None:
    found = held(a=np.ones((2, 1), np.float16))
    assert (len(found), "a" in found, "b" in found, list(found)) == (1, True, False, ["a"])
    assert (found.shape("a"), found.dtype("a")) == ((2, 1), "float16")
    assert "1 tensors" in repr(found)
    with pytest.raises(KeyError):
        found["b"]


def test_rename_and_drop_in_order() -> None:
    found = held(model__conv__0__weight=[1.0], model__conv__1__weight=[2.0], model__inited=[1.0]).apply(
        [
            Drop(r".*\.inited", "a flag of training"),
            Rename(r"^model\.", ""),
            Rename(r"conv\.(\d+)", r"layers.\1.conv"),
        ]
    )
    assert list(found) == ["layers.0.conv.weight", "layers.1.conv.weight"]
    np.testing.assert_array_equal(found["layers.1.conv.weight"], [2.0])


def test_a_rename_onto_a_name_that_is_taken() -> None:
    with pytest.raises(WeightsError, match="memory: two tensors would both be named 'b'"):
        held(a=[1.0], b=[2.0]).apply([Rename("a", "b")])


def test_drop_needs_the_whole_name() -> None:
    assert list(held(num=[1.0], number=[1.0]).apply([Drop("num", "unused")])) == ["number"]


def test_split_equal_and_unequal() -> None:
    table = held(attn__in_proj=np.arange(18.0).reshape(6, 3), ff=np.arange(10.0).reshape(2, 5))
    rules = [
        Split(r"(.*)\.in_proj", (r"\1.q", r"\1.k", r"\1.v")),
        Split("ff", ("gate", "value"), axis=1, sizes=(2, 3)),
    ]
    found = table.apply(rules)
    assert {name: found.shape(name) for name in found} == {
        "attn.q": (2, 3), "attn.k": (2, 3), "attn.v": (2, 3), "gate": (2, 2), "value": (2, 3),
    }  # fmt: skip
    np.testing.assert_array_equal(found["attn.k"], np.arange(6, 12).reshape(2, 3))
    np.testing.assert_array_equal(found["value"], [[2, 3, 4], [7, 8, 9]])


@pytest.mark.parametrize(
    "rule", [Split("a", ("b", "c")), Split("a", ("b", "c"), sizes=(1, 1)), Split("a", ("b",), axis=3)]
)
def test_a_split_that_does_not_fit(rule: Split) -> None:
    with pytest.raises(WeightsError, match="cannot be split"):
        held(a=np.ones((5, 2))).apply([rule])


@pytest.mark.parametrize(
    "names",
    [("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1")],
)
@pytest.mark.parametrize("shape", [(4, 3, 5), (4, 3), (4,)])
def test_weight_norm_is_fused_as_torch_does(names: tuple[str, str], shape: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    v, g = torch.randn(shape), torch.randn(shape[:1] + (1,) * (len(shape) - 1))
    table = held(**{f"conv__{names[0]}": g.numpy(), f"conv__{names[1]}": v.numpy(), "conv__bias": np.ones(4)})
    found = table.apply([FuseWeightNorm()])
    assert sorted(found) == ["conv.bias", "conv.weight"]
    expected = torch._weight_norm(v, g, 0)
    np.testing.assert_allclose(found.take("conv.weight", shape), expected.numpy(), rtol=2e-7, atol=1e-9)


def test_weight_norm_of_a_real_module() -> None:
    torch.manual_seed(2)
    for wrap in (torch.nn.utils.weight_norm, torch.nn.utils.parametrizations.weight_norm):
        module = wrap(torch.nn.ConvTranspose1d(3, 4, 5))
        table = held(
            **{name.replace(".", "__"): value.detach().numpy() for name, value in module.state_dict().items()}
        )
        found = Weights({f"x.{name}": array for name, array in table._arrays.items()}, "m").apply(
            [FuseWeightNorm()]
        )
        np.testing.assert_allclose(found["x.weight"], module.weight.detach().numpy(), rtol=2e-7, atol=1e-9)


def test_weight_norm_that_lacks_a_part_or_does_not_fit() -> None:
    for table in (held(c__weight_g=np.ones((4, 1))), held(c__weight_v=np.ones((4, 3)))):
        with pytest.raises(WeightsError, match="weight norm needs both"):
            table.apply([FuseWeightNorm()])
    with pytest.raises(WeightsError, match=r"the gain of .* has shape \(1, 3\), expected \(4, 1\)"):
        held(c__weight_g=np.ones((1, 3)), c__weight_v=np.ones((4, 3))).apply([FuseWeightNorm()])


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 5), (3,)])
def test_int8_rows_become_floats(shape: tuple[int, ...]) -> None:
    rows = np.random.default_rng(0).integers(-127, 128, shape).astype(np.int8)
    scale = np.array([0.5, 2, 0.25], np.float16)
    others = {"norm": np.ones(2, np.float32), "norm__scale": np.ones(2, np.float32), "ids": rows}
    table = held(a=rows, a__scale=scale, **others).apply([Int8Rows()])
    assert sorted(table) == ["a", "ids", "norm", "norm.scale"]
    expected = rows * scale.astype(np.float32).reshape(-1, *(1 for _ in shape[1:]))
    np.testing.assert_array_equal(table.take("a", shape), expected)
    assert table.dtype("ids") == "int8"


def test_int8_rows_whose_scale_does_not_fit() -> None:
    for scale in (np.ones(2), np.ones((3, 1))):
        with pytest.raises(WeightsError, match=r"the scale of 'a' has shape .* expected \(3,\)"):
            held(a=np.ones((3, 4), np.int8), a__scale=scale).apply([Int8Rows()])


def test_weight_norm_of_a_zero_direction_is_refused_when_taken() -> None:
    found = held(c__weight_g=np.ones((2, 1)), c__weight_v=np.array([[0.0, 0.0], [1.0, 0.0]])).apply(
        [FuseWeightNorm()]
    )
    with pytest.raises(WeightsError, match="NaN or infinity"):
        found.take("c.weight", (2, 2))


def test_weight_norm_only_where_the_pattern_says() -> None:
    table = held(a__weight_g=np.ones((2, 1)), a__weight_v=np.ones((2, 2)), b__weight_g=np.ones((2, 1)))
    assert sorted(table.apply([FuseWeightNorm("a")])) == ["a.weight", "b.weight_g"]


def test_rules_read_nothing(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a.weight_g": torch.ones(2, 1), "a.weight_v": torch.ones(2, 2), "b": torch.ones(4)}, path)
    found = weights.read(path).apply([FuseWeightNorm(), Split("b", ("b1", "b2"))])
    path.write_bytes(b"")
    with pytest.raises(WeightsError, match="changed while it was being read"):
        found["a.weight"]
