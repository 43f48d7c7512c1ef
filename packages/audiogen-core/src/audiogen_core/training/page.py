"""The page that shows a run: one HTML file with its pictures and sounds inside, which needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from audiogen_core import player
from audiogen_core.audio import Audio
from audiogen_core.check import faults
from audiogen_core.files import atomic_path

NAME = "report.html"

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
table { border-collapse: collapse; } td, th { padding: .2rem 1rem .2rem 0; text-align: left; }
th { font-weight: 600; } td.number { text-align: right; font-variant-numeric: tabular-nums; }
td.text { overflow-wrap: anywhere; } code { user-select: all; }
img { max-width: 100%; } .clip { margin: 1.5rem 0; } .clips { display: grid; gap: 0 2rem; }
@media (min-width: 45rem) { .clips.two { grid-template-columns: 1fr 1fr; } }
"""


@dataclass(frozen=True)
class Clip:
    """A sound on the page: what it is called, its file, and a picture if there is one."""

    title: str
    sound: Path
    picture: Path | None = None


@dataclass(frozen=True)
class Section:
    """A heading, a sentence, and what follows: a table of rows, a picture, sounds in one or two columns."""

    title: str
    text: str = ""
    rows: Sequence[Sequence[Any]] = ()
    picture: Path | None = None
    clips: Sequence[Clip] = ()
    columns: int = 1


def write_report(
    folder: str | Path, title: str, facts: Mapping[str, Any], sections: Iterable[Section]
) -> Path:
    """Write report.html into a folder. The first row of a section's table is its head.

    Raises AudioError for a sound that cannot be read.
    """
    folder = Path(folder)
    parts = [f"<h1>{escape(title)}</h1>", _table([(key, value) for key, value in facts.items()], head=False)]
    for section in sections:
        parts.append(f"<h2>{escape(section.title)}</h2>")
        if section.text:
            parts.append(f"<p>{escape(section.text)}</p>")
        if section.rows:
            parts.append(_table(section.rows, head=True))
        parts.append(_picture(section.picture, section.title))
        if section.clips:
            two = " two" if section.columns == 2 else ""
            parts.append(f'<div class="clips{two}">\n' + "\n".join(map(_clip, section.clips)) + "\n</div>")
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body>\n</html>\n"
    )
    path = folder / NAME
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="xmlcharrefreplace")
    return path


def _table(rows: Sequence[Sequence[Any]], head: bool) -> str:
    lines = []
    for number, row in enumerate(rows):
        tag = "th" if head and number == 0 else "td"
        lines.append("<tr>" + "".join(_cell(value, tag) for value in row) + "</tr>")
    return "<table>\n" + "\n".join(lines) + "\n</table>"


def _cell(value: Any, tag: str) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        text = f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
        return f'<{tag} class="number">{text}</{tag}>'
    return f"<{tag}>{escape('-' if value is None else str(value))}</{tag}>"


def _picture(path: Path | None, title: str) -> str:
    """A picture inside the page; nothing when there is none."""
    if path is None or not path.is_file():
        return ""
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{escape(title)}" src="data:image/png;base64,{data}">'


def _clip(clip: Clip) -> str:
    """What a clip is, how it sounds, and what is wrong with it."""
    sound = Audio.load(clip.sound)
    wrong = "; ".join(map(str, faults(sound)))
    parts = [player.html(sound, clip.title), f"<p>CHECK: {wrong}</p>" if wrong else ""]
    parts.append(_picture(clip.picture, clip.title))
    return '<div class="clip">\n' + "\n".join(part for part in parts if part) + "\n</div>"
