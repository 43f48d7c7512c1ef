"""The cards of the models that come with the packages, put together into one page."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]

_HEADING = re.compile(r"^(#+ )", re.MULTILINE)


def cards() -> str:
    """Every card, its headings one level lower, in the order of the packages."""
    return "\n\n".join(_shown(path) for path in paths())


def paths() -> list[Path]:
    """The cards, beside the weights that they are about."""
    return sorted(ROOT.glob("packages/*/src/*/data/**/*.md"))


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
