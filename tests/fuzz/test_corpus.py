"""Every input that a fuzzer began with, or broke something with, through its target."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz.targets import TARGETS, run

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*/*"))


@pytest.mark.parametrize("path", CORPUS, ids=[f"{path.parent.name}-{path.name}" for path in CORPUS])
@pytest.mark.timeout(10)
def test_an_input_is_read_or_refused(path: Path) -> None:
    run(path.parent.name, path.read_bytes())


def test_every_target_has_inputs() -> None:
    assert {path.parent.name for path in CORPUS} == set(TARGETS)
    assert sum(path.stat().st_size for path in CORPUS) < 64_000
