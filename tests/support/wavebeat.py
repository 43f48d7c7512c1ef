"""WaveBeat as its paper and code describe it, in plain torch, and checkpoints as Lightning writes them."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

SETTINGS: dict[str, Any] = {
    "ninputs": 1, "noutputs": 2, "nblocks": 8, "kernel_size": 15, "stride": 2, "dilation_growth": 8,
    "channel_growth": 1, "channel_width": 32, "stack_size": 4, "norm_type": "BatchNorm", "act_type": "PReLU",
    "audio_sample_rate": 22050, "target_factor": 256, "target_sample_rate": 22050 / 256, "causal": False,
    "gpus": "0", "precision": 16, "save_dir": None, "lr": 1e-3, "nparams": 2,
}  # fmt: skip
SMALL = SETTINGS | {
    "nblocks": 3, "kernel_size": 5, "dilation_growth": 3, "channel_width": 4, "stack_size": 2,
    "audio_sample_rate": 8000, "target_factor": 8, "target_sample_rate": 1000.0,
}  # fmt: skip


class Reference(nn.Module):
    """One list of modules for each part, run in order; the names are put together for the checkpoint."""

    def __init__(self, settings: dict[str, Any], seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.main, self.side = nn.ModuleList(), nn.ModuleList()
        channels = 1
        for index in range(settings["nblocks"]):
            out = settings["channel_width"] if index == 0 else channels + settings["channel_growth"]
            dilation = settings["dilation_growth"] ** (index % settings["stack_size"])
            padding = (settings["kernel_size"] - 1) * dilation // 2
            conv = nn.Conv1d(channels, out, settings["kernel_size"], settings["stride"], padding, dilation)
            norms = [nn.BatchNorm1d(out) if settings["norm_type"] else nn.Identity() for _ in range(2)]
            self.main.append(nn.Sequential(conv, norms[0], nn.PReLU(out)))
            self.side.append(nn.Sequential(nn.Conv1d(channels, out, 1, settings["stride"]), norms[1]))
            channels = out
        self.output = nn.Conv1d(channels, 2, 1)
        for name, values in self.named_buffers():
            if values.is_floating_point():
                values.copy_(torch.rand_like(values) + (0.5 if "var" in name else -0.5))
        for parameter in self.parameters():
            if parameter.ndim == 1:
                nn.init.uniform_(parameter, 0.1, 0.9)
        self.eval()

    def forward(self, audio: torch.Tensor) -> torch.Tensor:
        for main, side in zip(self.main, self.side, strict=True):
            audio = main(audio) + side(audio)
        return torch.sigmoid(self.output(audio))

    def state(self) -> dict[str, torch.Tensor]:
        """The state by the original's names."""
        parts = {"main.0": "conv1", "main.1": "norm1", "main.2": "act1"}
        parts |= {"side.0": "res_conv", "side.1": "res_norm"}
        found = {}
        for name, values in self.state_dict().items():
            if name.startswith("output"):
                found[name] = values
            else:
                side, index, part, leaf = name.split(".")
                found[f"blocks.{index}.{parts[f'{side}.{part}']}.{leaf}"] = values
        return found


@contextmanager
def lightning_of_2021() -> Iterator[type]:
    """The class that its checkpoints have as a key, where pickle looks for it."""
    name = "pytorch_lightning.callbacks.model_checkpoint"
    module = types.ModuleType(name)
    saved = dict(sys.modules)
    kind = type("ModelCheckpoint", (), {"__module__": name})
    module.ModelCheckpoint = kind  # type: ignore[attr-defined]
    for part in ("pytorch_lightning", "pytorch_lightning.callbacks"):
        sys.modules[part] = types.ModuleType(part)
    sys.modules[name] = module
    try:
        yield kind
    finally:
        for part in ("pytorch_lightning", "pytorch_lightning.callbacks", name):
            sys.modules.pop(part)
            if part in saved:
                sys.modules[part] = saved[part]


def save_checkpoint(path: Path, settings: dict[str, Any], state: dict[str, torch.Tensor]) -> Path:
    """A checkpoint with all that Lightning 1 puts beside the weights."""
    with lightning_of_2021() as callback:
        torch.save(
            {
                "epoch": 98, "global_step": 24750, "pytorch-lightning_version": "1.2.0",
                "callbacks": {
                    callback: {
                        "monitor": "val_loss/Joint F-measure", "best_model_score": torch.tensor(0.85),
                        "best_model_path": "lightning_logs/epoch=98.ckpt",
                        "current_score": torch.tensor(0.85),
                        "dirpath": "lightning_logs",
                    }
                },
                "optimizer_states": [{
                    "state": {0: {"step": 24750, "exp_avg": torch.zeros(3)}},
                    "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "params": [0, 1]}],
                }],
                "lr_schedulers": [{"mode": "max", "best": torch.tensor(0.85), "mode_worse": float("-inf")}],
                "native_amp_scaling_state": {"scale": 65536.0, "_growth_tracker": 1},
                "state_dict": state, "hparams_name": "kwargs", "hyper_parameters": settings,
            },
            path,
        )  # fmt: skip
    return path
