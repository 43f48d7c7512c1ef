"""MusicGen and MAGNeT in onnxruntime at full size, random weights, two threads: 30 s of music, and one pass.

Run with `uv run pytest -m benchmark -s tests/benchmarks/test_musicgen_onnx_speed.py` on a machine that does
nothing else; it takes half an hour and 10 GB of disk. Prints ratios; asserts no time. Every contestant makes
one clip in a process of its own, one after another: ours in float32, int8 and int4; audiogen-mlx; and
transformers on torch, in float32 and with its layers quantised dynamically. The demo, whose weights are real,
says how near fewer bits are to float32.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
import torch

from audiogen_core.musicgen.conditioning import Rows
from audiogen_core.musicgen.files import Files, Places
from audiogen_core.musicgen.weights import pieces
from audiogen_core.sampling import Sampling
from audiogen_mlx.catalog import MUSICGEN as OF_MLX
from audiogen_onnx.exporter import magnet as magnets
from audiogen_onnx.exporter.musicgen import decoder as decoders
from audiogen_onnx.exporter.musicgen.export import export_musicgen
from audiogen_onnx.exporter.musicgen.source import Source
from audiogen_onnx.magnet.config import MagnetConfig
from audiogen_onnx.magnet.network import Network
from audiogen_onnx.musicgen.generate import MusicGen
from audiogen_onnx.session import Session
from support import agreement as agreements
from support.bench import race, report
from support.figures import compare
from support.magnet_torch import TorchMagnet
from support.published import write_folder
from support.random_weights import RandomWeights

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(7200)]

THREADS, SECONDS = 2, 30.0
TITLE = f"MusicGen small in onnxruntime, {SECONDS:g} s, {THREADS} threads"
ROOT = Path(__file__).parents[2]
WORKER = ROOT / "tests" / "support" / "musicgen_clips.py"
DTYPES = ("float32", "int8", "int4")
AT = (8, 500, 1000, 1500)
STEPS = 25


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """musicgen-small with random weights in transformers' layout ("source"), and exported in each dtype."""
    place = tmp_path_factory.mktemp("small")
    made = {name: place / name for name in ("source", *DTYPES)}
    made["source"].mkdir()
    write_folder(made["source"], "musicgen-small")
    for dtype in DTYPES:
        export_musicgen(made["source"], made[dtype], dtype=dtype, check=False)
    return made


