"""How long each stage of a vamp takes, in onnxruntime and, where it is installed, in torch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiogen_core.audio import Audio
from audiogen_core.errors import OptionError
from audiogen_onnx.vampnet.generate import Vampnet
from audiogen_onnx.vampnet.network import Network


@dataclass(frozen=True)
class Times:
    """Seconds of work.

    encode, decode  of the whole clip
    coarse_step, fine_step  one call of a network, over its window or the clip, whichever is shorter
    vamp            the whole way, with 12 coarse and 2 fine steps
    loop            of it, what the sampling takes: neither codec nor networks
    """

    encode: float
    decode: float
    coarse_step: float
    fine_step: float
    vamp: float
    loop: float


def measure(vampnet: Vampnet, seconds: float = 10.0, repeats: int = 3) -> Times:
    """Time every stage on noise of so many seconds: the median of some runs, after one that does not count.

    Raises OptionError when seconds or repeats are not positive.
    """
    if not seconds > 0 or repeats < 1:
        raise OptionError(f"a benchmark takes some seconds and repeats, got {seconds} and {repeats}")
    info = vampnet.codec.info
    rng = np.random.default_rng(0)
    noise = (rng.standard_normal((1, round(seconds * info.sample_rate))) * 0.05).astype(np.float32)
    clip = Audio(noise, info.sample_rate)
    codes = vampnet.codec.encode(clip)

    def step(network: Network) -> Callable[[], Any]:
        frames = min(network.window, codes.frames)
        masked = np.full((1, network.codebooks, frames), network.codebook_size)
        return lambda: network.logits(masked)

    stages = {
        "encode": lambda: vampnet.codec.encode(clip),
        "decode": lambda: vampnet.codec.decode(codes),
        "coarse_step": step(vampnet.coarse),
        "fine_step": step(vampnet.fine),
    }
    times = {name: _median(stage, repeats) for name, stage in stages.items()}
    return Times(**times, **_whole(vampnet, clip))


def compared(ours: Times, theirs: Times | None) -> list[dict[str, Any]]:
    """A row for each stage: seconds here, in torch, and how many times faster."""
    rows = []
    for field in fields(Times):
        mine = getattr(ours, field.name)
        row: dict[str, Any] = {"stage": field.name, "onnxruntime": round(mine, 4)}
        if theirs is not None:
            other = getattr(theirs, field.name)
            row |= {"torch": round(other, 4), "times": round(other / max(mine, 1e-9), 2)}
        rows.append(row)
    return rows


def torch_vampnet(checkpoints: str | Path, like: Vampnet, threads: int | None = None) -> Vampnet:
    """The same model in torch, from the checkpoints that a folder was exported from.

    Raises MissingDependency without the [export] extra.
    """
    from audiogen_onnx.exporter.export import require_export

    require_export()
    import torch

    from audiogen_onnx.exporter import model
    from audiogen_onnx.exporter.weights import load, load_codec

    if threads is not None:
        torch.set_num_threads(threads)
    folder = Path(checkpoints)
    codec = load_codec(folder / "codec.pth")
    vectors = codec.codebook_vectors()

    def network(name: str, file: str, geometry: Network) -> Network:
        run = model.runner(model.build(load(folder / file, vectors)))
        return replace(geometry, name=name, run=run)

    coarse = network("coarse", "coarse.pth", like.coarse)
    return Vampnet(codec, coarse, network("fine", "c2f.pth", like.fine), str(folder))


def _median(work: Callable[[], Any], repeats: int) -> float:
    work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return median(times)


def _whole(vampnet: Vampnet, clip: Audio) -> dict[str, float]:
    """The whole way once, and how much of the making of codes is spent outside the networks."""
    inside = 0.0

    def timed(network: Network) -> Network:
        def run(codes: NDArray[np.int64]) -> NDArray[Any]:
            nonlocal inside
            began = time.perf_counter()
            logits = network.run(codes)
            inside += time.perf_counter() - began
            return logits

        return replace(network, run=run)

    watched = replace(vampnet, coarse=timed(vampnet.coarse), fine=timed(vampnet.fine))
    codes = watched.codec.encode(clip)
    mask = np.ones(codes.values.shape, np.bool_)
    mask[:3, ::7] = False
    began = time.perf_counter()
    watched.vamp_codes(codes, mask, seed=0)
    loop = time.perf_counter() - began - inside
    began = time.perf_counter()
    watched.vamp(clip, seed=0)
    return {"vamp": time.perf_counter() - began, "loop": loop}
