"""Reading settings strictly: JSON, TOML and YAML files, and what stands in them.

A settings file may come from anywhere, so reading is bounded: the size of the file, how deep it is nested,
how many values it holds (with every alias of YAML and every `${a.b}` written out), and how large its numbers
are. What stands in it is read either key by key with `Section`, or into a dataclass with `from_mapping`; both
name what is missing, unknown or of the wrong kind.
"""

from __future__ import annotations

import json
import math
import re
import stat
import tomllib
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from audiogen_core.errors import AudiogenError, ModelError, OptionError, nearest

if TYPE_CHECKING:
    from yaml import Node

MAX_BYTES = 32 << 20
"""Of a JSON file: a plan of 100,000 sound files has 15 MB."""

MAX_YAML = MAX_TOML = 1 << 18
"""Bytes of YAML or TOML: they are read in Python, YAML at 100 kB a second. Real ones have 10 kB."""

MAX_DOTS = 256
"""In a line of TOML. Its reader takes a time that grows with the square of them where they stand in a key."""

MAX_VALUES = 2_000_000
MAX_WRITTEN_OUT = 100_000  # values of YAML with its aliases written out, or of settings with their references
MAX_DEPTH = 64
MAX_WHOLE = 1 << 128  # hashes and seeds are large; what is larger still does not fit a float either
MAX_LAYERS = 1000  # of a network: each is built before its weights are looked for
MAX_WIDTH = 1 << 24  # of a layer: what is built of wider ones does not even begin
MAX_COUNT = 1 << 30  # of anything that is counted: layers, channels, samples

Kind = TypeVar("Kind", int, float, str, bool, list, dict)  # type: ignore[type-arg]
Config = TypeVar("Config")
Error = type[AudiogenError]


def read_json(path: str | Path, error: Error = ModelError, *, finite: bool = True) -> dict[str, Any]:
    """The object in a JSON file. Raises `error`, with the path and the reason.

    finite  refuse NaN and infinity
    """
    text = read_text(path, error, what="JSON")
    try:
        tree = _json(text, finite)
    except ValueError as reason:
        raise error(f"{path}: not readable as JSON: {reason}") from reason
    if not isinstance(tree, dict):
        raise error(f"{path}: expected a JSON object, found {type(tree).__name__}")
    return tree


def parse_json(text: str, where: str, error: Error = ModelError, *, finite: bool = True) -> Any:
    """Any value from a JSON text within the bounds of a file. Raises `error`, which names `where`."""
    try:
        return _json(text, finite)
    except ValueError as reason:
        raise error(f"{where}: {reason}") from reason


def read_toml(path: str | Path, error: Error = OptionError, *, finite: bool = True) -> dict[str, Any]:
    """The tables of a TOML file. Raises `error`.

    finite  refuse NaN and infinity
    """
    text = read_text(path, error, MAX_TOML, "TOML")
    if any(line.count(".") > MAX_DOTS for line in text.split("\n")):
        raise error(f"{path}: not readable as TOML (a line with more than {MAX_DOTS} dots)")
    try:
        tree = tomllib.loads(text)
        _check(tree, _values, finite=finite)
    except (ValueError, RecursionError) as reason:
        raise error(f"{path}: not readable as TOML ({reason})") from reason
    return tree


def read_yaml(path: str | Path, error: Error = ModelError) -> dict[str, Any]:
    """The table in a YAML file. Raises `error`."""
    return parse_yaml(read_text(path, error, MAX_YAML, "YAML"), str(path), error)


def parse_yaml(text: str, where: str, error: Error = ModelError) -> dict[str, Any]:
    """The table in a YAML text within the bounds of a file. Raises `error`, which names `where`."""
    import yaml

    if len(text) > MAX_YAML:
        raise error(f"{where}: {len(text)} characters of YAML; at most {MAX_YAML} are read")
    loader = None
    try:
        loader = yaml.SafeLoader(text)  # looks for characters that YAML does not allow
        root = loader.get_single_node()
        # Before values are made of the nodes: merged tables (<<: *a) are copied then, each time anew.
        _check(root, _nodes, most=MAX_WRITTEN_OUT)
        tree = loader.construct_document(root) if root is not None else None
        _check(tree, _values)
    except (yaml.YAMLError, ValueError, ArithmeticError, RecursionError) as reason:
        raise error(f"{where}: not YAML ({reason})") from reason
    finally:
        if loader is not None:
            loader.dispose()
    if not isinstance(tree, dict):
        raise error(f"{where}: expected a table of settings, found {type(tree).__name__}")
    return tree


def as_table(value: object, where: str, error: Error = ModelError) -> dict[str, Any]:
    """Settings inside a checkpoint: a table, or the YAML text of one. Raises `error`, which names `where`."""
    if isinstance(value, dict):
        return value
    if isinstance(value, str):
        return parse_yaml(value, where, error)
    raise error(f"{where}: expected settings, found {type(value).__name__}")


