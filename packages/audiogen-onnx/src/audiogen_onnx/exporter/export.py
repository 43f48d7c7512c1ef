"""From upstream's checkpoints to a folder that onnxruntime runs, and to smaller copies of it.

This module can be imported without torch and onnx: what it does with them says so when they are missing.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audiogen_core.errors import DownloadError, MissingDependency, ModelError, OptionError
from audiogen_core.files import atomic_folder, require_new_folder, require_room
from audiogen_core.hub import asking
from audiogen_core.lora import local
from audiogen_core.models import Fetch, ModelSpec, find
from audiogen_core.values import closed
from audiogen_core.version import version
from audiogen_onnx.catalog import CATALOG, cache, located
from audiogen_onnx.codec import geometry_of
from audiogen_onnx.exporter.config import COARSE_SECONDS, FINE_SECONDS, NetworkConfig, from_metadata
from audiogen_onnx.exporter.sources import (
    COARSE,
    CODEC,
    FINE,
    Sources,
    check_role,
    lora_hashes,
    loras_in,
)
from audiogen_onnx.manifest import (
    DTYPES,
    LOUDNESS,
    NAME,
    NETWORKS,
    TRACKER,
    Graph,
    Manifest,
    NetworkGeometry,
    StoredFile,
    over,
)
from audiogen_onnx.vampnet.options import VampOptions

if TYPE_CHECKING:
    from audiogen_core.codec import Codec
    from audiogen_onnx.exporter.model import Checkpoint

Notify = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Trained:
    """A network of your own, and the seconds of sound that it saw at a time when it was trained."""

    checkpoint: Checkpoint
    seconds: float


@closed()
def export(
    checkpoint_dir: str | Path,
    out_dir: str | Path,
    *,
    dtype: str = "float32",
    check: bool = True,
    lora: str | Path | None = None,
    coarse_lora: str | Path | None = None,
    fine_lora: str | Path | None = None,
    beats: bool = True,
    force: bool = False,
    fetch: Fetch | None = None,
) -> Manifest:
    """Write a folder of graphs from codec.pth, coarse.pth and c2f.pth; and wavebeat.pth, where there is one.

    checkpoint_dir  their folder; or an exported one, to put a lora into it
    out_dir  a new or empty folder; it appears whole or not at all
    dtype    of the weights: float32, or float16, int8 or int4 as `quantize` makes them
    check    compare every graph with torch at several lengths and batches
    coarse_lora, fine_lora  a lora.pth, or PATH:STRENGTH, in place of the network's own low-rank updates
    lora     or a folder of `tune` with those of both, or FOLDER:STRENGTH
    beats    the beat tracker too, where there is a wavebeat.pth
    force    what was exported there before gives way
    fetch    how a lora comes that is named by a hub id; by default one of the catalogue alone

    Peak memory is about three times the largest network. Raises MissingDependency without the extra [export],
    OptionError for an unknown dtype or a folder that is not empty, ModelError and WeightsError when a
    checkpoint is not what it should be or a graph disagrees with torch.
    """
    _check_possible(dtype)
    if lora is not None and (coarse_lora is not None or fine_lora is not None):
        raise OptionError("give lora, or coarse_lora and fine_lora", "lora", "coarse_lora", "fine_lora")
    fetch = fetch or asking()
    if lora is not None:
        coarse_lora, fine_lora = loras_in(*local([str(lora)], fetch))
    elif coarse_lora is not None or fine_lora is not None:
        coarse_lora, fine_lora = (
            None if each is None else local([str(each)], fetch)[0] for each in (coarse_lora, fine_lora)
        )
    allowed = over(force)
    require_new_folder(out_dir, allowed)
    source = Path(checkpoint_dir)
    if (source / NAME).is_file():
        return _staged(
            out_dir, dtype, lambda folder: _again(source, folder, coarse_lora, fine_lora, check), allowed
        )
    sources = Sources.of(source, coarse_lora, fine_lora, beats=beats)
    # Beside a smaller copy lies the whole one while it is made.
    require_room(out_dir, sources.size * (1 if dtype == "float32" else 1.5))
    return _staged(out_dir, dtype, lambda folder: _write(sources, folder, check), allowed)


def export_networks(
    coarse: Trained,
    fine: Trained,
    codec: Codec,
    out_dir: str | Path,
    *,
    created_from: Mapping[str, str],
    dtype: str = "float32",
    check: bool = True,
    loudness: float = LOUDNESS,
    defaults: Mapping[str, Any] | None = None,
) -> Manifest:
    """Write a folder of networks of your own over a codec of audiogen-core. The codec is not copied: whoever
    loads the folder has it.

    codec         what both networks were trained on
    created_from  name -> SHA-256 of what they were made from
    loudness      LUFS of the sound they were trained on
    defaults      options of a vamp that suit them, where they are not those of all

    The other arguments and the errors are those of `export`; ModelError also when the parts do not go
    together.
    """
    _check_possible(dtype)
    from audiogen_onnx.exporter.weights import check_codec

    VampOptions.of(defaults or {})  # raises for what is none
    vectors = codec.codebook_vectors()
    for name, part, given in (("coarse", coarse, 0), ("fine", fine, coarse.checkpoint.config.codebooks)):
        check_role(part.checkpoint.config, given, name)
        check_codec(part.checkpoint.config, vectors, name)

    def write(folder: Path) -> Manifest:
        graphs = _network_graphs(coarse.checkpoint, "coarse", folder, check)
        manifest = Manifest(
            package_version=version("audiogen-onnx"),
            created_from=created_from,
            dtype="float32",
            codec=geometry_of(codec.info, loudness=loudness),
            coarse=_geometry(coarse.checkpoint.config, coarse.seconds),
            fine=_geometry(fine.checkpoint.config, fine.seconds),
            graphs=graphs | _network_graphs(fine.checkpoint, "fine", folder, check),
            defaults=defaults or {},
        )
        manifest.save(folder)
        return manifest

    return _staged(out_dir, dtype, write)


@closed()
def quantize(source: str | Path, target: str | Path, dtype: str, *, force: bool = False) -> Manifest:
    """Write a smaller copy of a float32 folder; it appears whole or not at all.

    force  what was exported there before gives way

    Raises ManifestError when the source is no exported folder or damaged, OptionError when it is not float32,
    when `dtype` is not float16, int8 or int4, or when the target is not a new or empty folder.
    """
    require_export()
    from audiogen_onnx.exporter.quantize import convert

    source = located(source)
    allowed = over(force)
    require_new_folder(target, allowed)
    require_room(target, sum(path.stat().st_size for path in source.glob("*") if path.is_file()) / 2)
    with atomic_folder(target, over=allowed) as folder:
        return convert(source, folder, dtype)


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

    A model of the catalogue is fetched and exported the first time, into the user's cache.

    notify    told what is being done
    fetch     how checkpoints are fetched; None: from the hub, unless `offline`, with a DownloadNotice before
    unlisted  hub ids outside the catalogue are allowed

    Raises UnknownModel, DownloadError, ModelError for a folder of checkpoints that is not exported yet, and
    MissingDependency when an export is needed and the [export] extra is not installed.
    """
    spec = find(CATALOG, name_or_path, unlisted=unlisted)
    if isinstance(spec, Path):
        if any((spec / name).exists() for name in (CODEC, COARSE, FINE)) and not (spec / NAME).exists():
            raise ModelError(
                f"{spec}: holds checkpoints, which have to be exported first: "
                f"audiogen-onnx export {spec} -o FOLDER"
            )
        return spec
    if (kept := _kept(spec)) is not None:
        return kept
    if notify is not None:
        notify(f"{spec.name} is not here yet: it is fetched and exported, once")
    require_export()
    try:
        fetch = fetch or asking(offline=offline, unlisted=unlisted, notify=notify)
        folder = checkpoints(spec, fetch)
    except DownloadError as error:
        raise DownloadError(f"{error}; or export a folder elsewhere and name it with --model") from error
    target = cache() / f"{_stem(spec)}-{folder.name[:12]}"
    target.parent.mkdir(parents=True, exist_ok=True)
    if notify is not None:
        notify(f"exporting {spec.name} to {target}, once; this takes minutes and about 8 GB of memory")
    export(folder, target)
    return target


