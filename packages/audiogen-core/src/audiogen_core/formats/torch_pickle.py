"""A pickle reader that can build plain values only. It imports nothing and calls nothing.

It is an interpreter of the opcodes that pickle protocols 2 to 5 use for containers, numbers and
texts (CPython Lib/pickletools.py). A global is looked up in a table that the caller gives; a name
outside the table is refused. Work is bounded: operations, nesting and integers have limits.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from audiogen_core.errors import WeightsError
from audiogen_core.formats.stored import StoredArray, shorten

MAX_OPERATIONS = 400_000
"""A tensor takes about thirty operations."""

MAX_NODES = 400_000
"""Values in the tree, a shared one counted wherever it appears."""

MAX_DEPTH = 64

_KEYS = (str, int, bool, type(None))
_LEAVES = (str, bytes, int, float, bool, type(None), StoredArray)


@dataclass(frozen=True)
class Global:
    """What stands for an allowed global: its full name, and what REDUCE makes of its arguments."""

    name: str
    build: Callable[[tuple[Any, ...]], Any] | None = None


class Stateful(ABC):
    """A value made by a Global that also accepts the BUILD opcode."""

    @abstractmethod
    def set_state(self, state: object) -> None:
        """Take the state, or raise WeightsError."""


def load(
    data: bytes, allowed: Mapping[str, object], persistent: Callable[[object], object], what: str
) -> Any:
    """The value a pickle describes.

    `allowed` maps "module.name" to its stand-in, a Global or a plain value; `persistent` turns a
    persistent id into a value.
    Raises WeightsError naming `what` for a forbidden global, an unknown opcode, or damage.
    """
    machine = _Machine(data, allowed, persistent, what)
    value = machine.run()
    _check_tree(value, what)
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

    def run(self) -> Any:
        try:
            for _ in range(MAX_OPERATIONS):
                opcode = self.data[self.at]
                self.at += 1
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
        self.marks.append(self.stack)
        self.stack = []

    def put_tuple(self, count: int) -> None:
        if len(self.stack) < count:
            raise self.bad("it is cut or damaged")
        self.stack[len(self.stack) - count :] = [tuple(self.stack[len(self.stack) - count :])]

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise self.bad("it appends to something that is not a list")
        target.extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise self.bad("it sets items of something that is not a dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[self.key(key)] = value

    def key(self, key: Any) -> Any:
        if type(key) not in _KEYS:
            raise self.bad(f"a dictionary key of type {type(key).__name__}")
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


def _remember(index: Callable[[_Machine], int]) -> Callable[[_Machine], None]:
    def action(machine: _Machine) -> None:
        machine.memo[index(machine)] = machine.stack[-1]

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
    ord("]"): _push(lambda m: []),
    ord("a"): lambda m: m.append([m.stack.pop()]),
    ord("e"): lambda m: m.append(m.marked()),
    ord("}"): _push(lambda m: {}),
    ord("s"): lambda m: m.set_items([m.stack.pop(-2), m.stack.pop()]),
    ord("u"): lambda m: m.set_items(m.marked()),
    ord(")"): _push(lambda m: ()),
    ord("t"): _push(lambda m: tuple(m.marked())),
    0x85: lambda m: m.put_tuple(1),
    0x86: lambda m: m.put_tuple(2),
    0x87: lambda m: m.put_tuple(3),
    ord("h"): _push(lambda m: m.memo[m.number(1)]),
    ord("j"): _push(lambda m: m.memo[m.number(4)]),
    ord("q"): _remember(lambda m: m.number(1)),
    ord("r"): _remember(lambda m: m.number(4)),
    0x94: _remember(lambda m: len(m.memo)),
    ord("c"): lambda m: m.find(m.line(), m.line()),
    0x93: _Machine.stack_global,
    ord("R"): _Machine.reduce,
    ord("b"): _Machine.build,
    ord("Q"): _Machine.identity,
}


def _check_tree(value: object, what: str) -> None:
    """Refuses cycles, deep nesting, sharing that would unfold into too many nodes, and odd leaves."""
    level: list[object] = [value]
    nodes = 0
    for _ in range(MAX_DEPTH):
        nodes += len(level)
        if nodes > MAX_NODES:
            raise WeightsError(f"{what}: its pickle unfolds into more than {MAX_NODES} values")
        below: list[object] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item.values())
            elif isinstance(item, list | tuple):
                below.extend(item)
            elif not isinstance(item, _LEAVES):
                left = item.name if isinstance(item, Global) else type(item).__name__
                raise WeightsError(
                    f"{what}: its pickle holds {shorten(left)} where a tensor or a value should be"
                )
            if len(below) > MAX_NODES:
                break
        level = below
        if not level:
            return
    raise WeightsError(f"{what}: its pickle is nested more than {MAX_DEPTH} deep, or within itself")
