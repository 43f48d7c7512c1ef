"""From a MusicGen's checkpoint to a folder that onnxruntime runs.

This module can be imported without onnx: what it does with it says so when it is missing.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from audiogen_core import codecs, t5
from audiogen_core.codec import CodecInfo
from audiogen_core.errors import DownloadError, MissingDependency, ModelError, OptionError
from audiogen_core.files import atomic_folder, require_new_folder, require_room
from audiogen_core.formats.locate import TORCH_SUFFIXES, locate
from audiogen_core.formats.safetensors_file import write_safetensors
from audiogen_core.formats.stored import StoredArray
from audiogen_core.hub import asking
from audiogen_core.models import Fetch, ModelSpec, Shipped, find
from audiogen_core.musicgen.files import Files, Places, check_codec, codec_tensors
from audiogen_core.musicgen.melody import null_chroma, repeated
from audiogen_core.musicgen.stereo import stereo_info
from audiogen_core.musicgen.weights import ignored, pieces
from audiogen_core.prompts import FILE as PROMPTS
from audiogen_core.tokenizer import Tokenizer
from audiogen_core.values import closed
from audiogen_core.version import version
from audiogen_onnx.catalog import MUSICGEN, cache
from audiogen_onnx.manifest import DTYPES, NAME, Graph, StoredFile, over, sha256
from audiogen_onnx.musicgen.decoder import Decoder
from audiogen_onnx.musicgen.manifest import CODEC, TOKENIZER, MusicGenManifest
from audiogen_onnx.session import Session

Notify = Callable[[str], None]
Catalog = Mapping[str, ModelSpec | Shipped]

KEPT_DTYPE = "int8"
"""Of the models that are exported because their name was given."""


@closed()
def export_musicgen(
    model: str | Path | Files,
    out_dir: str | Path,
    *,
    dtype: str = "float32",
    check: bool = True,
    force: bool = False,
) -> MusicGenManifest:
    """Write a folder of graphs from a MusicGen: a catalogue name, or a folder of transformers, audiocraft or
    audiogen-mlx's `convert`.

    out_dir  a new or empty folder; it appears whole or not at all
    dtype    of the weights: float32, float16, int8 or int4; see `numbers`
    check    compare every graph with numpy over several lengths, before the folder appears
    force    what was exported there before gives way

    Tensors pass one at a time. Raises MissingDependency without onnx, OptionError for an unknown dtype or a
    folder that is not empty, ModelError and WeightsError when the checkpoint is not what it should be or a
    graph disagrees with numpy.
    """
    if dtype not in DTYPES:
        raise OptionError(f"dtype must be one of {', '.join(DTYPES)}; got {dtype!r}")
    require_onnx()
    files = model if isinstance(model, Files) else Files.find(MUSICGEN, model, Places())
    if files.stored_bits is not None:
        raise ModelError(
            f"{files.folder}: is stored in {files.stored_bits} bits; export the model it was converted from"
        )
    allowed = over(force)
    require_new_folder(out_dir, allowed)
    checkpoints = locate(files.checkpoint).files
    require_room(out_dir, sum(path.stat().st_size for path in checkpoints))
    with atomic_folder(out_dir, over=allowed) as folder:
        graphs = _graphs(files, folder, dtype, check)
        codec, parts = folder_codec(files, folder)
        check_codec(files, stereo_info(codec) if files.config.channels == 2 else codec)
        manifest = MusicGenManifest(
            package_version=version("audiogen-onnx"),
            created_from={path.name: sha256(path) for path in checkpoints},
            dtype=dtype,
            graphs=graphs,
            defaults=files.own_defaults,
            model=files.config.to_dict(),
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
    """The exported folder of a model: a path, or a name of the catalogue.

    A model of the catalogue is fetched and exported the first time, in 8 bits, into the user's cache.

    Raises UnknownModel, DownloadError, ModelError for a checkpoint that is not exported yet, and
    MissingDependency when an export is needed and the [export] extra is not installed.
    """
    fetch = fetch or asking(offline=offline, unlisted=unlisted, notify=notify)
    return exported_by(export_musicgen, MUSICGEN, name_or_path, fetch, notify, unlisted=unlisted)


def exported_by(
    export: Callable[..., Any],
    catalog: Catalog,
    name_or_path: str | Path,
    fetch: Fetch,
    notify: Notify | None,
    *,
    unlisted: bool,
) -> Path:
    """As `exported`, of the models of some catalogue, by what exports them."""
    spec = find(catalog, name_or_path, unlisted=unlisted)
    if isinstance(spec, Path):
        if is_checkpoint(spec):
            raise ModelError(
                f"{spec}: holds a checkpoint, which has to be exported first: "
                f"audiogen-onnx export {spec} -o FOLDER"
            )
        return spec
    if (kept := kept_folder(spec)) is not None:
        return kept
    require_onnx()
    try:
        places = Places(fetch=fetch)
        files = Files(places.fetch(spec), places)
    except DownloadError as error:
        raise DownloadError(f"{error}; or export a folder elsewhere and name it with --model") from error
    target = _target(spec)
    target.parent.mkdir(parents=True, exist_ok=True)
    if notify is not None:
        notify(f"exporting {spec.name} to {target} in {KEPT_DTYPE}, once; this takes some minutes")
    export(files, target, dtype=KEPT_DTYPE)
    return target


def is_checkpoint(path: Path) -> bool:
    """Whether a file or folder looks like one of a MusicGen that is not exported."""
    if (path / NAME).exists():
        return False
    if path.is_file():
        return path.suffix in (".safetensors", *TORCH_SUFFIXES)
    return (path / "config.json").is_file() or any(
        each.suffix in TORCH_SUFFIXES and each.stem.startswith(("state_dict", "pytorch_model"))
        for each in path.glob("*")
    )


def kept_folder(spec: ModelSpec) -> Path | None:
    """Where a model of the hub was exported to before."""
    target = _target(spec)
    return target if (target / NAME).is_file() else None


def require_onnx() -> None:
    """Raise MissingDependency unless what writes graphs is installed."""
    if find_spec("onnx") is None:
        raise MissingDependency("onnx", 'pip install "audiogen-onnx[export]"')


def _target(spec: ModelSpec) -> Path:
    return cache() / f"{spec.name.replace('/', '--')}-{spec.revision[:12]}-{KEPT_DTYPE}"


def _graphs(files: Files, folder: Path, dtype: str, check: bool) -> dict[str, Graph]:
    from audiogen_onnx.exporter.musicgen import compare, decoder, style, text
    from audiogen_onnx.exporter.musicgen.numbers import BITS
    from audiogen_onnx.exporter.musicgen.source import Source

    config, t5_config = files.config, files.t5_config
    model = Source(files.table, pieces(config, files.layout))
    encoder = Source(files.text_table, t5.pieces(t5_config))
    paths = {"decoder": folder / "decoder.onnx", "text": folder / "text.onnx"}
    decoder.write(paths["decoder"], config, model, dtype)
    text.write(paths["text"], t5_config, config, encoder, model, dtype)
    if not config.text_in_prefix:
        paths["cross"] = folder / "cross.onnx"
        decoder.write_cross(paths["cross"], config, model, dtype)
    if config.clip == "melody":
        paths["melody"] = folder / "melody.onnx"
        decoder.write_melody(paths["melody"], config, model)
    model.table.finish(ignored(config))
    encoder.table.finish(t5.IGNORED)
    if config.clip == "style":
        paths["style"] = folder / "style.onnx"
        style.write(paths["style"], config, files)
    if dtype in BITS:
        _shrink_cache(files, paths)
    if check:
        compare.text(paths["text"], t5_config, config, encoder, model, dtype)
        compare.decoder(paths["decoder"], paths.get("cross"), config, model, dtype)
        if config.clip == "melody":
            compare.melody(paths["melody"], config, model)
        if config.clip == "style":
            compare.style(paths["style"], config, files)
    return {name: Graph.of(path) for name, path in paths.items()}


def _shrink_cache(files: Files, paths: Mapping[str, Path]) -> None:
    """Let the decoder keep keys and values in 8 bits."""
    from audiogen_onnx.exporter.musicgen import cache

    config, tokenizer = files.config, Tokenizer.load(files.tokenizer_file)
    text = Session(paths["text"])
    texts = []
    for prompt in cache.PROMPTS:
        ids, mask = tokenizer.encode([prompt])
        texts.append(text.run({"ids": ids.astype(np.int64), "mask": mask})["vectors"][0])
    clip = None
    if config.chroma is not None:
        features = repeated(null_chroma(1, config.chroma.bins), config.melody_frames)
        clip = Session(paths["melody"]).run({"features": features})["vectors"]
    elif config.style is not None:
        clip = np.zeros((1, config.width), np.float32)
    cross = Session(paths["cross"]) if "cross" in paths else None
    network = Decoder(config, Session(paths["decoder"]), cross)
    found = cache.widest(network, texts, clip)
    del network
    cache.shrink(paths["decoder"], found)


def folder_codec(files: Files, folder: Path) -> tuple[CodecInfo, list[StoredFile]]:
    """The codec, written into the folder unless audiogen-core has it by that name."""
    written: list[StoredFile] = []
    named = files.named_codec if files.places.codec is None else None
    if named is None:
        described, table = codec_tensors(files)
        config, weights = (folder / name for name in CODEC)
        write_safetensors(weights, {name: _plain(table, name) for name in table})
        config.write_text(
            json.dumps({"model_type": "encodec", **described}, indent=2) + "\n", encoding="utf-8"
        )
        written = [StoredFile.of(config), StoredFile.of(weights)]
    return codecs.load_codec(folder if named is None else named, fetch=files.places.fetch).info, written


def _plain(table: Any, name: str) -> StoredArray:
    shape = table.shape(name)
    return StoredArray(shape, "float32", lambda: table.take(name, shape))


def folder_tokenizer(files: Files, folder: Path) -> list[StoredFile]:
    """The tokenizer, and the words a small model has of its own."""
    source = files.tokenizer_file
    source = source / TOKENIZER if source.is_dir() else source
    Tokenizer.load(source)  # raises for what is none
    written = []
    for path, name in ((source, TOKENIZER), (source.with_name(PROMPTS), PROMPTS)):
        if path.is_file():
            shutil.copyfile(path, folder / name)
            written.append(StoredFile.of(folder / name))
    return written


def to_fetch(
    catalog: Catalog, name_or_path: str | Path, *, offline: bool = False, unlisted: bool = False
) -> dict[str, Any] | None:
    """What is to be fetched and made before a model of a catalogue can be opened, or None when all is there.

    Raises UnknownModel, DownloadError when something is not here and may not be asked for.
    """
    from audiogen_core import hub

    spec = find(catalog, name_or_path, unlisted=unlisted)
    if isinstance(spec, Path) or kept_folder(spec) is not None:
        return None
    plan = hub.plan(spec, hub.Policy(offline=offline, listed=not unlisted, notify=warnings.warn))
    return {
        "model": name_or_path,
        "license": spec.license,
        "page": spec.page,
        "download_bytes": plan.bytes,
        "download_to": str(plan.folder),
        "export_to": str(_target(spec)),
    }
