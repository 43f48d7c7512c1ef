"""The facts that tie codes, models and codecs together, and what is said when they do not agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from audiogen_core.errors import OptionError

FACTS = ("codec", "codec_hash", "sample_rate", "frame_rate", "hop_length", "codebooks", "codebook_size")
"""What a checkpoint keeps of the description of its data: the codec's id and the hash of its codebooks, Hz,
Hz, samples per frame, K, N."""


def check_data(where: str, facts: Mapping[str, Any], data_where: str, data: Mapping[str, Any]) -> None:
    """Raise OptionError, with a table, unless data is what a checkpoint was trained on.

    More codebooks in the data than the model uses do no harm; every other fact must agree.
    """
    different = [key for key in FACTS if key != "codebooks" and facts.get(key) != data.get(key)]
    if int(data.get("codebooks", 0)) < int(facts.get("codebooks", 0)):
        different.append("codebooks")
    if different:
        rows = [
            ("", where, data_where),
            *((key, str(facts.get(key)), str(data.get(key))) for key in different),
        ]
        raise OptionError(f"{data_where} does not fit {where}; they differ in\n{table(rows)}")


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of texts as lines with aligned columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
