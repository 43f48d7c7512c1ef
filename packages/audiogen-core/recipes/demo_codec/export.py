"""Write a trained codec as the file that `audiogen_core.codecs.frame` loads.

`python export.py CHECKPOINT -o demo.safetensors`: matrices as int8 rows with a scale each, the rest as
float16. With `--exact` everything stays float32.
"""

from __future__ import annotations

import argparse
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from audiogen_core.codecs.frame import FORMAT, FrameConfig, quantize
from audiogen_core.files import atomic_path


def export(checkpoint: Path, path: Path, exact: bool = False) -> Path:
    """Write the codec of a checkpoint of train.py; returns the path. Equal checkpoints give equal bytes."""
    from safetensors.numpy import save

    state: dict[str, Any] = torch.load(checkpoint, weights_only=True)
    network = {name: value.float().numpy() for name, value in state["network"].items()}
    scales = {name: float(network.pop(name)) for name in ("input_scale", "output_scale")}
    config = FrameConfig(**{**state["settings"]["codec"], **scales})
    tensors = {**network, "codebooks": state["quantizer"]["books"].float().numpy()}
    stored = tensors if exact else _small(tensors)
    arrays = {name: np.ascontiguousarray(values) for name, values in stored.items()}
    payload = save(arrays, metadata={"format": FORMAT, "config": config.to_json()})
    with atomic_path(path) as temporary:
        temporary.write_bytes(_settled(payload))
    return path


def _settled(payload: bytes) -> bytes:
    """The same safetensors file with its header in one certain order, which the library leaves to chance."""
    (length,) = struct.unpack("<Q", payload[:8])
    header = json.dumps(json.loads(payload[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + payload[8 + length :]


def _small(tensors: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[Any]]:
    stored: dict[str, NDArray[Any]] = {}
    for name, values in tensors.items():
        stem = name.removesuffix(".weight")
        if values.ndim == 2 and stem != name:
            stored |= {stem + suffix: array for suffix, array in quantize(values).items()}
        else:
            stored[name] = values.astype(np.float16)
    return stored


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--exact", action="store_true", help="keep float32")
    arguments = parser.parse_args()
    print(export(arguments.checkpoint, arguments.output, arguments.exact))


if __name__ == "__main__":
    main()
