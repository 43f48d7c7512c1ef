"""What a path is: a folder of codes, a run, a checkpoint, or a file that was generated."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from audiogen_core.errors import ModelError
from audiogen_core.training import metrics
from audiogen_core.training.lock import holder
from audiogen_core.values import closed
from audiogen_minigpt import checkpoint
from audiogen_minigpt.catalog import CATALOG, locate
from audiogen_minigpt.settings import CONFIG, load_config

_META, _STATE, _MANIFEST = "meta.json", "state.json", "manifest.json"


@closed()
def info(path: str | Path) -> dict[str, Any]:
    """Facts about a path as plain values, "kind" first: "codes", "run", "checkpoint" or "audio".

    Raises ModelError when it is none of these, and what reading it raises when it is damaged.
    """
    path = locate(path)
    if path.is_file():
        return _audio(path)
    if (path / _META).is_file():
        return codes_info(path)
    if (path / _STATE).is_file() or (path / _MANIFEST).is_file():
        return {"kind": "checkpoint", **_checkpoint(checkpoint.read(path))}
    if (path / CONFIG).is_file() or (path / checkpoint.FOLDER).is_dir():
        return run_info(path)
    what = "nothing there" if not path.exists() else "neither codes, a run, a checkpoint nor a sound"
    raise ModelError(f"{path}: {what}; known by name: {', '.join(CATALOG) or 'none'}")


def codes_info(path: Path) -> dict[str, Any]:
    """Facts about a folder of codes. Times in seconds."""
    from audiogen_core.dataset.shards import read_report, read_shards
    from audiogen_minigpt.dataset import Dataset

    parts = {split: Dataset.open(path, split=split) for split in ("train", "val")}
    meta, shards = parts["train"].meta, read_shards(path)
    reasons = Counter(skip.reason for skip in read_report(path))
    return {
        "kind": "codes",
        **meta.facts,
        "prepared": meta.options,
        "shards": len(shards),
        **{
            split: {"tracks": len(part.tracks), "frames": part.frames, "seconds": part.seconds}
            for split, part in parts.items()
        },
        "left_out": dict(reasons),
        "bytes": sum(shard.path.stat().st_size for shard in shards),
    }


def run_info(path: Path) -> dict[str, Any]:
    """Facts about a training run."""
    config, newest = load_config(path), checkpoint.newest(path)
    records = metrics.read(path)
    evals = [record for record in records if record["kind"] == "eval" and record["loss"] is not None]
    steps = [record for record in records if record["kind"] == "train"]
    best = min(evals, key=lambda record: float(record["loss"])) if evals else None
    in_use = holder(path)
    return {
        "kind": "run",
        "data": config.data if config else None,
        "training_now": f"process {in_use['pid']} on {in_use['host']}" if in_use else None,
        "best": {key: best.get(key) for key in ("step", "loss", "bits_per_second")} if best else None,
        "frames_per_second": steps[-1].get("frames_per_second") if steps else None,
        "share_of_peak": steps[-1].get("share_of_peak") if steps else None,
        "checkpoints": [folder.name for folder in checkpoint.listed(path)],
        "newest": _checkpoint(newest) if newest else None,
    }


def _checkpoint(of: checkpoint.Checkpoint) -> dict[str, Any]:
    import torch

    from audiogen_minigpt.model import GPT

    config, facts = of.config, of.facts
    with torch.device("meta"):
        model = GPT(config)
    seconds = config.context / model.layout.steps_per_frame / float(facts["frame_rate"])
    return {
        "revision": of.revision,
        "step": of.step,
        "planned": of.state.get("plan", {}).get("steps"),
        "loss": of.state.get("val_loss"),
        "model": config.to_dict(),
        "parameters": model.parameter_count(),
        "training_flops_per_step": model.flops_per_token(),
        "context_seconds": seconds,
        "data": facts,
    }


def _audio(path: Path) -> dict[str, Any]:
    from audiogen_core.audio import probe
    from audiogen_core.recipe import find

    sound, recipe = probe(path), find(path)
    return {
        "kind": "audio",
        "seconds": sound.frames / sound.sample_rate,
        "sample_rate": sound.sample_rate,
        "channels": sound.channels,
        "recipe": dict(vars(recipe)) if recipe else None,
    }
