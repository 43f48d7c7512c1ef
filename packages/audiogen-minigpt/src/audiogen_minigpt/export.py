"""Export of a trained model: as transformers' GPT-2 where it is one, else as plain safetensors.

    preset   layout           what is written
    gpt2     first, flatten   a folder for GPT2LMHeadModel
    gpt2     delay, parallel  a folder for GPT2Model, to be fed `inputs_embeds`, and audio_heads.safetensors
    modern   any              this package's own weights and config; transformers has no such model

Each folder holds a README.md that says how to use it, and audiogen.json with the layout and the codec.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audiogen_core.errors import ModelError, OptionError
from audiogen_core.files import atomic_folder, require_new_folder, require_room
from audiogen_core.formats.safetensors_file import write_safetensors
from audiogen_core.formats.stored import StoredArray
from audiogen_core.values import closed
from audiogen_minigpt.config import ModelConfig, check_choice

if TYPE_CHECKING:
    from torch import Tensor

    from audiogen_minigpt.model import GPT

FORMATS = ("auto", "hf", "safetensors", "light")

_OVER = ("audiogen.json", "manifest.json")  # what exported folders have: a light one the second


@closed()
def export(
    run: str | Path, out: str | Path, format: str = "auto", *, which: str = "last", force: bool = False
) -> Path:
    """Write the model of a run, or of one checkpoint, for use elsewhere. Returns the folder.

    run     the folder of a run or a checkpoint
    out     a folder that does not exist yet, or is empty; it appears whole or not at all
    format  "hf", a folder for transformers; "safetensors", this package's own names; "auto", the first where
            it is possible; "light", a checkpoint in float16 that generates but cannot be trained on
    which   of a run's checkpoints: "last", "best" or "better"; see `checkpoint.find`
    force   what was exported there before gives way

    Raises OptionError when transformers has no such model or `out` is taken, ModelError when there is no
    valid checkpoint or `out` cannot be written.
    """
    from audiogen_minigpt import checkpoint

    require_new_folder(out, _OVER if force else ())
    weights = checkpoint.find(run, which).path / "model.safetensors"
    require_room(out, weights.stat().st_size / (2 if format == "light" else 1))
    if format == "light":
        return checkpoint.write_light(checkpoint.find(run, which), out, over=_OVER if force else ())
    model, config, facts = checkpoint.load_model(run, which=which)
    return export_model(model, config, facts, out, format, force=force)


def export_model(
    model: GPT,
    config: ModelConfig,
    facts: Mapping[str, Any],
    out: str | Path,
    format: str = "auto",
    *,
    force: bool = False,
) -> Path:
    """As `export`, for a model in memory. The facts are those a checkpoint keeps of the codec."""
    check_choice("export format", format, FORMATS)
    over = _OVER if force else ()
    require_new_folder(out, over)
    if format == "hf" and config.preset != "gpt2":
        raise OptionError(
            "transformers has no model like the preset 'modern', and its GPT-2 would load the weights "
            "wrongly; use format 'safetensors', or train with the preset 'gpt2'"
        )
    if config.preset == "gpt2" and format != "safetensors":
        files = _lm_head_model(model, config) if model.tied else _trunk(model, config)
    else:
        files = _plain(model, config)
    about = {"format_version": 1, "model": config.to_dict(), "facts": dict(facts)}
    try:
        with atomic_folder(out, over=over) as folder:
            for name, content in {**files, "audiogen.json": about}.items():
                _write_file(folder / name, content)
    except OSError as error:
        raise ModelError(f"{out}: cannot be written ({error.strerror or error})") from error
    return Path(out)


def _lm_head_model(model: GPT, config: ModelConfig) -> dict[str, Any]:
    """GPT2LMHeadModel: one stream, the head tied to the embeddings."""
    special = model.layout.special
    tensors = {f"transformer.{name}": value for name, value in _gpt2_tensors(model).items()}
    text = _LM_README.format(special=special)
    if model.layout.name == "flatten":
        text += _FLATTEN_README.format(size=config.codebook_size, codebooks=config.codebooks)
    return {
        "config.json": _gpt2_config(config, special + 1, "GPT2LMHeadModel"),
        "generation_config.json": {"suppress_tokens": [special]},
        "model.safetensors": tensors,
        "README.md": text,
    }


def _trunk(model: GPT, config: ModelConfig) -> dict[str, Any]:
    """GPT2Model: its table holds the embeddings of all streams, which the caller sums."""
    ids = model.layout.vocab + 1
    heads = model.head_weight.detach().view(config.codebooks, config.codebook_size, config.width)
    return {
        "config.json": _gpt2_config(config, model.layout.streams * ids, "GPT2Model"),
        "model.safetensors": _gpt2_tensors(model),
        "audio_heads.safetensors": {"heads": heads},
        "README.md": _TRUNK_README.format(
            ids=ids, special=model.layout.special, codebooks=config.codebooks, size=config.codebook_size
        ),
    }


def _plain(model: GPT, config: ModelConfig) -> dict[str, Any]:
    return {
        "config.json": {"model_type": "audiogen-minigpt", **config.to_dict()},
        "model.safetensors": {name: value.detach() for name, value in model.named_parameters()},
        "README.md": _PLAIN_README.format(preset=config.preset, layout=config.layout),
    }


def _gpt2_tensors(model: GPT) -> dict[str, Tensor]:
    """The weights by GPT2Model's names. Its matrices are (in, out), ours (out, in)."""
    turned = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
    tensors = {}
    for name, value in model.named_parameters():
        if name != "heads":
            tensors[name] = value.detach().T if name.endswith(turned) else value.detach()
    return tensors


