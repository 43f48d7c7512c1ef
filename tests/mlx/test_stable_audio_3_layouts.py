"""Stable Audio 3 from the archives of its authors' runtime, and as `convert` writes it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from audiogen_core import Audio
from audiogen_core.errors import AudiogenError, ModelError, OptionError, WeightsError
from audiogen_core.formats.stored import StoredArray
from audiogen_core.weights import Weights
from audiogen_mlx import sentencepiece
from audiogen_mlx.stable_audio_3 import StableAudio3, weights
from audiogen_mlx.stable_audio_3.config import describe, read_config, read_diffusers, read_runtime
from audiogen_mlx.stable_audio_3.convert import convert
from audiogen_mlx.stable_audio_3.load import locate
from audiogen_mlx.stable_audio_3.options import Load
from audiogen_mlx.t5gemma import read_tokenizer
from audiogen_mlx.verify import verify
from support import stable_audio_3_full as full
from support import stable_audio_3_runtime as runtime
from support.commands import call
from support.programs import program

FIXTURES = full.FIXTURES
COMMANDS = program("audiogen-mlx")
TEXT = FIXTURES / "tiny-small" / "t5gemma-b-b-ul2"
KINDS = {"tiny-small": ("dit_sm-music_f16", "s"), "tiny-medium": ("dit_medium_f16", "l")}
ASKED = {"seconds": 1.0, "steps": 2, "seed": 3}


def clip(model: StableAudio3) -> np.ndarray:
    known = Audio(0.3 * np.sin(np.arange(2 * model.sample_rate).reshape(2, -1) / 5), model.sample_rate)
    return model.generate("warm lofi house", init_audio=known, init_noise_level=0.8, **ASKED).samples


@pytest.fixture(scope="module", params=list(KINDS))
def archives(request, tmp_path_factory) -> tuple[Path, Path]:
    """A model in the published layout, and its four archives, beside the settings that these lack."""
    source, folder = FIXTURES / request.param, tmp_path_factory.mktemp("runtime")
    name, kind = KINDS[request.param]
    runtime.write(source, TEXT, folder, name=name, kind=kind)
    shutil.copy(source / "model_config.json", folder)
    return source, folder


# The archives of the authors' runtime


def test_the_archives_make_the_same_sound(archives):
    source, folder = archives
    plain = StableAudio3.load(source, t5=str(TEXT), low_memory=False)
    model = StableAudio3.load(folder, low_memory=False)
    np.testing.assert_allclose(clip(model), clip(plain), rtol=0, atol=1e-6)
    named = StableAudio3.load(next(folder.glob("dit_*")))
    assert named.revision == model.revision != plain.revision


@pytest.mark.parametrize(
    ("size", "kind", "name"), [("small", "s", "dit_sm-music"), ("medium", "l", "dit_medium")]
)
def test_published_archives_say_which_model_they_are(size, kind, name, tmp_path):
    names = json.loads((FIXTURES / "official_mlx_npz_names.json").read_text())

    def table(start: str) -> Weights:
        (shapes,) = (shapes for key, shapes in names.items() if key.startswith(start))
        made = {
            one: StoredArray(tuple(shape), "float32", lambda: np.zeros(0)) for one, shape in shapes.items()
        }
        return Weights(made, start)

    network, *sides = table(name), table(f"same_{kind}_encoder"), table(f"same_{kind}_decoder")
    (tmp_path / "model_config.json").write_text(json.dumps(full.configuration(size)))
    assert read_runtime(network, *sides, base=False) == read_config(tmp_path / "model_config.json")
    found = read_runtime(network, *sides, base=True)
    assert found.published.sampler == "euler"


def test_every_name_of_a_published_network_is_used(tmp_path, monkeypatch):
    names = json.loads((FIXTURES / "official_mlx_npz_names.json").read_text())
    tables = {
        key.split(" ")[0].split("_f")[0]: Weights(
            {one: StoredArray(tuple(shape), "float32", lambda: np.zeros(0)) for one, shape in shapes.items()},
            key,
        )
        for key, shapes in names.items()
        if key != "note" and not key.startswith("t5gemma")
    }
    for size, network in (("small", "dit_sm-music"), ("medium", "dit_medium")):
        for name in tables:
            (tmp_path / f"{name}_f16.npz").touch()
        monkeypatch.setattr(weights, "read", lambda path: tables[Path(path).stem.split("_f")[0]])
        made = weights.read_tables(tmp_path / f"{network}_f16.npz")
        stored = full.random_weights(full.KEYS[f"stable-audio-3-{size}"])
        monkeypatch.setattr(
            weights, "read_networks", lambda path, networks, stored=stored: stored.networks(networks)
        )
        plain = weights.read_stable_audio_3(Path("published"))
        for part in ("dit", "embedders", "vae"):
            ours, theirs = getattr(made, part), getattr(plain, part)
            shapes = {name: theirs.shape(name) for name in theirs}
            shapes |= {name: shapes[name][:2] for name in weights.SQUEEZED if name in shapes}
            assert {name: ours.shape(name) for name in ours} == shapes


def test_archives_that_do_not_belong_together(archives, tmp_path):
    _, folder = archives
    for path in folder.iterdir():
        shutil.copy(path, tmp_path)
    file = next(tmp_path.glob("dit_*"))
    shutil.copy(file, tmp_path / "dit_sm-sfx_f16.npz")
    with pytest.raises(ModelError, match=r"expected dit_\*\.npz .*several \(dit_.*\); name one"):
        StableAudio3.load(tmp_path)
    assert StableAudio3.load(tmp_path / "dit_sm-sfx_f16.npz").channels == 2
    encoder = next(tmp_path.glob("same_*_encoder*"))
    encoder.rename(tmp_path / "elsewhere.npz")
    with pytest.raises(
        ModelError, match=r"expected same_[sl]_encoder\*\.npz of the authors' runtime, found none"
    ):
        StableAudio3.load(file)
    (tmp_path / "elsewhere.npz").rename(encoder)
    (tmp_path / "t5gemma_f16.npz").unlink()
    with pytest.raises(ModelError, match=r"expected t5gemma\*\.npz"):
        StableAudio3.load(file)


def test_a_damaged_archive_is_refused(archives, tmp_path):
    _, folder = archives
    for path in folder.iterdir():
        shutil.copy(path, tmp_path)
    file = next(tmp_path.glob("dit_*"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)
    with pytest.raises(WeightsError, match=r"fails its checksum|differs from the directory|description"):
        StableAudio3.load(file)
    np.savez(file, **{name: np.array([{}]) for name in ("a", "b")})
    with pytest.raises(WeightsError, match="an array of object, which is not read"):
        StableAudio3.load(file)


# SentencePiece


def test_a_sentencepiece_model_makes_what_sentencepiece_makes():
    """Ids of sentencepiece 0.2, of a model with bytes for what is unknown and symbols of its own."""
    tokens = sentencepiece.read((FIXTURES / "sentencepiece.model").read_bytes(), "model")
    for case in json.loads((FIXTURES / "sentencepiece.json").read_text()):
        assert tokens.encode(case["text"], add_special_tokens=False).ids == case["ids"]


def test_the_tokenizer_of_an_archive_is_that_of_the_folder(archives):
    _, folder = archives
    packed = read_tokenizer(folder / "t5gemma_f16.npz")
    for case in json.loads((FIXTURES / "tokenizer_expected.json").read_text()):
        assert packed.encode([case["text"] or ""])[0][0].tolist() == case["ids"]


def test_bytes_that_are_no_sentencepiece_model():
    good = (FIXTURES / "sentencepiece.model").read_bytes()
    whole = runtime.field
    for data, reason in {
        b"": "another kind than BPE",
        good[:5000]: "ends early|another kind",
        b"\x0a": "ends early",
        b"\xff" * 20: "ten bytes",
        whole(2, b"\x18\x01"): "another kind than BPE",
        whole(2, b"\x18\x02"): "changes texts",
        whole(1, whole(1, b"\xff")): "damaged",
        whole(1, whole(1, b"a" * 500)): "without a name",
        whole(2, b"\x18\x02") + whole(3, b"\x18\x00\x20\x00"): "pieces twice, or not one for the unknown",
        good + whole(1, whole(1, b"a")): "pieces twice",
    }.items():
        with pytest.raises(ModelError, match=reason):
            sentencepiece.read(data, "model")
    rng = np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(good)
        for at in rng.integers(0, len(good), 8):
            damaged[at] = rng.integers(256)
        try:
            sentencepiece.read(bytes(damaged), "model")
        except AudiogenError as error:
            assert str(error).startswith("model: ")


# Converted folders


@pytest.mark.parametrize("path", ["tiny-small", "tiny-medium", "tiny-small-base", "tiny-medium-diffusers"])
def test_a_converted_model_makes_the_same_sound(path, tmp_path):
    load = Load(FIXTURES / path, t5=None if path.endswith(("tiny-small", "diffusers")) else str(TEXT))
    folder = convert(locate(load, fetch=None), tmp_path / "model")
    plain = StableAudio3.load(load.model, t5=load.t5)
    made = StableAudio3.load(folder)
    assert made.config == plain.config or path.endswith("diffusers")
    np.testing.assert_array_equal(clip(made), clip(plain))
    assert sorted(file.name for file in folder.iterdir())[0] == "audiogen.safetensors"
    with pytest.raises(OptionError, match="not empty; use --force"):
        convert(locate(load, fetch=None), folder)
    again = convert(locate(Load(folder), fetch=None), tmp_path / "again")
    np.testing.assert_array_equal(clip(StableAudio3.load(again)), clip(plain))
    with pytest.raises(OptionError, match="the model itself"):
        convert(locate(Load(folder), fetch=None), folder, force=True)


def test_a_converted_archive_makes_the_same_sound(archives, tmp_path):
    _, source = archives
    folder = convert(locate(Load(source), fetch=None), tmp_path / "model")
    np.testing.assert_array_equal(clip(StableAudio3.load(folder)), clip(StableAudio3.load(source)))


@pytest.mark.parametrize("bits", [4, 8])
def test_a_quantised_model_is_that_of_quantising_while_loading(bits, tmp_path):
    source = FIXTURES / "tiny-small"
    folder = convert(locate(Load(source), fetch=None), tmp_path / "model", bits=bits)
    made = StableAudio3.load(folder)
    np.testing.assert_array_equal(clip(made), clip(StableAudio3.load(source, bits=bits)))
    sizes = [
        (place / name).stat().st_size
        for place, name in ((folder, weights.OWN), (source, "model.safetensors"))
    ]
    assert sizes[0] < 2 * sizes[1]  # that of the source is in float16, the autoencoder's part here in float32
    with pytest.raises(OptionError, match=f"quantised to {bits} bits already"):
        StableAudio3.load(folder, bits=12 - bits)
    with pytest.raises(OptionError, match="no LoRA can be merged"):
        StableAudio3.load(folder, lora=(str(FIXTURES / "loras" / "lora.safetensors"),))
    again = convert(locate(Load(folder), fetch=None), tmp_path / "again", bits=bits)
    assert (again / weights.OWN).read_bytes() == (folder / weights.OWN).read_bytes()


def test_half_of_it_in_float16(tmp_path):
    source = FIXTURES / "tiny-small"
    sizes = []
    for dtype in ("float32", "float16", "bfloat16"):
        folder = convert(locate(Load(source), fetch=None), tmp_path / dtype, dtype=dtype)
        model = StableAudio3.load(folder, dtype=dtype)
        assert np.isfinite(clip(model)).all()
        sizes.append(sum(file.stat().st_size for file in folder.rglob("*.safetensors")))
    assert sizes[0] > 1.3 * sizes[1] and abs(sizes[1] - sizes[2]) < 1000
    # What is stored in float16 is what was there: the fixture's numbers are float16.
    exact = StableAudio3.load(tmp_path / "float16")
    np.testing.assert_array_equal(clip(exact), clip(StableAudio3.load(source)))


@pytest.mark.parametrize("size", ["small", "medium"])
def test_a_configuration_is_described_as_the_authors_do(size, tmp_path):
    path = tmp_path / "model_config.json"
    path.write_text(json.dumps(full.configuration(size)))
    config = read_config(path)
    path.write_text(json.dumps(describe(config)))
    assert read_config(path) == config
    config = read_diffusers(FIXTURES / "tiny-medium-diffusers")
    path.write_text(json.dumps(describe(config)))
    assert read_config(path) == config


# verify, and the command


@pytest.mark.parametrize(
    "archives", ["tiny-small", pytest.param("tiny-medium", marks=pytest.mark.slow)], indirect=True
)
def test_verify_reads_every_tensor(archives, tmp_path):
    from audiogen_mlx.musicgen.load import Places

    source, folder = archives
    facts = verify(str(source), Places(t5=str(TEXT)))
    assert facts["family"] == "stable-audio-3" and facts["autoencoder_tensors"] > 100
    assert verify(str(folder), Places())["network_tensors"] == facts["network_tensors"]
    made = convert(locate(Load(folder), fetch=None), tmp_path / "model")
    assert verify(str(made), Places())["autoencoder_tensors"] == facts["autoencoder_tensors"]
    file = made / weights.OWN
    data = bytearray(file.read_bytes())
    data[-4:] = b"\xff" * 4
    file.write_bytes(data)
    with pytest.raises(WeightsError, match="NaN or infinity"):
        verify(str(made), Places())


def test_the_command_converts_and_verifies(tmp_path):
    output = tmp_path / "model"
    done = call(COMMANDS, "convert", FIXTURES / "tiny-small", "-o", output, "--bits", "8", "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["bits"] == 8
    done = call(COMMANDS, "verify", output, "--json")
    assert json.loads(done.stdout)["family"] == "stable-audio-3"
    done = call(COMMANDS, "convert", FIXTURES.parent / "stable-audio" / "no-such", "-o", output)
    assert done.exit_code == 1 and done.stderr.count("\n") == 1
    done = call(COMMANDS, "convert", FIXTURES / "tiny-small", "-o", tmp_path / "other", "--codec", "demo")
    assert done.exit_code == 1 and "codec is a part of a MusicGen" in done.stderr
    done = call(
        COMMANDS, "convert", FIXTURES.parent / "stable-audio" / "tiny-small", "-o", tmp_path / "other"
    )
    assert done.exit_code == 1 and "runs as it is" in done.stderr
    assert not (tmp_path / "other").exists()


def test_a_model_is_converted_with_a_lora_in_it(tmp_path):
    """Which `--lora` names, with its strength: the folder makes the sound that the model makes with it."""
    wanted = f"{FIXTURES / 'loras' / 'lora.safetensors'}:0.8"
    output = tmp_path / "model"
    done = call(COMMANDS, "convert", FIXTURES / "tiny-small", "--lora", wanted, "-o", output)
    assert done.exit_code == 0, done.stderr
    asked = {"prompt": "a bell", "seconds": 0.3, "steps": 2, "seed": 1}
    expected = StableAudio3.load(FIXTURES / "tiny-small", lora=[wanted]).generate(**asked)
    assert np.array_equal(StableAudio3.load(output).generate(**asked).samples, expected.samples)
    plain = StableAudio3.load(FIXTURES / "tiny-small").generate(**asked)
    assert np.abs(plain.samples - expected.samples).max() > 1e-3
    packed = call(COMMANDS, "convert", FIXTURES / "tiny-small", "--bits", 8, "-o", tmp_path / "packed")
    assert packed.exit_code == 0, packed.stderr
    done = call(COMMANDS, "convert", tmp_path / "packed", "--lora", wanted, "-o", tmp_path / "other")
    assert done.exit_code == 1 and "quantised, so no LoRA" in done.stderr
