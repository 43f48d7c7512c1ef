"""The code blocks of a Markdown page, and what a test may do with them.

Comments before a block, which readers never see, say how a test runs it:

    <!-- test: given in.wav musicgen-small -->   files and models the page assumes; from here on
    <!-- test: "--minutes 120" -> "--minutes 1" -->   another text in the next block
    <!-- test: parse -->   the next block is not run: every command of it is parsed
    <!-- test: slow -->    this page's blocks run under the marker `slow`
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]

_FENCE = re.compile(r"(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)\n(?P=indent)```", re.DOTALL)
_MARK = re.compile(r"<!-- test: (?P<text>.*?) -->")
_SWAP = re.compile(r'"(?P<old>[^"]+)" -> "(?P<new>[^"]*)"')
_TOKEN = re.compile(r"<!-- test: .*? -->|^ *```\w*[^\n]*\n.*?\n *```$", re.DOTALL | re.MULTILINE)

PROGRAM = re.compile(r"audiogen-(core|mlx|onnx|minigpt)")
_PREFIX = re.compile(r"^(?:[A-Z_]+=\S+ )*(?:uv run (?:--package \S+ )?)?")


@dataclass(frozen=True)
class Block:
    """One fenced block: where it is, what it says, and the marks before it."""

    page: Path
    line: int
    language: str
    text: str
    parse: bool = False
    swaps: tuple[tuple[str, str], ...] = ()

    @property
    def runnable(self) -> str:
        """The text with the substitutions made. Raises ValueError for one that finds nothing."""
        text = self.text
        for old, new in self.swaps:
            if old not in text:
                raise ValueError(f"{self.page}:{self.line}: the mark {old!r} finds nothing to replace")
            text = text.replace(old, new)
        return text


@dataclass
class Page:
    """The blocks of a page, what they need, and whether they take long."""

    path: Path
    blocks: list[Block] = field(default_factory=list)
    given: list[str] = field(default_factory=list)
    slow: bool = False

    @property
    def name(self) -> str:
        return str(self.path.relative_to(ROOT))


def pages() -> list[Page]:
    """Every page a reader may see that has code."""
    paths = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("packages/*/README.md")]
    paths += ROOT.glob("docs/**/*.md")
    read = [read_page(path) for path in sorted(paths)]
    return [page for page in read if page.blocks]


def read_page(path: Path) -> Page:
    """A page taken apart. Raises ValueError for a mark that is not understood."""
    page, content = Page(path), path.read_text(encoding="utf-8")
    parse, swaps = False, list[tuple[str, str]]()
    for found in _TOKEN.finditer(content):
        mark = _MARK.fullmatch(found[0])
        if mark is None:
            fence = _FENCE.fullmatch(found[0])
            line = content.count("\n", 0, found.start()) + 1
            page.blocks.append(Block(path, line, fence["language"], fence["text"], parse, tuple(swaps)))
            parse, swaps = False, []
            continue
        text = mark["text"]
        if swap := _SWAP.fullmatch(text):
            swaps.append((swap["old"], swap["new"]))
        elif text == "parse":
            parse = True
        elif text == "slow":
            page.slow = True
        elif text.startswith("given "):
            page.given += text.split()[1:]
        else:
            raise ValueError(f"{path}: the mark {text!r} is not understood")
    return page


def lines(text: str) -> list[str]:
    """The commands of a bash block: comments and blank lines left out, continued lines joined."""
    joined = text.replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.strip() and not line.strip().startswith("#")]


def commands(text: str) -> list[list[str]]:
    """The calls of our programs in a bash block: the words of each, from the program's name on."""
    found = []
    for line in lines(text):
        for part in re.split(r"&&|\|\||;|\|", _PREFIX.sub("", line.strip())):
            words = shlex.split(_PREFIX.sub("", part.strip()), comments=True)
            if words and PROGRAM.fullmatch(words[0]):
                found.append(words)
    return found
