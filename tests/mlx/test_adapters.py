"""Adapters in use: formats, layouts of models, quantised weights, recipes, commands, and what is refused."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

from audiogen_core import jobs, lora
from audiogen_core.audio import Audio
from audiogen_core.errors import AudioError, AudiogenError, ModelError, OptionError, WeightsError
from audiogen_core.formats import packed
from audiogen_core.formats.adapters import first_ten, read_changes
from audiogen_core.lora import Asked
from audiogen_core.musicgen.files import Files, Places
from audiogen_core.musicgen.weights import matrices, pieces
from audiogen_core.sampling import Sampling
from audiogen_core.weights import StoredArray, Weights
from audiogen_mlx.cli import cli
from audiogen_mlx.convert import convert
from audiogen_mlx.musicgen import MusicGen
from audiogen_mlx.stable_audio import StableAudio
from audiogen_mlx.stable_audio import weights as stable_audio

FIXTURES = Path(__file__).parents[1] / "fixtures"
MODELS = FIXTURES / "musicgen"
MONO = MODELS / "musicgen-mono"
TOKENIZER = MODELS / "tokenizer"
ADAPTERS = FIXTURES / "lora" / "mono"
QV = ADAPTERS / "qv"
LOOKED_AT = "decoder.model.decoder.layers.0.self_attn.q_proj.weight"


def table(*adapters: str | Path, model: Path = MONO, **places: Any) -> Weights:
    return Files(model, Places(lora=tuple(map(str, adapters)), **places)).table


def change(folder: Path, **settings: Any) -> Path:
    """An adapter's folder with other settings; None takes one out."""
    path = folder / "adapter_config.json"
    said = json.loads(path.read_text()) | settings
    path.write_text(json.dumps({name: value for name, value in said.items() if value is not None}))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of an adapter that may be spoilt."""
    shutil.copytree(QV, tmp_path / "qv")
    return tmp_path / "qv"


# What is asked for


@pytest.mark.parametrize(
    ("text", "path", "strength"),
    [
        ("a.safetensors", "a.safetensors", 1.0),
        ("a.safetensors:0.5", "a.safetensors", 0.5),
        ("a.safetensors=0.5", "a.safetensors", 0.5),
        ("C:/models/a:-2", "C:/models/a", -2.0),
        ("dir/a=b:1e-1", "dir/a=b", 0.1),
        ("a:b/c", "a:b/c", 1.0),
    ],
)
def test_path_and_strength(text: str, path: str, strength: float):
    assert Asked.of(text) == Asked(Path(path), strength)


@pytest.mark.parametrize("text", ["a:loud", "a=", "a:11", "a:nan", "a:-inf"])
def test_no_strength(text: str):
    with pytest.raises(OptionError, match="lora"):
        Asked.of(text)


@pytest.mark.parametrize("value", [None, 3, b"a", ["a"], "a\0b"])
def test_what_is_no_text(value: Any):
    for door in (Asked.of, lora.hashed, lora.files):
        with pytest.raises(AudiogenError):
            door(value)
    with pytest.raises(AudiogenError):
        lora.read(value)


def test_a_path_that_is_there_is_a_path(tmp_path: Path):
    made = tmp_path / "step=500"
    made.mkdir()
    assert Asked.of(str(made)) == Asked(made)


# Formats


def plain(**arrays: np.ndarray) -> dict[str, np.ndarray]:
    return {name.replace("__", "."): np.asarray(array, np.float32) for name, array in arrays.items()}


@pytest.fixture
def halves() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(4, 48)).astype(np.float32), rng.normal(size=(48, 4)).astype(np.float32)


def grown(made: Weights, by: np.ndarray, name: str = LOOKED_AT) -> None:
    np.testing.assert_allclose(made[name] - table()[name], by, rtol=0, atol=2e-6)


def test_peft_with_old_settings_and_a_torch_file(folder: Path):
    expected = table(folder)[LOOKED_AT]
    tensors = load_file(folder / "adapter_model.safetensors")
    (folder / "adapter_model.safetensors").unlink()
    torch.save(
        {name: torch.from_numpy(array) for name, array in tensors.items()}, folder / "adapter_model.bin"
    )
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({"peft_type": "LORA", "r": 4}))  # lora_alpha 8, as it happens
    np.testing.assert_array_equal(table(folder)[LOOKED_AT], expected)
    np.testing.assert_array_equal(table(folder / "adapter_model.bin")[LOOKED_AT], expected)


def test_mlx_audiogen_in_versions(tmp_path: Path):
    flat = FIXTURES / "lora" / "mlx-audiogen"
    expected = table(flat)[LOOKED_AT]
    for version in ("v2", "v10"):
        shutil.copytree(flat, tmp_path / version)
    settings = json.loads((flat / "config.json").read_text())
    (tmp_path / "v10" / "config.json").write_text(json.dumps(settings | {"alpha": 0.0}))
    np.testing.assert_array_equal(table(tmp_path)[LOOKED_AT], table()[LOOKED_AT])  # the newest
    (tmp_path / "active").symlink_to("v2")
    np.testing.assert_array_equal(table(tmp_path)[LOOKED_AT], expected)
    np.testing.assert_array_equal(table(tmp_path / "v2" / "lora.safetensors")[LOOKED_AT], expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["active", "v10", "v2"]


def test_loralib(tmp_path: Path, halves: tuple[np.ndarray, np.ndarray]):
    down, up = halves
    stem = LOOKED_AT.removesuffix(".weight")
    tensors = {f"{stem}.lora_A": torch.from_numpy(down), f"{stem}.lora_B": torch.from_numpy(up)}
    torch.save(tensors, tmp_path / "lora.pth")
    grown(table(tmp_path / "lora.pth"), up @ down / 4)
    grown(table(f"{tmp_path / 'lora.pth'}:0.5"), up @ down / 8)


def test_two_of_one_are_their_sum(tmp_path: Path):
    once, twice = table(f"{QV}:0.75")[LOOKED_AT], table(f"{QV}:0.5", f"{QV}:0.25")[LOOKED_AT]
    np.testing.assert_allclose(once, twice, rtol=0, atol=1e-6)


# Layouts of the model


@pytest.mark.parametrize("name", ["all", "dora", "dreambooth"])
def test_every_layout_of_the_model(tmp_path: Path, name: str):
    """`convert` puts matrices into one another; what is merged before or after is the same model."""
    asked = str(ADAPTERS / name)
    places = {"tokenizer": TOKENIZER}
    merged = convert(Files(MONO, Places(lora=(asked,), **places)), tmp_path / "merged")
    plain = convert(Files(MONO, Places(**places)), tmp_path / "plain")
    before, after = table(model=merged), table(asked, model=plain)
    assert set(before) == set(after)
    for each in before:
        np.testing.assert_allclose(before[each], after[each], rtol=0, atol=1e-6)
    assert not np.array_equal(before["heads"], table(model=plain)["heads"]) or name == "dora"


def test_audiocrafts_layout():
    """Its rows of queries, keys and values lie in one matrix."""
    model = MODELS / "audiocraft-text"
    files = Files(model, Places(t5=MODELS / "t5"))
    found = matrices(files.config, files.layout, files.table)
    place = found["decoder.model.decoder.layers.1.encoder_attn.v_proj"]
    assert (place.tensor, place.index, place.parts) == (
        "transformer.layers.1.cross_attention.in_proj_weight", 2, 3,
    )  # fmt: skip
    names = {part for parts in pieces(files.config, "transformers").values() for part in parts}
    assert {f"{name}.weight" for name in found} <= names


@pytest.mark.parametrize("bits", [4, 8])
def test_quantised_weights(bits: int):
    """Taken apart, added to, quantised anew: what float weights quantise to with the change in them."""
    rng = np.random.default_rng(1)
    matrix = rng.normal(size=(128, 64)).astype(np.float32)
    floats = Weights({"m": StoredArray.of(matrix)}, "here")
    parts = mx.quantize(mx.array(matrix), group_size=64, bits=bits)
    names = zip(packed.ENDINGS, parts, strict=True)
    stored = Weights({f"m{ending}": StoredArray.of(np.array(part)) for ending, part in names}, "here")
    down, up = rng.normal(size=(2, 64)).astype(np.float32), rng.normal(size=(64, 2)).astype(np.float32)
    made = lora.Change(StoredArray.of(down), StoredArray.of(up), 0.5)
    adapter = lora.Adapter(Path("a"), (), {"m": made})
    places = {"m": lora.Place("m", 1, 2)}
    found = lora.merged(stored, [adapter], places, bits=bits)
    assert found.shape("m") == stored.shape("m") and found.dtype("m") == "uint32"
    expected = lora.merged(floats, [adapter], places)["m"]
    step = np.abs(expected).max() * 2 / (2**bits - 1)
    made_float = np.array(
        mx.dequantize(*(mx.array(found[f"m{ending}"]) for ending in packed.ENDINGS), group_size=64, bits=bits)
    )
    np.testing.assert_allclose(made_float, expected, rtol=0, atol=2 * step)
    assert np.abs(made_float - matrix).max() > 5 * step or bits == 4
    same = lora.merged(stored, [], places, bits=bits)
    np.testing.assert_array_equal(same["m"], stored["m"])


# Stable Audio


STABLE = FIXTURES / "stable-audio"
FOLDERS = {"tiny-small": {}, "tiny-1.0": {}, "tiny-1.0-diffusers": {}}


def dit(name: str) -> Weights:
    folder = STABLE / name
    if name.endswith("diffusers"):
        return stable_audio.read_diffusers(folder).dit
    return stable_audio.read_stable_audio_tools(folder / "model.safetensors").dit


@pytest.mark.parametrize("name", ["tiny-small", "tiny-1.0"])
def test_names_of_modules_are_read_back(name: str):
    """The names that adapters use become ours by the rules that checkpoints go through."""
    weights = dit(name)
    for spelled, place in stable_audio.matrices(weights).items():
        if spelled.startswith("model.model."):
            tensor = f"{spelled.removeprefix('model.model.')}.weight"
            one = Weights({tensor: StoredArray.of(np.zeros(1))}, "").apply(stable_audio.STABLE_AUDIO_TOOLS)
            assert list(one) == [place.tensor]
    raw = load_file(STABLE / name / "model.safetensors")
    modules = {
        key.removesuffix(".weight") for key in raw if "transformer.layers" in key and key.endswith("weight")
    }
    matrices = {key for key in modules if raw[f"{key}.weight"].ndim > 1}
    assert matrices and matrices <= set(stable_audio.matrices(weights))


def loraw(path: Path, weights: Weights, form: str, rank: int = 2) -> dict[str, np.ndarray]:
    """A LoRA of every layer's projection to queries, keys and values; what it adds, by the tensor."""
    rng, tensors, added = np.random.default_rng(3), {}, {}
    for index in range(2):
        name = f"layers.{index}.self_attn.qkv.weight"
        rows, columns = weights.shape(name)
        down, up = rng.normal(size=(rank, columns)), rng.normal(size=(rows, rank))
        added[name] = (up @ down).astype(np.float32)
        module = f"model/model/transformer/layers/{index}/self_attn/to_qkv"
        if form == "comfyui":
            module = "lora_unet_" + module.removeprefix("model/model/").replace("/", "_")
            tensors[f"{module}.alpha"] = np.array(float(rank))
        sign = "." if form == "comfyui" else "/"
        tensors |= {f"{module}{sign}lora_down.weight": down, f"{module}{sign}lora_up.weight": up}
    stored = {key: torch.from_numpy(np.asarray(value, np.float32)) for key, value in tensors.items()}
    if path.suffix == ".safetensors":
        save_file({key: value.numpy() for key, value in stored.items()}, path)
    else:
        torch.save(stored, path)
    return added


