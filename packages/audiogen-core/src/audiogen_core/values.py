"""Values that come from outside, checked by their type: one place for options, for functions and for fields.

`Checks` says whether a value is of a type, within the range that an `Option` tells, and makes it of that
type. Fields of options are such (`audiogen_core.options`); a function that others call is `closed` by its
annotations, a dataclass by `close_fields`.
"""

from __future__ import annotations

import inspect
import math
import os
import re
import sys
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import cache, wraps
from itertools import islice
from numbers import Integral, Real
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin

from audiogen_core.errors import AudiogenError, OptionError

Function = TypeVar("Function", bound=Callable[..., Any])

Role = Literal["value", "audio", "file", "place", "adapter", "hidden"]

_MOST = 1_000_000
"""Values that a list may have."""

_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character: what a shell makes of bytes that are no text

_LARGEST = 2**63 - 1
"""Whole numbers beyond this fit no seed and no array, and are refused before anything computes with them."""


@dataclass(frozen=True)
class Option:
    """What is said of an option beside its type and default.

    help      one sentence for people
    names     on the command line: "-s" in addition; "--continue" in place of the field's own name
    old       what it was called there before, or is in other programs: taken, with a word on the name here;
              "--old=--new" where that is not the option's first, and a word without dashes where it was given
              by its place
    role      "value"; "audio", a clip: `Audio` or a path in Python, a file in the command; "file", another
              file that goes in; "place", where a part of the model is; "adapter", what is merged into it, by
              PATH[:STRENGTH]; "hidden", offered in Python alone
    argument  given by its place on the command line; and by its names, where it has some
    metavar   what is written for the value; the kind of the value when empty
    label     what a page calls it; made of its name when empty
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
    also      what clients of other programs' services call it
    verb      what a page calls giving it a clip that was made, "Continue" say; or a span of that clip
    of        the option for the clip of which it is a span
    suffixes  of a file that goes in: how names of such files end, beside those of sounds
    """

    help: str
    names: tuple[str, ...] = ()
    old: tuple[str, ...] = ()
    role: Role = "value"
    argument: bool = False
    metavar: str = ""
    label: str = ""
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
    also: tuple[str, ...] = ()
    verb: str = ""
    of: str = ""
    suffixes: tuple[str, ...] = ()

    @property
    def range(self) -> str:
        """The allowed numbers in words; "" when all are."""
        if self.ge is not None and self.le is not None:
            return f"from {written(self.ge)} to {written(self.le)}"
        low = "" if self.ge is None else f"{written(self.ge)} or more"
        low = low if self.gt is None else f"more than {written(self.gt)}"
        high = "" if self.le is None else f"at most {written(self.le)}"
        high = high if self.lt is None else f"below {written(self.lt)}"
        return " and ".join(part for part in (low, high) if part)

    @property
    def range_shown(self) -> str:
        """The range as help shows it: that a seed is below 2 ** 63, nobody needs to hear."""
        return replace(self, lt=None).range if self.lt == _LARGEST + 1 else self.range