def to_fetch(
    name_or_path: str | Path, *, offline: bool = False, unlisted: bool = False
) -> dict[str, Any] | None:
    """What is to be fetched and made before the model can be opened, or None when all is there.

    Raises UnknownModel, ManifestError, DownloadError when something is not here and may not be asked for.
    """
    from audiogen_core import hub
    from audiogen_core.codecs.catalog import CATALOG as CODECS

    policy = hub.Policy(offline=offline, listed=not unlisted, notify=warnings.warn)
    spec = find(CATALOG, name_or_path, unlisted=unlisted)
    folder, to_export = spec if isinstance(spec, Path) else _kept(spec), {"export_to": str(cache())}
    if folder is not None and not (folder / NAME).is_file():
        return None  # no exported folder, which is told when it is opened
    if folder is not None:
        manifest, to_export = Manifest.load(folder), {}
        if manifest.has_codec or manifest.codec.name not in CODECS:
            return None
        spec = CODECS[manifest.codec.name]
    assert isinstance(spec, ModelSpec)
    plan = hub.plan(spec, policy)
    if folder is not None and not plan.wanted:
        return None
    return {
        "model": name_or_path,
        "license": spec.license,
        "page": spec.page,
        "download_bytes": plan.bytes,
        "download_to": str(plan.folder),
        **to_export,
    }


