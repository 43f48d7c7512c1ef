"""Both networks as the folder that comes with audiogen-onnx: `python export.py RUN -o FOLDER`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from network import checkpoint, fresh
from settings import Settings

from audiogen_core import codecs
from audiogen_onnx.exporter.export import Trained, export_networks
from audiogen_onnx.manifest import Manifest, sha256

LOUDNESS = -14.0
"""LUFS of the pieces of the corpus, on average."""

DEFAULTS = Path(__file__).with_name("defaults.json")
"""The options of a vamp that suit the model."""


def trained(path: Path) -> Trained:
    """A network of a run, from its last checkpoint."""
    state: dict[str, Any] = torch.load(path, weights_only=True)
    settings = Settings.read_dict(state["settings"])
    part, codec = settings.part(state["name"]), codecs.load_codec("demo")
    network = fresh(part, codec.codebook_vectors(), settings.seed)
    network.load_state_dict(state["network"])
    return Trained(checkpoint(network), part.window / codec.info.frame_rate)


def export(run: Path, out: Path, dtype: str = "int8") -> Manifest:
    """Write the folder; it must be new or empty."""
    files = {name: run / f"{name}.pt" for name in ("coarse", "fine")}
    return export_networks(
        trained(files["coarse"]),
        trained(files["fine"]),
        codecs.load_codec("demo"),
        out,
        created_from={path.name: sha256(path) for path in files.values()},
        dtype=dtype,
        loudness=LOUDNESS,
        defaults=json.loads(DEFAULTS.read_text(encoding="utf-8")),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder that train.py wrote both networks to")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--dtype", default="int8", help="of the weights: float32, float16, int8 or int4")
    arguments = parser.parse_args()
    manifest = export(arguments.run, arguments.out, arguments.dtype)
    print(f"{arguments.out}: {sum(stored.size for stored in manifest.files.values()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
