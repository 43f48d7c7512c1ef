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
from audiogen_core.files import atomic_path
from audiogen_minigpt import checkpoint, metrics
from audiogen_minigpt.codec_choice import spread
from audiogen_minigpt.encode import Found, length
from audiogen_minigpt.evaluate import Evaluation, Verdict
from audiogen_minigpt.info import codes_info
from audiogen_minigpt.pictures import LOSSES

NAME = "report.html"
DATA = "data"
SAMPLES = "free"

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


def write_page(
    out: Path,
    folder: Path,
    found: Found | None,
    evaluation: Evaluation,
    verdict: Verdict,
    commands: Sequence[tuple[str, str]],
) -> Path:
    """Write the page of a run: what it has learnt, what it makes, how it came to that, and what was left out.

    commands  what to type next: what for, and the line
    """
    data, state = codes_info(out / DATA), checkpoint.find(out)
    config = state.config
    facts = {
        "audio": found.headline if found else folder.name,
        "codec": data["codec"],
        "to train on": length(data["train"]["seconds"]),
        "held out": length(data["val"]["seconds"]),
        "model": f"{config.preset}, {config.layers} layers of {config.width}, layout {config.layout}, "
        f"{config.codebooks} codebooks",
        "began with": str(state.state["config"].get("start") or "nothing"),
        "training": f"{state.step:,} updates, {length(state.state['progress']['elapsed'])}",
    }
    costs: list[Sequence[Any]] = [
        ("bits for a second of audio", ""),
        ("this model", evaluation.bits_per_second),
        ("pairs of codes", evaluation.bigram_bits),
        ("single codes", evaluation.unigram_bits),
    ]
    pairs = []
    for number, entry in enumerate(evaluation.continuations, 1):
        picture = out / entry["picture"] if entry["picture"] else None
        pairs.append(Clip(f"Original {number}: {entry['track']}", out / entry["original"]))
        title = f"Continuation {number}: the second half is the model's"
        pairs.append(Clip(title, out / entry["sound"], picture))
    free = [
        Clip(f"Sample {number}", path, path.with_suffix(".png"))
        for number, path in enumerate(sorted((out / SAMPLES).glob("*.wav")), 1)
    ]
    made = [record for record in metrics.read(out) if record["kind"] == "sample"]
    way = [Clip(f"After {record['step']} updates", Path(record["path"])) for record in spread(made, 5)]
    on = "held-out data" if evaluation.split == "val" else "the training data, because none was held out"
    left_out = [(skip.path, f"{skip.why}: {skip.message}") for skip in found.skips] if found else []
    sections = [
        Section("Verdict", verdict.sentence, rows=[("to", "type"), *commands]),
        Section("New sounds", "Made from nothing but a seed.", clips=free),
        Section(
            "Continuations", "The first half is given, the second half is made up.", clips=pairs, columns=2
        ),
        Section("How well it predicts", f"Measured on {on}; fewer bits are better.", rows=costs),
        Section(
            "While it trained",
            "Mean nats per code; and the same opening, gone on with at each checkpoint.",
            picture=out / LOSSES,
            clips=[clip for clip in way if clip.sound.is_file()],
        ),
        *([Section("Left out", rows=[("file", "why"), *left_out])] if left_out else []),
    ]
    return write_report(out, f"audiogen-minigpt: {folder.name}", facts, sections)


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
    shown = player.html(Audio.load(clip.sound), clip.title)
    return f'<div class="clip">\n{shown}\n{_picture(clip.picture, clip.title)}\n</div>'