def resolved(
    tree: Mapping[str, Any], where: str, error: Error = ModelError, *, only: Iterable[str] | None = None
) -> dict[str, Any]:
    """A table with every text `${a.b}` replaced by what stands at that place in it, as OmegaConf does.

    only  no more than these keys, and every reference in them must lead somewhere. Otherwise one that leads
          nowhere stays as it is: settings of training refer to places of the machine they were made on

    Raises `error`, which names `where`, when a reference leads nowhere or round in a circle.
    """
    count = 0  # of values written out: references may multiply as aliases do

    def replaced(value: Any, depth: int) -> Any:
        nonlocal count
        count += 1
        if count > MAX_WRITTEN_OUT or depth > MAX_DEPTH:
            raise error(f"{where}: its references lead round in a circle or grow without end")
        if isinstance(value, dict):
            return {key: replaced(below, depth + 1) for key, below in value.items()}
        if isinstance(value, list):
            return [replaced(below, depth + 1) for below in value]
        match = re.fullmatch(r"\$\{([\w.]+)\}", value) if isinstance(value, str) else None
        if match is None:
            return value
        target: Any = tree
        for part in match[1].split("."):
            if not isinstance(target, Mapping) or part not in target:
                if only is not None:
                    raise error(f"{where} refers to {value}, which is not there")
                return value
            target = target[part]
        return replaced(target, depth + 1)

    wanted = tree if only is None else {key: tree[key] for key in only if key in tree}
    return {key: replaced(value, 1) for key, value in wanted.items()}


class Section:
    """A table of settings, read key by key. Every key must be taken or ignored before `finish`.

    where  what it is called in errors, which are ModelErrors
    left   what was not taken yet
    """

    def __init__(self, values: object, where: str) -> None:
        if not isinstance(values, Mapping):
            raise ModelError(f"{where}: expected a JSON object, found {type(values).__name__}")
        self.left = dict(values)
        self.where = where

    @classmethod
    def read(cls, path: str | Path) -> Section:
        """The object in a JSON file."""
        return cls(read_json(path), str(path))

    def take(self, key: str, kind: type[Kind], default: Kind | None = None) -> Kind:
        """The value of a key. Without a default it must be there. Whole numbers pass as float."""
        value: Any = self.left.pop(key, None)
        if value is None:
            if default is None:
                raise ModelError(f"{self.where}: {key} is missing")
            return default
        if kind is float and type(value) is int:
            value = float(value)
        if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
            raise ModelError(f"{self.where}: {key} must be {kind.__name__}, found {_shown(value)}")
        return value

    def count(self, key: str, default: int | None = None, *, least: int = 1, most: int = MAX_COUNT) -> int:
        """A whole number of at least `least`, at most `most`."""
        value = self.take(key, int, default)
        if not least <= value <= most:
            limit = f"{least} or more" if value < least else f"at most {most}"
            raise ModelError(f"{self.where}: {key} must be {limit}, found {value}")
        return value

    def many(self, key: str, kind: type[Kind], default: tuple[Kind, ...] | None = None) -> tuple[Kind, ...]:
        """A list of values of one kind. The default stands for a list that is absent, not for null."""
        values = self.left.pop(key, default)
        if values is None:
            raise ModelError(f"{self.where}: {key} is missing")
        if not isinstance(values, list | tuple):
            raise ModelError(f"{self.where}: {key} must be a list, found {_shown(values)}")
        each = Section({f"{key}[{index}]": value for index, value in enumerate(values)}, self.where)
        return tuple(each.take(name, kind) for name in list(each.left))

    def counts(self, key: str, default: tuple[int, ...] | None = None, *, least: int = 1) -> tuple[int, ...]:
        """A list of whole numbers of at least `least`."""
        values = self.many(key, int, default)
        if not all(least <= value <= MAX_COUNT for value in values):
            raise ModelError(
                f"{self.where}: {key} must be whole numbers of {least} or more, found {_shown(values)}"
            )
        return values

    def section(self, key: str, *, optional: bool = False) -> Section:
        """A table within this one; an empty one when `optional` and absent."""
        value = self.left.pop(key, None)
        if value is None and not optional:
            raise ModelError(f"{self.where}: {key} is missing")
        return Section({} if value is None else value, f"{self.where}: {key}")

    def names(self, key: str) -> tuple[str, ...]:
        """A list of texts, empty when absent."""
        values = self.left.pop(key, None) or []
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise ModelError(f"{self.where}: {key} must be a list of names, found {_shown(values)}")
        return tuple(values)

    def expect(self, key: str, *accepted: Any) -> Any:
        """Refuse a value that is not among `accepted`; the first of them is the default."""
        value = self.left.pop(key, accepted[0])
        if not any(value == one and type(value) is type(one) for one in accepted):
            shown = " or ".join(repr(one) for one in accepted)
            raise ModelError(
                f"{self.where}: {key} {_shown(value)} is not supported here, only {shown}; "
                "this is a model of another family"
            )
        return value

    def ignore(self, *keys: str) -> None:
        """Keys that change nothing when a model runs."""
        for key in keys:
            self.left.pop(key, None)

    def finish(self) -> None:
        """Raises ModelError when keys are left: what they would change is not known."""
        if self.left:
            names = ", ".join(sorted(map(str, self.left))[:10])
            raise ModelError(f"{self.where}: unknown settings: {names}; this is a model of another family")

    def __contains__(self, key: str) -> bool:
        return key in self.left


