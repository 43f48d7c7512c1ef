"""Regular expressions that a file brings along, matched against the names in it.

Python's own matcher goes back and forth, and a file can choose an expression and a name for which that takes
years. Here all ways through an expression are gone at once, so the time is that of its length times the
name's (Thompson, "Regular expression search algorithm", 1968). What names need is read: characters, classes,
groups, alternatives, and how often.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

MAX_LENGTH = 200
"""Of an expression, characters."""

MAX_GROUPS = 40
MAX_STATES = 1000
MAX_NAME = 1000
MAX_EXPRESSIONS = 100
"""Beside plain names, of which there may be as many as one likes."""

MAX_STEPS = 10_000_000
"""Of all names through all expressions."""

_PLAIN = re.compile(r"[\w.-]+")
_ONE = re.compile(r"\\[dDwWsS]|\\[^\w]|\[\^?[^\]\\\[]+\]|[^\\\[\]()|*+?{}^$]")
_OFTEN = re.compile(r"([*+?])|\{(\d{1,3})(?:(,)(\d{1,3})?)?\}")

_Make = Callable[[int], int]
"""Builds a part of an expression in front of a state; gives the state it begins with."""


class Expression:
    """One expression. Raises ValueError, with the reason, for what is not read here."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_LENGTH or text.count("(") > MAX_GROUPS:
            raise ValueError(f"more than {MAX_LENGTH} characters, or {MAX_GROUPS} groups")
        self._text = text
        self._at = 0
        self._tests: list[re.Pattern[str] | None] = [None]  # of a state: the character that leads on
        self._next: list[tuple[int, ...]] = [()]  # where that leads; without a test, at once
        self._start = self._alternatives()(0)
        if self._at < len(text):
            raise ValueError(f"{text[self._at]!r} is not expected there")

    def __len__(self) -> int:
        return len(self._tests)

    def matches_end(self, name: str) -> bool:
        """Whether it matches a name from its beginning, or from behind one of its dots, to its end."""
        states: set[int] = set()
        self._enter(self._start, states)
        for character in name:
            reached: set[int] = set()
            for state in states:
                test = self._tests[state]
                if test is not None and test.fullmatch(character):
                    self._enter(self._next[state][0], reached)
            if character == ".":
                self._enter(self._start, reached)
            states = reached
        return 0 in states

    def _enter(self, state: int, states: set[int]) -> None:
        """Add a state, and those that it leads to without a character."""
        waiting = [state]
        while waiting:
            state = waiting.pop()
            if state not in states:
                states.add(state)
                if self._tests[state] is None:
                    waiting += self._next[state]

    def _state(self, test: re.Pattern[str] | None, *following: int) -> int:
        if len(self._tests) >= MAX_STATES:
            raise ValueError("it is too large")
        self._tests.append(test)
        self._next.append(following)
        return len(self._tests) - 1

    def _alternatives(self) -> _Make:
        several = [self._row()]
        while self._text.startswith("|", self._at):
            self._at += 1
            several.append(self._row())
        return lambda after: self._state(None, *(make(after) for make in several))

    def _row(self) -> _Make:
        row: list[_Make] = []
        while self._at < len(self._text) and self._text[self._at] not in "|)":
            row.append(self._often(self._item()))

        def make(after: int) -> int:
            for each in reversed(row):
                after = each(after)
            return after

        return make

    def _item(self) -> _Make:
        if self._text.startswith("(", self._at):
            self._at += 3 if self._text.startswith("(?:", self._at) else 1
            inside = self._alternatives()
            if not self._text.startswith(")", self._at):
                raise ValueError("a group of a kind that is not read, or without an end")
            self._at += 1
            return inside
        found = _ONE.match(self._text, self._at)
        if found is None:
            raise ValueError(f"{self._text[self._at]!r} is not read there")
        self._at = found.end()
        try:
            test = re.compile(found[0], re.DOTALL)
        except re.error as error:
            raise ValueError(str(error)) from error
        return lambda after: self._state(test, after)

    def _often(self, item: _Make) -> _Make:
        found = _OFTEN.match(self._text, self._at)
        if found is None:
            return item
        self._at = found.end()
        least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(found[1], (0, None))
        if found[1] is None:
            least = int(found[2])
            most = least if found[3] is None else None if found[4] is None else int(found[4])
        if most is not None and most < least:
            raise ValueError(f"{found[0]} is no number of times")

        def make(after: int) -> int:
            if most is None:
                around = self._state(None)
                self._next[around] = (item(around), after)
                after = around
            for _ in range(0 if most is None else most - least):
                after = self._state(None, item(after), after)
            for _ in range(least):
                after = item(after)
            return after

        return make


class Expressions:
    """Values for names: that of the first expression which matches the end of a name, from a dot on.

    Raises ValueError for more than can be matched in a moment, and for what is not read.
    """

    def __init__(self, said: Mapping[str, Any]) -> None:
        self._plain: dict[str, tuple[int, Any]] = {}
        self._others: list[tuple[int, Any, Expression]] = []
        for index, (text, value) in enumerate(said.items()):
            if _PLAIN.fullmatch(text):
                self._plain[text] = index, value
                continue
            try:
                self._others.append((index, value, Expression(text)))
            except ValueError as error:
                raise ValueError(f"{text[:MAX_LENGTH]!r}: {error}") from error
            if len(self._others) > MAX_EXPRESSIONS:
                raise ValueError(f"more than {MAX_EXPRESSIONS} expressions")
        self._left = MAX_STEPS

    def value(self, name: str, default: Any) -> Any:
        """The value for a name, `default` where none matches."""
        if len(name) > MAX_NAME:
            raise ValueError(f"a name of {len(name)} characters")
        parts = name.split(".")
        ends = (".".join(parts[index:]) for index in range(len(parts)))
        found = [self._plain[end] for end in ends if end in self._plain]
        for index, value, expression in self._others:
            self._left -= len(name) * len(expression)
            if self._left < 0:
                raise ValueError("more names and expressions than can be matched in a moment")
            if expression.matches_end(name):
                found.append((index, value))
                break
        return min(found, key=lambda each: each[0], default=(0, default))[1]
