"""VampNet at full size, random weights: onnxruntime beside torch, per step and as a whole.

Prints ratios, asserts no time. `run.py` beside this file makes the table.
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
from audiogen_onnx.exporter import model, network, weights
from audiogen_onnx.exporter.export import quantize
from audiogen_onnx.exporter.quantize import quantize_network
from audiogen_onnx.session import Session
from audiogen_onnx.vampnet.verify import random_codes
from support.bench import race, report
from support.figures import compare
from support.vampnet_eager import spelled_out
from support.vampnet_files import FULL_COARSE, FULL_FINE, write_checkpoints, write_network

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(3600)]

AIMS = {"float32": 2.0, "int8": 4.0}
"""How many times as fast as torch eager a whole vamp is to be."""

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
    network.write(checkpoint, net.distance_table().numpy(), path)
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
    title = f"VampNet, one step of a network, {count} thread(s)"
    aims = {"onnxruntime float32": 2.0, "onnxruntime int8": 4.0} if count == 2 else {}
    compare(title, f"{name}, {frames} frames", times, peer="torch eager, as the original", aims=aims)


def test_a_whole_vamp(tmp_path):
    """10 s: encode, 12 coarse steps, 2 fine steps in each window, decode."""
    sources = write_checkpoints(tmp_path / "checkpoints")
    export(sources, tmp_path / "float32", check=False)
    quantize(tmp_path / "float32", tmp_path / "int8", "int8")
    ours = {dtype: bench(tmp_path / dtype) for dtype in ("float32", "int8")}
    like = Vampnet.load(tmp_path / "int8")  # its geometry and options; torch computes
    theirs = asdict(measure(torch_vampnet(sources, like, threads=2), repeats=1))
    title, peer = "VampNet, a vamp of 10 s, two threads", "torch eager"
    for dtype, (stages, _) in ours.items():
        for row in stages:
            times = {f"onnxruntime {dtype}": row["onnxruntime"], peer: theirs[row["stage"]]}
            aims = {f"onnxruntime {dtype}": AIMS[dtype]} if row["stage"] == "vamp" else {}
            compare(title, row["stage"], times, peer=peer, aims=aims)
    report(title, [f"{dtype}: {note}" for dtype, (_, lines) in ours.items() for note in lines])


def bench(folder):
    """What the command says of a folder, in a process of its own: seconds of each stage, and its notes."""
    command = [sys.executable, "-c", "from audiogen_onnx.cli import main; main()", "bench", folder]
    done = subprocess.run(
        [*command, "--threads=2", "--repeats=1", "--json"], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout), done.stderr.splitlines()
