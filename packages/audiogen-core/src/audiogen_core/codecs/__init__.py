"""Loading codecs: by name from the catalogue, or from any layout of files they are published in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from audiogen_core.errors import ModelError, UnknownModel
from audiogen_core.models import Fetch
from audiogen_core.ops import Ops, resolve
from audiogen_core.settings import as_table, read_json, resolved
from audiogen_core.values import closed, shown

if TYPE_CHECKING:
    from audiogen_core.codec import Autoencoder, Codec

DEMO = "demo"
DEMO_LATENTS = "demo-latents"

Config = TypeVar("Config")

_TORCH_SUFFIXES = {".th", ".pth", ".pt", ".bin", ".ckpt"}
_SETTINGS = "model_config.json"  # of stable-audio-tools, beside the weights
_LAYOUTS = (
    "a folder of transformers (EnCodec, DAC), diffusers (Oobleck, SAME), stable-audio-tools "
    "(model_config.json) or audiocraft (compression_state_dict.bin), or a file: an original EnCodec .th, "
    "audiotools' .pth (DAC, LAC)"
)


@closed()
def load(
    name_or_path: str | Path, ops: str | Ops = "numpy", fetch: Fetch | None = None
) -> Codec | Autoencoder:
    """A codec or an autoencoder, ready to encode and decode.

    name_or_path  a catalogue name (`demo`, `demo-latents`, `encodec-24khz`, `dac-44khz`, `lac`, ...) or a
                  path: a transformers `EncodecModel` or `DacModel` folder (or a MusicGen folder, whose
                  codec is taken), an original EnCodec `.th`, an audiocraft `compression_state_dict.bin` or
                  the folder that holds it, an audiotools `.pth` (DAC, LAC), a stable-audio-tools folder or
                  weight file beside its `model_config.json`, a diffusers `vae` folder or the folder that
                  holds it
    ops           "numpy", "torch", "torch:cuda", or an adapter
    fetch         how a codec that is not here comes; None: from the hub, with a DownloadNotice before

    A path wins over a name. Raises UnknownModel, DownloadError, WeightsError or ModelError.
    """
    adapter = resolve(ops)
    path = Path(name_or_path).expanduser()
    if path.exists():
        return _from_path(path, adapter, None, fetch)
    return _from_name(str(name_or_path), adapter, fetch)


@closed()
def load_codec(name_or_path: str | Path, ops: str | Ops = "numpy", fetch: Fetch | None = None) -> Codec:
    """As `load`, for what makes codes. Raises ModelError when it makes latents instead."""
    from audiogen_core.codec import Codec

    loaded = load(name_or_path, ops, fetch)
    if not isinstance(loaded, Codec):
        raise ModelError(f"{name_or_path}: an autoencoder, which makes latents; a codec with codes is needed")
    return loaded


@closed()
def load_autoencoder(
    name_or_path: str | Path, ops: str | Ops = "numpy", fetch: Fetch | None = None
) -> Autoencoder:
    """As `load`, for what makes latents; `demo` is then `demo-latents`. Raises ModelError for a codec."""
    from audiogen_core.codec import Autoencoder

    if name_or_path == DEMO and not Path(name_or_path).exists():
        name_or_path = DEMO_LATENTS
    loaded = load(name_or_path, ops, fetch)
    if not isinstance(loaded, Autoencoder):
        raise ModelError(f"{name_or_path}: a codec, which makes codes; an autoencoder with latents is needed")
    return loaded


def _from_name(name: str, ops: Ops, fetch: Fetch | None) -> Codec | Autoencoder:
    from audiogen_core.codecs.catalog import CATALOG

    if name == DEMO:
        from audiogen_core.codecs import frame

        return frame.load_demo(ops)
    if name == DEMO_LATENTS:
        from audiogen_core.codecs import frame_latents

        return frame_latents.load_demo(ops)
    if name not in CATALOG:
        raise UnknownModel(name, [DEMO, DEMO_LATENTS, *CATALOG])
    from audiogen_core import hub

    spec = CATALOG[name]
    folder = (fetch or hub.asking())(spec)
    only = [file.name for file in spec.files if Path(file.name).suffix in _TORCH_SUFFIXES]
    return _from_path(folder / only[0] if only else folder, ops, name, fetch)


def _from_path(path: Path, ops: Ops, name: str | None, fetch: Fetch | None) -> Codec | Autoencoder:
    if path.is_dir():
        return _from_folder(path, ops, name, fetch)
    if path.suffix in _TORCH_SUFFIXES | {".safetensors"} and (path.parent / _SETTINGS).is_file():
        return _from_stable_audio_tools(path, path.parent / _SETTINGS, ops, name)
    if path.suffix == ".safetensors":
        if (path.parent / "config.json").is_file():
            return _from_config(path.parent, ops, name)
        from audiogen_core.codecs import frame

        return frame.load(path, ops)
    if path.suffix in _TORCH_SUFFIXES:
        return _from_torch_file(path, ops, name, fetch)
    raise ModelError(f"{path}: not a codec; expected {_LAYOUTS}")


def _from_folder(path: Path, ops: Ops, name: str | None, fetch: Fetch | None) -> Codec | Autoencoder:
    if (path / "config.json").is_file():
        return _from_config(path, ops, name)
    if (path / _SETTINGS).is_file():
        return _from_stable_audio_tools(path, path / _SETTINGS, ops, name)
    if (path / "vae" / "config.json").is_file():
        return _from_config(path / "vae", ops, name)
    if (path / "compression_state_dict.bin").is_file():
        return _from_torch_file(path / "compression_state_dict.bin", ops, name, fetch)
    raise ModelError(f"{path}: no codec in this folder; expected {_LAYOUTS}")


def _from_config(folder: Path, ops: Ops, name: str | None) -> Codec | Autoencoder:
    """A folder in the layout of transformers or diffusers."""
    from audiogen_core import weights
    from audiogen_core.codecs import dac, encodec, oobleck, same

    config = read_json(folder / "config.json")
    if config.get("_class_name") == "AutoencoderOobleck":
        table = weights.read_network(folder, oobleck.IN_DIFFUSERS).apply(oobleck.DIFFUSERS)
        return oobleck.build(_described(oobleck.from_diffusers, folder), table, ops, name)
    if config.get("_class_name") == "AutoencoderSAME":
        table = weights.read_network(folder, same.IN_DIFFUSERS).apply(same.DIFFUSERS)
        return same.build(_described(same.from_diffusers, folder), table, ops, name)
    if config.get("model_type") == "dac":
        table = weights.read_network(folder, dac.IN_TRANSFORMERS).apply(dac.TRANSFORMERS)
        return dac.build(_described(dac.from_transformers, folder), table, ops, name)
    prefix = ""
    if config.get("model_type") != "encodec" and isinstance(config.get("audio_encoder"), dict):
        config, prefix = config["audio_encoder"], "audio_encoder."
    if config.get("model_type") != "encodec":
        kind = shown(config.get("model_type") or config.get("_class_name"))
        raise ModelError(
            f"{folder / 'config.json'}: model_type {kind} is not a codec known here; expected 'encodec', "
            "'dac', 'AutoencoderOobleck', or a model with an EnCodec as audio_encoder"
        )
    network = weights.Network(encodec.IN_TRANSFORMERS, below=prefix)
    table = weights.read_network(folder, network).apply(encodec.TRANSFORMERS)
    return encodec.build(encodec.from_transformers(config), table, ops, name)


def _from_stable_audio_tools(weights_path: Path, settings: Path, ops: Ops, name: str | None) -> Autoencoder:
    from audiogen_core import weights
    from audiogen_core.codecs import oobleck, same

    if same.is_same(read_json(settings)):
        facts = _described(same.from_stable_audio_tools, settings)
        stored = weights.read_network(weights_path, oobleck.IN_STABLE_AUDIO_TOOLS, among=True)
        return same.build(facts, same.stable_audio_tools_weights(stored), ops, name)
    config = _described(oobleck.from_stable_audio_tools, settings)
    stored = weights.read_network(weights_path, oobleck.IN_STABLE_AUDIO_TOOLS, among=True)
    table = oobleck.stable_audio_tools_weights(stored, config)
    return oobleck.build(config, table, ops, name)


def _from_torch_file(path: Path, ops: Ops, name: str | None, fetch: Fetch | None) -> Codec | Autoencoder:
    from audiogen_core import weights
    from audiogen_core.codecs import dac, encodec

    tree = weights.read_checkpoint(path)
    if "pretrained" in tree:
        return _follow(str(tree["pretrained"]), path, ops, fetch)
    if dac.is_audiotools(tree):
        return dac.load_audiotools(path, ops, name)
    table = weights.read_network(path, encodec.IN_ORIGINAL).apply(encodec.ORIGINAL)
    settings = weights.setting(tree, "xp.cfg")
    if settings is not None:
        where = f"{path}: xp.cfg"
        needed = ("compression_model", "seanet", "rvq", "encodec")
        settings = resolved(as_table(settings, where), where, only=needed)
        return encodec.build(encodec.from_audiocraft(settings), table, ops, name)
    try:
        config = encodec.from_shapes({key: table.shape(key) for key in table})
    except ModelError as error:
        raise ModelError(f"{path}: {table.begins()}{error}") from error
    return encodec.build(config, table, ops, name)


def _follow(pointer: str, path: Path, ops: Ops, fetch: Fetch | None) -> Codec | Autoencoder:
    """The codec an audiocraft package points at, by the hub id it names."""
    from audiogen_core.codecs.catalog import CATALOG

    repo = pointer.removeprefix("//pretrained/")
    for spec in CATALOG.values():
        if spec.repo == repo:
            return _from_name(spec.name, ops, fetch)
    raise ModelError(
        f"{path}: points at the codec {repo!r}, which is not in the catalogue; load its own folder"
    )


def _described(reader: Callable[[dict[str, Any]], Config], path: Path) -> Config:
    """The configuration in a JSON file (a folder's config.json), read; errors name the file."""
    path = path / "config.json" if path.is_dir() else path
    try:
        return reader(read_json(path))
    except ModelError as error:
        if str(path) in str(error):
            raise
        raise ModelError(f"{path}: {error}") from error