@pytest.mark.parametrize(("form", "suffix"), [("loraw", ".ckpt"), ("comfyui", ".safetensors")])
@pytest.mark.parametrize("name", ["tiny-small", "tiny-1.0", "tiny-1.0-diffusers"])
def test_loraw_and_comfyui(tmp_path: Path, form: str, suffix: str, name: str):
    weights, path = dit("tiny-small" if name == "tiny-small" else "tiny-1.0"), tmp_path / f"a{suffix}"
    added = loraw(path, weights, form)
    made = StableAudio.load(STABLE / name, t5=STABLE / "t5", low_memory=False, lora=[f"{path}:0.5"])
    plain = StableAudio.load(STABLE / name, t5=STABLE / "t5", low_memory=False)
    assert made.revision != plain.revision
    for tensor, delta in added.items():
        index = int(tensor.split(".")[1])
        now, before = (
            np.array(each._parts.dit().layers[index].self_attn.qkv.weight) for each in (made, plain)
        )
        np.testing.assert_allclose(now - before, 0.5 * delta, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(0,), (2,), (1, 0), (1 << 20,)])
def test_an_alpha_that_is_no_number_is_refused(shape: tuple[int, ...], tmp_path: Path):
    halves = {"x.lora_down.weight": np.ones((2, 4)), "x.lora_up.weight": np.ones((4, 2))}
    save_file({**halves, "x.alpha": np.ones(shape)}, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match="x has an alpha of shape"):
        read_changes([tmp_path / "a.safetensors"])