def from_mapping(
    cls: type[Config],
    table: Mapping[str, Any],
    where: str,
    error: Error = OptionError,
    *,
    complete: bool = False,
) -> Config:
    """A dataclass from a table, strictly.

    Unknown and missing keys and values of the wrong type raise `error`, which names `where` they stood; a
    whole number is taken where a float is wanted, a list where a tuple is. Fields with a default may be
    missing unless the table has to be `complete`. A field that is itself a dataclass, or a list or table of
    them, is read from tables of its own.
    """
    if not isinstance(table, Mapping):
        raise error(f"{where}: expected a table of settings, got {type(table).__name__}")
    hints = get_type_hints(cls)
    known = {field.name: field for field in fields(cls) if field.init}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            raise error(f"{where}: unknown setting {_shown(key)}; {nearest(str(key), known)}")
        values[key] = _typed(hints[key], value, f"{where}: {key}", error)
    missing = [
        name
        for name, field in known.items()
        if name not in values and (complete or field.default is field.default_factory is MISSING)
    ]
    if missing:
        raise error(f"{where}: settings are missing: {', '.join(missing)}")
    return cls(**values)


def _typed(hint: Any, value: Any, where: str, error: Error) -> Any:
    """A value as a field of the type `hint` holds it."""
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if value is None and type(None) in kinds:
        return None
    for kind in kinds:
        origin, below = get_origin(kind), get_args(kind)
        if kind is Any or (origin is Literal and value in below):
            return value
        if is_dataclass(kind) and isinstance(kind, type):
            return value if isinstance(value, kind) else from_mapping(kind, value, where, error)
        if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if origin in (list, tuple) and isinstance(value, list | tuple):
            each = below[:1] * len(value) if origin is list or below[1:] == (...,) else below
            if len(each) == len(value):
                parts = enumerate(zip(each, value, strict=True))
                return origin(_typed(one, part, f"{where}[{index}]", error) for index, (one, part) in parts)
        if isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(value, Mapping):
            return {key: _typed(below[1], part, f"{where}: {key}", error) for key, part in value.items()}
        if isinstance(kind, type) and isinstance(value, kind) and isinstance(value, bool) == (kind is bool):
            return value
    names = (get_args(kind) if get_origin(kind) is Literal else (kind,) for kind in kinds)
    wanted = " or ".join(getattr(name, "__name__", repr(name)) for each in names for name in each)
    raise error(f"{where} must be {wanted}, got {_shown(value)}")


def read_text(path: str | Path, error: Error, limit: int = MAX_BYTES, what: str = "text") -> str:
    """The text of a file of at most `limit` bytes. Raises `error`, with the path and the reason.

    Only regular files are opened: a pipe would be waited for, a device read for ever.
    """
    path = Path(path)
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise error(f"{path}: cannot be read (no regular file)")
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError as reason:
        raise error(f"{path}: cannot be read (no such file)") from reason
    except (OSError, ValueError) as reason:  # ValueError: a name with a zero byte in it
        raise error(f"{path}: cannot be read ({getattr(reason, 'strerror', None) or reason})") from reason
    if len(data) > limit:
        raise error(f"{path}: more than {limit} bytes; it is no file of settings")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as reason:
        raise error(f"{path}: not readable as {what} ({reason})") from reason


def _json(text: str, finite: bool) -> Any:
    # At least one of these marks stands before each value but the first: counted before memory is taken.
    if len(text) > MAX_BYTES or sum(map(text.count, ",:[{")) > 2 * MAX_VALUES:
        raise ValueError("more JSON than settings have")
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as reason:
        raise ValueError(f"not JSON ({reason})") from reason
    _check(tree, _values, finite=finite)
    return tree


def _values(value: Any) -> Iterable[Any]:
    """What stands directly in a value of JSON, TOML or YAML."""
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


def _nodes(node: Node | None) -> Iterable[Node]:
    """What stands directly in a node of YAML. An alias is the node it means."""
    from yaml import MappingNode, SequenceNode

    if isinstance(node, MappingNode):
        return [each for pair in node.value for each in pair]
    return node.value if isinstance(node, SequenceNode) else ()


def _check(
    root: Any, below: Callable[[Any], Iterable[Any]], *, finite: bool = True, most: int = MAX_VALUES
) -> None:
    """Raise ValueError for a tree that is too deep or too large, and for numbers that are."""
    count, level, depth = 0, [root], 0
    while level:  # one level of the tree after another: one that holds itself ends at MAX_DEPTH
        count += len(level)
        if count > most:
            raise ValueError(f"more than {most} values")
        if depth > MAX_DEPTH:
            raise ValueError(f"nested more than {MAX_DEPTH} deep")
        for value in level:
            if finite and isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"the number {value} is not finite")
            if type(value) is int and abs(value) > MAX_WHOLE:
                raise ValueError("a number that is too large")
        within = (each for value in level for each in below(value))
        level, depth = list(islice(within, most + 1)), depth + 1


def _shown(value: object) -> str:
    """A value in an error, cut to a length that can be read."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:197]}..."
