"""Weight files that lie, by the thousand: each refused with WeightsError, and nothing is executed.

The lies are structured: an honest file is drawn at random, then one claim in it is made false. A
second kind flips bytes at random; there a file may stay readable, but nothing else may happen. All
draws are seeded. `-m soak` runs 50,000; `-s` prints the slowest refusal and the growth of memory.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from audiogen_core import weights
from audiogen_core.errors import WeightsError
from support.figures import tell
from support.forge import archive, call, named, program, safetensors, tensor, torch_entries
from support.measured import measured
from support.pickle_lies import GREEDY, greedy
from support.safetensors_lies import SAFETENSORS, Rng, honest_header, many_tensors
from support.torch_lies import CANARY, TORCH

posix = pytest.mark.skipif(sys.platform == "win32", reason="measured in a fork")


def judge(path: Path, content: bytes) -> str:
    """ "refused" or "read"; anything but WeightsError is a failure of the test."""
    path.write_bytes(content)
    try:
        dict(weights.read(path))
    except WeightsError as error:
        assert len(str(error)) < 2000, "a message too long to read"
        return "refused"
    return "read"


def run(folder: Path, count: int, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    rng = np.random.default_rng(seed)
    before, slowest, seen = resident(), (0.0, ""), Counter[str]()
    kinds = [(f"safetensors: {name}", ".safetensors", lie) for name, lie in SAFETENSORS.items()]
    kinds += [(f"torch: {name}", ".pth", lie) for name, lie in TORCH.items()] * 4
    for number in range(count):
        name, suffix, lie = kinds[number % len(kinds)]
        if number % 1000 == 999:
            name, suffix, lie = "safetensors: many tensors", ".safetensors", many_tensors
        content = lie(rng)
        started = time.process_time()
        verdict = judge(folder / f"lie{suffix}", content)
        slowest = max(slowest, (time.process_time() - started, name))
        seen[name] += 1
        if verdict != "refused":
            (folder / f"believed{suffix}").write_bytes(content)
        assert verdict == "refused", f"{name} number {number} of seed {seed} was believed"
        assert not Path(CANARY).exists(), f"{name} number {number} of seed {seed} was executed"
    growth = resident() - before
    assert growth < 256 << 20
    tell(
        "weight files",
        f"structured lies of {len(seen)} kinds, safetensors and torch",
        count,
        f"all refused, nothing executed; slowest {slowest[0]:.2f} s of CPU; memory +{growth >> 20} MiB",
        promised="all refused in less than 1 s, nothing executed",
    )


def resident() -> int:
    """The largest resident memory of this process so far, bytes."""
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def test_lies_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, 1000, 1, monkeypatch)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_fifty_thousand_lies_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, 50_000, 10, monkeypatch)


def flipped(rng: Rng, whole: bytes) -> bytes:
    damaged = bytearray(whole)
    for at in rng.integers(0, len(whole), int(rng.integers(1, 4))):
        damaged[at] ^= 1 << int(rng.integers(8))
    return bytes(damaged)


def flip(folder: Path, count: int, seed: int, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    monkeypatch.chdir(folder)
    rng = np.random.default_rng(seed)
    verdicts = Counter[str]()
    for _ in range(count):
        pickle = program({"a": tensor(), "b": [tensor(), 1.5, "x"]})
        whole = archive(torch_entries(pickle, {"0": rng.bytes(24)}))
        verdicts[f"torch {judge(folder / 'flip.pth', flipped(rng, whole))}"] += 1
        whole = safetensors(*honest_header(rng))
        verdicts[f"safetensors {judge(folder / 'flip.safetensors', flipped(rng, whole))}"] += 1
    tell(
        "weight files",
        "files with bits flipped at random",
        2 * count,
        f"{sum(verdicts.values()):,} read or refused; nothing executed, no other error",
        promised="WeightsError or a readable file, nothing else",
    )
    return verdicts


def test_flipped_bytes_do_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts = flip(tmp_path, 300, 2, monkeypatch)
    assert verdicts["torch refused"] > 200


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_many_flipped_bytes_do_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flip(tmp_path, 10_000, 3, monkeypatch)


def test_the_payloads_would_work_where_they_were_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The canary is a real one: an ordinary unpickler runs it."""
    import pickle

    monkeypatch.chdir(tmp_path)
    pickle.loads(program(call(named("os.system"), f"touch {CANARY}")))
    assert [path.name for path in tmp_path.iterdir()] == [CANARY]


def feed(folder: Path, count: int, seed: int) -> None:
    """Greedy pickles, each in a process of its own."""
    rng = np.random.default_rng(seed)
    path = folder / "greedy.pth"
    worst, slowest, verdicts = (0.0, ""), (0.0, ""), Counter[str]()
    kinds = list(GREEDY)
    for number in range(count):
        kind = kinds[number % len(kinds)]
        content = greedy(rng, kind)
        cost = measured(lambda content=content: judge(path, content))
        allowed = (64 << 20) + 4 * len(content)
        worst = max(worst, (cost.memory / allowed, kind))
        slowest = max(slowest, (cost.seconds, kind))
        verdicts[cost.result] += 1
        assert cost.memory < allowed, f"{kind}, number {number} of seed {seed}: {cost.memory >> 20} MiB"
        assert cost.seconds < 1, f"{kind}, number {number} of seed {seed}: {cost.seconds:.2f} s"
    assert verdicts["refused"] > count // 3
    tell(
        "weight files",
        f"greedy pickles of {len(kinds)} kinds that name only allowed globals",
        count,
        f"{verdicts['refused']} refused, {verdicts['read']} read; at most {worst[0]:.0%} of the memory "
        f"({worst[1]}), at most {slowest[0]:.2f} s ({slowest[1]})",
        promised="memory below 64 MiB and four times the file, less than 1 s",
    )


@posix
def test_greedy_pickles_of_allowed_globals_are_refused_or_bounded(tmp_path: Path) -> None:
    feed(tmp_path, len(GREEDY), 7)


@posix
@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_six_hundred_greedy_pickles(tmp_path: Path) -> None:
    feed(tmp_path, 600, 8)
