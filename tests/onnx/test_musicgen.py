"""MusicGen in onnxruntime: exported in every dtype, run, streamed, replayed; and damaged in every way."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnx
from audiogen_core.audio import Audio
from audiogen_core.errors import ManifestError, ModelError, OptionError
from audiogen_core.musicgen.conditioning import Rows
from audiogen_core.sampling import Sampling
from audiogen_onnx.cli import cli
from audiogen_onnx.exporter.musicgen import numbers
from audiogen_onnx.exporter.musicgen.export import export_musicgen
from audiogen_onnx.exporter.musicgen.nodes import Nodes
from audiogen_onnx.manifest import Graph, Manifest
from audiogen_onnx.musicgen.generate import MusicGen
from audiogen_onnx.musicgen.manifest import MusicGenManifest
from audiogen_onnx.musicgen.sampling import Sampler, filtered, pick
from support.commands import call
from support.exported import exported as exported_vampnet
from support.musicgen_onnx import FOLDER, exported, files, model

PROMPTS = ["80s pop track with bassy drums and synth", "a dreamy lo-fi loop in C# minor, 90 BPM", "rock"]
SEEDED = Sampling(seed=11, top_k=20)
VARIANTS = ("musicgen-mono", "musicgen-stereo", "musicgen-melody", "audiocraft-text", "audiocraft-style")


def tone(seconds: float = 1.0, hertz: float = 330.0) -> Audio:
    wave = 0.3 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * 32_000)) / 32_000)
    return Audio(wave[None].astype(np.float32), 32_000)


# Runs


@pytest.mark.parametrize("name", VARIANTS)
def test_an_item_of_a_batch_is_what_it_is_alone(name: str) -> None:
    music = model(name)
    batch = music.generate_codes_batch([*PROMPTS, None], seconds=0.4, sampling=SEEDED)
    for index, prompt in enumerate([*PROMPTS, None]):
        alone = dataclasses.replace(SEEDED, seed=11 + index)
        made = music.generate_codes(prompt, seconds=0.4, sampling=alone)
        np.testing.assert_array_equal(batch[index].values, made.values)


def test_a_batch_may_have_a_melody_for_each() -> None:
    music, tunes = model("musicgen-melody"), [tone(hertz=330), None, tone(hertz=392)]
    batch = music.generate_codes_batch(PROMPTS, melody=tunes, seconds=0.4, sampling=SEEDED)
    for index, (prompt, tune) in enumerate(zip(PROMPTS, tunes, strict=True)):
        alone = dataclasses.replace(SEEDED, seed=11 + index)
        made = music.generate_codes(prompt, melody=tune, seconds=0.4, sampling=alone)
        np.testing.assert_array_equal(batch[index].values, made.values)


@pytest.mark.parametrize("options", [{"seconds": 3.1}, {"seconds": 3.3, "window_seconds": 1.5}])
def test_the_pieces_of_a_stream_are_the_whole(options: dict[str, float]) -> None:
    music = model("musicgen-stereo")
    pieces = list(music.stream("rock", sampling=SEEDED, **options))
    whole = music.generate("rock", sampling=SEEDED, **options)
    assert len(pieces) > 1 and whole.samples.shape == (2, round(options["seconds"] * 32_000))
    np.testing.assert_array_equal(np.concatenate([piece.samples for piece in pieces], axis=1), whole.samples)


def test_the_demo_makes_the_codes_of_audiogen_mlx() -> None:
    """The same weights, random numbers and draws; only sums are rounded differently."""
    mlx = pytest.importorskip("audiogen_mlx")
    asked: dict[str, Any] = {"seconds": 4, "seed": 1}
    theirs = mlx.MusicGen.load("demo", threads=1).generate_codes("slow piano in C minor", **asked)
    ours = MusicGen.load("demo", threads=1).generate_codes("slow piano in C minor", **asked)
    np.testing.assert_array_equal(ours.values, theirs.values)
    assert ours.codec == theirs.codec


def test_numbers_that_overflow_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    music = model("musicgen-mono")
    monkeypatch.setattr(
        music._parts.decoder, "positions", lambda count: np.full((count, 48), np.nan, np.float32)
    )
    with pytest.raises(ModelError, match=r"gave NaN or infinity; .* overflow in float32"):
        music.generate_codes("rock", seconds=0.1)


def test_draws_are_those_of_the_other_backend() -> None:
    mlx = pytest.importorskip("mlx.core")
    from audiogen_mlx.musicgen import sampling as theirs

    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (2, 4, 200)).astype(np.float32)
    for one in (
        Sampling(),
        Sampling(top_k=7),
        Sampling(top_k=0, top_p=0.8),
        Sampling(top_k=50, top_p=0.7, min_p=0.05),
        Sampling(temperature=(0, 0.5, 1, 2), top_k=9),
    ):
        rates = np.array([1 / value if value else 1 for value in one.temperatures_for(4)], np.float32)
        scaled = logits * rates[:, None]
        expected = np.array(theirs.filtered(mlx.array(scaled), one))
        np.testing.assert_allclose(filtered(scaled, one), expected, rtol=1e-4, atol=1e-7)
        draw, peer = Sampler(one, 4, [5, 6], 9), theirs.Sampler(one, 4, [5, 6], 9)
        for step in range(9):
            np.testing.assert_array_equal(draw(logits, step), np.array(peer(mlx.array(logits), step)))


def test_of_tokens_that_are_as_likely_the_first_fill_the_share() -> None:
    logits = np.log(np.array([[0.2, 0.3, 0.2, 0.2, 0.1]], np.float32))
    kept = filtered(logits, Sampling(top_k=0, top_p=0.6))
    np.testing.assert_allclose(kept, [[0.2, 0.3, 0.2, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(filtered(logits, Sampling(top_k=0, top_p=0.2)), [[0, 0.3, 0, 0, 0]], atol=1e-6)


def test_a_token_without_a_share_is_never_picked() -> None:
    shares = np.array([[0.0, 0.25, 0.0, 0.75, 0.0]], np.float32)
    for number, token in ((0.0, 1), (0.2499, 1), (0.2501, 3), (0.99999994, 3)):
        assert pick(shares, np.array([number], np.float32)).tolist() == [token]


# Export


@pytest.mark.parametrize("name", ["musicgen-mono", "musicgen-melody"])
@pytest.mark.parametrize("dtype", ["float16", "int8", "int4"])
def test_smaller_copies_stay_near(name: str, dtype: str) -> None:
    """Of a random network 48 wide not much is left in 4 bits; what is laid out wrong leaves nothing."""
    logits = []
    tokens = np.random.default_rng(0).integers(0, 64, (1, 4, 30)).astype(np.int32)
    for each in ("float32", dtype):
        decoder = model(name, each)._parts.decoder
        logits.append(decoder.run(Rows(1), 30)(tokens).copy())
    error = np.linalg.norm(logits[0] - logits[1]) / np.linalg.norm(logits[0])
    assert 0 < error < {"float16": 2e-3, "int8": 0.05, "int4": 0.4}[dtype]
    made = model(name, dtype).generate("rock", seconds=0.2, sampling=SEEDED)
    assert made.samples.shape == (1, 6400)
    sizes = [(exported(name, each) / "decoder.onnx.data").stat().st_size for each in ("float32", dtype)]
    assert sizes[1] < sizes[0]


@pytest.mark.parametrize("name", ["musicgen-mono", "musicgen-melody", "audiocraft-style"])
def test_keys_and_values_in_8_bits_are_those_in_float32(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the graph that was there before, which has the same weights."""
    from audiogen_onnx.exporter.musicgen import cache

    small_decoder = model(name, "int8")._parts.decoder
    monkeypatch.setattr(cache, "shrink", lambda path, found: None)
    folder = Path(tempfile.mkdtemp(prefix="audiogen-musicgen-")) / name
    export_musicgen(files(name), folder, dtype="int8", check=False)
    runs = []
    tokens = np.random.default_rng(0).integers(0, 64, (1, 4, 40)).astype(np.int32)
    for decoder in (MusicGen.load(folder, threads=1)._parts.decoder, small_decoder):
        run = decoder.run(Rows(1), 40)
        logits = [run(tokens[:, :, step : step + 1]).copy() for step in range(40)]
        runs.append((np.concatenate(logits, axis=2), run.cache["keys.1"].copy()))
    shutil.rmtree(folder.parent)
    (plain, keys), (small, whole) = runs
    assert (keys.dtype, whole.dtype) == (np.float32, np.int8)
    assert np.abs(whole[:, :, :40].astype(int)).max() > 50  # the scales fit what is kept
    assert 0 < np.linalg.norm(plain - small) / np.linalg.norm(plain) < 0.05


