"""The tables of benchmarks and of reliability: what is told is kept, and shown as it was told."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from support import figures, tables

TESTS = Path(__file__).parents[1]


def runner(folder: str) -> ModuleType:
    """The run.py of a folder of tests."""
    spec = importlib.util.spec_from_file_location(f"run_{folder}", TESTS / folder / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "figures.jsonl"
    monkeypatch.setenv(figures.VARIABLE, str(path))
    return path


def lines(path: Path) -> list[tables.Figure]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def outcome(found: list[tables.Figure], failed: list[str] | None = None) -> tables.Outcome:
    counts = {"passed": 3, "failed": len(failed or []), "skipped": 1}
    return tables.Outcome(counts, failed or [], found, "2026-01-02", 4.6)


def test_ratios_are_of_the_peers_time(told: Path, capsys: pytest.CaptureFixture[str]) -> None:
    times = {"peer": 2.0, "ours": 0.5, "slow": 4.0}
    figures.compare("A model", "decode", times, peer="peer", aims={"ours": 3, "slow": 1}, audio=10)
    ours, slow = lines(told)
    assert (ours["ratio"], ours["real_time"], ours["aim"]) == (4.0, 20.0, 3)
    assert slow["ratio"] == 0.5
    assert "4.00x peer" in capsys.readouterr().out
    page = runner("benchmarks").page({}, {"test_a.py": outcome([ours, slow])})
    assert "## A model" in page
    assert "| decode | ours | 0.5 | 20.0x | peer | 2 | **4.00** | 3 |" in page
    assert "**0.50** | 1, missed |" in page


def test_nothing_is_kept_unless_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(figures.VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    figures.tell("area", "done", 3, "well", promised="well")
    assert list(tmp_path.iterdir()) == []


def test_notes_stand_below_their_table(told: Path) -> None:
    figures.note("A model", "peak memory 5 MB")
    page = runner("benchmarks").page({}, {"test_a.py": outcome(lines(told), ["test_x"])})
    assert "```text\npeak memory 5 MB\n```" in page
    assert "- test_a.py: test_x" in page


def test_the_largest_count_stands_in_the_reliability_table(told: Path) -> None:
    for count in (400, 20_000, 30):
        figures.tell("audio files", "damaged", count, f"{count} refused", promised="all refused")
    page = runner("reliability").page({}, {"test_a.py": outcome(lines(told))})
    assert "| audio files | damaged | 20,000 | 20000 refused | all refused |" in page
    assert "400 refused" not in page
    assert "| `test_a.py` | 3 | 0 | 1 | 5 | 2026-01-02 |" in page


def test_a_file_of_tests_is_run_and_kept(tmp_path: Path) -> None:
    path, store = tmp_path / "test_small.py", tmp_path / "figures.json"
    path.write_text(
        "import os, pytest\n"
        "def test_good():\n"
        f"    open(os.environ[{figures.VARIABLE!r}], 'a').write('{{\"kind\": \"note\"}}\\n')\n"
        "def test_bad():\n    assert False\n"
        "@pytest.mark.skip\ndef test_left_out():\n    pass\n"
    )
    here, outcomes = tables.update(store, [path], "not slow")
    found = outcomes["test_small.py"]
    assert found.counts == {"passed": 1, "failed": 1, "skipped": 1}
    assert (found.failed, found.figures) == (["test_bad"], [{"kind": "note"}])
    assert tables.read(store) == (here, outcomes)
    assert found.date in tables.described(here, outcomes)


def test_figures_of_another_machine_are_thrown_away(tmp_path: Path) -> None:
    store = tmp_path / "figures.json"
    old = {"machine": {"processor": "another"}, "files": {"test_old.py": vars(outcome([]))}}
    store.write_text(json.dumps(old))
    assert tables.update(store, [], "not slow")[1] == {}
    here, kept = tables.update(store, [], "not slow", stay=["test_old.py"])
    assert kept["test_old.py"].machine == {"processor": "another"}
    shown = tables.described(here, kept)
    assert "- On another machine (processor another): `test_old.py`" in shown
    assert "- Date: never" in shown