def clip(who: str, folder: Path, seconds: float) -> dict[str, float] | str:
    """What a contestant needs for one clip, or why it cannot make any."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(THREADS)}
    command = [sys.executable, str(WORKER), who, str(folder), str(THREADS)]
    with subprocess.Popen(
        command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        said: str = json.loads(process.stdout.readline())
        if said != "ready":
            return said
        process.stdin.write(f"{seconds}\n")
        process.stdin.flush()
        found: dict[str, float] = json.loads(process.stdout.readline())
    return found


def test_a_clip_beside_peers(folders: dict[str, Path]):
    contestants = {
        **{f"onnxruntime {dtype}": ("onnx", dtype) for dtype in DTYPES},
        "audiogen-mlx float32": ("mlx", "source"),
        "transformers float32": ("transformers", "source"),
        "transformers, dynamic int8": ("transformers-int8", "source"),
    }
    found: dict[str, dict[str, float]] = {}
    absent: list[str] = []
    for name, (who, folder) in contestants.items():
        told = clip(who, folders[folder], SECONDS)
        if isinstance(told, str):
            absent.append(f"{name}: {told}")
        else:
            found[name] = told
    peer = "transformers float32"
    aims = {"onnxruntime int8": found[peer]["whole"] / SECONDS}  # as fast as it sounds
    compare(TITLE, "a clip", {name: one["whole"] for name, one in found.items()}, peer=peer, aims=aims,
            audio=SECONDS)  # fmt: skip
    report(
        TITLE,
        [
            f"{name}: {SECONDS / one['whole']:.2f} times real time, first sound after {one['first']:.2f} s, "
            f"peak memory {one['peak'] / 2**30:.2f} GiB"
            for name, one in found.items()
        ]
        + absent,
    )
    for name in found:
        if name.startswith("onnx") or "mlx" in name:
            assert found[name]["samples"] == SECONDS * 32_000


def steps(music: MusicGen, position: int) -> float:
    """The median seconds of a step of two rows with so many positions before it."""
    config, decoder, rng = music.config, music._parts.decoder, np.random.default_rng(0)
    text = rng.normal(size=(1, 16, config.width)).astype(np.float32)
    tokens = rng.integers(0, config.codebook_size, (STEPS, 2, config.codebooks, 1)).astype(np.int32)
    run = decoder.run(Rows(2, text=text), position + STEPS + 1)
    run(tokens[0], last=True)
    run._done[:] = position  # as if so many had been gone through
    times = []
    for given in tokens:
        began = time.perf_counter()
        run(given, last=True)
        times.append(time.perf_counter() - began)
    run.close()
    return median(times)


def sampling_alone(music: MusicGen) -> float:
    """The median seconds that drawing the tokens of a step takes."""
    sampler = music._parts.sampler(Sampling(top_k=250, seed=1), [1], STEPS)
    logits = np.random.default_rng(0).normal(size=(1, 4, 2048)).astype(np.float32)
    times = []
    for step in range(STEPS):
        began = time.perf_counter()
        sampler(logits, step)
        times.append(time.perf_counter() - began)
    return median(times)


def test_the_cost_of_a_step_along_a_clip(folders: dict[str, Path]):
    title, rows = "MusicGen small in onnxruntime, one step with guidance, two threads", []
    for dtype in DTYPES:
        music = MusicGen.load(folders[dtype], threads=THREADS)
        times = {position: steps(music, position) for position in AT}
        share = sampling_alone(music) / times[AT[0]]
        rows.append(
            f"{dtype}: "
            + ", ".join(f"{1000 * took:.1f} ms at position {position}" for position, took in times.items())
            + f"; drawing takes {share:.1%} of a step"
        )
    report(title, rows)
    assert len(rows) == len(DTYPES)


def demo(place: Path, dtype: str) -> MusicGen:
    files = Files.find(OF_MLX, "demo", Places())
    export_musicgen(files, place / dtype, dtype=dtype, check=False)
    return MusicGen.load(place / dtype, threads=THREADS)


def table(title: str, models: Iterator[tuple[str, MusicGen, Path]], seconds: float) -> None:
    """Size, agreement and distance of each, beside the first, on its own music."""
    rows: list[str] = []
    for dtype, music, folder in models:
        size = sum(path.stat().st_size for path in folder.glob("decoder.onnx*"))
        if not rows:
            clips = agreements.own_music(music, seconds)
            first = agreements.walk(music, clips)
            heard = [music.decode(one) for one in agreements.drawn(music, first)]
            rows.append(f"{dtype}: {size / 1e6:.1f} MB, {int(first.wanted[:, 0].sum())} steps")
            continue
        walked = agreements.walk(music, clips)
        theirs = [music.decode(one) for one in agreements.drawn(music, walked)]
        far = np.mean([agreements.mel_distance(*pair) for pair in zip(heard, theirs, strict=True)])
        rows.append(
            f"{dtype}: {size / 1e6:.1f} MB, the likeliest token is the same in "
            f"{agreements.agreement(first, walked):.2%}, log-mel distance {far:.2f} dB"
        )
    report(title, rows)


def test_fewer_bits_beside_float32(folders: dict[str, Path], tmp_path: Path):
    dtypes = ("float32", "float16", "int8", "int4")
    table(
        "The demo MusicGen in fewer bits, 2,000 guided steps of its own music",
        ((dtype, demo(tmp_path, dtype), tmp_path / dtype) for dtype in dtypes),
        10 / 3,
    )
    table(
        "MusicGen small with random weights in fewer bits, 2,000 guided steps; its logits are flat",
        ((dtype, MusicGen.load(folders[dtype], threads=THREADS), folders[dtype]) for dtype in DTYPES),
        5.0,
    )


# MAGNeT

PEER = "audiocraft's network on torch"
SMALL = MagnetConfig(
    network=decoders.Config(
        width=1024,
        layers=24,
        heads=16,
        hidden=4096,
        codebooks=4,
        codebook_size=2048,
        delays=(0, 0, 0, 0),
        channels=1,
        text_width=768,
    )
)


class _Table(RandomWeights):
    """Random weights as a checkpoint that has every tensor."""

    def __contains__(self, name: str) -> bool:
        return True


def test_a_pass_of_magnet(tmp_path: Path):
    """All frames of 10 s, two rows for guidance: the first stage, which sees all, and those after it."""
    weights: Any = _Table()
    source = Source(weights, pieces(SMALL.network, "audiocraft"))
    networks: dict[str, Network] = {}
    decoders.write_cross(tmp_path / "cross.onnx", SMALL.network, source, "float32")
    cross = Session(tmp_path / "cross.onnx", threads=THREADS)
    for dtype in ("float32", "int8"):
        path = tmp_path / f"{dtype}.onnx"
        magnets._write(path, SMALL.network, source, dtype)
        networks[dtype] = Network(SMALL, Session(path, threads=THREADS), cross)
    theirs = TorchMagnet(SMALL, weights.take)
    del weights, source
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2049, (2, 4, 500))
    text = np.zeros((2, 16, 1024), np.float32)
    text[0] = rng.normal(size=(16, 1024))
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        for stage in (0, 1):
            given = torch.from_numpy(codes), torch.from_numpy(text), stage
            runs = {
                f"onnxruntime {dtype}": partial(network.run(text, None, 2), codes, stage, stage)
                for dtype, network in networks.items()
            }
            made, expected = runs["onnxruntime float32"](), theirs(*given)[:, stage].numpy()
            np.testing.assert_allclose(made, expected, rtol=0, atol=1e-3)
            times = race({**runs, PEER: partial(theirs, *given)}, rounds=2)
            compare(
                f"MAGNeT small, one pass over 10 s with guidance, {THREADS} threads",
                f"stage {stage}",
                times,
                peer=PEER,
            )
    finally:
        torch.set_num_threads(before)
