"""Results as text: JSON, `key  value` lines, or a table. Nothing is printed here.

Much of it was written by whoever made a file, and a terminal obeys control characters: they could set its
title, hide lines or type commands. So none is passed on.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

_CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # C0, DEL and C1, whose CSI is one character
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # what turns the direction of writing
    "\u2028\u2029]"  # separators of lines and paragraphs
)

Result = Mapping[str, Any] | Sequence[Mapping[str, Any]]


def as_json(result: Result, *, one_line: bool = False) -> str:
    """The result as JSON, indented unless it is to be one line; NaN and infinity become null."""
    indent = None if one_line else 2
    text = json.dumps(plain(result), indent=indent, ensure_ascii=False, allow_nan=False)
    return "\n".join(_CONTROL.sub(_as_json, line) for line in text.split("\n"))


def as_text(result: Result) -> str:
    """A mapping as lines, mappings inside it indented; a list of mappings as a table; bytes as MB or GB."""
    return _lines(result) if isinstance(result, Mapping) else _table(result)


def size(count: int) -> str:
    """So many bytes, as people read them."""
    for unit, each, digits in (("GB", 1e9, 2), ("MB", 1e6, 1), ("kB", 1e3, 1)):
        if count >= each:
            return f"{count / each:.{digits}f} {unit}"
    return f"{count} B"


def printable(text: str, keep: str = "") -> str:
    """A text with every control character written out, as \\x1b or \\n, but for those to `keep`."""
    return _CONTROL.sub(
        lambda match: match[0] if match[0] in keep else match[0].encode("unicode_escape").decode(), text
    )


def _as_json(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def plain(value: Any) -> Any:
    """JSON values: paths as text, numpy numbers as numbers, NaN and infinity as null."""
    if isinstance(value, Mapping):
        return {str(key): plain(below) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return [plain(below) for below in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _lines(result: Mapping[str, Any], indent: str = "") -> str:
    shown = {_named(str(key)): _sized(str(key), value) for key, value in result.items()}
    width = max(map(len, shown), default=0)
    rows = []
    for key, value in shown.items():
        if isinstance(value, Mapping) and value:
            rows.append(f"{indent}{key}\n{_lines(value, indent + '  ')}")
        elif isinstance(value, list | tuple) and value and isinstance(value[0], Mapping):
            table = "\n".join(indent + "  " + row for row in _table(value).splitlines())
            rows.append(f"{indent}{key}\n{table}")
        else:
            rows.append(f"{indent}{key:<{width}}  {_cell(value)}")
    return "\n".join(rows)


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return "(none)"
    heads = list(rows[0])
    cells = [[_named(head).replace("_", " ") for head in heads]]
    cells += [[_cell(_sized(head, row.get(head))) for head in heads] for row in rows]
    widths = [max(len(line[column]) for line in cells) for column in range(len(heads))]
    return "\n".join(
        "  ".join(f"{text:<{width}}" for text, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


def _named(key: str) -> str:
    """A key as people read it: what is counted in bytes is called without them."""
    return "size" if key == "bytes" else printable(key.removesuffix("_bytes"))


def _sized(key: str, value: Any) -> Any:
    return size(value) if isinstance(value, int) and (key == "bytes" or key.endswith("_bytes")) else value


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_cell, value)) or "-"
    return printable(str(value))
