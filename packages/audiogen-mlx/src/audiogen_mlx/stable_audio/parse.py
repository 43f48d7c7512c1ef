"""Reading a JSON description key by key: what is missing, of the wrong kind or unknown is named."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from audiogen_core.errors import ModelError

Kind = TypeVar("Kind", int, float, str, bool, list, dict)  # type: ignore[type-arg]


class Section:
    """An object of a JSON file. Every key must be taken or ignored before `finish`."""

    def __init__(self, values: object, where: str) -> None:
        if not isinstance(values, Mapping):
            raise ModelError(f"{where}: expected a JSON object, found {type(values).__name__}")
        self._left = dict(values)
        self.where = where

    @classmethod
    def read(cls, path: Path) -> Section:
        """A JSON file. Raises ModelError when it cannot be read or holds no object."""
        return cls(read_json(path), str(path))

    def take(self, key: str, kind: type[Kind], default: Kind | None = None) -> Kind:
        """The value of a key. Without a default it must be there. Whole numbers pass as float."""
        value: Any = self._left.pop(key, None)
        if value is None:
            if default is None:
                raise ModelError(f"{self.where}: {key} is missing")
            return default
        if kind is float and type(value) is int:
            value = float(value)
        if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
            raise ModelError(f"{self.where}: {key} must be {kind.__name__}, found {value!r}")
        return value

    def count(self, key: str, default: int | None = None, *, least: int = 1) -> int:
        """A whole number of at least `least`."""
        value = self.take(key, int, default)
        if not least <= value <= 1 << 30:
            raise ModelError(f"{self.where}: {key} must be {least} or more, found {value}")
        return value

    def section(self, key: str, *, optional: bool = False) -> Section:
        """An object within this one; an empty one when `optional` and absent."""
        value = self._left.pop(key, None)
        if value is None and not optional:
            raise ModelError(f"{self.where}: {key} is missing")
        return Section({} if value is None else value, f"{self.where}: {key}")

    def names(self, key: str) -> tuple[str, ...]:
        """A list of texts, empty when absent."""
        values = self._left.pop(key, None) or []
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise ModelError(f"{self.where}: {key} must be a list of names, found {values!r}")
        return tuple(values)

    def expect(self, key: str, *accepted: Any) -> Any:
        """Refuse a value that is not among `accepted`; the first of them is the default."""
        value = self._left.pop(key, accepted[0])
        if not any(value == one and type(value) is type(one) for one in accepted):
            shown = " or ".join(repr(one) for one in accepted)
            raise ModelError(
                f"{self.where}: {key} {value!r} is not supported here, only {shown}; "
                "this is a model of another family"
            )
        return value

    def ignore(self, *keys: str) -> None:
        """Keys that change nothing when a model runs."""
        for key in keys:
            self._left.pop(key, None)

    def finish(self) -> None:
        """Raises ModelError when keys are left: what they would change is not known."""
        if self._left:
            names = ", ".join(sorted(map(str, self._left))[:10])
            raise ModelError(f"{self.where}: unknown settings: {names}; this is a model of another family")

    def __contains__(self, key: str) -> bool:
        return key in self._left


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ModelError."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not JSON ({error})") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path}: expected a JSON object, found {type(found).__name__}")
    return found