def test_lengths_of_rows_and_alpha_beside_the_file(tmp_path: Path):
    weights, path = dit("tiny-small"), tmp_path / "a.ckpt"
    added = loraw(path, weights, "loraw")
    (tmp_path / "a.json").write_text(json.dumps({"lora": {"rank": 2, "alpha": 4}}))
    name = next(iter(added))
    adapter = lora.read(Asked(path))
    made = lora.merged(weights, [adapter], stable_audio.matrices(weights))[name]
    np.testing.assert_allclose(made, weights[name] + 2 * added[name], rtol=0, atol=1e-5)
    tensors = {key: value.numpy() for key, value in torch.load(path).items()}
    rows = len(weights[name])
    for key in [key for key in tensors if key.endswith("up.weight")]:
        tensors[key.replace("lora_up", "dora_mag")] = np.full((rows, 1), 3, np.float32)
    torch.save({key: torch.from_numpy(value) for key, value in tensors.items()}, path)
    made = lora.merged(weights, [lora.read(Asked(path))], stable_audio.matrices(weights))[name]
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 3, rtol=1e-5)


def test_peft_on_diffusers_network(tmp_path: Path):
    """A change of one projection is of a third of the rows that are one matrix here."""
    weights = dit("tiny-1.0")
    name = "layers.1.self_attn.qkv.weight"
    rows, columns = weights.shape(name)
    rng = np.random.default_rng(0)
    down, up = rng.normal(size=(2, columns)).astype("f4"), rng.normal(size=(rows // 3, 2)).astype("f4")
    module = "base_model.model.transformer_blocks.1.attn1.to_k"
    save_file(
        {f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": up},
        tmp_path / "adapter_model.safetensors",
    )
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 2, "lora_alpha": 2}))
    made = lora.merged(weights, [lora.read(Asked(tmp_path))], stable_audio.matrices(weights))[name]
    third = rows // 3
    np.testing.assert_allclose(
        made[third : 2 * third] - weights[name][third : 2 * third], up @ down, atol=1e-5
    )
    np.testing.assert_array_equal(made[:third], weights[name][:third])


