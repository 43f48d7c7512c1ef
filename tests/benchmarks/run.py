"""Runs the benchmarks and writes their table: docs/reference/benchmarks.md.

    uv run python tests/benchmarks/run.py                       all, on a machine that does nothing else
    uv run python tests/benchmarks/run.py test_dac_speed.py     one file; the rest of the table stays
    uv run python tests/benchmarks/run.py --table-only          the page from what figures.json has

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
PAGE = tables.ROOT / "docs" / "reference" / "benchmarks.md"

HEAD = """# Benchmarks

Made by `uv run python tests/benchmarks/run.py`: every row is two programs doing the same work in turns, in
one run, on one machine, at full size with random weights (speed does not depend on their values). Of several
rounds the best counts. "Times as fast" is the peer's time divided by ours: above 1, ours is faster. "Aim" is
what was set beforehand; rows that miss it say so. Absolute times are this machine's.
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
        kept = [path.name for path in HERE.glob("test_*.py")]  # the page says which are of another machine
        here, outcomes = tables.update(STORE, files, "benchmark", stay=kept)
    PAGE.write_text(page(here, outcomes), encoding="utf-8")
    failed = [f"{name}: {test}" for name, each in outcomes.items() for test in each.failed]
    sys.exit("\n".join(failed) or 0)


def page(here: dict[str, str], outcomes: dict[str, tables.Outcome]) -> str:
    """The whole table, grouped as the benchmarks group it."""
    parts = [HEAD, tables.described(here, outcomes) if here else "Not run yet."]
    figures = [figure for each in outcomes.values() for figure in each.figures]
    for title in dict.fromkeys(figure["title"] for figure in figures):
        mine = [figure for figure in figures if figure["title"] == title]
        parts.append(f"## {title}")
        if ratios := [figure for figure in mine if figure["kind"] == "ratio"]:
            parts.append(ratio_table(ratios))
        if notes := [figure["text"] for figure in mine if figure["kind"] == "note"]:
            parts.append("```text\n" + "\n".join(notes) + "\n```")
    if failed := [f"- {name}: {test}" for name, each in outcomes.items() for test in each.failed]:
        parts += ["## Not measured: these failed", "\n".join(failed)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def ratio_table(figures: list[tables.Figure]) -> str:
    """Jobs beside a peer."""
    head = ["job", "ours", "seconds", "real time", "peer", "its seconds", "times as fast", "aim"]
    return tables.table(head, ([*_cells(figure)] for figure in figures))


def _cells(figure: tables.Figure) -> list[str]:
    real, aim = figure["real_time"], figure["aim"]
    return [
        figure["what"],
        figure["ours"],
        f"{figure['seconds']:.3g}",
        f"{real:.1f}x" if real else "",
        figure["peer"],
        f"{figure['peer_seconds']:.3g}",
        f"**{figure['ratio']:.2f}**",
        _judged(figure["ratio"], aim),
    ]


def _judged(ratio: float, aim: float | None) -> str:
    if aim is None:
        return ""
    return f"{aim:.3g}" + ("" if ratio >= aim else ", missed")


if __name__ == "__main__":
    main()
