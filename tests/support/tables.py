"""Running test files one by one, and keeping what they tell: the common part of both `run.py`.

What a file told is kept in a JSON file with machine, versions and date, so that files can be run again one
by one. Entries of another machine or of other versions are thrown away, since a table is of one machine; but
for those that are to stay, of which the table says so.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from support.figures import VARIABLE

ROOT = Path(__file__).parents[2]

VERSIONS = ("audiogen-core", "numpy", "torch", "mlx", "onnxruntime", "transformers", "diffusers")

Figure = dict[str, Any]


@dataclass
class Outcome:
    """What one test file gave: how many tests ended how, and the figures they told.

    machine  where it ran, when that was not the machine of the table
    """

    counts: dict[str, int]
    failed: list[str]
    figures: list[Figure]
    date: str
    seconds: float
    machine: dict[str, str] = field(default_factory=dict)


def machine() -> dict[str, str]:
    """The facts that times and limits depend on."""
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in VERSIONS},
    }


def _processor() -> str:
    found = Path("/proc/cpuinfo")
    if found.exists():
        for line in found.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


def run_file(path: Path, markers: str) -> Outcome:
    """Run the tests of a file that have these markers, in a process of their own."""
    with tempfile.TemporaryDirectory() as place:
        told, results = Path(place, "figures.jsonl"), Path(place, "results.xml")
        command = [sys.executable, "-m", "pytest", "-s", "-m", markers, f"--junitxml={results}", str(path)]
        subprocess.run(command, cwd=ROOT, env={**os.environ, VARIABLE: str(told)})
        figures = [json.loads(line) for line in told.read_text().splitlines()] if told.exists() else []
        return _outcome(ET.parse(results).getroot(), figures)


def _outcome(results: ET.Element, figures: list[Figure]) -> Outcome:
    counts, failed, seconds = {"passed": 0, "failed": 0, "skipped": 0}, [], 0.0
    for case in results.iter("testcase"):
        seconds += float(case.get("time", 0))
        ended = "skipped" if case.find("skipped") is not None else "passed"
        if case.find("failure") is not None or case.find("error") is not None:
            ended = "failed"
            failed.append(str(case.get("name")))
        counts[ended] += 1
    return Outcome(counts, failed, figures, f"{datetime.now(UTC):%Y-%m-%d}", seconds)


def update(
    store: Path, files: Iterable[Path], markers: str, stay: Collection[str] = ()
) -> tuple[dict[str, str], dict[str, Outcome]]:
    """Run the files, keep what they told beside what is known of others, and return machine and outcomes.

    stay  files whose figures are kept when they are of another machine
    """
    here, (there, known) = machine(), read(store)
    outcomes = known
    if there != here:
        outcomes = {
            name: replace(each, machine=each.machine or there) for name, each in known.items() if name in stay
        }
    for path in files:
        outcomes[path.name] = run_file(path, markers)
        content = {"machine": here, "files": {name: vars(each) for name, each in sorted(outcomes.items())}}
        store.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return here, dict(sorted(outcomes.items()))


def read(store: Path) -> tuple[dict[str, str], dict[str, Outcome]]:
    """The machine and the outcomes that a file keeps; nothing when there is none."""
    if not store.exists():
        return {}, {}
    content = json.loads(store.read_text(encoding="utf-8"))
    return content["machine"], {name: Outcome(**each) for name, each in content["files"].items()}


def described(here: dict[str, str], outcomes: dict[str, Outcome]) -> str:
    """Machine, versions and dates as a list."""
    dates = sorted({each.date for each in outcomes.values() if not each.machine})
    versions = ", ".join(f"{name} {here[name]}" for name in ("python", *VERSIONS))
    lines = [
        f"- Machine: {here['processor']}, {here['cores']} cores, {here['memory']}, {here['system']}",
        f"- Versions: {versions}",
        f"- Date: {' to '.join(dict.fromkeys((dates[0], dates[-1]))) if dates else 'never'}",
    ]
    elsewhere: dict[str, list[str]] = {}
    for name, each in outcomes.items():
        if each.machine:
            other = ", ".join(f"{key} {told}" for key, told in each.machine.items() if here.get(key) != told)
            elsewhere.setdefault(other, []).append(f"`{name}`")
    lines += [f"- On another machine ({other}): {', '.join(names)}" for other, names in elsewhere.items()]
    return "\n".join(lines)


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