@dataclass(frozen=True)
class Checks:
    """The checks of one value that goes by a name.

    kind    its type
    option  what else is said of it: its range, its choices, its role
    """

    name: str
    kind: Any
    option: Option

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts that are allowed; empty when any is, or when it is no text."""
        return self.option.choices or tuple(
            each
            for member in members(self.kind)
            if get_origin(member) is Literal
            for each in get_args(member)
            if isinstance(each, str)
        )

    @property
    def words(self) -> tuple[str, ...]:
        """What is allowed, as a command writes it: texts, or numbers where there are a few; else empty."""
        numbers = get_args(self.kind) if get_origin(self.kind) is Literal else ()
        return self.texts or tuple(map(str, numbers))

    def admit(self, kind: Any, value: Any) -> Any:
        """The value as any type that functions of ours are annotated with has it. Raises OptionError."""
        origin = get_origin(kind)
        if kind is Any or isinstance(kind, TypeVar):
            return value
        if kind is None or kind is type(None):
            if value is None:
                return None
            raise self._wrong("None", value)
        if origin in (Union, types.UnionType):
            return self._of_any(get_args(kind), value)
        if origin in (Sequence, Iterable) and get_args(kind)[0] in (int, float, str):
            return tuple(self.admit(get_args(kind)[0], each) for each in self._values(tuple[Any, ...], value))
        if origin is Mapping:
            if not isinstance(value, Mapping):
                raise self._wrong("a mapping", value)
            name, inner = get_args(kind)
            return {self.admit(name, key): self.admit(inner, each) for key, each in value.items()}
        if kind is Path or (kind is str and self._is_path):
            return kind(self._path(value))
        if kind is float and isinstance(value, float):
            return value  # what is not finite is out of a range that the function knows
        if kind in (int, float, bool, str) or origin is Literal:
            return self._value(kind, value)
        if origin is Callable or kind is Callable:
            if not callable(value):
                raise self._wrong("a function", value)
            return value
        if getattr(origin or kind, "__module__", "").startswith("numpy"):
            return self._array(value)
        if origin is tuple and all(part in (int, float, Any, Ellipsis) for part in get_args(kind)):
            return self._values(kind, value)
        if isinstance(kind, type) and kind.__module__.startswith("audiogen_"):
            verbs = [each for each in vars(kind) if not each.startswith("_")]
            is_protocol = getattr(kind, "_is_protocol", False)
            of_kind = all(hasattr(value, each) for each in verbs) if is_protocol else isinstance(value, kind)
            if not of_kind:
                raise self._wrong(f"a value of {kind.__name__}", value)
        return value

    def _of_any(self, kinds: tuple[Any, ...], value: Any) -> Any:
        """A value of the first of several types that takes it."""
        if Path in kinds and isinstance(value, str | Path):
            return self._path(value)
        # of what numpy counts as an array only numbers are one here
        arrays = any(getattr(kind, "__module__", "").startswith("numpy") for kind in kinds)
        for kind in sorted(kinds, key=lambda each: not str(each).startswith("tuple")):  # a shape is no array
            if kind in (str, bytes, complex) and (arrays or Path in kinds):
                continue
            with suppress(OptionError):
                return self.admit(kind, value)
        raise self._wrong(" or ".join(_named(kind) for kind in kinds), value)

    def _path(self, value: Any) -> Any:
        """A text or a path that a file could have."""
        if not isinstance(value, str | Path):
            raise self._wrong("a path", value)
        try:
            name = os.fsencode(value)
        except UnicodeEncodeError:
            name = b"\0"
        if b"\0" in name or len(name) > 4096 or max(map(len, name.split(b"/"))) > 255:
            raise OptionError(f"{self.name} is a path that cannot be opened: {shown(value)}", self.name)
        return value

    def _array(self, value: Any) -> Any:
        """An array of numbers. What makes one is an array or lists of numbers, and no endless iterator."""
        import numpy as np

        if not isinstance(value, list | tuple | Real) and not hasattr(value, "__array__"):
            raise self._wrong("an array", value)
        try:
            array = np.asarray(value)
        except (ValueError, TypeError, OverflowError, RuntimeError, RecursionError, MemoryError) as fault:
            raise self._wrong("an array of numbers", value) from fault
        if array.dtype.kind not in "biuf":
            raise self._wrong("an array of numbers", value)
        return array

    def _value(self, kind: Any, value: Any) -> Any:
        if get_origin(kind) is tuple:
            return self._values(kind, value)
        if get_origin(kind) in (Union, types.UnionType):
            return self._of_several(kind, value)
        if get_origin(kind) is Literal and not self.texts:  # numbers
            number = self._whole(value)
            if number not in get_args(kind):
                raise self._wrong(f"one of {', '.join(self.words)}", value)
            return number
        if get_origin(kind) is Literal or (kind is str and self.option.choices):
            if not isinstance(value, str) or value not in self.texts:
                raise self._wrong(f"one of {', '.join(self.texts)}", value)
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
            if self._is_path or kind is Path:
                self._path(value)
            elif "\0" in value:
                raise self._wrong("a text without zero characters", value)
            else:
                check_text(self.name, value)
            return kind(value)
        return value

    def _values(self, kind: Any, value: Any) -> tuple[Any, ...]:
        arguments = get_args(kind)
        what = "a list" if arguments[-1] is Ellipsis else "two numbers (from, to)"
        if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
            raise self._wrong(what, value)
        try:
            values = tuple(islice(value, _MOST + 1))
        except TypeError:  # an array of no dimensions
            raise self._wrong(what, value) from None
        if len(values) > _MOST:
            raise self._wrong(f"{what} of at most {_MOST} values", value)
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
        if isinstance(value, float) and value.is_integer():
            number = int(value)  # JSON of other languages writes 4.0 for 4
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

    @property
    def _is_path(self) -> bool:
        return self.option.role in ("file", "place", "adapter")

    def _wrong(self, allowed: str, value: Any) -> OptionError:
        return OptionError(f"{self.name} must be {allowed}, got {shown(value)}", self.name)


def check_text(name: str, text: str) -> None:
    """Raise OptionError for what is no text: bytes of a command line that are not UTF-8."""
    if not text.isascii() and _SURROGATE.search(text):
        raise OptionError(f"{name} must be text in UTF-8, got {shown(text)}", name)


def closed(error: type[AudiogenError] = OptionError) -> Callable[[Function], Function]:
    """Decorates a function that others call: it gets what its annotations say, or ends in `error`.

    Numbers, texts, paths, choices, arrays and values of ours are checked, and numbers and paths converted, by
    the rules of options; of anything else nothing is known here. Ranges that are no type stay with the
    function, or are said by `Annotated[int, option("...", ge=1)]`.
    """

    def close(function: Function) -> Function:
        signature = inspect.signature(function)
        kinds: dict[str, Any] = {}

        @wraps(function)
        def checked(*given: Any, **named: Any) -> Any:
            if not kinds:
                kinds.update(_kinds(function, signature.parameters.values()))
            call = signature.bind(*given, **named)
            for name, value in call.arguments.items():
                if name in kinds:
                    call.arguments[name] = admitted(name, kinds[name], value, error)
            return function(*call.args, **call.kwargs)

        return cast("Function", checked)

    return close


def close_fields(value: Any, error: type[AudiogenError] = OptionError) -> None:
    """As `closed`, for the fields of a frozen dataclass, from its `__post_init__`."""
    owner: Any = type(value)
    for name, kind in _field_kinds(owner).items():
        object.__setattr__(value, name, admitted(name, kind, getattr(value, name), error))


@cache
def _field_kinds(cls: Any) -> dict[str, Any]:
    """The types of the fields of a dataclass."""
    return _kinds(cls, fields(cls))


def _kinds(owner: Any, members: Iterable[Any]) -> dict[str, Any]:
    """The types of parameters or fields. NameError where type checkers alone know one: nothing checked it."""
    module = vars(sys.modules[owner.__module__])
    kinds: dict[str, Any] = {}
    for each in members:
        told = getattr(each, "annotation", getattr(each, "type", None))
        if isinstance(told, str):
            told = eval(told, module)  # of our own source
        kinds[each.name] = told
    return kinds


def admitted(name: str, kind: Any, value: Any, error: type[AudiogenError] = OptionError) -> Any:
    """A value as its type has it: see `closed`."""
    told, told_kind = Option(""), kind
    if get_origin(kind) is Annotated:
        told = next((one for one in kind.__metadata__ if isinstance(one, Option)), told)
        told_kind = get_args(kind)[0]
    try:
        return Checks(name, told_kind, told).admit(told_kind, value)
    except OptionError as fault:
        if error is OptionError:
            raise
        raise error(str(fault)) from None


def written(number: float) -> str:
    """A number as people write it: in all its digits, and without a point where it is whole."""
    return f"{number:.15g}" if isinstance(number, float) else str(number)


def shown(value: Any) -> str:
    """How a value that is refused is shown: by its beginning, however large it is."""
    if isinstance(value, str | bytes | list | tuple):
        value = value[:80]
    elif hasattr(value, "__len__") and not hasattr(value, "dtype"):
        return f"a {type(value).__name__}"
    try:
        text = repr(value)
    except (ValueError, TypeError, RecursionError):  # whole numbers of thousands of digits, for one
        return f"a {type(value).__name__}"
    return text if len(text) < 80 else f"{text[:80]}..."


def _named(kind: Any) -> str:
    """What a type is called in a sentence."""
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", Path: "a path"}
    if kind is None or kind is type(None):
        return "None"
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, get_args(kind)))
    return names.get(kind) or f"a value of {getattr(kind, '__name__', str(kind))}"


def members(kind: Any) -> tuple[Any, ...]:
    """The types of a union, or the type itself."""
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
