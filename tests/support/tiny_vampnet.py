"""Small networks of one's own over the demo codec, with random weights, as an exported folder."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import numpy as np
import torch

from audiogen_core import codecs
from audiogen_onnx.exporter.config import NetworkConfig
from audiogen_onnx.exporter.export import Trained, export_networks
from audiogen_onnx.exporter.model import Checkpoint, VampNet


def write_tiny_vampnet(folder: Path) -> Path:
    """A folder that has 75 frames in a second, and sees two seconds of them."""
    codec = codecs.load_codec("demo")
    vectors = codec.codebook_vectors()
    trained = []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for codebooks, given in ((4, 0), (8, 4)):
            config = NetworkConfig(2, 2, 16, codebooks, given, 1024, vectors.shape[2])
            tensors = {
                name: 0.2 * torch.randn(value.shape).numpy()
                for name, value in VampNet(config).named_parameters()
            }
            masks = np.ones((codebooks, 1, vectors.shape[2]))
            tables = np.concatenate([vectors[:codebooks], masks], axis=1)
            tensors["embedding.tables"] = tables.astype(np.float32)
            trained.append(Trained(Checkpoint(config, tensors), 2.0))
    export_networks(*trained, codec, folder, created_from={"mine": "0" * 64}, loudness=-14.0, check=False)
    return folder


def tune_in_process(clips: Path, model: Path, run: Path, steps: int) -> ForkServerProcess:
    """Tune one on a folder of clips of a second, or go on with it, in a process of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["audiogen_onnx.exporter.tune", "matplotlib.backends.backend_agg"])
    process = context.Process(target=_tune, args=(clips, model, run, steps))
    process.start()
    return process


def _tune(clips: Path, model: Path, run: Path, steps: int) -> None:
    from audiogen_onnx.exporter.tune import tune
    from audiogen_onnx.vampnet.tune_options import Tuning

    told = {"seconds": 1.0, "batch": 2, "steps": steps, "threads": 1, "samples": 0}
    tune(Tuning.of({"folder": clips, "model": model, **told}), run)
