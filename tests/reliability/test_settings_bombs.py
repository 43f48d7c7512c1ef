"""Small settings that ask for all memory or time: refused in a sentence before anything is built."""

from __future__ import annotations

import hashlib
import json
import shutil
from importlib.resources import files
from pathlib import Path

import pytest

from audiogen_core.codecs import encodec
from audiogen_core.errors import AudioError, AudiogenError, ModelError, WeightsError
from audiogen_core.recipe import Recipe
from support.measured import measured

RECIPE = {
    "format": "audiogen recipe 1", "package": "p", "version": "1", "model": "m", "revision": "", "seed": 1,
    "settings": {}, "inputs": {},
}  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 5000 + "1" + "}" * 5000,
        "[" + "[]," * 3_000_000 + "[]]",
        json.dumps(RECIPE).replace('"seed": 1', '"seed": 1' + "0" * 5000),
        json.dumps(RECIPE).replace('"seed": 1', '"seed": 1e999'),
        json.dumps(RECIPE).replace('"settings": {}', '"settings": {"cfg": NaN}'),
        json.dumps(RECIPE).replace('"settings": {}', '"settings": {"cfg": -1e999}'),
        json.dumps(RECIPE | {"inputs": {"audio": 5}}),
        json.dumps(RECIPE | {"inputs": {"audio": ["x"]}}),
    ],
    ids=lambda text: text[:20],
)
def test_recipes(text: str) -> None:
    def read() -> str:
        with pytest.raises(AudioError) as caught:
            Recipe.from_json(text)
        return str(caught.value)

    cost = measured(read)
    assert len(cost.result) < 500
    assert cost.seconds < 1
    assert cost.memory < (64 << 20) + 4 * len(text)


@pytest.mark.parametrize(
    "shapes",
    [
        {"encoder.layers.abc.lstm.x": (1,)},
        {"encoder.layers.999999999999.lstm.weight": (1,)},
        {"encoder.layers.13.lstm.weight": (1,), "encoder.layers.0.conv.weight": ()},
        {
            "encoder.layers.4.lstm.weight_l0": (1,), "encoder.layers.3.conv.weight": (1, 1),
            "encoder.layers.1.block.1.conv.weight": (0, 0, 0), "quantizer.layers.0.codebook.embed": (),
        },
        {
            "encoder.layers.4.lstm.weight_l0": (1,), "encoder.layers.3.conv.weight": (1, 1, 1),
            "encoder.layers.1.block.1.conv.weight": (0, 0, 0), "quantizer.layers.0.codebook.embed": (1, 1),
            "encoder.layers.6.conv.weight": (1, 1, 1),
        },
    ],
)  # fmt: skip
def test_names_and_shapes_of_an_original_encodec(shapes: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(ModelError, match="original EnCodec"):
        encodec.from_shapes({"encoder.layers.0.conv.weight": (1, 1, 1)} | shapes)


@pytest.mark.parametrize("count", [1001, 10**9, 1 << 62])
def test_layers_without_end(count: int, tmp_path: Path) -> None:
    from audiogen_core.t5 import T5Config

    with pytest.raises(ModelError, match="layers"):
        T5Config(10, 8, count, 2, 4, 8, False, "relu")
    for demo, name, place in (
        ("demo-musicgen", "config.json", ("model", "layers")),
        ("demo-stable-audio", "model_config.json", ("model", "diffusion", "config", "depth")),
        ("demo-stable-audio", "model_config.json", ("sample_size",)),
    ):
        if place == ("sample_size",) and count == 1001:
            continue
        changed = changed_demo("audiogen_mlx", demo, tmp_path / f"{demo}-{place[-1]}", name, place, count)
        with pytest.raises(AudiogenError, match=r"layers|at most"):
            load_mlx(demo, changed)


@pytest.mark.parametrize(
    ("demo", "name", "place", "width"),
    [
        (
            "demo-stable-audio",
            "model_config.json",
            ("model", "diffusion", "config", "ff_kwargs"),
            {"mult": 1e9},
        ),
        ("demo-stable-audio", "t5/config.json", ("num_heads",), 1 << 62),
        ("demo-stable-audio", "t5/config.json", ("d_ff",), 1 << 40),
        ("demo-musicgen", "config.json", ("model", "hidden"), 1 << 40),
        ("demo-musicgen", "config.json", ("model", "codebook_size"), 1 << 40),
        ("demo-musicgen", "config.json", ("text_encoder", "d_kv"), 1 << 40),
    ],
)
def test_layers_that_are_too_wide(
    demo: str, name: str, place: tuple[str, ...], width: object, tmp_path: Path
) -> None:
    """Some ended in OverflowError or TypeError of mlx."""
    folder = changed_demo("audiogen_mlx", demo, tmp_path / "model", name, place, width)
    with pytest.raises(ModelError, match="wide"):
        load_mlx(demo, folder)


def load_mlx(demo: str, folder: Path) -> None:
    if demo == "demo-musicgen":
        from audiogen_mlx import MusicGen

        MusicGen.load(folder)
    else:
        from audiogen_mlx import StableAudio

        StableAudio.load(folder)


def changed_demo(
    package: str, demo: str, folder: Path, name: str, place: tuple[str, ...], value: object
) -> Path:
    """A copy of a model that comes with a package, one setting changed."""
    shutil.copytree(str(files(package) / "data" / demo), folder)
    settings = json.loads((folder / name).read_text(encoding="utf-8"))
    inner = settings
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    (folder / name).write_text(json.dumps(settings), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("layers", 10**9),
        ("layers", 20),
        ("width", 14 << 20),
        ("width", 224 * 128),
        ("codebook_size", 1 << 29),
        ("context", 1 << 29),
        ("heads", 1 << 29),
        ("codebooks", 1 << 29),
    ],
)
def test_sizes_that_are_not_those_of_the_tensors(tmp_path: Path, key: str, value: int) -> None:
    import audiogen_minigpt.model  # noqa: F401  # torch takes half a gigabyte, once
    from audiogen_minigpt.checkpoint import load_model

    folder = changed_demo("audiogen_minigpt", "demo", tmp_path / "demo", "state.json", ("model", key), value)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    state = (folder / "state.json").read_bytes()
    facts = {"sha256": hashlib.sha256(state).hexdigest(), "size": len(state), "bytes": len(state)}
    stored = manifest["files"]["state.json"]
    stored |= {name: facts[name] for name in stored}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")

    def read() -> str:
        with pytest.raises((ModelError, WeightsError, AudiogenError)) as caught:
            load_model(folder)
        return str(caught.value)

    cost = measured(read)
    assert len(cost.result) < 2000
    assert cost.memory < 256 << 20
