"""Names and shapes of the tensors of every published MusicGen."""

from __future__ import annotations

import itertools
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

PUBLISHED = Path(__file__).parents[1] / "fixtures" / "musicgen" / "published_keys.json"


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
