"""mlx on a Linux CPU with its own BLAS and with a fast one: each in a fresh process, in turns.

Prints times; asserts none.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from audiogen_mlx import blas
from support.figures import compare

pytestmark = [
    pytest.mark.benchmark,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not blas._on_reference_blas(), reason="only the Linux CPU wheel has a slow BLAS"),
]

JOB = """
import json, time
from audiogen_mlx import blas
import mlx.core as mx
draw, attention = mx.random.normal, mx.fast.scaled_dot_product_attention
a, b = draw((700, 1024)), draw((1024, 1024))
two, wide = draw((2, 1024)), draw((1024, 4096))
x, kernel = draw((1, 16000, 128)), draw((64, 3, 128))
q, k = draw((1, 16, 257, 64)), draw((1, 16, 257, 64))
tall = mx.contiguous(wide.T)
mx.eval(a, b, two, wide, tall, x, kernel, q, k)
jobs = {
    "700 x 1024 by 1024 x 1024": lambda: a @ b,
    "700 x 1024 by 1024 x 1024, transposed": lambda: a @ b.T,
    "2 x 1024 by 1024 x 4096": lambda: two @ wide,
    "2 x 1024 by 1024 x 4096, transposed": lambda: two @ tall.T,
    "convolution 16000 x 128 -> 64, 3 taps": lambda: mx.conv1d(x, kernel),
    "attention, 16 heads of 64, 257 steps": lambda: attention(q, k, k, scale=0.125),
}
times = {}
for name, job in jobs.items():
    mx.eval(job())
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        mx.eval(job())
        best = min(best, time.perf_counter() - start)
    times[name] = 1000 * best
print(json.dumps([blas.describe(), times]))
"""


def measure(setting: str) -> tuple[dict, dict[str, float]]:
    environment = dict(os.environ)
    environment.pop(blas.VARIABLE, None)
    if setting:
        environment[blas.VARIABLE] = setting
    done = subprocess.run(
        [sys.executable, "-c", JOB], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr
    facts, times = json.loads(done.stdout)
    return facts, times


def test_operations_with_and_without_a_fast_blas():
    best: dict[str, dict[str, float]] = {"off": {}, "": {}}
    for _ in range(2):
        for setting, kept in best.items():
            facts, times = measure(setting)
            for name, time in times.items():
                kept[name] = min(time, kept.get(name, time))
    assert facts["source"] != "wheel", "no fast BLAS is installed here"
    title = f"Operations of mlx with a fast BLAS ({facts['source']}), {facts['threads']} threads"
    for name in best[""]:
        times = {"mlx as installed": best["off"][name] / 1000, "with the fast BLAS": best[""][name] / 1000}
        compare(title, name, times, peer="mlx as installed")
    assert best["off"].keys() == best[""].keys()
