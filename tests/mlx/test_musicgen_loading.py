"""Loading: every layout of files gives the same model; what is wrong with a folder is told in a sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from audiogen_core.audio import Audio
from audiogen_core.errors import AudiogenError, ModelError, OptionError, UnknownModel, WeightsError
from audiogen_core.models import ModelSpec
from audiogen_core.musicgen.conditioning import Rows
from audiogen_core.musicgen.files import Files, Places
from audiogen_core.sampling import Sampling
from audiogen_mlx.catalog import MUSICGEN
from audiogen_mlx.convert import WEIGHTS, convert
from audiogen_mlx.musicgen import MusicGen
from audiogen_mlx.musicgen.load import find_files
from audiogen_mlx.musicgen.mert import Mert
from audiogen_mlx.verify import verify

FOLDER = Path(__file__).parents[1] / "fixtures" / "musicgen"
CODEC = FOLDER.parent / "encodec" / "32k"
TOKENIZER = FOLDER / "tokenizer"
GREEDY = Sampling(temperature=0)
PROMPT = "80s pop track with bassy drums and synth"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the mono model that may be spoilt."""
    made = tmp_path / "model"
    shutil.copytree(FOLDER / "musicgen-mono", made)
    (made / "io.npz").unlink()
    shutil.copy(TOKENIZER / "tokenizer.json", made)
    return made


def codes(path: Path, **options: Any) -> np.ndarray:
    music = MusicGen.load(path, **options)
    return music.generate_codes(PROMPT, seconds=0.34, sampling=GREEDY).values


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    return codes(FOLDER / "musicgen-mono", tokenizer=TOKENIZER)


def tensors(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / "model.safetensors")


def shards(folder: Path, write: Callable[[dict[str, np.ndarray], Path], None], pattern: str) -> None:
    """The weights in three files with an index, in place of the one."""
    table = tensors(folder)
    (folder / "model.safetensors").unlink()
    names = sorted(table)
    parts = {pattern.format(i): names[i::3] for i in range(3)}
    for file, held in parts.items():
        write({name: table[name] for name in held}, folder / file)
    index = {"weight_map": {name: file for file, held in parts.items() for name in held}}
    suffix = pattern.rpartition(".")[2]
    stem = "model.safetensors" if suffix == "safetensors" else "pytorch_model.bin"
    (folder / f"{stem}.index.json").write_text(json.dumps(index))


def to_torch(table: dict[str, np.ndarray], path: Path) -> None:
    torch.save({name: torch.from_numpy(array) for name, array in table.items()}, path)


def as_sharded(folder: Path) -> None:
    shards(folder, save_file, "model-{:05}-of-3.safetensors")


def as_bin(folder: Path) -> None:
    to_torch(tensors(folder), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def as_sharded_bin(folder: Path) -> None:
    shards(folder, to_torch, "pytorch_model-{:05}-of-3.bin")


def with_old_names(folder: Path) -> None:
    """As older files are: a stored table of positions, weight norm under its old names."""
    table = tensors(folder)
    old = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): array
        for name, array in table.items()
    }
    old["decoder.model.decoder.embed_positions.weights"] = np.zeros((128, 48), np.float32)
    old["text_encoder.encoder.embed_tokens.weight"] = table["text_encoder.shared.weight"]
    save_file(old, folder / "model.safetensors")


def beside_audiocraft(folder: Path) -> None:
    """As the hub has it: both layouts in one folder."""
    for name in ("state_dict.bin", "compression_state_dict.bin"):
        shutil.copy(FOLDER / "audiocraft-text" / name, folder)


@pytest.mark.parametrize("change", [as_sharded, as_bin, as_sharded_bin, with_old_names, beside_audiocraft])
def test_layouts(change: Callable[[Path], None], folder: Path, expected: np.ndarray):
    change(folder)
    np.testing.assert_array_equal(codes(folder), expected)


