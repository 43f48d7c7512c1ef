"""The facts of a model: its shape and the layout of its tokens."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from audiogen_core.errors import OptionError, nearest
from audiogen_core.sampling import Sampling
from audiogen_core.settings import from_mapping, parse_json
from audiogen_core.values import close_fields

PRESETS = ("gpt2", "modern")
LAYOUTS = ("first", "delay", "parallel", "flatten")

# layers, heads, width, context (steps), codebooks. "base" has the shape of GPT-2 124M.
SIZES: dict[str, dict[str, int]] = {
    "tiny": {"layers": 4, "heads": 4, "width": 256, "context": 512, "codebooks": 4},
    "small": {"layers": 8, "heads": 8, "width": 512, "context": 1024, "codebooks": 4},
    "base": {"layers": 12, "heads": 12, "width": 768, "context": 2048, "codebooks": 8},
}

SAMPLING = Sampling(temperature=0.9, top_k=32)
"""How codes are drawn when nobody says how: colder than big models are. A model of minutes of training gives
many unlikely codes a little chance each, and together they break the music up."""


MAX_CONTEXT = 1 << 20
"""Steps. A table of all places is made, which is not in the weights."""


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a model and the layout of its tokens.

    preset         "gpt2": learned positions, LayerNorm, tanh GELU and biases, so transformers can load it.
                   "modern": rotary positions, RMSNorm without parameters, normalised queries and keys,
                   squared ReLU, no biases
    layers         blocks
    heads          attention heads; must divide the width into an even number
    width          channels of the residual stream
    context        steps the model sees at most; one step is one frame, or one code with the flatten layout
    layout         "delay", "parallel", "flatten", or "first" (the first codebook only)
    codebooks      K; 1 with the layout "first"
    codebook_size  N, entries in one codebook
    dropout        on the residual stream and the embeddings; attention itself has none, because that would
                   cost the fast attention kernels

    Raises OptionError when a value is impossible.
    """

    preset: str = "modern"
    layers: int = 4
    heads: int = 4
    width: int = 256
    context: int = 512
    layout: str = "delay"
    codebooks: int = 4
    codebook_size: int = 1024
    dropout: float = 0.0

    def __post_init__(self) -> None:
        close_fields(self)
        check_choice("preset", self.preset, PRESETS)
        check_choice("layout", self.layout, LAYOUTS)
        for name in ("layers", "heads", "width", "context", "codebooks", "codebook_size"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.context > MAX_CONTEXT:
            raise OptionError(f"context must be at most {MAX_CONTEXT}, got {self.context}")
        if self.width % self.heads or self.width // self.heads % 2:
            raise OptionError(
                f"width {self.width} cannot be split over {self.heads} heads; "
                "width / heads must be an even whole number"
            )
        if self.layout == "first" and self.codebooks != 1:
            raise OptionError(f"the layout 'first' has one codebook, got codebooks = {self.codebooks}")
        if not 0.0 <= self.dropout < 1.0:
            raise OptionError(f"dropout must lie in [0, 1), got {self.dropout}")
        if self.context < 2 * self.codebooks:
            raise OptionError(
                f"a context of {self.context} steps is too short for {self.codebooks} codebooks; "
                f"at least {2 * self.codebooks} are needed"
            )

    @classmethod
    def size(cls, name: str, **changes: Any) -> ModelConfig:
        """A named size: "tiny", "small", "base", or "seed" (see `seed_preset`), with some fields changed."""
        if name == "seed":
            return cls.seed_preset(**changes)
        check_choice("size", name, [*SIZES, "seed"])
        table: dict[str, Any] = {**SIZES[name], **changes}
        if table.get("layout") == "first" and "codebooks" not in changes:
            table["codebooks"] = 1
        return from_mapping(cls, table, f"size {name!r}")

    @classmethod
    def seed_preset(cls, **changes: Any) -> ModelConfig:
        """A GPT-2 of 5.5 M parameters over the first codebook: 6 layers of 256, 8 heads, 2048 steps."""
        table: dict[str, Any] = {
            "preset": "gpt2",
            "layout": "first",
            "layers": 6,
            "heads": 8,
            "width": 256,
            "context": 2048,
            "codebooks": 1,
            "codebook_size": 1024,
        }
        return from_mapping(cls, {**table, **changes}, "size 'seed'")

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, table: Mapping[str, Any], where: str = "model config") -> ModelConfig:
        """The inverse of `to_dict`. Raises OptionError for unknown keys and wrong types."""
        return from_mapping(cls, table, where)

    def to_json(self) -> str:
        """The fields as a JSON object."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_json(cls, text: str, where: str = "model config") -> ModelConfig:
        """The inverse of `to_json`. Raises OptionError."""
        return from_mapping(cls, parse_json(text, where, OptionError), where)


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Raise OptionError, with the closest names, unless `value` is one of the choices."""
    known = list(choices)
    if value not in known:
        raise OptionError(f"unknown {name} {value!r}; {nearest(value, known)}")
