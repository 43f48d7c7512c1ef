"""Options described once: the fields of a frozen dataclass, with type, default, help, unit, range and role.

```
@dataclass(frozen=True)
class Options(Described):
    prompt: Annotated[str, argument("What to hear.")]
    seconds: Annotated[float | None, option("Length of the clip.", "-s", unit="s", gt=0, le=3600)] = None
    melody: Annotated[Clip | None, audio("A clip whose melody is followed.")] = None
```

Everything else is read from these fields: the command line (`audiogen_core.cli`), the keywords of Python, the
JSON schema, recipes. A value of the class is checked when it is made, so whoever holds one need not ask.
Nothing heavy is imported here, so that `--help` is quick.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from difflib import get_close_matches
from inspect import get_annotations
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, Union, get_args, get_origin, get_type_hints

from audiogen_core.errors import OptionError

if TYPE_CHECKING:
    from audiogen_core.audio import Audio

    Clip = Audio | str | Path
    Clips = Clip | Sequence[Clip | None]
else:  # numpy comes with Audio, and takes longer to import than `--help` may
    Clip = Clips = object

Role = Literal["value", "audio", "file", "place", "hidden"]

_LARGEST = 2**63
"""Whole numbers beyond this fit no seed and no array, and are refused before anything computes with them."""


@dataclass(frozen=True)
class Option:
    """What is said of an option beside its type and default.

    help      one sentence for people
    names     on the command line: "-s" in addition; "--continue" in place of the field's own name, and any
              further one of that kind in addition
    role      "value"; "audio", a clip: `Audio` or a path in Python, a file in the command; "file", another
              file that goes in; "place", where a part of the model is; "hidden", offered in Python alone
    argument  given by its place on the command line, not by a name
    metavar   what is written for the value; the kind of the value when empty
    unit      of the number: "s", "Hz", "dB", ...
    ge, gt, le, lt  range of a number, or of each of several: from, above, to, below
    choices   the texts that are allowed
    group     heading under which it is shown
    advanced  shown folded on a page
    some      only some models understand it
    local     of this machine or this run: recipes leave it out, and `replay` takes it too
    many      in Python also a list, with one (or None) for each prompt
    parse     makes the value of the text given to the command, where the type does not say how
    no        the name on the command line that turns a flag off; no such name when empty
    concealed  taken by the command, but not shown in its help
    """

    help: str
    names: tuple[str, ...] = ()
    role: Role = "value"
    argument: bool = False
    metavar: str = ""
    unit: str = ""
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    choices: tuple[str, ...] = ()
    group: str = ""
    advanced: bool = False
    some: bool = False
    local: bool = False
    many: bool = False
    parse: Callable[[str], Any] | None = None
    no: str = ""
    concealed: bool = False

    @property
    def range(self) -> str:
        """The allowed numbers in words; "" when all are."""
        if self.ge is not None and self.le is not None:
            return f"from {self.ge:g} to {self.le:g}"
        low = "" if self.ge is None else f"{self.ge:g} or more"
        low = low if self.gt is None else f"more than {self.gt:g}"
        high = "" if self.le is None else f"at most {self.le:g}"
        high = high if self.lt is None else f"below {self.lt:g}"
        return " and ".join(part for part in (low, high) if part)

    @property
    def range_shown(self) -> str:
        """The range as help shows it: that a seed is below 2 ** 63, nobody needs to hear."""
        return replace(self, lt=None).range if self.lt == _LARGEST else self.range


def option(help: str, *names: str, **facts: Any) -> Option:
    """An option given by name; see `Option` for the facts."""
    return Option(help, names, **facts)


def argument(help: str, **facts: Any) -> Option:
    """A value that the command takes by its place."""
    return Option(help, argument=True, **facts)


def audio(help: str, *names: str, **facts: Any) -> Option:
    """A clip of sound that goes in."""
    return Option(help, names, **{"role": "audio", "metavar": "FILE", **facts})


def file(help: str, *names: str, **facts: Any) -> Option:
    """Another file that goes in."""
    return Option(help, names, **{"role": "file", "metavar": "FILE", **facts})


def place(help: str, *names: str, **facts: Any) -> Option:
    """Where a part of the model is."""
    return Option(help, names, **{"role": "place", "metavar": "PATH", **facts})


def hidden(help: str) -> Option:
    """An option of Python alone: an array, a function, a source of noise. Its value is not checked here."""
    return Option(help, role="hidden")


@dataclass(frozen=True)
class Field:
    """One described field of a dataclass.

    kind      the type without None
    optional  whether None is allowed
    default   MISSING when it must be given
    """

    name: str
    kind: Any
    optional: bool
    default: Any
    option: Option

    @property
    def flag(self) -> str:
        """Its name on the command line, with the dashes."""
        long = [name for name in self.option.names if name.startswith("--")]
        return long[0] if long else f"--{self.name.replace('_', '-')}"

    @property
    def required(self) -> bool:
        return self.default is MISSING

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts that are allowed; empty when any is, or when it is no text."""
        return self.option.choices or tuple(
            each
            for member in _members(self.kind)
            if get_origin(member) is Literal
            for each in get_args(member)
        )

    @property
    def repeated(self) -> Any:
        """The type of each of any number of values, where it takes several; else None."""
        arguments = get_args(self.kind)
        several = get_origin(self.kind) is tuple and len(arguments) == 2 and arguments[1] is Ellipsis
        return arguments[0] if several else None

    def check(self, value: Any) -> Any:
        """The value as the field's type has it. Raises OptionError in one sentence."""
        if value is None and (self.optional or self.default is None):
            return None
        if self.option.role == "hidden":
            return value
        if self.option.role == "audio":
            return self._clip(value)
        return self._value(self.kind, value)

    def parse(self, text: str) -> Any:
        """What the text of a command stands for; of a repeated option, what one of its texts does.

        Raises OptionError.
        """
        if self.option.parse is not None:
            return self.option.parse(text)
        kind = self.repeated or self.kind
        if get_origin(kind) is tuple:  # START:END
            try:
                start, end = (float(part) for part in text.split(":"))
            except ValueError:
                raise OptionError(
                    f"{self.flag}: expected START:END, two numbers such as 2.5:4; got {text!r}"
                ) from None
            return start, end
        members = _members(kind)
        if int in members and len(members) > 1:  # a number, or one of some words
            try:
                return int(text)
            except ValueError:
                if text not in self.texts:
                    words = " or ".join(self.texts)
                    raise OptionError(f"{self.flag} takes a whole number, or {words}; got {text!r}") from None
        return text

    def _value(self, kind: Any, value: Any) -> Any:
        if get_origin(kind) is tuple:
            return self._values(kind, value)
        if get_origin(kind) in (Union, types.UnionType):
            return self._of_several(kind, value)
        if get_origin(kind) is Literal or (kind is str and self.option.choices):
            if value not in self.texts or not isinstance(value, str):
                raise OptionError(f"{self.name} must be one of {', '.join(self.texts)}, got {value!r}")
            return value
        if kind is bool:
            if not (isinstance(value, bool) or type(value).__name__ in ("bool", "bool_")):  # numpy's
                raise self._wrong("true or false", value)
            return bool(value)
        if kind is int:
            return self._whole(value)
        if kind is float:
            return self._number(value)
        if kind in (str, Path):
            if not isinstance(value, str | Path if self._is_path or kind is Path else str):
                raise self._wrong("a path" if self._is_path else "a text", value)
            if "\0" in str(value):
                raise OptionError(f"{self.name} must not hold a zero character, got {value!r}")
            return kind(value)
        return value

    def _values(self, kind: Any, value: Any) -> tuple[Any, ...]:
        if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
            several = get_args(kind)[-1] is Ellipsis
            raise self._wrong("a list" if several else "two numbers (from, to)", value)
        values = tuple(value)
        arguments = get_args(kind)
        if arguments[-1] is Ellipsis:
            return tuple(self._value(arguments[0], each) for each in values)
        if len(values) != len(arguments):
            raise self._wrong("two numbers (from, to)", value)
        return tuple(self._value(each, one) for each, one in zip(arguments, values, strict=True))

    def _of_several(self, kind: Any, value: Any) -> Any:
        """A value of one of several types: a number, a word, or several numbers."""
        for member in get_args(kind):
            plain = isinstance(value, str | Real) and not isinstance(value, bool)
            if get_origin(member) is Literal:
                if isinstance(value, str) and value in get_args(member):
                    return value
            elif (get_origin(member) is tuple) != plain and (isinstance(value, str) == (member is str)):
                return self._value(member, value)
        words = " or ".join(repr(text) for text in self.texts)
        numbers = "a number" if float in get_args(kind) else "a whole number"
        raise self._wrong(f"{numbers} or {words or 'several'}", value)

    def _whole(self, value: Any) -> int:
        number = value
        if isinstance(value, Real) and not isinstance(value, bool | Integral) and float(value).is_integer():
            number = int(float(value))  # JSON of other languages writes 4.0 for 4
        if isinstance(number, bool) or not isinstance(number, Integral) or abs(int(number)) > _LARGEST:
            raise self._wrong(f"a whole number{self._of_range()}", value)
        if not self._inside(int(number)):
            raise self._wrong(f"a whole number{self._of_range()}", value)
        return int(number)

    def _number(self, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, Real):
            raise self._wrong(f"a number{self._of_range()}", value)
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number) or not self._inside(number):
            raise self._wrong(self.option.range or "a finite number", value)
        return number

    def _inside(self, number: float) -> bool:
        told = self.option
        return (
            (told.ge is None or number >= told.ge)
            and (told.gt is None or number > told.gt)
            and (told.le is None or number <= told.le)
            and (told.lt is None or number < told.lt)
        )

    def _of_range(self) -> str:
        between = self.option.range.startswith("from")
        return f"{' ' if between else ' of '}{self.option.range}" if self.option.range else ""

    def _clip(self, value: Any) -> Any:
        several = self.option.many and isinstance(value, list | tuple)
        for each in value if several else [value]:
            is_clip = hasattr(each, "samples") and hasattr(each, "sample_rate")
            if not (isinstance(each, str | Path) or is_clip or (several and each is None)):
                raise self._wrong("a clip: an Audio, or the path of a sound file", each)
        return value

    @property
    def _is_path(self) -> bool:
        return self.option.role in ("file", "place")

    def _wrong(self, allowed: str, value: Any) -> OptionError:
        shown = repr(value)
        shown = shown if len(shown) < 80 else f"{shown[:80]}..."
        return OptionError(f"{self.name} must be {allowed}, got {shown}")