def test_half_stored_weights(folder: Path, expected: np.ndarray):
    half = {name: array.astype(np.float16) for name, array in tensors(folder).items()}
    save_file(half, folder / "model.safetensors")
    made = codes(folder)
    assert made.shape == expected.shape


def whole_package(path: Path) -> None:
    """A codec as audiocraft stores it whole: settings and weights in one file."""
    table = load_file(CODEC / "model.safetensors")
    renamed = {}
    for name, array in table.items():
        name = name.replace("parametrizations.weight.original0", "weight_g")
        name = name.replace("parametrizations.weight.original1", "weight_v")
        if name.startswith("quantizer."):
            name = name.replace("quantizer.layers.", "quantizer.vq.layers.").replace(
                ".codebook.", "._codebook."
            )
        else:
            part, _, rest = name.partition(".layers.")
            index = rest.partition(".")[0]
            transposed = part == "decoder" and index in ("3", "6", "9", "12")
            rest = rest.replace(".conv.", ".convtr.convtr." if transposed else ".conv.conv.")
            name = f"{part}.model.{rest}"
        renamed[name] = torch.from_numpy(array)
    facts = json.loads((CODEC / "config.json").read_text())
    seanet = {
        "norm": "weight_norm",
        "ratios": facts["upsampling_ratios"],
        "n_filters": facts["num_filters"],
        "dimension": facts["hidden_size"],
        "causal": False,
        "true_skip": True,
        "kernel_size": 7,
        "last_kernel_size": 7,
        "residual_kernel_size": 3,
        "n_residual_layers": 1,
        "dilation_base": 2,
        "compress": 2,
        "lstm": 2,
        "pad_mode": "reflect",
        "encoder": {},
        "decoder": {"trim_right_ratio": 1.0},
    }
    settings = {
        "sample_rate": 32000,
        "channels": 1,
        "compression_model": "encodec",
        "encodec": {"sample_rate": "${sample_rate}", "channels": "${channels}", "renormalize": False},
        "seanet": seanet,
        "rvq": {"n_q": 4, "bins": facts["codebook_size"]},
    }
    package = {"best_state": renamed, "xp.cfg": json.dumps(settings), "version": "1", "exported": True}
    torch.save(package, path)


@pytest.fixture
def audiocraft(tmp_path: Path) -> Path:
    """An audiocraft folder with everything it needs beside it."""
    made = tmp_path / "audiocraft"
    made.mkdir()
    shutil.copy(FOLDER / "audiocraft-text" / "state_dict.bin", made)
    whole_package(made / "compression_state_dict.bin")
    shutil.copytree(FOLDER / "t5", made / "t5")
    shutil.copy(TOKENIZER / "tokenizer.json", made / "t5")
    return made


def test_audiocraft_with_a_whole_codec(audiocraft: Path):
    beside = {"t5": FOLDER / "t5", "tokenizer": TOKENIZER, "codec": CODEC}
    one, other = MusicGen.load(audiocraft), MusicGen.load(FOLDER / "audiocraft-text", **beside)
    options: dict[str, Any] = {"seconds": 0.24, "sampling": GREEDY}
    np.testing.assert_array_equal(
        one.generate(PROMPT, **options).samples, other.generate(PROMPT, **options).samples
    )
    file = MusicGen.load(audiocraft / "state_dict.bin")
    np.testing.assert_array_equal(
        file.generate_codes(PROMPT, **options).values, one.generate_codes(PROMPT, **options).values
    )


def test_what_a_pointer_names_is_fetched():
    fetched: list[str] = []

    def fetch(spec: ModelSpec) -> Path:
        fetched.append(spec.repo)
        return {"facebook/encodec_32khz": CODEC, "google-t5/t5-base": FOLDER / "t5"}[spec.repo]

    music = MusicGen.load(FOLDER / "audiocraft-text", fetch=fetch)
    assert sorted(fetched) == ["facebook/encodec_32khz", "google-t5/t5-base"]
    assert music.codec.info.codebooks == 4


