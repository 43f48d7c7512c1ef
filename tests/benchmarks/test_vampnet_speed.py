"""VampNet at full size, random weights: onnxruntime beside torch, per step and as a whole.

Run with `uv run pytest -m benchmark -s tests/benchmarks/test_vampnet_speed.py`. Prints ratios, asserts
no time.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
import torch

from audiogen_onnx import Vampnet, export
from audiogen_onnx.bench import measure, torch_vampnet
from audiogen_onnx.session import Session
from audiogen_onnx.vampnet import graph, model, weights
from audiogen_onnx.vampnet.compare import random_codes
from audiogen_onnx.vampnet.quantize import quantize, quantize_network
from support.bench import race, report
from support.vampnet_eager import spelled_out
from support.vampnet_files import FULL_COARSE, FULL_FINE, write_checkpoints, write_network

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(3600)]

NETWORKS = {"coarse": (FULL_COARSE, 575), "fine": (FULL_FINE, 173)}


@pytest.fixture(autouse=True)
def threads():
    """Torch as it was, afterwards."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("name", NETWORKS)
def test_one_step(tmp_path, name, count):
    """One call of a network over its window of frames."""
    settings, frames = NETWORKS[name]
    vectors = np.random.default_rng(0).standard_normal((14, 1024, 8)).astype(np.float32)
    checkpoint = weights.load(write_network(tmp_path / "net.pth", settings), vectors)
    net = model.build(checkpoint)
    path = tmp_path / "float32" / "net.onnx"
    path.parent.mkdir()
    graph.write(checkpoint, net.distance_table().numpy(), path)
    sessions = {"onnxruntime float32": Session(path, threads=count)}
    for dtype in ("int8", "int4"):
        smaller = tmp_path / dtype / "net.onnx"
        smaller.parent.mkdir()
        quantize_network(path, smaller, dtype)
        sessions[f"onnxruntime {dtype}"] = Session(smaller, threads=count)
    codes = random_codes(settings["n_codebooks"], 1024, 1, frames)
    given, original = torch.from_numpy(codes), spelled_out(model.build(checkpoint))
    torch.set_num_threads(count)
    with torch.inference_mode():
        np.testing.assert_allclose(
            sessions["onnxruntime float32"].run({"codes": codes})["logits"],
            original(given).numpy(),
            rtol=0,
            atol=1e-4,
        )
        times = race(
            {
                "torch eager, as the original": lambda: original(given),
                "torch eager, ours": lambda: net(given),
                **{key: lambda s=session: s.run({"codes": codes}) for key, session in sessions.items()},
            },
            rounds=3,
        )
    slow, ours = (times[f"torch eager, {whose}"] for whose in ("as the original", "ours"))
    rows = [
        f"{key:30} {took:6.2f} s   {slow / took:4.1f}x the original   {ours / took:4.1f}x ours"
        for key, took in times.items()
    ]
    report(f"{name}, one step, T = {frames}, {count} thread(s), best of 3", rows)


def test_a_whole_vamp(tmp_path):
    """10 s: encode, 12 coarse steps, 2 fine steps in each window, decode."""
    sources = write_checkpoints(tmp_path / "checkpoints")
    export(sources, tmp_path / "float32", check=False)
    quantize(tmp_path / "float32", tmp_path / "int8", "int8")
    ours = {dtype: bench(tmp_path / dtype) for dtype in ("float32", "int8")}
    like = Vampnet.load(tmp_path / "int8")  # its geometry and options; torch computes
    theirs = asdict(measure(torch_vampnet(sources, like, threads=2), repeats=1))
    rows = [
        f"{dtype:8} {row['stage']:12} {row['onnxruntime']:7.2f} s   "
        f"torch eager {theirs[row['stage']]:7.2f} s   {theirs[row['stage']] / row['onnxruntime']:4.1f}x"
        for dtype, (stages, _) in ours.items()
        for row in stages
    ]
    notes = [f"{dtype:8} {note}" for dtype, (_, lines) in ours.items() for note in lines]
    report("a vamp of 10 s, two threads", rows + notes)


def bench(folder):
    """What the command says of a folder, in a process of its own: seconds of each stage, and its notes."""
    command = [sys.executable, "-c", "from audiogen_onnx.cli import main; main()", "bench", folder]
    done = subprocess.run(
        [*command, "--threads=2", "--repeats=1", "--json"], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout), done.stderr.splitlines()