def checkpoints(model: str | Path | ModelSpec, fetch: Fetch, *, unlisted: bool = False) -> Path:
    """The folder with a model's checkpoints: a path, or fetched by a name of the catalogue or a hub id."""
    spec = model if isinstance(model, ModelSpec) else find(CATALOG, model, unlisted=unlisted)
    return spec if isinstance(spec, Path) else fetch(spec)


def require_export() -> None:
    """Raise MissingDependency unless what writes graphs is installed."""
    _require("export", "torch", "onnx", "onnxscript")


def require_train() -> None:
    """Raise MissingDependency unless what learns is installed."""
    _require("train", "torch", "onnx")


def _require(extra: str, *names: str) -> None:
    for name in names:
        if find_spec(name) is None:
            raise MissingDependency(name, f'pip install "audiogen-onnx[{extra}]"')


def _kept(spec: ModelSpec) -> Path | None:
    """The newest folder in the cache that was exported from a model of the hub."""
    kept = cache().glob(f"{_stem(spec)}-*/{NAME}")
    return max((path.parent for path in kept), key=lambda path: (path / NAME).stat().st_mtime, default=None)


def _stem(spec: ModelSpec) -> str:
    return spec.name.replace("/", "--")  # a hub id outside the catalogue


def _check_possible(dtype: str) -> None:
    if dtype not in DTYPES:
        raise OptionError(f"dtype must be one of {', '.join(DTYPES)}; got {dtype!r}")
    require_export()


def _staged(
    out_dir: str | Path, dtype: str, write: Callable[[Path], Manifest], allowed: Sequence[str] = ()
) -> Manifest:
    """What `write` writes, in float32, made smaller where that is asked for; whole or not at all."""
    from audiogen_onnx.exporter.quantize import convert

    with atomic_folder(out_dir, over=allowed) as folder:
        if dtype == "float32":
            return write(folder)
        plain = folder / "float32"
        plain.mkdir()
        write(plain)
        manifest = convert(plain, folder, dtype)
        shutil.rmtree(plain)
        return manifest


