"""A pickle reader that can build plain values only. It imports nothing and calls nothing.

It is an interpreter of the opcodes that pickle protocols 2 to 5 use for containers, numbers and
texts (CPython Lib/pickletools.py). A global is looked up in a table that the caller gives; a name
outside the table is refused.

A pickle names a value once and puts it in a thousand places, so work is bounded, not only the file: the
number of operations, the bytes of all that is built beyond the bytes that were read (counted before it is
built), and the size of the tree when every shared value is written out.
"""

from __future__ import annotations

import math
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from audiogen_core.errors import WeightsError
from audiogen_core.formats.stored import ITEM_SIZES, StoredArray, shorten

MAX_OPERATIONS = 300_000
"""A tensor takes about thirty operations."""

MAX_NODES = 200_000
"""Values in the tree, a shared one counted wherever it appears."""

MAX_TENSORS = 10_000
"""In the tree, a shared one counted wherever it appears. The operations allowed do not make many more."""

MAX_DEPTH = 64

MAX_ARGUMENTS = 8
"""Of a call: _rebuild_tensor_v3 takes the most."""

MAX_WHOLE_KEYS = 20_000
"""Whole numbers that are keys of dictionaries. Texts hash by a secret, numbers do not: a file can choose
100,000 numbers that all collide, and a dictionary of them takes minutes."""

BUILT = 32 << 20
"""Bytes that may be built beyond those that were read, and twice the size of the pickle more."""

WRITTEN_OUT = 16 << 20
"""Bytes of text in the tree, a shared one counted wherever it appears; four times the pickle more."""

# What CPython takes for them, bytes
_EACH, _SLOT, _CONTAINER, _ITEM, _MEMO = 16, 9, 64, 100, 110

_KEYS = (str, int, bool, type(None))
_LEAVES = (str, bytes, int, float, bool, type(None), StoredArray)


@dataclass(frozen=True)
class Global:
    """What stands for an allowed global: its full name, and what REDUCE makes of its arguments.

    size  bytes of what is built, beyond a copy of the arguments
    """

    name: str
    build: Callable[[tuple[Any, ...]], Any] | None = None
    size: int = 256


class Stateful(ABC):
    """A value made by a Global that also accepts the BUILD opcode."""

    @abstractmethod
    def set_state(self, state: object) -> None:
        """Take the state, or raise WeightsError."""


class Held(Stateful):
    """An object that stands for a value: the part of its state under one of some keys, or the whole state.

    The value is not taken out here: a file could have the same one held a thousand times. See `plain`.
    """

    def __init__(self, *keys: str) -> None:
        self.keys = keys
        self.value: object = None

    def set_state(self, state: object) -> None:
        if not isinstance(state, dict):
            raise WeightsError(f"an object in a torch file has a state of type {type(state).__name__}")
        self.value = next((state[key] for key in self.keys if key in state), None) if self.keys else state


