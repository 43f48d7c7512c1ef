"""Memory of an update at the sizes of published models, with random weights, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
WORKER = TESTS / "support" / "tuning_steps.py"
GIB = 2**30

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(sys.platform != "linux", reason="measured on Linux"),
]


@pytest.mark.parametrize(
    ("arguments", "most"),
    [
        (("small",), 6),
        (("small", "--clips", "2"), 6),
        (("small", "--clips", "2", "--checkpoint"), 4),
        (("medium", "--dtype", "float16"), 16),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, tuple) else f"{given} GiB",
)
def test_an_update_fits(arguments: tuple[str, ...], most: int):
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    command = [sys.executable, str(WORKER), "ours", *arguments]
    made = subprocess.run(command, env=environment, input="1\n", text=True, capture_output=True, check=True)
    found = json.loads(made.stdout.splitlines()[-1])
    print(f"\n{' '.join(arguments)}: peak {found['peak'] / GIB:.2f} GiB, {found['step']:.0f} s an update")
    assert found["peak"] < most * GIB