def _members(kind: Any) -> tuple[Any, ...]:
    """The types of a union, or the type itself."""
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


_KNOWN: dict[type, tuple[Field, ...]] = {}


def described(cls: type) -> tuple[Field, ...]:
    """The described fields of a dataclass, in order: its own, then those of its bases."""
    if cls not in _KNOWN:
        _KNOWN[cls] = tuple(_read(cls))
    return _KNOWN[cls]


def _read(cls: type) -> Iterator[Field]:
    hints = get_type_hints(cls, include_extras=True)
    names = [name for base in cls.__mro__ for name in get_annotations(base)]
    defaults = {each.name: each for each in fields(cls)}
    for name in dict.fromkeys(names):
        told = next(
            (one for one in getattr(hints[name], "__metadata__", ()) if isinstance(one, Option)), None
        )
        if told is None:
            raise TypeError(f"{cls.__name__}.{name} is not described: annotate it with option(...)")
        kind = get_args(hints[name])[0]
        members = tuple(member for member in _members(kind) if member is not type(None))
        optional = len(members) < len(_members(kind))
        if optional:
            kind = members[0] if len(members) == 1 else Union[members]  # noqa: UP007 - of a tuple
        given = defaults[name]
        default = given.default if given.default_factory is MISSING else given.default_factory()
        yield Field(name, kind, optional, default, told)