def test_the_tokenizer_of_t5_is_fetched_only_where_it_fits(folder: Path):
    (folder / "tokenizer.json").unlink()
    asked: list[str] = []

    def fetch(spec: ModelSpec) -> Path:
        asked.append(spec.name)
        return TOKENIZER

    assert Files(folder, Places(fetch=fetch)).tokenizer_file == folder
    config = json.loads((folder / "config.json").read_text())
    config["text_encoder"]["vocab_size"] = 32128
    (folder / "config.json").write_text(json.dumps(config))
    assert Files(folder, Places(fetch=fetch)).tokenizer_file == TOKENIZER
    assert asked == ["t5-tokenizer"]


# Converting


def clip() -> Audio:
    wave = 0.3 * np.sin(2 * np.pi * 330 * np.arange(4 * 32_000) / 32_000)
    return Audio(wave[None].astype(np.float32), 32_000)


def logits(music: MusicGen) -> np.ndarray:
    """Of given tokens, without conditioning."""
    network = music._parts.transformer
    shape = (1, music.config.codebooks, 9)
    tokens = np.random.default_rng(0).integers(0, music.config.codebook_size, shape, dtype=np.int32)
    return np.array(network(mx.array(tokens), network.run(Rows(1), 9)))


def gap(one: MusicGen, other: MusicGen) -> float:
    """The largest difference of their logits, in standard deviations of these."""
    expected = logits(other)
    return float(np.abs(logits(one) - expected).max() / expected.std())


@pytest.mark.parametrize(
    ("name", "beside"),
    [
        ("musicgen-mono", {}),
        ("musicgen-stereo", {}),
        ("musicgen-melody", {}),
        ("audiocraft-text", {"t5": FOLDER / "t5", "codec": CODEC}),
        ("audiocraft-style", {"t5": FOLDER / "t5", "codec": CODEC}),
    ],
)
def test_a_converted_model_is_the_same(name: str, beside: dict[str, Path], tmp_path: Path):
    places = {"tokenizer": TOKENIZER, **beside}
    made = convert(Files(FOLDER / name, Places(**places)), tmp_path / "made")
    assert {path.name for path in made.iterdir()} >= {"config.json", WEIGHTS, "tokenizer.json"}
    one, other = MusicGen.load(made), MusicGen.load(FOLDER / name, **places)
    assert one.config == other.config
    options: dict[str, Any] = {"seconds": 0.3, "sampling": GREEDY}
    if one.config.clip:
        options[one.config.clip] = clip()
    np.testing.assert_array_equal(
        one.generate(PROMPT, **options).samples, other.generate(PROMPT, **options).samples
    )
    assert verify(str(made), Places())["layout"] == "audiogen"
    again = convert(Files(made), tmp_path / "again")
    assert (again / WEIGHTS).read_bytes() == (made / WEIGHTS).read_bytes()


def test_converting_a_whole_audiocraft_package(audiocraft: Path, tmp_path: Path):
    made = convert(Files(audiocraft), tmp_path / "made")
    options: dict[str, Any] = {"seconds": 0.3, "sampling": GREEDY}
    one, other = MusicGen.load(made), MusicGen.load(audiocraft)
    np.testing.assert_array_equal(
        one.generate(PROMPT, **options).samples, other.generate(PROMPT, **options).samples
    )


def test_a_converted_style_model_brings_its_mert(tmp_path: Path):
    places = Places(t5=FOLDER / "t5", tokenizer=TOKENIZER, codec=CODEC)
    made = convert(Files(FOLDER / "audiocraft-style", places), tmp_path / "made")
    assert (made / "mert" / "config.json").is_file()
    assert Mert.load(Files(made).mert_folder).config.width == 48


