"""Writing tensors as safetensors piece by piece, with the hash of what was written.

The file is never in memory as a whole, and a full disk is an ordinary OSError.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from audiogen_core import weights
from audiogen_core.errors import WeightsError

_NAMES = {torch.float32: "F32", torch.float16: "F16", torch.int64: "I64", torch.uint8: "U8"}


def byte_size(tensors: Mapping[str, Tensor]) -> int:
    """Bytes the values of some tensors take."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write tensors (float32, float16, int64 or uint8) and flush them to disk. Returns their sha256."""
    header: dict[str, object] = {}
    offset = 0
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    head = len(text).to_bytes(8, "little") + text
    digest = hashlib.sha256(head)
    with path.open("wb") as file:
        file.write(head)
        for tensor in tensors.values():
            values = _bytes(tensor)
            file.write(values)
            digest.update(values)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """What `write_tensors` wrote. Raises WeightsError when the file is damaged."""
    found = weights.read(path)
    return {name: torch.from_numpy(np.array(found[name])) for name in found}


def load_into(model: torch.nn.Module, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Copy tensors into all parameters of a model. Raises WeightsError for any that do not match."""
    from audiogen_minigpt.ranks import put

    parameters = dict(model.named_parameters())
    missing = sorted(set(parameters) - set(tensors))
    unexpected = sorted(set(tensors) - set(parameters))
    misshapen = [
        f"{name} is {tuple(tensors[name].shape)}, not {tuple(parameter.shape)}"
        for name, parameter in parameters.items()
        if name in tensors and tensors[name].shape != parameter.shape
    ]
    if missing or unexpected or misshapen:
        raise WeightsError(
            f"{source}: the weights do not fit the model; missing: {', '.join(missing[:10]) or 'none'}; "
            f"unexpected: {', '.join(unexpected[:10]) or 'none'}; "
            f"misshapen: {'; '.join(misshapen[:10]) or 'none'}"
        )
    for name, parameter in parameters.items():
        put(parameter, tensors[name])


def _bytes(tensor: Tensor) -> memoryview:
    flat: memoryview = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
    return flat