# What is refused


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"peft_type": "LOHA"}, "the kind LOHA"),
        ({"init_lora_weights": "pissa"}, "'pissa'"),
        ({"init_lora_weights": "olora"}, "'olora'"),
        ({"init_lora_weights": "pissa_niter_16"}, "'pissa_niter_16'"),
        ({"init_lora_weights": "loftq"}, "'loftq'"),
        ({"init_lora_weights": ["eva"]}, "init_lora_weights"),
        ({"r": 8}, "is of rank 4, its adapter_config.json says 8"),
        ({"r": 0}, "r must be 1 or more"),
        ({"rank_pattern": {"q_proj": 3}}, "is of rank 4, its adapter_config.json says 3"),
        ({"rank_pattern": {".*q_proj|x": 3}}, "is of rank 4, its adapter_config.json says 3"),
        ({"rank_pattern": {"(?=a)": 3}}, "'?' is not read there"),
        ({"alpha_pattern": {"(": 3}}, "not a pattern of names"),
        ({"bias": "all"}, "biases were trained too"),
        ({"lora_bias": True}, "lora_bias is set"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out is set"),
        ({"modules_to_save": ["lm_heads"]}, "modules_to_save is set"),
        ({"use_qalora": True}, "use_qalora is set"),
        ({"use_bdlora": {"a": 1}}, "use_bdlora is set"),
        ({"target_parameters": ["x"]}, "target_parameters is set"),
        ({"something_new": 1}, "something_new is set"),
        ({"use_dora": True}, "lacks the lengths of a DoRA"),
        ({"lora_alpha": "much"}, "lora_alpha must be float"),
        ({"lora_alpha": 1e400}, "adapter_config.json"),
    ],
)
def test_settings_of_peft(folder: Path, settings: dict[str, Any], message: str):
    change(folder, **settings)
    with pytest.raises(WeightsError, match=message):
        table(folder)


def spoil(folder: Path, edit: Any) -> Path:
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)
    return folder


