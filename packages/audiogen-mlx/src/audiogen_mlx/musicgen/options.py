"""How a MusicGen is opened in mlx; what it can be asked is in `audiogen_core.musicgen.options`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from audiogen_core.musicgen.options import DTYPES, Located
from audiogen_core.options import option


@dataclass(frozen=True, kw_only=True)
class Load(Located):
    """How a MusicGen is opened."""

    dtype: Annotated[
        str | None,
        option(
            "float32, bfloat16 or float16; as stored when absent.",
            label="Number format",
            choices=DTYPES,
            advanced=True,
        ),
    ] = None
    bits: Annotated[int | None, option("4 or 8: quantise while loading.", advanced=True)] = None
