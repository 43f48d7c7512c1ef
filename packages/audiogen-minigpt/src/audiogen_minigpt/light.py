"""Checkpoints for generating alone: weights in float16, no optimizer's state, a sixth of the size."""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audiogen_core.errors import ModelError, OptionError
from audiogen_core.files import sync
from audiogen_core.sampling import Sampling
from audiogen_minigpt import checkpoint
from audiogen_minigpt.catalog import locate
from audiogen_minigpt.defaults import SAMPLING

if TYPE_CHECKING:
    from torch import Tensor

_KEPT = ("format_version", "versions", "step", "model", "data", "val_loss")
_DRAWING = ("temperature", "top_k", "top_p", "min_p")


def write(found: checkpoint.Checkpoint, out: str | Path, sampling: Sampling | None = None) -> Path:
    """Write a checkpoint without what training needs. Returns the folder, which appears whole or not at all.

    out       a folder that does not exist yet, or is empty
    sampling  how codes of this model are drawn unless somebody says otherwise

    Raises OptionError when `out` is taken, ModelError when it cannot be written.
    """
    import torch

    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OptionError(f"{out} exists already; choose another folder or delete this one")
    tensors = {name: value.to(torch.float16) for name, value in found.model_tensors().items()}
    state: dict[str, Any] = {key: found.state[key] for key in _KEPT if key in found.state}
    state["revision"] = f"step-{found.step:08d}-{_digest(tensors)}"
    if sampling is not None:
        state["sampling"] = {key: sampling.to_dict()[key] for key in _DRAWING}
    temporary = out.with_name(f".tmp-{out.name}-{secrets.token_hex(4)}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.write_files(temporary, tensors, None, state)
        if out.is_dir():
            out.rmdir()
        temporary.replace(out)
        sync(out.parent)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise ModelError(f"{out}: cannot be written ({error.strerror or error})") from error
    return out


def sampling_of(model: str | Path) -> Sampling:
    """How codes of a model are drawn unless somebody says otherwise: as its folder says, or `SAMPLING`."""
    path = locate(model) / "state.json"
    try:
        return of_state(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, AttributeError):  # whoever loads the model says what is wrong
        return SAMPLING


def of_state(state: dict[str, Any]) -> Sampling:
    """What a checkpoint's state says about drawing codes, or `SAMPLING`. Raises OptionError."""
    said = state.get("sampling")
    return SAMPLING if said is None else Sampling(**{key: said[key] for key in _DRAWING if key in said})


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, value in tensors.items():
        digest.update(name.encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]
