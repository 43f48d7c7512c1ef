"""What both models need to find their files: the text encoder, a fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from audiogen_core.errors import ModelError
from audiogen_core.models import Fetch
from audiogen_core.prompts import FILE as PROMPTS
from audiogen_core.settings import read_text

_SAMPLE = 1 << 20  # bytes of a file that tell it from others: its header and some weights


def fetch_text_encoder(name: str, fetch: Fetch, source: Path) -> Path:
    """The folder of the T5 that the model in `source` names. Raises ModelError for one that is not known."""
    from audiogen_core.musicgen.catalog import TEXT_ENCODERS

    if name not in TEXT_ENCODERS:
        raise ModelError(
            f"{source}: its text encoder {name!r} is not in the catalogue; give the folder of that T5 "
            "(t5, --t5)"
        )
    return fetch(TEXT_ENCODERS[name])


def fingerprint(config: Path, weights: Iterable[Path], adapters: Iterable[Path] = ()) -> str:
    """16 hex digits that change with the configuration, the size or beginning of the weights, the words that
    lie beside the configuration, or what is merged into the weights, in this order.
    """
    digest = hashlib.sha256()
    for path in (config, config.with_name(PROMPTS)):
        if path.is_file():
            digest.update(read_text(path, ModelError).encode())
    for path in (*sorted(weights), *adapters):
        digest.update(path.stat().st_size.to_bytes(8, "little"))
        with path.open("rb") as file:
            digest.update(file.read(_SAMPLE))
    return digest.hexdigest()[:16]