def plain(value: Any) -> Any:
    """A value of a tree that `load` gave, with the values that are held in the place of what holds them."""
    if isinstance(value, Held):
        return plain(value.value)
    if isinstance(value, dict):
        return {key: plain(below) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return [plain(below) for below in value]
    return value


def load(
    data: bytes,
    allowed: Mapping[str, object],
    persistent: Callable[[object], object],
    what: str,
    most_stored: int,
) -> Any:
    """The value a pickle describes.

    `allowed` maps "module.name" to its stand-in, a Global or a plain value; `persistent` turns a
    persistent id into a value; the tensors, read one by one, have at most `most_stored` bytes.
    Raises WeightsError naming `what` for a forbidden global, an unknown opcode, or damage.
    """
    machine = _Machine(data, allowed, persistent, what)
    value = machine.run()
    _check_tree(value, what, WRITTEN_OUT + 4 * len(data), most_stored)
    return value


class _Machine:
    def __init__(
        self, data: bytes, allowed: Mapping[str, object], persistent: Callable[[object], object], what: str
    ) -> None:
        self.data, self.allowed, self.persistent, self.what = data, allowed, persistent, what
        self.at = 0
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.left = BUILT + 2 * len(data)
        self.whole_keys = 0

    def run(self) -> Any:
        try:
            for _ in range(MAX_OPERATIONS):
                opcode = self.data[self.at]
                self.at += 1
                self.left -= _EACH
                if opcode == 0x2E:  # STOP
                    return self.finished()
                action = _ACTIONS.get(opcode)
                if action is None:
                    raise self.bad(f"opcode {opcode:#04x} is not one that weights need")
                action(self)
        except (IndexError, KeyError, UnicodeDecodeError, struct.error) as error:
            raise self.bad("it is cut or damaged") from error
        raise self.bad(f"more than {MAX_OPERATIONS} operations")

    def finished(self) -> Any:
        if len(self.stack) != 1 or self.marks or self.at != len(self.data):
            raise self.bad("it is cut or damaged")
        return self.stack[0]

    def bad(self, reason: str) -> WeightsError:
        return WeightsError(f"{self.what}: refused at byte {self.at} of its pickle: {reason}")

    def spend(self, size: int) -> None:
        """Account for so many bytes, before they are taken."""
        self.left -= size
        if self.left < 0:
            raise self.bad("it builds far more than weights need")

    # arguments

    def take(self, count: int) -> bytes:
        end = self.at + count
        if end > len(self.data):
            raise self.bad("it is cut or damaged")
        piece = self.data[self.at : end]
        self.at = end
        return piece

    def number(self, count: int, signed: bool = False) -> int:
        return int.from_bytes(self.take(count), "little", signed=signed)

    def integer(self, count: int) -> int:
        if count > 8:
            raise self.bad("an integer of more than 64 bits")
        return self.number(count, signed=True)

    def text(self, count: int) -> str:
        return self.take(count).decode("utf-8", "surrogatepass")

    def line(self) -> str:
        end = self.data.find(b"\n", self.at, self.at + 1024)
        if end < 0:
            raise self.bad("it is cut or damaged")
        return self.take(end + 1 - self.at)[:-1].decode("utf-8")

    # stack

    def marked(self) -> list[Any]:
        items = self.stack
        self.stack = self.marks.pop()
        return items

    def mark(self) -> None:
        self.spend(_CONTAINER)
        self.marks.append(self.stack)
        self.stack = []

    def put_tuple(self, count: int) -> None:
        if len(self.stack) < count:
            raise self.bad("it is cut or damaged")
        self.spend(_CONTAINER)
        self.stack[len(self.stack) - count :] = [tuple(self.stack[len(self.stack) - count :])]

    def marked_tuple(self) -> tuple[Any, ...]:
        items = self.marked()
        self.spend(_CONTAINER + _SLOT * len(items))
        return tuple(items)

    def container(self, empty: Any) -> Any:
        self.spend(_CONTAINER)
        return empty

    def remember(self, index: int) -> None:
        self.spend(_MEMO)
        self.memo[index] = self.stack[-1]

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise self.bad("it appends to something that is not a list")
        self.spend(_SLOT * len(items))
        target.extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise self.bad("it sets items of something that is not a dictionary")
        self.spend(_ITEM * len(items) // 2)
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[self.key(key)] = value

    def key(self, key: Any) -> Any:
        if type(key) not in _KEYS:
            raise self.bad(f"a dictionary key of type {type(key).__name__}")
        if type(key) is int:
            self.whole_keys += 1
            if self.whole_keys > MAX_WHOLE_KEYS:
                raise self.bad(f"more than {MAX_WHOLE_KEYS} numbers as keys of dictionaries")
        return key

    # globals

    def find(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            raise self.bad("a global whose name is not a text")
        full = f"{module}.{name}"
        if full not in self.allowed:
            raise self.bad(f"it asks for the global {shorten(full)}, which is not allowed; nothing was run")
        self.stack.append(self.allowed[full])

    def stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.find(module, name)

    def reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Global) or function.build is None or type(arguments) is not tuple:
            raise self.bad("it calls something that cannot be called")
        if len(arguments) > MAX_ARGUMENTS:
            raise self.bad(f"damaged arguments of {function.name}")
        texts = sum(len(each) for each in arguments if isinstance(each, str | bytes))
        items = sum(len(each) for each in arguments if isinstance(each, list | tuple))
        self.spend(function.size + texts + _ITEM * items)  # looked at one by one
        try:
            self.stack.append(function.build(arguments))
        except (TypeError, ValueError) as error:
            raise self.bad(f"damaged arguments of {function.name}") from error

    def build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Stateful):
            target.set_state(state)
        elif type(target) is not dict:  # attributes of an OrderedDict (_metadata) are of no use here
            raise self.bad("it sets the state of something that has none")

    def identity(self) -> None:
        self.stack.append(self.persistent(self.stack.pop()))


def _push(make: Callable[[_Machine], Any]) -> Callable[[_Machine], None]:
    def action(machine: _Machine) -> None:
        value = make(machine)  # before the stack is looked at: closing a mark replaces it
        machine.stack.append(value)

    return action


_ACTIONS: dict[int, Callable[[_Machine], object]] = {
    0x80: lambda m: m.take(1),  # PROTO
    0x95: lambda m: m.take(8),  # FRAME: a hint of size only
    ord("("): _Machine.mark,
    ord("0"): lambda m: m.stack.pop(),
    ord("1"): _Machine.marked,
    ord("N"): _push(lambda m: None),
    0x88: _push(lambda m: True),
    0x89: _push(lambda m: False),
    ord("J"): _push(lambda m: m.number(4, signed=True)),
    ord("K"): _push(lambda m: m.number(1)),
    ord("M"): _push(lambda m: m.number(2)),
    0x8A: _push(lambda m: m.integer(m.number(1))),
    0x8B: _push(lambda m: m.integer(m.number(4))),
    ord("G"): _push(lambda m: struct.unpack(">d", m.take(8))[0]),
    ord("X"): _push(lambda m: m.text(m.number(4))),
    0x8C: _push(lambda m: m.text(m.number(1))),
    0x8D: _push(lambda m: m.text(m.number(8))),
    ord("B"): _push(lambda m: m.take(m.number(4))),
    ord("C"): _push(lambda m: m.take(m.number(1))),
    0x8E: _push(lambda m: m.take(m.number(8))),
    ord("]"): _push(lambda m: m.container([])),
    ord("a"): lambda m: m.append([m.stack.pop()]),
    ord("e"): lambda m: m.append(m.marked()),
    ord("}"): _push(lambda m: m.container({})),
    ord("s"): lambda m: m.set_items([m.stack.pop(-2), m.stack.pop()]),
    ord("u"): lambda m: m.set_items(m.marked()),
    ord(")"): _push(lambda m: ()),
    ord("t"): _push(_Machine.marked_tuple),
    0x85: lambda m: m.put_tuple(1),
    0x86: lambda m: m.put_tuple(2),
    0x87: lambda m: m.put_tuple(3),
    ord("h"): _push(lambda m: m.memo[m.number(1)]),
    ord("j"): _push(lambda m: m.memo[m.number(4)]),
    ord("q"): lambda m: m.remember(m.number(1)),
    ord("r"): lambda m: m.remember(m.number(4)),
    0x94: lambda m: m.remember(len(m.memo)),
    ord("c"): lambda m: m.find(m.line(), m.line()),
    0x93: _Machine.stack_global,
    ord("R"): _Machine.reduce,
    0x81: _Machine.reduce,  # NEWOBJ: of a class, where REDUCE is of a function
    ord("b"): _Machine.build,
    ord("Q"): _Machine.identity,
}


def _check_tree(value: object, what: str, most_text: int, most_stored: int) -> None:
    """Refuses cycles, deep nesting, sharing that would unfold into too much, and odd leaves."""
    level: list[object] = [value]
    nodes = text = stored = tensors = 0
    for _ in range(MAX_DEPTH):
        nodes += len(level)
        if nodes > MAX_NODES:
            raise WeightsError(f"{what}: its pickle unfolds into more than {MAX_NODES} values")
        below: list[object] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item.values())
                text += sum(len(key) for key in item if isinstance(key, str))
            elif isinstance(item, list | tuple):
                below.extend(item)
            elif isinstance(item, Held):
                below.append(item.value)
            elif isinstance(item, str | bytes):
                text += len(item)
            elif isinstance(item, StoredArray):
                tensors += 1
                stored += math.prod(item.shape) * ITEM_SIZES[item.dtype]
            elif not isinstance(item, _LEAVES):
                left = item.name if isinstance(item, Global) else type(item).__name__
                raise WeightsError(
                    f"{what}: its pickle holds {shorten(left)} where a tensor or a value should be"
                )
            if len(below) > MAX_NODES:
                break
        if tensors > MAX_TENSORS:
            raise WeightsError(f"{what}: its pickle unfolds into more than {MAX_TENSORS} tensors")
        if text > most_text:
            raise WeightsError(f"{what}: its pickle unfolds into more than {most_text} bytes of text")
        if stored > most_stored:
            raise WeightsError(
                f"{what}: its tensors repeat the same numbers, {stored} bytes or more in all; resave them "
                "with .clone()"
            )
        level = below
        if not level:
            return
    raise WeightsError(f"{what}: its pickle is nested more than {MAX_DEPTH} deep, or within itself")
