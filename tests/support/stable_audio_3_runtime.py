"""A Stable Audio 3 as the files of its authors' runtime for Apple's chips: npz archives and nothing else."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

Arrays = dict[str, np.ndarray]


def write(model: Path, text: Path, folder: Path, *, name: str = "dit_sm-music_f16", kind: str = "s") -> Path:
    """The four files of a model in the published layout, with its T5Gemma; returns the network's."""
    folder.mkdir(parents=True, exist_ok=True)
    stored = load_file(model / "model.safetensors")
    np.savez(folder / f"{name}.npz", **network(stored))
    for side in ("encoder", "decoder"):
        np.savez(folder / f"same_{kind}_{side}_f32.npz", **codec(stored, side))
    np.savez(folder / "t5gemma_f16.npz", **text_encoder(text))
    return folder / f"{name}.npz"


def network(stored: Arrays) -> Arrays:
    """The network and its conditioners."""
    made: Arrays = {}
    for name, array in stored.items():
        if name.startswith("model.model.") and not name.endswith("inv_freq"):
            name = name.removeprefix("model.model.").replace(".gamma", ".weight")
            name = re.sub(r"\.to_local_embed\.(\d)", r".to_local_embed.seq.\1", name)
            made[name] = array.transpose(0, 2, 1) if name.endswith("process_conv.weight") else array
    at = "conditioner.conditioners."
    made["cond.padding_embedding"] = stored[f"{at}prompt.padding_embedding"]
    for part in ("weight", "bias"):
        made[f"cond.seconds_total_{part}"] = stored[f"{at}seconds_total.embedder.embedding.1.{part}"]
    return made


def codec(stored: Arrays, side: str) -> Arrays:
    """One side of the autoencoder, its weight norm undone, in float32."""
    at, layers, linear = (
        f"pretransform.model.{side}.layers.",
        *(("0", "2") if side == "encoder" else ("3", "1")),
    )
    found = {
        name.removeprefix(at): np.float32(array) for name, array in stored.items() if name.startswith(at)
    }
    gain, whole = found.pop(f"{layers}.mapping.weight_g"), found.pop(f"{layers}.mapping.weight_v")
    found[f"{layers}.mapping.weight"] = gain * whole / np.sqrt((whole**2).sum(axis=(1, 2), keepdims=True))
    made: Arrays = {}
    for name, array in found.items():
        if name.endswith("inv_freq"):
            continue
        name = re.sub(rf"^{linear}\.", "project_out." if side == "encoder" else "project_in.", name)
        name = (
            name.removeprefix(f"{layers}.").replace("transformers.", "blocks.").replace("self_attn", "attn")
        )
        made[name.replace("ff.ff.0.proj", "ff.glu_proj").replace("ff.ff.2", "ff.proj_out")] = array
    parts = ("running_std", "scaling_factor", "bias") if side == "encoder" else ("running_std",)
    return made | {part: np.float32(stored[f"pretransform.model.bottleneck.{part}"]) for part in parts}


def text_encoder(folder: Path) -> Arrays:
    """T5Gemma with its settings and a SentencePiece model of its tokenizer."""
    at = "model.encoder."
    stored = load_file(folder / "model.safetensors")
    made = {name.removeprefix(at): array for name, array in stored.items() if name.startswith(at)}
    settings = json.loads((folder / "config.json").read_text())["encoder"]
    model = sentencepiece(json.loads((folder / "tokenizer.json").read_text()))
    return made | {
        "META": np.frombuffer(json.dumps(settings).encode(), np.uint8),
        "TOKENIZER_MODEL": np.frombuffer(model, np.uint8),
    }


def sentencepiece(tokenizer: dict[str, Any]) -> bytes:
    """The SentencePiece model that a tokenizer.json (BPE) comes from: a piece's score is its place."""
    model = tokenizer["model"]
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    ranks = {"".join(pair): float(-place) for place, pair in reversed(list(enumerate(pairs)))}
    own = {"<unk>": 2, "<pad>": 3, "<eos>": 3, "<bos>": 3}
    data = b""
    for piece, _ in sorted(model["vocab"].items(), key=lambda item: item[1]):
        kind = own.get(piece, 6 if re.fullmatch(r"<0x[0-9A-F]{2}>", piece) else 1)
        inside = field(1, piece.encode()) + b"\x15" + struct.pack("<f", ranks.get(piece, 0.0))
        data += field(1, inside + b"\x18" + bytes([kind]))
    trainer = b"\x18\x02" + b"\x98\x02\x01"  # BPE; bytes for what is unknown
    return data + field(2, trainer) + field(3, field(1, b"identity") + b"\x18\x00\x20\x00")


def field(number: int, data: bytes) -> bytes:
    """Bytes in protobuf's wire format."""
    size, length = len(data), b""
    while size > 127:
        length += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + data