def _write(sources: Sources, folder: Path, check: bool) -> Manifest:
    from audiogen_onnx.exporter.weights import load_apart, load_codec, merged, save_updates

    coarse_config, fine_config = _configs(sources)
    codec = load_codec(sources.codec)
    info, vectors = codec.info, codec.codebook_vectors()
    graphs = {} if sources.beats is None else {"beats": _beats_graph(sources.beats, folder, check)}
    graphs |= _codec_graphs(codec, folder, check)
    del codec
    kept: dict[str, StoredFile] = {}
    loras = {"coarse": (sources.coarse, sources.coarse_lora), "fine": (sources.fine, sources.fine_lora)}
    for name, (path, lora) in loras.items():
        checkpoint, updates = load_apart(path, vectors)
        if updates:
            kept[name] = StoredFile.of(save_updates(updates, folder / f"{name}.lora.safetensors"))
        graphs |= _network_graphs(merged(checkpoint, updates, lora), name, folder, check)
        del checkpoint, updates
    manifest = Manifest(
        package_version=version("audiogen-onnx"),
        created_from=sources.hashes(),
        dtype="float32",
        codec=geometry_of(info),
        coarse=_geometry(coarse_config, COARSE_SECONDS),
        fine=_geometry(fine_config, FINE_SECONDS),
        graphs=graphs,
        updates=kept,
    )
    manifest.save(folder)
    return manifest


def _again(
    source: Path, folder: Path, coarse_lora: str | Path | None, fine_lora: str | Path | None, check: bool
) -> Manifest:
    """Write an exported folder once more, with updates in its networks."""
    from audiogen_onnx.exporter.base import Base
    from audiogen_onnx.exporter.weights import merged

    if coarse_lora is None and fine_lora is None:
        raise OptionError(f"{source}: is exported already; name a lora to put into it")
    before, base = Manifest.load(source), Base.open(source)
    graphs = {name: graph for name, graph in before.graphs.items() if name not in NETWORKS}
    own = (before.updates or {}).values()
    for stored in (*own, *(stored for graph in graphs.values() for stored in graph.files)):
        shutil.copyfile(source / stored.file, folder / stored.file)
    for name, part, lora in (("coarse", base.coarse, coarse_lora), ("fine", base.fine, fine_lora)):
        graphs |= _network_graphs(merged(part.checkpoint, part.updates, lora), name, folder, check)
    manifest = replace(
        before,
        package_version=version("audiogen-onnx"),
        created_from={**before.created_from, **lora_hashes(coarse_lora, fine_lora)},
        dtype="float32",
        graphs=graphs,
    )
    manifest.save(folder)
    return manifest


def _configs(sources: Sources) -> tuple[NetworkConfig, NetworkConfig]:
    """What both networks say they are, read before any work is done.

    Raises ModelError when one stands in another's place, or they do not belong together.
    """
    from audiogen_onnx.exporter.weights import metadata

    coarse, fine = (from_metadata(metadata(path), str(path)) for path in (sources.coarse, sources.fine))
    check_role(coarse, 0, str(sources.coarse))
    check_role(fine, coarse.codebooks, str(sources.fine))
    return coarse, fine


def _codec_graphs(codec: Codec, folder: Path, check: bool) -> dict[str, Graph]:
    from audiogen_onnx.exporter.codec import export_codec
    from audiogen_onnx.exporter.compare import compare_codec

    encoder, decoder = export_codec(codec, folder)
    if check:
        compare_codec(codec, encoder, decoder)
    return {"encoder": Graph.of(encoder), "decoder": Graph.of(decoder)}


def _network_graphs(checkpoint: Checkpoint, name: str, folder: Path, check: bool) -> dict[str, Graph]:
    from audiogen_onnx.exporter import model, network, step
    from audiogen_onnx.exporter.compare import compare_network
    from audiogen_onnx.vampnet.verify import compare_step

    net = model.build(checkpoint)
    path, step_path = folder / f"{name}.onnx", folder / f"{name}_step.onnx"
    network.write(checkpoint, net.distance_table().numpy(), path)
    step.write(path, step_path)
    if check:
        compare_network(net, path)
        compare_step(path, step_path, net.config.conditioning_codebooks)
    return {name: Graph.of(path), f"{name}_step": Graph.of(step_path, network=path)}


def _beats_graph(checkpoint: Path, folder: Path, check: bool) -> Graph:
    from audiogen_onnx.exporter.beats import export_beats

    try:
        return Graph.of(export_beats(checkpoint, folder / TRACKER, check=check))
    except ModelError as error:
        raise ModelError(f"{error}; to export without the beat tracker use --no-beats") from error


def _geometry(config: NetworkConfig, seconds: float) -> NetworkGeometry:
    return NetworkGeometry(config.codebooks, config.conditioning_codebooks, seconds)
