"""The cards of the models that come with the packages, put together into one page."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]

_HEADING = re.compile(r"^(#+ )", re.MULTILINE)

SIDE_BY_SIDE = ("clips", "in key", "in some key", "in time", "style", "tempo within 4 %", "silent")
"""Columns of the judge's tables that are shown of all models in one."""

BOUNDS = {
    "the same from the codec, 4 codebooks": "ceiling: held-out music from the codec",
    "codes drawn one by one": "floor: codes drawn one by one",
}
"""Rows that are the same in all of them."""


def cards() -> str:
    """Every card, its headings one level lower, in the order of the packages."""
    return "\n\n".join(_shown(path) for path in paths())


def paths() -> list[Path]:
    """The cards, beside the weights that they are about."""
    return sorted(ROOT.glob("packages/*/src/*/data/**/*.md"))


def judged() -> str:
    """What the judge says of all models in one table: ceiling and floor, then each before and as it is now.

    Taken from the cards: ceiling and floor are the same in all, "before" and what is in bold are the model's.
    """
    bounds, models = dict[str, dict[str, str]](), dict[str, dict[str, str]]()
    for path in paths():
        text = path.read_text(encoding="utf-8")
        title = text.partition("\n")[0].removeprefix("# The demo ")
        for row in _rows(text):
            what = row["what"].replace("**", "")
            if what in BOUNDS:
                bounds[BOUNDS[what]] = {**row, **bounds.get(BOUNDS[what], {})}
            elif what != row["what"] or what.startswith("before"):
                models[f"{title}: {what}"] = row
    lines = [["what", *SIDE_BY_SIDE], ["---", *[":-:"] * len(SIDE_BY_SIDE)]]
    for name, row in {**bounds, **models}.items():
        lines.append([name, *(row.get(column, "") for column in SIDE_BY_SIDE)])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _rows(card: str) -> list[dict[str, str]]:
    """The rows of the judge's table in a card, by the names of its columns."""
    lines = [line for line in card.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    columns = next((row for row in cells if row[:2] == ["what", "clips"]), [])
    return [dict(zip(columns, row, strict=True)) for row in cells if columns and len(row) == len(columns)]


def _shown(path: Path) -> str:
    package = path.relative_to(ROOT / "packages").parts[0]
    beside = sorted(each for each in path.parent.rglob("*") if each.is_file() and each.suffix != ".md")
    weights = [each for each in beside if each.stem == path.stem] or beside
    files = ", ".join(f"`{each.name}` {_size(each)}" for each in weights)
    text = _outside_code(path.read_text(encoding="utf-8").strip())
    title, _, rest = text.partition("\n")
    return f"{title}\n\nIn `{package}`: {files}.\n{rest}"


def _size(path: Path) -> str:
    size = path.stat().st_size
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def _outside_code(text: str) -> str:
    """Headings one level lower; lines of code that begin with # stay."""
    parts = re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else _HEADING.sub(r"#\1", part) for part in parts)
