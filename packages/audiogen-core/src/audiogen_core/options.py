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

import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from difflib import get_close_matches
from functools import reduce, wraps
from inspect import Parameter, Signature, cleandoc, get_annotations, signature
from operator import or_
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Literal,
    ParamSpec,
    Protocol,
    Self,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    overload,
)

from audiogen_core.errors import OptionError
from audiogen_core.times import time_in
from audiogen_core.values import Checks, members
from audiogen_core.values import Option as Option

if TYPE_CHECKING:
    from audiogen_core.audio import Audio
    from audiogen_core.noise import Noise as Noise

    Clip = Audio | str | Path
    Clips = Clip | Sequence[Clip | None]
    Place = str | Path
else:  # numpy comes with Audio, and takes longer to import than `--help` may
    Clip = Clips = Noise = object
    Place = str  # what a path is made


def option(help: str, *names: str, **facts: Any) -> Option:
    """An option given by name; see `Option` for the facts."""
    return Option(help, names, **facts)


def argument(help: str, *names: str, **facts: Any) -> Option:
    """A value that the command takes by its place, and by these names."""
    return Option(help, names, argument=True, **facts)


def audio(help: str, *names: str, **facts: Any) -> Option:
    """A clip of sound that goes in."""
    return Option(help, names, **{"role": "audio", "metavar": "FILE", **facts})


def file(help: str, *names: str, **facts: Any) -> Option:
    """Another file that goes in."""
    return Option(help, names, **{"role": "file", "metavar": "FILE", **facts})


def place(help: str, *names: str, **facts: Any) -> Option:
    """Where a part of the model is."""
    return Option(help, names, **{"role": "place", "metavar": "PATH", **facts})


def adapters(help: str, *names: str, **facts: Any) -> Option:
    """Adapters that are merged into the model, each by PATH[:STRENGTH]."""
    return Option(help, names, **{"role": "adapter", "metavar": "PATH[:STRENGTH]", **facts})


def hidden(help: str, **facts: Any) -> Option:
    """An option of Python alone: an array, a function, a source of noise; checked as far as it has a type.

    What changes the result and no recipe can tell is not `local`.
    """
    return Option(help, role="hidden", **facts)


@dataclass(frozen=True)
class Field(Checks):
    """One described field of a dataclass, of a kind without None.

    optional  whether None is allowed
    default   MISSING when it must be given
    """

    optional: bool
    default: Any

    @property
    def flag(self) -> str:
        """Its name on the command line, with the dashes."""
        long = [name for name in self.option.names if name.startswith("--")]
        return long[0] if long else f"--{self.name.replace('_', '-')}"

    @property
    def label(self) -> str:
        """What a page calls it."""
        words = self.name.replace("_", " ")
        if self.option.unit == "s":  # which stands behind it
            words = words.removesuffix(" seconds")
        return self.option.label or f"{words[0].upper()}{words[1:]}"

    @property
    def required(self) -> bool:
        return self.default is MISSING

    @property
    def place(self) -> str:
        """What it is called where it is given by its place on the command line; "" where it is not."""
        if self.option.argument:
            return self.option.metavar or self.name.upper()
        return next((old for old in self.option.old if not old.startswith("-")), "")

    @property
    def annotation(self) -> Any:
        """Its type as signatures show it."""
        some: Any = reduce(or_, members(self.kind))
        if self.option.role == "audio":
            some = "Audio | str | Path" + (
                " | Sequence[Audio | str | Path | None]" if self.option.many else ""
            )
        elif self.option.role == "place":
            some = str | Path
        if not self.optional:
            return some
        return f"{some} | None" if isinstance(some, str) else some | None

    @property
    def repeated(self) -> Any:
        """The type of each of any number of values, where it takes several; else None."""
        arguments = get_args(self.kind)
        several = get_origin(self.kind) is tuple and len(arguments) == 2 and arguments[1] is Ellipsis
        return arguments[0] if several else None

    @property
    def is_time(self) -> bool:
        """Whether it is a length of time, or several."""
        kinds = members(self.repeated or self.kind)
        return self.option.unit in ("s", "min") and float in kinds and str not in kinds

    def check(self, value: Any) -> Any:
        """The value as the field's type has it. Raises OptionError in one sentence."""
        if value is None and (self.optional or self.default is None):
            return None
        if self.option.role == "hidden":
            return self.admit(self.kind, value)
        if self.option.role == "audio":
            return self._clip(value)
        return self._value(self.kind, value)

    def time(self, text: str) -> float:
        """What a text stands for where the option is a length of time, in its unit. Raises OptionError."""
        return time_in(text, 60.0 if self.option.unit == "min" else 1.0)

    def parse(self, text: str) -> Any:
        """What the text of a command stands for; of a repeated option, what one of its texts does.

        Raises OptionError.
        """
        if self.option.parse is not None:
            return self.option.parse(text)
        kind = self.repeated or self.kind
        if self.is_time:
            try:
                return self.time(text)
            except OptionError as error:
                raise OptionError(f"{self.flag}: {error}") from None
        if get_origin(kind) is tuple:  # START:END
            try:
                start, end = (float(part) for part in text.split(":"))
            except ValueError:
                raise OptionError(
                    f"{self.flag}: expected START:END, two numbers such as 2.5:4; got {text!r}"
                ) from None
            return start, end
        several = members(kind)
        if get_origin(kind) is Literal and text in self.words and not self.texts:
            return int(text)
        if int in several and len(several) > 1:  # a number, or one of some words
            try:
                return int(text)
            except ValueError:
                if text not in self.texts:
                    words = " or ".join(self.texts)
                    raise OptionError(f"{self.flag} takes a whole number, or {words}; got {text!r}") from None
        return text

    def _clip(self, value: Any) -> Any:
        several = self.option.many and isinstance(value, list | tuple)
        for each in value if several else [value]:
            is_clip = hasattr(each, "samples") and hasattr(each, "sample_rate")
            if isinstance(each, str | Path):
                self._path(each)
            elif not (is_clip or (several and each is None)):
                raise self._wrong("a clip: an Audio, or the path of a sound file", each)
        return value