STEM = "base_model.model.decoder.model.decoder.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.pop(f"{STEM}.lora_B.weight"), r"q_proj has lora_A, but not lora_B"),
        (lambda t: t.pop(f"{STEM}.lora_A.weight"), r"q_proj has lora_B, but not lora_A"),
        (lambda t: t.update({f"{STEM}.bias": np.zeros(3, "f4")}), r"1 of its tensors are no parts of a LoRA"),
        (lambda t: t.update({f"{STEM}.lora_A.weight": np.zeros((4, 47), "f4")}), r"\(48, 47\) instead of"),
        (lambda t: t.update({f"{STEM}.lora_A.weight": np.zeros((4, 4, 9), "f4")}), "do not go together"),
        (lambda t: t.update({f"{STEM}.lora_A.weight": np.full((4, 48), np.nan, "f4")}), "NaN or infinity"),
        (lambda t: t.update({f"{STEM}.lora_magnitude_vector": np.ones(48, "f4")}), "has the lengths"),
        (lambda t: t.clear(), "a LoRA without tensors"),
    ],
)  # fmt: skip
def test_tensors_that_do_not_fit(folder: Path, edit: Any, message: str):
    spoil(folder, edit)
    with pytest.raises(WeightsError, match=message):
        table(folder)[LOOKED_AT]


def test_an_adapter_of_another_model_names_the_first_ten(folder: Path):
    def moved(tensors: dict[str, np.ndarray]) -> None:
        for name in list(tensors):
            for layer in range(2, 12):
                tensors[name.replace("layers.1.", f"layers.{layer}.")] = tensors[name]

    spoil(folder, moved)
    with pytest.raises(
        WeightsError, match=r"40 of the 48 modules .* are not in this model.*, \.\.\.$"
    ) as caught:
        table(folder)
    assert str(caught.value).count("layers.") == 10
    with pytest.raises(WeightsError, match="LoRA of Stable Audio 3"):
        table(FIXTURES / "stable-audio-3" / "loras" / "lora.safetensors")


def test_what_is_no_adapter(tmp_path: Path, folder: Path):
    with pytest.raises(WeightsError, match="no such file"):
        table(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match="no adapter in this folder"):
        table(tmp_path / "empty")
    (folder / "adapter_config.json").unlink()
    with pytest.raises(WeightsError, match="without its adapter_config"):
        table(folder / "adapter_model.safetensors")
    shutil.copy(QV / "adapter_config.json", tmp_path / "empty")
    with pytest.raises(WeightsError, match="but neither adapter_model"):
        table(tmp_path / "empty")
    with pytest.raises(WeightsError, match="no parts of a LoRA"):
        table(MONO / "model.safetensors")


class Evil:
    def __reduce__(self) -> Any:
        return (print, ("run",))


def test_a_pickle_that_would_run_something(folder: Path, capsys: pytest.CaptureFixture[str]):
    (folder / "adapter_model.safetensors").unlink()
    torch.save({"a": Evil()}, folder / "adapter_model.bin", pickle_module=pickle)
    with pytest.raises(WeightsError, match="print"):
        table(folder)
    assert "run" not in capsys.readouterr().out


def test_strength_zero_is_off_but_must_fit(folder: Path):
    spoil(folder, lambda tensors: tensors.update({f"{STEM}.lora_A.weight": np.zeros((4, 47), "f4")}))
    with pytest.raises(WeightsError, match="of another size"):
        table(f"{folder}:0")


def test_the_first_ten_are_short():
    assert len(first_ten(["x" * 10_000] * 100)) < 1400


# Recipes and commands


def clip(**more: Any) -> Any:
    music = MusicGen.load(MONO, tokenizer=TOKENIZER, **more)
    return music.generate("a loud rock loop", seconds=0.3, seed=3, sampling=Sampling(top_k=8))


def test_the_recipe_holds_it_and_replays(tmp_path: Path):
    where = shutil.copytree(QV, tmp_path / "one")
    made = clip(lora=[f"{where}:0.5"])
    assert not np.array_equal(made.samples, clip().samples)
    assert made.recipe.settings["lora"] == [f"{where}:0.5"]
    assert len(made.recipe.inputs["lora"].split()) == 2
    np.testing.assert_array_equal(jobs.replay(made.recipe).samples, made.samples)
    moved = shutil.move(where, tmp_path / "two")
    with pytest.raises(AudiogenError, match="no such file"):
        jobs.replay(made.recipe)
    again = jobs.replay(made.recipe, moved={"lora": moved})
    np.testing.assert_array_equal(again.samples, made.samples)
    with pytest.raises(OptionError, match="names 2 paths"):
        jobs.replay(made.recipe, moved={"lora": [moved, moved]})
    spoil(Path(moved), lambda tensors: tensors.update({name: array * 2 for name, array in tensors.items()}))
    with pytest.raises(AudioError, match="not the adapter that was merged"):
        jobs.replay(made.recipe, moved={"lora": moved})


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(cli, [str(each) for each in arguments])


