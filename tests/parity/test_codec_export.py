"""Layers over ops export to ONNX with a free time axis and agree with torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from audiogen_core.ops.torch_ops import TorchOps
from support import lac


@pytest.mark.parametrize(("side", "channels", "frames"), [("encoder", 1, 320), ("decoder", 12, 1)])
def test_lac_exports_with_a_free_time_axis(tmp_path, side, channels, frames):
    import onnxruntime

    ops = TorchOps()
    shell = lac.Shell(ops, getattr(lac, side)(ops)).eval()
    example = torch.randn(1, channels, 7 * frames)
    time = torch.export.Dim("time", min=2) * frames if frames > 1 else torch.export.Dim("time", min=2)
    program = torch.onnx.export(
        shell, (example,), dynamic_shapes=({2: time},), input_names=["x"], output_names=["y"], dynamo=True
    )
    program.save(tmp_path / "graph.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "graph.onnx", providers=["CPUExecutionProvider"])
    for length in (3, 7, 19):
        x = torch.randn(1, channels, length * frames)
        (made,) = session.run(None, {"x": x.numpy()})
        assert made.shape[2] == length * (320 if side == "decoder" else 1)
        np.testing.assert_allclose(made, shell(x).numpy(), rtol=0, atol=1e-4)