_KNOWN: dict[type, tuple[Field, ...]] = {}


def described(cls: type) -> tuple[Field, ...]:
    """The described fields of a dataclass, in order: its own, then those of its bases."""
    if cls not in _KNOWN:
        _KNOWN[cls] = tuple(_read(cls))
    return _KNOWN[cls]


def _read(cls: type) -> Iterator[Field]:
    hints = get_type_hints(cls, include_extras=True)
    defaults = {each.name: each for each in fields(cls)}
    names = [name for base in cls.__mro__ for name in get_annotations(base) if name in defaults]
    for name in dict.fromkeys(names):
        told = next(
            (one for one in getattr(hints[name], "__metadata__", ()) if isinstance(one, Option)), None
        )
        if told is None:
            raise TypeError(f"{cls.__name__}.{name} is not described: annotate it with option(...)")
        kind = get_args(hints[name])[0]
        some = tuple(member for member in members(kind) if member is not type(None))
        optional = len(some) < len(members(kind))
        if optional:
            kind = some[0] if len(some) == 1 else Union[some]  # noqa: UP007 - of a tuple
        given = defaults[name]
        default = given.default if given.default_factory is MISSING else given.default_factory()
        yield Field(name, kind, told, optional, default)


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
                raise OptionError(f"{name} is missing: {field.option.help}", name)
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


_Keywords = ParamSpec("_Keywords")
_Asked = TypeVar("_Asked", covariant=True)
_Owner = TypeVar("_Owner")
_First = TypeVar("_First")
_Second = TypeVar("_Second")
_Result = TypeVar("_Result")


class _Verb(Protocol[_Keywords, _Asked]):
    """What `verb` makes of a method: it takes the options' fields after what it takes beside them."""

    @overload
    def __call__(
        self, function: Callable[[_Owner, _Asked], _Result]
    ) -> Callable[Concatenate[_Owner, _Keywords], _Result]: ...
    @overload
    def __call__(
        self, function: Callable[[_Owner, _First, _Asked], _Result]
    ) -> Callable[Concatenate[_Owner, _First, _Keywords], _Result]: ...
    @overload
    def __call__(
        self, function: Callable[[_Owner, _First, _Second, _Asked], _Result]
    ) -> Callable[Concatenate[_Owner, _First, _Second, _Keywords], _Result]: ...


def verb(kind: Callable[_Keywords, _Asked]) -> _Verb[_Keywords, _Asked]:
    """Decorates a method whose last parameter is a `kind` of options: whoever calls it gives their fields.

    Type checkers, editors, `inspect.signature` and `help` see the fields with their types, defaults and help,
    though they are written in `kind` alone. Called, the method raises OptionError for a name there is none
    of, for what is missing, and for a value that is not of its field.
    """
    options: Any = kind

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        owner, *leading, _ = signature(function).parameters.values()
        by_place = [each.name for each in fields(options) if not each.kw_only]
        shown = sorted(described(options), key=lambda each: each.name not in by_place)
        places = [*(each.name for each in leading), *by_place]

        @wraps(function)
        def called(self: Any, /, *given: Any, **named: Any) -> Any:
            values = dict(zip(places, given, strict=False))
            if len(given) > len(places) or values.keys() & named.keys():
                takes = " and ".join(places) or "nothing"
                raise OptionError(f"{function.__name__} takes {takes} by place, once; name the rest")
            values |= named
            if missing := [each.name for each in leading if each.name not in values]:
                raise OptionError(f"{function.__name__}: {' and '.join(missing)} must be given")
            before = [values.pop(each.name) for each in leading]
            return function(self, *before, options.of(values))

        more = [
            Parameter(
                each.name,
                Parameter.POSITIONAL_OR_KEYWORD if each.name in by_place else Parameter.KEYWORD_ONLY,
                default=Parameter.empty if each.required else each.default,
                annotation=each.annotation,
            )
            for each in shown
        ]
        result = signature(function).return_annotation
        called.__signature__ = Signature(  # type: ignore[attr-defined]
            [owner, *leading, *more], return_annotation=result
        )
        told = "\n".join(f"{each.name}  {each.option.help}" for each in shown)
        called.__doc__ = f"{cleandoc(function.__doc__ or '')}\n\n{told}"
        return called

    return decorate


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
    entry: dict[str, Any] = {"title": field.label, "description": told.help}
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
    names = ("unit", "group", "advanced", "role", "verb", "of")
    marks = {name: getattr(told, name) for name in names}
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