@dataclass(frozen=True)
class Described:
    """Base of dataclasses whose fields are options. Raises OptionError when a value is not of its field."""

    def __post_init__(self) -> None:
        for field in described(type(self)):
            object.__setattr__(self, field.name, field.check(getattr(self, field.name)))

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """A value of these names.

        Raises OptionError for a name there is none of, with the closest, and for one that is missing.
        """
        known = {field.name: field for field in described(cls)}
        for name in values:
            if name not in known:
                close = get_close_matches(str(name), known, n=2)
                shown = [field.name for field in known.values() if field.option.role != "hidden"]
                hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(shown)}"
                raise OptionError(f"there is no option {name}; {hint}")
        for name, field in known.items():
            if field.required and name not in values:
                raise OptionError(f"{name} is missing: {field.option.help}")
        return cls(**values)

    def asked(self) -> dict[str, Any]:
        """What differs from the defaults, as JSON has it, but hidden options and clips that are no files."""
        chosen = {}
        for field in described(type(self)):
            value = getattr(self, field.name)
            is_clip = field.option.role == "audio" and not isinstance(value, str | Path)
            if field.option.role == "hidden" or is_clip or value == field.default:
                continue
            chosen[field.name] = plain(value)
        return chosen


def plain(value: Any) -> Any:
    """A value as JSON has it: tuples as lists, paths as texts."""
    if isinstance(value, tuple | list):
        return [plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value


def schema(*classes: type[Described]) -> dict[str, Any]:
    """The options of dataclasses as JSON Schema (2020-12) of one object; hidden ones are left out."""
    shown = [field for cls in classes for field in described(cls) if field.option.role != "hidden"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {field.name: _property(field) for field in shown},
        "required": [field.name for field in shown if field.required],
        "additionalProperties": False,
    }


_TYPES: dict[Any, str] = {bool: "boolean", int: "integer", float: "number", str: "string", Path: "string"}


def _property(field: Field) -> dict[str, Any]:
    told = field.option
    entry: dict[str, Any] = {"title": field.name.replace("_", " ").capitalize(), "description": told.help}
    of_kind = _schema_of(field.kind, field)
    if told.role == "audio":
        of_kind = {"type": "string", "contentMediaType": "audio/*"}
    if field.optional or field.default is None:
        if isinstance(of_kind.get("type"), str) and "enum" not in of_kind:
            of_kind["type"] = [of_kind["type"], "null"]
        else:
            of_kind = {"anyOf": [*of_kind.get("anyOf", [of_kind]), {"type": "null"}]}
    entry |= of_kind
    if not field.required:
        entry["default"] = plain(field.default)
    marks = {"unit": told.unit, "group": told.group, "advanced": told.advanced, "role": told.role}
    return entry | {f"x-{name}": value for name, value in marks.items() if value not in ("", False, "value")}


def _schema_of(kind: Any, field: Field) -> dict[str, Any]:
    told = field.option
    if get_origin(kind) is tuple:
        arguments = get_args(kind)
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return {"type": "array", "items": _schema_of(arguments[0], field)}
        return {
            "type": "array",
            "prefixItems": [_schema_of(each, field) for each in arguments],
            "minItems": len(arguments),
            "maxItems": len(arguments),
        }
    if get_origin(kind) in (Union, types.UnionType):
        return {"anyOf": [_schema_of(each, field) for each in get_args(kind)]}
    if get_origin(kind) is Literal:
        return {"enum": list(get_args(kind))}
    if kind is str and told.choices:
        return {"enum": list(told.choices)}
    entry: dict[str, Any] = {"type": _TYPES[kind]} if kind in _TYPES else {}
    if kind in (int, float):
        limits = {
            "minimum": told.ge, "exclusiveMinimum": told.gt, "maximum": told.le, "exclusiveMaximum": told.lt
        }  # fmt: skip
        entry |= {name: limit for name, limit in limits.items() if limit is not None}
    return entry
