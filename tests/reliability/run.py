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

ELSEWHERE = (
    "onnx/test_manifest.py",
    "onnx/test_graph_file.py",
    "core/test_torchfile.py",
    "core/test_settings.py",
    "core/test_expressions.py",
    "core/test_sound_parts.py",
    "core/test_sound_foreign.py",
    "core/test_hub.py",
    "core/test_files.py",
    "core/test_present.py",
    "core/test_npz.py",
    "mlx/test_stable_audio_3_full.py",
    "onnx/test_musicgen_full.py",
)
"""Tests of the same kind that lie beside what they test."""

STORE = HERE / "figures.json"
PAGE = tables.ROOT / "docs" / "reference" / "reliability.md"
MARKERS = "not benchmark and not gpu and not network"

HEAD = """# Reliability

Made by `uv run python tests/reliability/run.py`, which runs all tests of `tests/reliability`, those marked
`slow` and `soak` too. A row is told by a test after its assertions held; a test that fails is named below.
What was run on another machine is said here, and in the list of tests by its date.
[How it works](../explanation/reliability.md).
"""


def main() -> None:
    """Run what is asked for and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", nargs="*", help="test files of this folder; all when absent")
    parser.add_argument("--table-only", action="store_true", help="run nothing")
    asked = parser.parse_args()
    everything = [*sorted(HERE.glob("test_*.py")), *(HERE.parent / name for name in ELSEWHERE)]
    files = [path for path in everything if not asked.files or path.name in asked.files]
    if asked.table_only:
        here, outcomes = tables.read(STORE)
    else:
        # Counts and memory, not times: what was told on another machine stays until it is told on this one.
        here, outcomes = tables.update(STORE, files, MARKERS, stay=[path.name for path in everything])
    PAGE.write_text(page(here, outcomes), encoding="utf-8")
    failed = [f"{name}: {test}" for name, each in outcomes.items() for test in each.failed]
    sys.exit("\n".join(failed) or 0)


def page(here: dict[str, str], outcomes: dict[str, tables.Outcome]) -> str:
    """Figures by area, then how many tests of each file passed."""
    parts = [HEAD, tables.described(here, outcomes) if here else "Not run yet."]
    figures = [figure for each in outcomes.values() for figure in each.figures]
    if rows := largest(figures):
        head = ["area", "what was done", "how often", "result", "promised"]
        parts.append(tables.table(head, rows))
    head = ["tests", "passed", "failed", "skipped", "seconds", "date"]
    files = [
        [f"`{name}`", *map(str, each.counts.values()), f"{each.seconds:.0f}", each.date]
        for name, each in outcomes.items()
    ]
    if files:
        parts += ["## The tests", tables.table(head, files)]
    if failed := [f"- {name}: {test}" for name, each in outcomes.items() for test in each.failed]:
        parts += ["## Failed", "\n".join(failed)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def largest(figures: list[tables.Figure]) -> list[list[str]]:
    """Rows of the table, by area; of what was done several times, the largest count."""
    found: dict[tuple[str, str], tables.Figure] = {}
    for figure in sorted(figures, key=lambda each: (each["area"], each["done"], each["count"])):
        found[figure["area"], figure["done"]] = figure
    return [
        [each["area"], each["done"], f"{each['count']:,}", each["result"], each["promised"]]
        for each in found.values()
    ]


if __name__ == "__main__":
    main()
