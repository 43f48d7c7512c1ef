"""How docstrings are shown: lines of "name  what it is" become a list.

The packages explain arguments and fields in lines whose name is followed by two spaces or more:

    seconds  of audio made
    force    write over what is there
"""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_LINE = re.compile(r"(?P<name>\*{0,2}[A-Za-z_][\w.]*(?:, [A-Za-z_]\w*)*)(?: {2,})(?P<text>\S.*)")
_FENCE = re.compile(r"\s*```")


def as_markdown(text: str) -> str:
    """A docstring with its lines of names as a Markdown list; code and everything else as it is."""
    lines: list[str] = []
    listing = fenced = False
    for line in text.splitlines():
        if _FENCE.match(line):
            fenced = not fenced
        found = None if fenced else _LINE.fullmatch(line)
        if found:
            if not listing:
                lines.append("")
            lines.append(f"- `{found['name']}`: {found['text']}")
            listing = True
        elif listing and line.startswith(" ") and line.strip():
            lines.append(f"  {line.strip()}")
        else:
            if listing and line.strip():
                lines.append("")
            listing = False
            lines.append(line)
    return "\n".join(lines)


class Lists(Extension):
    """Rewrites every docstring as it is read."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)