def test_half_precision_is_half_the_size_and_loads_as_stored(folder: Path, tmp_path: Path):
    whole = convert(Files(folder), tmp_path / "whole")
    half = convert(Files(folder), tmp_path / "half", dtype="bfloat16")
    assert (half / WEIGHTS).stat().st_size < 0.8 * (whole / WEIGHTS).stat().st_size
    assert MusicGen.load(half)._parts.transformer.dtype == mx.bfloat16
    assert MusicGen.load(half, dtype="float32")._parts.transformer.dtype == mx.float32


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["musicgen-mono", "musicgen-stereo", "musicgen-melody", "audiocraft-style"])
def test_half_precision_of_every_variant(name: str, dtype: str, tmp_path: Path):
    places: dict[str, Any] = {"tokenizer": TOKENIZER}
    if name.startswith("audiocraft"):
        places |= {"t5": FOLDER / "t5", "codec": CODEC}
    made = convert(Files(FOLDER / name, Places(**places)), tmp_path / "made", dtype=dtype)
    stored, fresh = MusicGen.load(made), MusicGen.load(FOLDER / name, dtype=dtype, **places)
    np.testing.assert_array_equal(
        stored.generate_codes(PROMPT, seconds=0.3, sampling=GREEDY).values,
        fresh.generate_codes(PROMPT, seconds=0.3, sampling=GREEDY).values,
    )
    if not fresh.config.text_in_prefix:
        whole = MusicGen.load(FOLDER / name, **places)
        assert 0 < gap(stored, whole) < (0.02 if dtype == "float16" else 0.15)


@pytest.fixture
def wide(folder: Path) -> Path:
    """The mono model with a transformer wide enough to be quantised, of made-up weights."""
    config = json.loads((folder / "config.json").read_text())
    config["decoder"] |= {"hidden_size": 128, "ffn_dim": 256}
    (folder / "config.json").write_text(json.dumps(config))
    rng = np.random.default_rng(0)

    def widened(name: str, array: np.ndarray) -> np.ndarray:
        if not name.startswith(("decoder.", "enc_to_dec")):
            return array
        shape = tuple({48: 128, 96: 256}.get(size, size) for size in array.shape)
        if len(shape) == 1:
            return np.resize(array, shape)
        return (rng.standard_normal(shape) / np.sqrt(shape[1])).astype(np.float32)

    save_file(
        {name: widened(name, array) for name, array in tensors(folder).items()}, folder / "model.safetensors"
    )
    return folder


@pytest.mark.parametrize("bits", [4, 8])
def test_quantised_folders(bits: int, wide: Path, tmp_path: Path):
    made = convert(Files(wide), tmp_path / "made", bits=bits)
    stored = MusicGen.load(made)
    fresh = MusicGen.load(wide, bits=bits)
    options: dict[str, Any] = {"seconds": 0.3, "sampling": GREEDY}
    np.testing.assert_array_equal(
        stored.generate_codes(PROMPT, **options).values, fresh.generate_codes(PROMPT, **options).values
    )
    assert stored._parts.bits == bits
    assert 0 < gap(stored, MusicGen.load(wide)) < (0.1 if bits == 8 else 1.2)
    again = convert(Files(made), tmp_path / "again")
    assert (again / WEIGHTS).read_bytes() == (made / WEIGHTS).read_bytes()
    half = MusicGen.load(convert(Files(wide), tmp_path / "half", bits=bits, dtype="bfloat16"))
    assert half._parts.transformer.dtype == mx.bfloat16
    assert 0 < gap(half, stored) < 0.6  # scales are rounded too
    with pytest.raises(OptionError, match=f"stored in {bits} bits"):
        MusicGen.load(made, bits=12 - bits)


