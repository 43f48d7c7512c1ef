"""From a MAGNeT's checkpoint to a folder that onnxruntime runs. Needs onnx and no framework."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from audiogen_core import t5
from audiogen_core.errors import ModelError, OptionError
from audiogen_core.files import atomic_folder, require_new_folder, require_room
from audiogen_core.formats.locate import locate
from audiogen_core.hub import asking
from audiogen_core.models import Fetch
from audiogen_core.musicgen.config import Config
from audiogen_core.musicgen.files import Files
from audiogen_core.musicgen.weights import ignored, pieces
from audiogen_core.values import closed
from audiogen_core.version import version
from audiogen_onnx.catalog import MAGNET
from audiogen_onnx.exporter.musicgen.export import (
    Notify,
    exported_by,
    folder_codec,
    folder_tokenizer,
    require_onnx,
)
from audiogen_onnx.magnet.config import MagnetConfig, from_audiocraft
from audiogen_onnx.magnet.manifest import MagnetManifest
from audiogen_onnx.manifest import DTYPES, Graph, over, sha256

if TYPE_CHECKING:
    from audiogen_onnx.exporter.musicgen.nodes import Nodes
    from audiogen_onnx.exporter.musicgen.source import Source


def export_magnet(
    files: Files, out_dir: str | Path, *, dtype: str = "float32", check: bool = True, force: bool = False
) -> MagnetManifest:
    """Write a folder of graphs from a MAGNeT in audiocraft's layout; the arguments are those of
    `export_musicgen`, and so are the errors.
    """
    if dtype not in DTYPES:
        raise OptionError(f"dtype must be one of {', '.join(DTYPES)}; got {dtype!r}")
    require_onnx()
    config = read_config(files)
    allowed = over(force)
    require_new_folder(out_dir, allowed)
    checkpoints = locate(files.checkpoint).files
    require_room(out_dir, sum(path.stat().st_size for path in checkpoints))
    with atomic_folder(out_dir, over=allowed) as folder:
        graphs = _graphs(files, config, folder, dtype, check)
        codec, parts = folder_codec(files, folder)
        if (codec.codebooks, codec.codebook_size) != (config.network.codebooks, config.network.codebook_size):
            raise ModelError(
                f"{files.folder}: its codec {codec.name} has {codec.codebooks} codebooks of "
                f"{codec.codebook_size}, the model makes {config.network.codebooks} of "
                f"{config.network.codebook_size}"
            )
        manifest = MagnetManifest(
            package_version=version("audiogen-onnx"),
            created_from={path.name: sha256(path) for path in checkpoints},
            dtype=dtype,
            graphs=graphs,
            model=config.to_dict(),
            codec=codec,
            parts=(*folder_tokenizer(files, folder), *parts),
        )
        manifest.save(folder)
    return manifest


@closed()
def exported(
    name_or_path: str | Path,
    *,
    offline: bool = False,
    notify: Notify | None = None,
    fetch: Fetch | None = None,
    unlisted: bool = False,
) -> Path:
    """The exported folder of a MAGNeT; see `exporter.musicgen.export.exported`."""
    fetch = fetch or asking(offline=offline, unlisted=unlisted, notify=notify)
    return exported_by(export_magnet, MAGNET, name_or_path, fetch, notify, unlisted=unlisted)


def read_config(files: Files) -> MagnetConfig:
    """The facts of a checkpoint. Raises ModelError, which names the folder."""
    if files.layout != "audiocraft":
        raise ModelError(f"{files.folder}: no MAGNeT; expected audiocraft's state_dict.bin")
    try:
        return from_audiocraft(files.settings, files.t5_config.width)
    except ModelError as error:
        raise ModelError(f"{files.folder}: {error}") from error


def _graphs(files: Files, config: MagnetConfig, folder: Path, dtype: str, check: bool) -> dict[str, Graph]:
    from audiogen_onnx.exporter.musicgen import compare, decoder, text
    from audiogen_onnx.exporter.musicgen.source import Source

    network, t5_config = config.network, files.t5_config
    model = Source(files.table, pieces(network, "audiocraft"))
    encoder = Source(files.text_table, t5.pieces(t5_config))
    paths = {name: folder / f"{name}.onnx" for name in ("network", "text", "cross")}
    _write(paths["network"], network, model, dtype)
    text.write(paths["text"], t5_config, network, encoder, model, dtype)
    decoder.write_cross(paths["cross"], network, model, dtype)
    model.table.finish(ignored(network))
    encoder.table.finish(t5.IGNORED)
    if check:
        compare.text(paths["text"], t5_config, network, encoder, model, dtype)
        _compare(paths["network"], paths["cross"], config, model, dtype)
    return {name: Graph.of(path) for name, path in paths.items()}


def _write(path: Path, config: Config, source: Source, dtype: str) -> None:
    """Write the graph of the network.

    inputs
        codes         int64 (R, K, T), the codebook size where they are masked
        head          int64 (1,), the codebook whose logits are wanted
        positions     float32 (1, T, width), what is added for where a vector stands
        hidden        float32 (1, 1, T, T), what is added to scores: 0 where a position sees another
        cross_keys.i, cross_values.i, cross_bias    as of a MusicGen's decoder
    outputs
        logits        float32 (R, T, N)
    """
    from audiogen_onnx.exporter.musicgen.decoder import EPS, block, cross_ends, embedded
    from audiogen_onnx.exporter.musicgen.nodes import FLOAT, INT64, Shape, graph

    books, size, width = config.codebooks, config.codebook_size, config.width
    inputs: dict[str, tuple[int, Shape]] = {
        "codes": (INT64, ("rows", books, "frames")),
        "head": (INT64, (1,)),
        "positions": (FLOAT, (1, "frames", width)),
        "hidden": (FLOAT, (1, 1, "frames", "frames")),
        **cross_ends(config),
        "cross_bias": (FLOAT, ("rows", 1, 1, "length")),
    }
    outputs: dict[str, tuple[int, Shape]] = {"logits": (FLOAT, ("rows", "frames", size))}
    with graph(path, inputs, outputs, dtype, level=4) as nodes:
        x = nodes.node("Add", [embedded(nodes, "codes", config, source), "positions"], "placed")
        for index in range(config.layers):
            x = block(nodes, x, config, index, source, _attention)
        weight, bias = (source.take(f"norm.{leaf}", width) for leaf in ("weight", "bias"))
        x = nodes.layer_norm(x, "norm", weight, bias, EPS)
        heads = source.take("heads.weight", books * size, width).reshape(books, size, width)
        table = np.ascontiguousarray(heads.transpose(0, 2, 1)).reshape(books, -1)
        row = nodes.rows("heads", table, "head")  # (1, width * N)
        head = nodes.node("Reshape", [row, nodes.constant([width, size])], "one_head")
        nodes.node("MatMul", [x, head], "logits")


def _attention(nodes: Nodes, y: str, config: Config, index: int, source: Source) -> str:
    """Attention of all to all but what is hidden."""
    name, width, heads = f"blocks.{index}", config.width, config.heads
    wide = nodes.product(y, f"{name}.qkv", source.take(f"{name}.qkv.weight", 3 * width, width))
    ends = [f"{name}.{part}" for part in ("query", "key", "value")]
    nodes.node("Split", [wide], ends[0], *ends[1:], axis=-1, num_outputs=3)
    scale = nodes.constant(np.float32((width // heads) ** -0.5))
    query = nodes.node("Mul", [nodes.heads(ends[0], f"{ends[0]}.heads", heads), scale], f"{name}.scaled")
    keys, values = (
        nodes.heads(ends[1], f"{ends[1]}.heads", heads, turned=True),
        nodes.heads(ends[2], f"{ends[2]}.heads", heads),
    )
    heard = nodes.attend(query, keys, values, f"{name}.heard", "hidden")
    return nodes.product(heard, f"{name}.out", source.take(f"{name}.out.weight", width, width))


def _compare(path: Path, cross: Path, config: MagnetConfig, source: Source, dtype: str) -> None:
    """Raise ModelError unless the graph of the network agrees, in all stages and at several lengths."""
    from audiogen_onnx.exporter.musicgen.compare import check
    from audiogen_onnx.exporter.musicgen.decoder import Row, by_numpy
    from audiogen_onnx.exporter.musicgen.numbers import BITS
    from audiogen_onnx.magnet.network import Network, seen
    from audiogen_onnx.session import Session

    network, rng = Network(config, Session(path), Session(cross)), np.random.default_rng(0)
    for frames in (1, 17, 40):
        codes = rng.integers(0, config.network.codebook_size + 1, (2, config.network.codebooks, frames))
        text = rng.normal(size=(4, config.network.width)).astype(np.float32)
        run = network.run(text[None], np.array([[True, True, True, False]]), 2)
        for stage in range(2):  # the others see what the second does
            rows = [Row(codes[0], text=text[:3]), Row(codes[1])]
            expected = np.stack(by_numpy(config.network, source, rows, dtype, seen(frames, stage, config)))
            for head in (stage, config.network.codebooks - 1):
                made = run(codes, stage, head)
                where = f"{path.name} at {frames} frames, stage {stage}"
                check(made, expected[:, head], where, rough=dtype in BITS)
