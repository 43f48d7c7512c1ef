"""The facts of a model: its shape, the layout of its tokens, and how both are read from JSON and TOML."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from audiogen_core.errors import OptionError

PRESETS = ("gpt2", "modern")
LAYOUTS = ("first", "delay", "parallel", "flatten")

# layers, heads, width, context (steps), codebooks. "base" has the shape of GPT-2 124M.
SIZES: dict[str, dict[str, int]] = {
    "tiny": {"layers": 4, "heads": 4, "width": 256, "context": 512, "codebooks": 4},
    "small": {"layers": 8, "heads": 8, "width": 512, "context": 1024, "codebooks": 4},
    "base": {"layers": 12, "heads": 12, "width": 768, "context": 2048, "codebooks": 8},
}

Config = TypeVar("Config")


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
        check_choice("preset", self.preset, PRESETS)
        check_choice("layout", self.layout, LAYOUTS)
        for name in ("layers", "heads", "width", "context", "codebooks", "codebook_size"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name} must be at least 1, got {getattr(self, name)}")
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
        try:
            table = json.loads(text)
        except ValueError as error:
            raise OptionError(f"{where}: not JSON ({error})") from error
        return from_mapping(cls, table, where)


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Raise OptionError, with the closest names, unless `value` is one of the choices."""
    known = list(choices)
    if value not in known:
        raise OptionError(f"unknown {name} {value!r}; {_hint(value, known)}")


def from_mapping(cls: type[Config], table: Mapping[str, Any], where: str) -> Config:
    """A dataclass of plain fields from a table, strictly.

    Unknown keys and values of the wrong type raise OptionError, which names `where` they stood; a whole
    number is taken where a float is wanted. Fields that are missing keep their defaults. A field that is
    itself a dataclass is read from a table of its own.
    """
    if not isinstance(table, Mapping):
        raise OptionError(f"{where}: expected a table of settings, got {type(table).__name__}")
    hints = get_type_hints(cls)
    known = [field.name for field in fields(cls) if field.init]  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            raise OptionError(f"{where}: unknown setting {key!r}; {_hint(str(key), known)}")
        values[key] = _value(hints[key], value, f"{where}: {key}")
    try:
        return cls(**values)
    except TypeError as error:
        missing = [name for name in known if name not in values]
        raise OptionError(f"{where}: settings are missing, some of {', '.join(missing)}") from error


def read_toml(path: str | Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises OptionError when it is missing or not TOML."""
    path = Path(path)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise OptionError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise OptionError(f"{path}: not readable as TOML ({error})") from error


def _value(hint: Any, value: Any, where: str) -> Any:
    kinds = get_args(hint) or (hint,)
    if value is None and type(None) in kinds:
        return None
    for kind in kinds:
        if hasattr(kind, "__dataclass_fields__"):
            return value if isinstance(value, kind) else from_mapping(kind, value, where)
        if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if isinstance(kind, type) and isinstance(value, kind) and isinstance(value, bool) == (kind is bool):
            return value
    wanted = " or ".join(getattr(kind, "__name__", str(kind)) for kind in kinds)
    raise OptionError(f"{where} must be {wanted}, got {value!r}")


def _hint(value: str, known: list[str]) -> str:
    close = get_close_matches(value, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known)}"