@pytest.mark.parametrize("name", ["plain", "bits-4", "bits-8"])
def test_folders_that_the_first_version_converted(name: str, tmp_path: Path):
    """What 0.1.0 wrote loads to the same model, and converting it again gives the same bytes."""
    folder = FOLDER / "converted" / name
    music = MusicGen.load(folder, tokenizer=TOKENIZER)
    network, half = music._parts.transformer, music._parts.transformer.dtype == mx.bfloat16
    assert half == (name != "bits-8")
    with np.load(folder / "io.npz") as stored:
        text = mx.array(stored["text"]).astype(network.dtype)
        found = np.array(network(mx.array(stored["tokens"]), network.run(Rows(1, text=text), 9)))
        spread = stored["logits"].std()
        np.testing.assert_allclose(found, stored["logits"], rtol=0, atol=(0.05 if half else 1e-4) * spread)
        if not half:  # in half precision another machine may round to another token
            made = music.generate_codes(PROMPT, seconds=0.3, sampling=GREEDY).values
            np.testing.assert_array_equal(made, stored["codes"])
    dtype = "bfloat16" if half else "float32"
    again = convert(Files(folder, Places(tokenizer=TOKENIZER)), tmp_path / "again", dtype=dtype)
    assert (again / WEIGHTS).read_bytes() == (folder / WEIGHTS).read_bytes()


def test_what_is_there_is_not_written_over(folder: Path, tmp_path: Path):
    made = convert(Files(folder), tmp_path / "made")
    with pytest.raises(OptionError, match="not empty; use --force"):
        convert(Files(folder), made)
    convert(Files(folder), made, force=True)
    with pytest.raises(OptionError, match="the model itself"):
        convert(Files(made), made, force=True)
    (tmp_path / "file").write_text("x")
    with pytest.raises(OptionError, match="a file; name a folder"):
        convert(Files(folder), tmp_path / "file")


def test_a_conversion_that_breaks_off_leaves_no_model(folder: Path, tmp_path: Path):
    class Stop(Exception):
        pass

    def stop(done: float, total: float) -> None:
        raise Stop

    with pytest.raises(Stop):
        convert(Files(folder), tmp_path / "made", on_step=stop)
    assert not list((tmp_path / "made").iterdir())
    with pytest.raises(ModelError, match="no MusicGen in this folder"):
        MusicGen.load(tmp_path / "made")


def test_the_codec_is_described_as_transformers_does():
    from audiogen_core.codecs import encodec

    for kind in ("24k", "32k", "48k"):
        facts = encodec.from_transformers(json.loads((CODEC.parent / kind / "config.json").read_text()))
        assert encodec.from_transformers(encodec.to_transformers(facts)) == facts


# What is wrong


def change_tensor(folder: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    table = tensors(folder)
    change(table)
    save_file(table, folder / "model.safetensors")


FC1 = "decoder.model.decoder.layers.0.fc1.weight"
SPOILT: dict[str, tuple[Callable[[Path], object], type[AudiogenError], str]] = {
    "too few": (lambda f: change_tensor(f, lambda t: t.pop(FC1)), WeightsError, r"missing \(1\).*fc1"),
    "too many": (
        lambda f: change_tensor(f, lambda t: t.update({"decoder.more": np.zeros(2, np.float32)})),
        WeightsError,
        r"unexpected \(1\): decoder\.more",
    ),
    "misshapen": (
        lambda f: change_tensor(f, lambda t: t.update({FC1: t[FC1][:-1]})),
        WeightsError,
        r"fc1\.weight \(95, 48\) instead of \(96, 48\)",
    ),
    "not finite": (
        lambda f: change_tensor(f, lambda t: t[FC1].fill(np.nan)),
        WeightsError,
        "holds NaN or infinity",
    ),
    "text encoder too few": (
        lambda f: change_tensor(f, lambda t: t.pop("text_encoder.encoder.final_layer_norm.weight")),
        WeightsError,
        "final_layer_norm",
    ),
    "codec too many": (
        lambda f: change_tensor(f, lambda t: t.update({"audio_encoder.more": np.zeros(2, np.float32)})),
        WeightsError,
        "more",
    ),
    "truncated": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:9999]),
        WeightsError,
        "safetensors",
    ),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), WeightsError, "no weights in this folder"),
    "no config": (lambda f: (f / "config.json").unlink(), ModelError, "no MusicGen in this folder"),
    "config that is no JSON": (
        lambda f: (f / "config.json").write_text("{"),
        ModelError,
        "not readable as JSON",
    ),
    "config that is a list": (
        lambda f: (f / "config.json").write_text("[]"),
        ModelError,
        "expected a JSON object",
    ),
    "another family": (
        lambda f: (f / "config.json").write_text('{"model_type": "bark"}'),
        ModelError,
        "is of a 'bark', expected 'musicgen'",
    ),
}


