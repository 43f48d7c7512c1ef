"""Writing a Stable Audio Open with LoRAs in it, in its layout, as a folder with all that a run needs."""

from __future__ import annotations

import shutil
from pathlib import Path

from audiogen_core.errors import ModelError, OptionError
from audiogen_core.files import atomic_path
from audiogen_core.tokenizer import FILE as TOKENIZER
from audiogen_mlx.convert import OnStep, check_folder, plain_tensors, write_tensors
from audiogen_mlx.stable_audio import weights
from audiogen_mlx.stable_audio.load import CONFIG, INDEX, Files, TextFiles, weight_files


def convert(
    files: Files, text: TextFiles, folder: str | Path, *, force: bool = False, on_step: OnStep | None = None
) -> Path:
    """Write a model with its adapters into a folder of its own, in float32.

    text     its text encoder, which comes with it
    force    write over a model that is there
    on_step  called with (bytes written, bytes in all)

    The configuration is written last, so a folder that was begun and not ended is not taken for a model.
    Raises ModelError, WeightsError or OptionError.
    """
    folder = check_folder(folder, force)
    if folder.resolve() == files.folder.resolve():
        raise OptionError(f"{folder}: the model itself; name another folder")
    dit = files.read_config().dit
    index = folder / (INDEX if files.diffusers else CONFIG)
    index.unlink(missing_ok=True)
    if files.diffusers:
        network = weights.changed(
            dit, weights.stored_diffusers(files.folder), weights.DIFFUSERS, files.adapters
        )
        for name in ("projection_model", "scheduler", "text_encoder", "tokenizer", "vae"):
            shutil.copytree(files.folder / name, folder / name, dirs_exist_ok=True)
        (folder / "transformer").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(files.folder / "transformer" / "config.json", folder / "transformer" / "config.json")
        place = folder / "transformer" / "diffusion_pytorch_model.safetensors"
        tensors = plain_tensors(network, "", network, "float32")
    else:
        parts = weights.stored_parts(files.checkpoint)
        if "embedders" not in parts:
            raise ModelError(f"{files.checkpoint}: holds a transformer alone, and this writes whole models")
        parts["dit"] = weights.changed(dit, parts["dit"], weights.STABLE_AUDIO_TOOLS, files.adapters)
        place, tensors = folder / "model.safetensors", {}
        for part, table in parts.items():
            tensors |= plain_tensors(table, weights.PREFIXES[part], table, "float32")
        _copy_text(text, folder / "t5")
    write_tensors(place, tensors, on_step)
    with atomic_path(index) as temporary:
        shutil.copyfile(files.config, temporary)
    return folder


def _copy_text(text: TextFiles, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [text.encoder / "config.json", *weight_files(text.encoder), text.tokenizer / TOKENIZER]
    wanted += text.encoder.glob("*.index.json")
    for path in wanted:
        with atomic_path(folder / path.name) as temporary:
            shutil.copyfile(path, temporary)
