"""The facts that tie codes, models and codecs together, and what is said when they do not agree."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audiogen_core.errors import OptionError

if TYPE_CHECKING:
    from audiogen_minigpt.shards import Meta

FACTS = ("codec", "codec_hash", "sample_rate", "frame_rate", "hop_length", "codebooks", "codebook_size")
"""What a checkpoint keeps of the description of its data: the codec's id and the hash of its codebooks, Hz,
Hz, samples per frame, K, N."""


def from_meta(meta: Meta) -> dict[str, Any]:
    """The facts of a folder of codes."""
    return {key: getattr(meta, key) for key in FACTS}


def read_facts(data: str | Path) -> dict[str, Any]:
    """The facts of a folder of codes, by its path. Raises CodesError."""
    from audiogen_minigpt.shards import Meta

    return from_meta(Meta.load(data))


def check_data(where: str, facts: Mapping[str, Any], data_where: str, data: Mapping[str, Any]) -> None:
    """Raise OptionError, with the differences, unless data is what a checkpoint was trained on.

    More codebooks in the data than the model uses do no harm; every other fact must agree.
    """
    different = [key for key in FACTS if key != "codebooks" and facts.get(key) != data.get(key)]
    if int(data.get("codebooks", 0)) < int(facts.get("codebooks", 0)):
        different.append("codebooks")
    if different:
        rows = {key: (facts.get(key), data.get(key)) for key in different}
        raise OptionError(f"{data_where} does not fit {where}; {differences(rows, where, data_where)}")


def differences(rows: Mapping[str, tuple[Any, Any]], one: str, other: str) -> str:
    """Settings that differ, one on a line, that can also be read as one sentence."""
    lines = [f"{key}: {a} in {one}, {b} in {other}" for key, (a, b) in rows.items()]
    return "they differ in\n  " + ";\n  ".join(lines)
