"""SECURITY.md names the tests that hold its promises up: they exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def rows() -> list[tuple[str, str]]:
    """Each promise, and what is said of its tests."""
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    table = [line.split("|") for line in text.splitlines() if line.startswith("| **")]
    return [(cells[1].strip(), cells[3]) for cells in table]


def functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_promise_names_tests_that_exist() -> None:
    named = 0
    for promise, told in rows():
        files = list(re.finditer(r"`(tests/[\w/]+\.py)`(?: \(([^)]*)\))?", told))
        assert files, promise
        for file in files:
            path = ROOT / file[1]
            assert path.is_file(), (promise, file[1])
            names = re.findall(r"`(\w+)`", file[2] or "")
            assert set(names) <= functions(path), (promise, file[1])
            named += len(names)
    assert len(rows()) > 15 and named > 30