def _gpt2_config(config: ModelConfig, vocab: int, architecture: str) -> dict[str, Any]:
    return {
        "architectures": [architecture],
        "model_type": "gpt2",
        "vocab_size": vocab,
        "n_positions": config.context,
        "n_embd": config.width,
        "n_layer": config.layers,
        "n_head": config.heads,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "attn_pdrop": 0.0,
        "embd_pdrop": config.dropout,
        "resid_pdrop": config.dropout,
        "scale_attn_weights": True,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": None,
        "dtype": "float32",
    }


def _write_file(path: Path, content: Any) -> None:
    """Tensors by name as safetensors, a text as it is, anything else as JSON; by the file's suffix."""
    if path.suffix == ".safetensors":
        arrays = {name: StoredArray.of(value.float().cpu().numpy()) for name, value in content.items()}
        write_safetensors(path, arrays, {"format": "pt"})
    else:
        text = content if path.suffix == ".md" else json.dumps(content, indent=2) + "\n"
        path.write_text(text, encoding="utf-8")


_LM_README = """\
A GPT-2 over the codes of a neural audio codec, for transformers:

    from transformers import GPT2LMHeadModel
    model = GPT2LMHeadModel.from_pretrained("this folder")

The ids below {special} are codes. Id {special} opens a clip: give it as the first input. It is never to be
generated; generation_config.json suppresses it. audiogen.json names the codec.
"""

_FLATTEN_README = """
The {codebooks} codebooks of a frame follow one another; codebook k has the ids k x {size} to k x {size} +
{size} - 1. A BOS frame is the opening id {codebooks} times. The model was trained with the codebook due next
known, so at each step take the softmax over the ids of codebook (steps so far mod {codebooks}) only. A plain
`generate` does not do this and gives noise.
"""

_TRUNK_README = """\
The trunk of a GPT-2 over the codes of a neural audio codec, for transformers. It has several embeddings and
heads, which GPT2LMHeadModel cannot hold, so the model is in two parts:

    import torch
    from safetensors.torch import load_file
    from transformers import GPT2Model

    trunk = GPT2Model.from_pretrained("this folder").eval()
    heads = load_file("this folder/audio_heads.safetensors")["heads"]  # ({codebooks}, {size}, width)
    offsets = torch.arange({codebooks}) * {ids}
    embeddings = trunk.wte(tokens + offsets).sum(dim=2)  # tokens: (batch, steps, {codebooks})
    hidden = trunk(inputs_embeds=embeddings).last_hidden_state
    logits = torch.einsum("bsw,knw->bskn", hidden, heads)  # of the next step

Id {special} is the gap and the opening of a clip. audiogen.json names the layout and the codec.
"""

_PLAIN_README = """\
The weights of an audiogen-minigpt model (preset {preset}, layout {layout}), by this package's names.
transformers has no such model. config.json holds the arguments of audiogen_minigpt.config.ModelConfig:

    from safetensors.torch import load_file
    from audiogen_minigpt.config import ModelConfig
    from audiogen_minigpt.model import GPT

    config = ...  # ModelConfig.from_dict of config.json without "model_type"
    model = GPT(config)
    model.load_state_dict(load_file("model.safetensors"))
"""