@pytest.mark.parametrize(("spoil", "error", "message"), SPOILT.values(), ids=SPOILT)
def test_spoilt_folders(
    spoil: Callable[[Path], object], error: type[AudiogenError], message: str, folder: Path
):
    spoil(folder)
    with pytest.raises(error, match=message):
        MusicGen.load(folder)
    with pytest.raises(error, match=message):
        verify(str(folder), Places())


def test_a_missing_shard(folder: Path):
    as_sharded(folder)
    (folder / "model-00001-of-3.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"shards are missing: model-00001-of-3\.safetensors"):
        MusicGen.load(folder)


def test_a_pickle_that_would_run_something(folder: Path, tmp_path: Path):
    class Harm:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"a": Harm()}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError):
        MusicGen.load(folder)
    assert not (tmp_path / "ran").exists()


def test_an_audiocraft_file_that_is_none(tmp_path: Path):
    torch.save({"best_state": {}}, tmp_path / "state_dict.bin")
    with pytest.raises(ModelError, match="no settings"):
        MusicGen.load(tmp_path)
    torch.save({"best_state": {}, "xp.cfg": "a: ["}, tmp_path / "state_dict.bin")
    with pytest.raises(ModelError, match="not YAML"):
        MusicGen.load(tmp_path)
    torch.save({"best_state": {}, "xp.cfg": "text"}, tmp_path / "state_dict.bin")
    with pytest.raises(ModelError, match="expected a table of settings"):
        MusicGen.load(tmp_path)


def test_audiocraft_without_its_codec(audiocraft: Path):
    (audiocraft / "compression_state_dict.bin").unlink()
    with pytest.raises(ModelError, match=r"no compression_state_dict\.bin beside"):
        MusicGen.load(audiocraft)


def test_a_codec_of_another_geometry(folder: Path):
    with pytest.raises(ModelError, match=r"has 8 codebooks of 64, the model makes 4 of 64"):
        MusicGen.load(folder, codec=CODEC.parent / "24k")


def test_a_model_without_a_tokenizer(folder: Path):
    (folder / "tokenizer.json").unlink()
    music = MusicGen.load(folder)
    music.generate(None, seconds=0.1)
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        music.generate("rock", seconds=0.1)


def test_names():
    with pytest.raises(UnknownModel, match="did you mean musicgen-small"):
        MusicGen.load("musicgen-smal")
    with pytest.raises(UnknownModel, match="--unlisted"):
        find_files("somebody/music", Places())
    asked: list[ModelSpec] = []

    def fetch(spec: ModelSpec) -> Path:
        asked.append(spec)
        return FOLDER / "musicgen-mono"

    find_files("facebook/musicgen-small", Places(fetch=fetch))
    find_files("somebody/music@v1", Places(fetch=fetch), unlisted=True)
    assert asked[0] is MUSICGEN["musicgen-small"]
    assert (asked[1].repo, asked[1].revision) == ("somebody/music", "v1")


def test_a_revision_changes_with_the_files(folder: Path):
    before = Files(folder).fingerprint()
    assert len(before) == 16 and Files(folder).fingerprint() == before
    change_tensor(folder, lambda t: t[FC1].fill(0.5))
    assert Files(folder).fingerprint() != before
