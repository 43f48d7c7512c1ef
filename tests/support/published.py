"""Names and shapes of the tensors of every published MusicGen, and folders of their size."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import struct
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

FIXTURES = Path(__file__).parents[1] / "fixtures" / "musicgen"
PUBLISHED = FIXTURES / "published_keys.json"


@cache
def published() -> dict[str, Any]:
    """Names and shapes: of transformers' classes at the published sizes, and of audiocraft's."""
    return json.loads(PUBLISHED.read_text(encoding="utf-8"))


def expanded(keys: dict[str, list[int]]) -> dict[str, tuple[int, ...]]:
    """ "layers.{0-2}.weight" stands for three names."""
    made: dict[str, tuple[int, ...]] = {}
    for name, shape in keys.items():
        parts = re.split(r"\{(\d+)-(\d+)\}", name)
        ranges = [range(int(a), int(b) + 1) for a, b in zip(parts[1::3], parts[2::3], strict=True)]
        for numbers in itertools.product(*ranges):
            text = "".join(
                f"{fixed}{number}" for fixed, number in zip(parts[::3], [*numbers, ""], strict=True)
            )
            made[text] = tuple(shape)
    return made


def write_folder(folder: Path, name: str) -> int:
    """A model of its published size in transformers' layout, with random weights. Returns their bytes."""
    entry = published()["models"][name]
    parts = {key: published()[key] for key in ("text_encoder", "audio_encoder")}
    (folder / "config.json").write_text(json.dumps(entry["config"] | parts))
    shutil.copy(FIXTURES / "tokenizer" / "tokenizer.json", folder)
    if "melody" in name:
        shutil.copy(FIXTURES / "musicgen-melody" / "preprocessor_config.json", folder)
    shapes = {**expanded(published()["shared"]), **expanded(entry["keys"])}
    shapes.pop("text_encoder.encoder.embed_tokens.weight", None)  # the same tensor, as files are stored
    write_random(folder / "model.safetensors", shapes)
    return sum(4 * int(np.prod(shape)) for shape in shapes.values())


def write_random(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """A safetensors file of those tensors in float32, small numbers drawn once and used again and again."""
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    drawn = np.random.default_rng(0).uniform(-0.05, 0.05, 1 << 22).astype(np.float32).tobytes()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for start in range(0, end, len(drawn)):
            file.write(drawn[: min(len(drawn), end - start)])
