"""Runs the reliability tests with their large counts and writes docs/reference/reliability.md.

    uv run python tests/reliability/run.py                        all: an hour
    uv run python tests/reliability/run.py test_weight_files.py   one file; the rest of the table stays
    uv run python tests/reliability/run.py --table-only           the page from what figures.json has

The figures themselves are kept in figures.json beside this file.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from support import tables  # noqa: E402

STORE = HERE / "figures.json"
PAGE = tables.ROOT / "docs" / "reference" / "reliability.md"
MARKERS = "not benchmark and not gpu and not network"

HEAD = """# Reliability

Made by `uv run python tests/reliability/run.py`, which runs all tests of `tests/reliability`, those marked
`slow` and `soak` too. A row is told by a test after its assertions held; a test that fails is named below.
[How it works](../explanation/reliability.md).
"""


def main() -> None:
    """Run what is asked for and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", nargs="*", help="test files of this folder; all when absent")
    parser.add_argument("--table-only", action="store_true", help="run nothing")
    asked = parser.parse_args()
    files = [HERE / name for name in asked.files] or sorted(HERE.glob("test_*.py"))
    if asked.table_only:
        here, outcomes = tables.read(STORE)
    else:
        here, outcomes = tables.update(STORE, files, MARKERS)
    PAGE.write_text(page(here, outcomes), encoding="utf-8")
    failed = [f"{name}: {test}" for name, each in outcomes.items() for test in each.failed]
    sys.exit("\n".join(failed) or 0)


def page(here: dict[str, str], outcomes: dict[str, tables.Outcome]) -> str:
    """Figures by area, then how many tests of each file passed."""
    parts = [HEAD, tables.described(here, outcomes) if here else "Not run yet."]
    figures = [figure for each in outcomes.values() for figure in each.figures]
    if rows := [[figure[key] for key in ("area", "done", "result", "promised")] for figure in figures]:
        parts.append(tables.table(["area", "what was done", "result", "promised"], sorted(rows)))
    head = ["tests", "passed", "failed", "skipped", "seconds"]
    files = [
        [f"`{name}`", *map(str, each.counts.values()), f"{each.seconds:.0f}"]
        for name, each in outcomes.items()
    ]
    if files:
        parts += ["## The tests", tables.table(head, files)]
    if failed := [f"- {name}: {test}" for name, each in outcomes.items() for test in each.failed]:
        parts += ["## Failed", "\n".join(failed)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


if __name__ == "__main__":
    main()