def test_commands(tmp_path: Path):
    asked = ["-m", MONO, "--tokenizer", TOKENIZER, "--lora", f"{QV}:0.5", "--lora", ADAPTERS / "dora"]
    made = run("musicgen", "a loud rock loop", "-s", "0.3", "--seed", "1", "-o", tmp_path / "a.wav", *asked)
    assert made.exit_code == 0, made.output
    moved = shutil.copytree(QV, tmp_path / "moved")
    again = run(
        "replay", tmp_path / "a.wav", "-o", tmp_path / "b.wav", "--lora", moved, "--lora", ADAPTERS / "dora"
    )
    assert again.exit_code == 0, again.output
    assert (tmp_path / "a.wav").read_bytes()[-4000:] == (tmp_path / "b.wav").read_bytes()[-4000:]
    whole = run("convert", *asked, "-o", tmp_path / "merged")
    assert whole.exit_code == 0, whole.output
    made = run(
        "musicgen",
        "a loud rock loop",
        "-s",
        "0.3",
        "--seed",
        "1",
        "-o",
        tmp_path / "c.wav",
        "-m",
        tmp_path / "merged",
    )
    assert made.exit_code == 0, made.output
    first, second = (Audio.load(tmp_path / name).samples for name in ("a.wav", "c.wav"))
    assert np.abs(first).max() > 0.1
    np.testing.assert_allclose(first, second, rtol=0, atol=1e-4)


def test_a_model_error_before_any_work():
    with pytest.raises(ModelError, match="gone"):
        MusicGen.load(MONO, tokenizer=TOKENIZER, lora=["gone"])


# Written with them


@pytest.mark.parametrize("layout", ["tiny-1.0", "tiny-1.0-diffusers", "tiny-small"])
def test_a_stable_audio_is_written_with_what_was_merged(layout: str, tmp_path: Path):
    """The folder needs nothing beside it, and makes the sound that the model makes with the adapter."""
    model = FIXTURES / "stable-audio" / layout
    parts = {} if layout.endswith("diffusers") else {"t5": FIXTURES / "stable-audio" / "t5"}
    adapter = written_by_loraw(tmp_path / "style.safetensors", model, **parts)
    told = ["convert", model, "--lora", f"{adapter}:0.5", "-o", tmp_path / "made"]
    told += [each for name, place in parts.items() for each in (f"--{name}", place)]
    made = CliRunner().invoke(cli, [str(each) for each in told])
    assert made.exit_code == 0, made.output
    asked = {"prompt": "rain", "seconds": 0.2, "steps": 2, "seed": 3}
    expected = StableAudio.load(model, lora=[f"{adapter}:0.5"], **parts).generate(**asked)
    plain = StableAudio.load(model, **parts).generate(**asked)
    found = StableAudio.load(tmp_path / "made").generate(**asked)
    np.testing.assert_array_equal(found.samples, expected.samples)
    assert np.abs(plain.samples - expected.samples).max() > 1e-3
    refused = CliRunner().invoke(cli, [*map(str, told[:2]), "-o", str(tmp_path / "other")])
    assert refused.exit_code == 1 and "runs as it is" in refused.stderr


def written_by_loraw(path: Path, model: Path, **parts: Any) -> Path:
    """An adapter as LoRAW writes it, beside two matrices of a model."""
    dit = StableAudio.load(model, **parts)._parts.dit()
    rng, tensors = np.random.default_rng(0), {}
    for name, weight in {
        "model/model/transformer/layers/0/self_attn/to_qkv": dit.layers[0].self_attn.qkv.weight,
        "model/model/transformer/layers/1/ff/ff/2": dit.layers[1].ff.out.weight,
    }.items():
        rows, columns = weight.shape
        tensors[f"{name}/lora_down.weight"] = rng.normal(0, 0.3, (4, columns)).astype(np.float32)
        tensors[f"{name}/lora_up.weight"] = rng.normal(0, 0.3, (rows, 4)).astype(np.float32)
    save_file(tensors, path)
    return path