def test_a_graph_that_disagrees_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Nodes.activate
    monkeypatch.setattr(Nodes, "activate", lambda self, x, name, kind: right(self, x, name, "relu"))
    with pytest.raises(ModelError, match=r"decoder\.onnx at 4 steps: differs from numpy by .* nothing was"):
        export_musicgen(files("musicgen-mono"), tmp_path / "made")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_is_told(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="dtype must be one of float32, float16, int8, int4; got 'int2'"):
        export_musicgen(files("musicgen-mono"), tmp_path / "made", dtype="int2")
    with pytest.raises(ModelError, match="is stored in 8 bits; export the model it was converted from"):
        export_musicgen(FOLDER / "converted" / "bits-8", tmp_path / "made")
    with pytest.raises(ModelError, match="holds a checkpoint, which has to be exported first"):
        MusicGen.load(FOLDER / "musicgen-mono")
    assert not (tmp_path / "made").exists()


def test_weights_in_blocks() -> None:
    weight = np.random.default_rng(0).normal(size=(24, 70)).astype(np.float32)
    weight[3] = 0
    for dtype, share in (("float16", 1e-3), ("int8", 1 / 127), ("int4", 1 / 14)):
        left = numbers.stored(weight, dtype)
        assert left.shape == weight.shape
        assert np.abs(left - weight).max() <= share * 2 * np.abs(weight).max() / 2
        assert not left[3].any()
    whole = np.arange(16, dtype=np.uint8).reshape(1, 16)
    assert numbers.packed(whole, 4).tolist() == [[16, 50, 84, 118, 152, 186, 220, 254]]


