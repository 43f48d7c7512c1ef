"""Settings of the recipes: dataclasses of dataclasses, read strictly from TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from audiogen_core.errors import OptionError

PRECISIONS = ("bfloat16", "float32")

Kind = TypeVar("Kind")


def read(kind: type[Kind], path: Path) -> Kind:
    """Raises OptionError for a file that is no TOML, or has other settings than the dataclass."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise OptionError(f"{path}: cannot be read as TOML ({error})") from error
    return made(kind, values, str(path))


def made(kind: type[Kind], values: Mapping[str, Any], where: str = "the settings") -> Kind:
    """A dataclass from a table with all of its fields; those that are dataclasses have tables of their own.

    Raises OptionError.
    """
    hints = get_type_hints(kind)
    expected = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    if set(values) != expected:
        wrong = ", ".join(sorted(expected ^ set(values)))
        raise OptionError(f"{where}: missing or unknown settings: {wrong}")
    if values.get("precision", PRECISIONS[0]) not in PRECISIONS:
        raise OptionError(f"{where}: precision must be one of {', '.join(PRECISIONS)}")
    return kind(**{name: _value(hints[name], value, f"{where}: [{name}]") for name, value in values.items()})


def _value(hint: Any, value: Any, where: str) -> Any:
    if is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise OptionError(f"{where}: expected a table")
        return made(hint, value, where)
    return tuple(value) if isinstance(value, list) else value
