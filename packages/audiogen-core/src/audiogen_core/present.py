"""Results as text: JSON, `key  value` lines, or a table. Nothing is printed here."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

Result = Mapping[str, Any] | Sequence[Mapping[str, Any]]


def as_json(result: Result) -> str:
    """The result as JSON, indented; NaN and infinity become null."""
    return json.dumps(plain(result), indent=2, ensure_ascii=False, allow_nan=False)


def as_text(result: Result) -> str:
    """A mapping as lines, mappings inside it indented; a list of mappings as a table."""
    return _lines(result) if isinstance(result, Mapping) else _table(result)


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
    width = max((len(str(key)) for key in result), default=0)
    rows = []
    for key, value in result.items():
        if isinstance(value, Mapping) and value:
            rows.append(f"{indent}{key}\n{_lines(value, indent + '  ')}")
        elif isinstance(value, list | tuple) and value and isinstance(value[0], Mapping):
            table = "\n".join(indent + "  " + row for row in _table(value).splitlines())
            rows.append(f"{indent}{key}\n{table}")
        else:
            rows.append(f"{indent}{key!s:<{width}}  {_cell(value)}")
    return "\n".join(rows)


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return "(none)"
    heads = list(rows[0])
    cells = [[head.replace("_", " ") for head in heads]]
    cells += [[_cell(row.get(head)) for head in heads] for row in rows]
    widths = [max(len(line[column]) for line in cells) for column in range(len(heads))]
    return "\n".join(
        "  ".join(f"{text:<{width}}" for text, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_cell, value)) or "-"
    return str(value)
