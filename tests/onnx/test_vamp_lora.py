"""A LoRA in an exported VampNet: the same as if it were exported with it, and nothing of it by halves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import onnx
from audiogen_core import lora
from audiogen_core.audio import Audio
from audiogen_core.errors import AudiogenError, ManifestError, ModelError, OptionError, WeightsError
from audiogen_core.recipe import Recipe
from audiogen_onnx import Vampnet, export, session
from audiogen_onnx.cli import cli
from audiogen_onnx.exporter import model, network, weights
from audiogen_onnx.exporter.export import quantize
from audiogen_onnx.manifest import NAME, Manifest
from audiogen_onnx.session import Session
from audiogen_onnx.tensors import Tensors
from onnx import numpy_helper
from support.commands import call
from support.exported import exported, exported_copy
from support.tiny_vampnet import write_tiny_vampnet
from support.vampnet_numpy import FIXTURES

SMALL = FIXTURES / "small"
DTYPES = ["float32", "float16", "int8", "int4"]


def write_lora(path: Path, shapes: Mapping[str, tuple[int, int]], seed: int = 0) -> Path:
    """A lora.pth for matrices (out, in) by the original's names."""
    rng = np.random.default_rng(seed)
    halves = {
        f"{name}.lora_{half}": torch.from_numpy(rng.normal(0, 1, shape).astype(np.float32))
        for name, (rows, columns) in shapes.items()
        for half, shape in (("A", (8, columns)), ("B", (rows, 8)))
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(halves, path)
    return path


def matrices(width: int, layers: int = 2) -> dict[str, tuple[int, int]]:
    """Those that training changes in a network of that width."""
    own = {
        **{f"self_attn.{name}": (width, width) for name in ("w_qs", "w_vs", "fc")},
        "feed_forward.w_1": (4 * width, width),
        "feed_forward.w_2": (width, 2 * width),
    }
    return {
        f"transformer.layers.{layer}.{name}": shape for layer in range(layers) for name, shape in own.items()
    }


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for both networks of the small model: the fixture's for the coarse one."""
    folder = tmp_path_factory.mktemp("adapter")
    (folder / "coarse").mkdir()
    shutil.copyfile(SMALL / "coarse_lora.pth", folder / "coarse" / "lora.pth")
    held = torch.load(SMALL / "c2f.pth", weights_only=True)["state_dict"]
    shapes = {
        name.removesuffix(".lora_A"): (len(held[name.replace("lora_A", "lora_B")]), value.shape[1])
        for name, value in held.items()
        if name.endswith(".lora_A")
    }
    write_lora(folder / "c2f" / "lora.pth", shapes)
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks of one's own, over the demo codec: many of their tensors lie in the graph itself."""
    return write_tiny_vampnet(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for both networks of the tiny one."""
    folder = tmp_path_factory.mktemp("learned")
    for seed, place in enumerate(("coarse", "c2f")):
        write_lora(folder / place / "lora.pth", matrices(16), seed)
    return folder


def opened(folder: Path, *adapters: str | Path) -> Vampnet:
    return Vampnet.load(folder, lora=[str(each) for each in adapters] or None, threads=1)


def runner(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """A network's graph as `Network` runs it."""
    session = Session(path, threads=1)
    return lambda codes: session.run({"codes": codes})["logits"]


def random_codes(model: Vampnet, frames: int = 40) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, model.codec.info.codebook_size, (1, model.fine.codebooks, frames))


def logits(model: Vampnet) -> list[np.ndarray]:
    codes = random_codes(model)
    masked = np.where(np.arange(codes.shape[-1]) % 3 > 0, model.codec.info.codebook_size, codes)
    return [net.logits(masked[:, : net.codebooks]) for net in (model.coarse, model.fine)]


def made(model: Vampnet) -> np.ndarray:
    codes = random_codes(model)[0]
    return model.vamp_codes(codes, np.arange(codes.shape[-1]) % 7 > 0, seed=1, steps=3, fine_steps=1)


# As an export with it


@pytest.mark.parametrize("strength", [1.0, 0.5, -1.5])
def test_it_takes_the_place_of_what_the_checkpoints_have(adapter: Path, tmp_path: Path, strength: float):
    """In a folder that was exported with the updates of VampNet's authors in its weights."""
    plain, found = opened(exported()), opened(exported(), f"{adapter}:{strength}")
    vectors, wanted = weights.load_codec(SMALL / "codec.pth", "numpy").codebook_vectors(), {}
    for name, file in {"coarse": "coarse", "fine": "c2f"}.items():
        merged = weights.load(SMALL / f"{file}.pth", vectors, f"{adapter / file / 'lora.pth'}:{strength}")
        path = tmp_path / f"{name}.onnx"
        network.write(merged, model.build(merged).distance_table().numpy(), path)
        wanted[name] = replace(getattr(plain, name), run=runner(path))
    expected = replace(plain, **wanted)
    for one, other, before in zip(logits(found), logits(expected), logits(plain), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4)
        assert np.abs(one - before).max() > 1e-2
    np.testing.assert_array_equal(made(found), made(expected))
    assert (made(found) != made(plain)).mean() > 0.05


def test_the_original_says_the_same_with_it(adapter: Path):
    with np.load(FIXTURES / "small_transformer.npz") as arrays:
        found = opened(exported(), adapter).coarse.logits(arrays["lora_codes"])
        flat = found.transpose(0, 3, 2, 1).reshape(arrays["lora_logits"].shape)
        np.testing.assert_allclose(flat, arrays["lora_logits"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_it_is_what_a_folder_has_that_is_exported_once_more(
    tiny: Path, learned: Path, tmp_path: Path, dtype: str
):
    """Taken apart, changed, and stored in the same numbers."""
    folder = tiny
    if dtype != "float32":
        quantize(tiny, folder := tmp_path / dtype, dtype)
    export(folder, tmp_path / "with", lora=f"{learned}:0.5", dtype=dtype, check=False)
    expected, found = opened(tmp_path / "with"), opened(folder, f"{learned}:0.5")
    for one, other, before in zip(logits(found), logits(expected), logits(opened(folder)), strict=True):
        np.testing.assert_array_equal(one, other)
        assert np.abs(one - before).max() > 1e-2
    np.testing.assert_array_equal(made(found), made(expected))


def test_a_smaller_copy_of_the_authors_model_takes_it_too(adapter: Path, tmp_path: Path):
    """Its updates lie beside it still."""
    quantize(exported(), tmp_path / "int8", "int8")
    found, expected = logits(opened(tmp_path / "int8", adapter)), logits(opened(exported(), adapter))
    for one, other, before in zip(found, expected, logits(opened(tmp_path / "int8")), strict=True):
        assert np.abs(one - other).mean() < 0.2 * np.abs(before - other).mean()


def test_a_stack_is_a_sum(adapter: Path, learned: Path, tiny: Path):
    for folder, place in ((exported(), adapter), (tiny, learned)):
        whole, parts = opened(folder, place), opened(folder, f"{place}:0.75", f"{place}:0.25")
        for one, other in zip(logits(parts), logits(whole), strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-4)


def test_nothing_of_it_is_nothing(tiny: Path, learned: Path):
    for one, other in zip(logits(opened(tiny, f"{learned}:0")), logits(opened(tiny)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_one_network_alone(tiny: Path, learned: Path, tmp_path: Path):
    """A file says by its folder, or by its own name, which it is for."""
    both, plain = logits(opened(tiny, learned)), logits(opened(tiny))
    shutil.copyfile(learned / "coarse" / "lora.pth", tmp_path / "coarse_lora.pth")
    for path in (learned / "coarse" / "lora.pth", tmp_path / "coarse_lora.pth"):
        coarse, fine = logits(opened(tiny, path))
        np.testing.assert_array_equal(coarse, both[0])
        np.testing.assert_array_equal(fine, plain[1])
    coarse, fine = logits(opened(tiny, learned / "c2f" / "lora.pth"))
    np.testing.assert_array_equal(fine, both[1])


def test_without_one_nothing_is_taken_apart(tiny: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(session, "Tensors", None)
    logits(opened(tiny))


# What does not fit


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (matrices(24), r"10 of the 10 matrices .* another size .*, \.\.\.|10 of the 10 matrices"),
        (matrices(16, layers=3), r"5 of the 15 modules .* transformer\.layers\.2\.self_attn\.w_qs"),
        (matrices(16, layers=1), "has 1 layers and the coarse network 2"),
        ({"decoder.layers.0.q_proj": (16, 16)}, "1 of the 1 modules .* decoder.layers.0.q_proj"),
    ],
)
def test_one_for_another_model_is_refused(tiny: Path, tmp_path: Path, shapes: Any, message: str):
    write_lora(tmp_path / "coarse" / "lora.pth", shapes)
    with pytest.raises(WeightsError, match=message):
        opened(tiny, tmp_path)


def test_half_a_change_is_refused(tiny: Path, learned: Path, tmp_path: Path):
    tensors = torch.load(learned / "coarse" / "lora.pth", weights_only=True)
    del tensors["transformer.layers.1.self_attn.fc.lora_B"]
    (tmp_path / "coarse").mkdir()
    torch.save(tensors, tmp_path / "coarse" / "lora.pth")
    with pytest.raises(WeightsError, match=r"layers\.1\.self_attn\.fc has lora_A, but not lora_B"):
        opened(tiny, tmp_path)


def test_what_is_none_is_told(tiny: Path, learned: Path, tmp_path: Path):
    peft = FIXTURES.parent / "lora" / "mono" / "qv"
    (tmp_path / "lora.pth").write_bytes((learned / "coarse" / "lora.pth").read_bytes())
    wrong: list[tuple[Path, type[AudiogenError], str]] = [
        (tmp_path / "gone", WeightsError, "no such file or folder"),
        (peft, WeightsError, r"expected a folder with coarse/lora\.pth or c2f/lora\.pth"),
        (tmp_path / "lora.pth", OptionError, "does not say which network it is for"),
        (SMALL / "coarse.pth", WeightsError, r"of its tensors are no parts of a LoRA"),
        (Path(__file__), WeightsError, "test_vamp_lora.py"),
    ]
    for path, kind, message in wrong:
        with pytest.raises(kind, match=message):
            opened(tiny, path)
    with pytest.raises(WeightsError, match="two networks of a VampNet"):
        lora.read(lora.Asked(learned))


def test_numbers_that_cannot_be_stored_are_refused(tiny: Path, learned: Path, tmp_path: Path):
    quantize(tiny, tmp_path / "half", "float16")
    tensors = torch.load(learned / "coarse" / "lora.pth", weights_only=True)
    (tmp_path / "coarse").mkdir()
    torch.save({name: 1e4 * value for name, value in tensors.items()}, tmp_path / "coarse" / "lora.pth")
    with pytest.raises(WeightsError, match="too large for float16"):
        opened(tmp_path / "half", tmp_path)
    torch.save({name: 1e30 * value for name, value in tensors.items()}, tmp_path / "coarse" / "lora.pth")
    with pytest.raises(WeightsError, match="NaN or infinity"):
        opened(tiny, tmp_path)


def test_a_folder_that_does_not_tell_its_updates_is_refused(adapter: Path, tmp_path: Path):
    folder = exported_copy(tmp_path)
    manifest = Manifest.load(folder)
    assert manifest.updates is not None
    place = folder / manifest.updates["coarse"].file
    place.write_bytes(place.read_bytes()[:-1] + b"\0")
    with pytest.raises(ManifestError, match=r"not the one manifest\.json describes"):
        opened(folder, adapter)
    facts = json.loads((folder / NAME).read_text())
    del facts["updates"]  # as folders were written before
    (folder / NAME).write_text(json.dumps(facts))
    opened(folder)
    with pytest.raises(ModelError, match="did not keep the low-rank updates apart"):
        opened(folder, adapter)


# The command


def test_the_recipe_knows_it_and_replay_is_exact(
    tiny: Path, learned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(learned, "mine")
    tone = 0.3 * np.sin(np.arange(24_000) / 20)
    Audio(np.float32([tone]), 24_000).save("in.wav")
    told = ("vamp", "in.wav", "-m", tiny, "--steps", 2, "--fine-steps", 1, "--seed", 3, "--threads", 1)
    done = call(cli, *told, "--lora", "mine:0.5", "--lora", "mine/c2f/lora.pth", "-o", "out.wav")
    assert done.exit_code == 0, done.stderr
    recipe = Recipe.read("out.wav")
    assert recipe.settings["lora"] == ["mine:0.5", "mine/c2f/lora.pth"]
    assert recipe.inputs["lora"] == ", ".join(map(lora.hashed, ("mine", "mine/c2f/lora.pth")))
    call(cli, *told, "-o", "plain.wav")
    assert Path("plain.wav").read_bytes() != Path("out.wav").read_bytes()
    again = call(cli, "replay", "out.wav", "-o", "again.wav")
    assert again.exit_code == 0, again.stderr
    assert Path("again.wav").read_bytes() == Path("out.wav").read_bytes()
    shutil.move("mine", "moved")
    lost = call(cli, "replay", "out.wav", "-o", "b.wav")
    assert lost.exit_code == 1 and "mine" in lost.stderr
    uses = ("--lora", "moved", "--lora", "moved/c2f/lora.pth")
    found = call(cli, "replay", "out.wav", "-o", "found.wav", *uses)
    assert found.exit_code == 0, found.stderr
    write_lora(Path("moved/c2f/lora.pth"), matrices(16), seed=9)
    changed = call(cli, "replay", "out.wav", "-o", "c.wav", *uses)
    assert changed.exit_code == 1 and "not the adapter that was merged" in changed.stderr


def test_a_dry_run_says_what_does_not_fit(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Audio(np.zeros((1, 24_000), np.float32), 24_000).save("in.wav")
    write_lora(tmp_path / "other" / "coarse" / "lora.pth", matrices(24))
    done = call(cli, "vamp", "in.wav", "-m", tiny, "--lora", "other", "--dry-run")
    assert done.exit_code == 1 and "so it is for another one" in done.stderr


# Tensors of graphs


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_are_those_that_onnx_reads(tiny: Path, tmp_path: Path, dtype: str):
    folder = tiny
    if dtype != "float32":
        quantize(tiny, folder := tmp_path / dtype, dtype)
    path = folder / "coarse.onnx"
    model, tensors = onnx.load(path, load_external_data=False), Tensors.open(path)
    assert set(tensors) == {tensor.name for tensor in model.graph.initializer}
    for tensor in model.graph.initializer:
        expected = numpy_helper.to_array(tensor, str(folder))
        assert tensors[tensor.name].shape == expected.shape == tensors.shape(tensor.name)
        np.testing.assert_array_equal(tensors[tensor.name], expected.astype(tensors[tensor.name].dtype))


def test_a_tensor_of_another_size_than_its_shape_is_refused(tmp_path: Path):
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[3], raw_data=b"\0" * 8)
    graph = onnx.helper.make_graph([], "none", [], [], [tensor])
    (tmp_path / "a.onnx").write_bytes(onnx.helper.make_model(graph).SerializeToString())
    with pytest.raises(ManifestError, match=r"'w' has 8 bytes, its shape \(3,\) takes 12"):
        Tensors.open(tmp_path / "a.onnx")["w"]