def test_whole_numbers_by_rows_are_found_exactly() -> None:
    rng = np.random.default_rng(1)
    whole = rng.integers(-127, 128, (40, 90)).astype(np.int8)
    whole[:, 0] = 127
    scale = rng.uniform(1e-3, 1, 40).astype(np.float16).astype(np.float32)
    found = numbers.whole_rows(whole * scale[:, None])
    assert found is not None
    np.testing.assert_array_equal(found[0], whole)
    np.testing.assert_array_equal(found[0] * found[1][:, None], whole * scale[:, None])
    assert numbers.whole_rows(rng.normal(size=(4, 90)).astype(np.float32)) is None


# Commands


def test_export_make_and_replay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = call(
        cli, "export", FOLDER / "musicgen-mono", "-o", "made", "--tokenizer", FOLDER / "tokenizer",
        "--dtype", "float16", "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["dtype"] == "float16"
    asked = ("--seconds", 0.4, "--seed", 3, "--threads", 1, "-q")
    done = call(cli, "musicgen", "rock", "-m", "made", "-o", "a.wav", *asked)
    assert done.exit_code == 0, done.stderr
    done = call(cli, "replay", "a.wav", "-o", "b.wav", "-q")
    assert done.exit_code == 0, done.stderr
    assert Path("a.wav").read_bytes() == Path("b.wav").read_bytes()
    done = call(cli, "musicgen", "rock", "-m", "made", "--dry-run", "--json", "-o", "c.wav", *asked)
    told = json.loads(done.stdout)
    assert done.exit_code == 0 and told["frames"] == 20 and told["dtype"] == "float16"
    assert told["not_followed"] == []
    assert not Path("c.wav").exists()


# Folders that are not what they say


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of an exported folder that may be damaged."""
    return Path(shutil.copytree(exported("musicgen-mono"), tmp_path / "copy"))


def edited(folder: Path, **facts: Any) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))


@pytest.mark.parametrize(
    "name", ["decoder.onnx", "decoder.onnx.data", "text.onnx", "cross.onnx.data", "tokenizer.json",
             "model.safetensors", "config.json"],
)  # fmt: skip
def test_a_file_that_changed_is_named(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(ManifestError, match=f"{name}: its content is not the one"):
        MusicGen.load(folder)
    (folder / name).unlink()
    with pytest.raises(ManifestError, match=f"{name}: no such file"):
        MusicGen.load(folder)
    (folder / name).symlink_to(exported("musicgen-mono") / name)
    with pytest.raises(ManifestError, match=f"{name}: is a link"):
        MusicGen.load(folder)


def test_descriptions_that_cannot_be(folder: Path) -> None:
    facts = json.loads((folder / "manifest.json").read_text())
    graphs, parts = facts["graphs"], facts["parts"]
    for more, message in (
        ({"graphs": {name: graphs[name] for name in ("decoder", "text")}}, "graphs are missing: cross"),
        ({"parts": parts[1:]}, "tokenizer.json is missing"),
        ({"parts": [{**parts[0], "file": "../tokenizer.json"}, *parts]}, "does not lie in the same folder"),
        ({"parts": [{**parts[0], "size": -1}]}, "has the size -1"),
        ({"model": {**facts["model"], "heads": 5}}, "the heads do not divide the width"),
        ({"model": {**facts["model"], "layers": 10**9}}, "1000000000 layers"),
        ({"model": []}, "damaged"),
        ({"defaults": {"seconds": "long"}}, "the model's default of seconds is 'long'"),
        ({"defaults": {"stride_seconds": float("inf")}}, "the model's default of stride_seconds is inf"),
        ({"codec": {**facts["codec"], "codebook_size": 9}}, "the model makes codes of 64"),
        ({"codec": {**facts["codec"], "name": "other"}}, "was made for the codec"),
        ({"dtype": "int2"}, "dtype 'int2' is none of"),
        ({"family": "vampnet"}, "is of a model of the family 'vampnet', not 'musicgen'"),
    ):
        (folder / "manifest.json").write_text(json.dumps(facts | more))
        with pytest.raises(ManifestError, match=message):
            MusicGen.load(folder)


@pytest.mark.parametrize(
    ("name", "other"),
    [("decoder", "text"), ("text", "cross"), ("cross", "decoder"), ("decoder", "cross"), ("text", "decoder")],
)
def test_a_graph_in_the_place_of_another_is_refused(folder: Path, name: str, other: str) -> None:
    """The description fits the files; what is in them does not."""
    graphs = json.loads((folder / "manifest.json").read_text())["graphs"]
    edited(folder, graphs={**graphs, name: dataclasses.asdict(Graph.of(folder / f"{other}.onnx"))})
    with pytest.raises(ManifestError, match=rf"{other}.onnx: is not the graph that"):
        MusicGen.load(folder)


@pytest.mark.parametrize("axis", [1, 3])
def test_keys_and_values_of_another_size_are_refused(folder: Path, axis: int) -> None:
    """Memory is taken for as many as the description says, and the graph writes into it."""
    path = folder / "decoder.onnx"
    changed = onnx.load(path, load_external_data=False)
    end = next(end for end in changed.graph.input if end.name == "past_values.1")
    end.type.tensor_type.shape.dim[axis].dim_value *= 8
    path.write_bytes(changed.SerializeToString())
    graphs = json.loads((folder / "manifest.json").read_text())["graphs"]
    edited(folder, graphs={**graphs, "decoder": dataclasses.asdict(Graph.of(path))})
    with pytest.raises(
        ManifestError, match=r"decoder.onnx: (its keys and values are not|onnxruntime cannot)"
    ):
        MusicGen.load(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", "\x00", "[" * 100_000, " " * (1 << 20) + "{}"])
def test_what_is_no_manifest_is_refused(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text)
    with pytest.raises(ManifestError, match="damaged or not a manifest"):
        MusicGen.load(folder)


@pytest.mark.parametrize("name", ["decoder.onnx", "text.onnx", "cross.onnx"])
def test_weights_elsewhere_are_refused(folder: Path, name: str) -> None:
    """A graph that names a file outside its folder, of which the description knows nothing wrong."""
    path = folder / name
    data = path.read_bytes()
    assert data.count(f"{name}.data".encode()) > 1
    path.write_bytes(data.replace(f"{name}.data".encode(), b"../" + f"{name}.data".encode()[3:]))
    key = name.removesuffix(".onnx")
    graphs = json.loads((folder / "manifest.json").read_text())["graphs"]
    graph = dataclasses.asdict(Graph.of(path))
    edited(folder, graphs={**graphs, key: graph})
    with pytest.raises(ManifestError, match="does not lie in the same folder"):
        MusicGen.load(folder)


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("graphs", "decoder", "graph", "file"), "../decoder.onnx", "does not lie in the same folder"),
        (("graphs", "decoder", "data", "file"), 7, "damaged"),
        (("graphs", "cross", "graph", "sha256"), "", "has no SHA-256"),
        (("graphs", "text", "graph", "size"), -1, "has the size -1"),
        (("graphs", "text"), None, "damaged"),
        (("graphs",), 3, "damaged"),
        (("parts",), {}, "tokenizer.json is missing"),
        (("parts",), 7, "damaged"),
        (("codec",), None, "damaged"),
        (("codec", "sample_rate"), "fast", "damaged|sample_rate"),
        (("model", "width"), 1 << 40, "too wide"),
        (("model", "heads"), 0, "heads"),
        (("defaults",), 7, "damaged"),
        (("format",), 2, "has format 2"),
    ],
)
def test_values_that_cannot_be(folder: Path, keys: tuple[str, ...], value: Any, message: str) -> None:
    facts = json.loads((folder / "manifest.json").read_text())
    inner = facts
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    (folder / "manifest.json").write_text(json.dumps(facts))
    with pytest.raises(ManifestError, match=message):
        MusicGen.load(folder)


def test_one_family_is_not_taken_for_the_other() -> None:
    with pytest.raises(ManifestError, match="is of a model of the family 'musicgen', not 'vampnet'"):
        Manifest.load(exported("musicgen-mono"))
    with pytest.raises(ManifestError, match="is of a model of the family 'vampnet', not 'musicgen'"):
        MusicGenManifest.load(exported_vampnet())
