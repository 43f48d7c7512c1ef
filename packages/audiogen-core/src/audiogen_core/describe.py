"""What a file, folder or name is: the facts that `audiogen-core info` and `codecs` show."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from audiogen_core.codec import AutoencoderInfo, CodecInfo, Info
from audiogen_core.errors import DownloadError, ModelError, UnknownModel, WeightsError
from audiogen_core.files import require_regular
from audiogen_core.values import closed

FACTS = {
    info.name: info
    for info in (
        CodecInfo("demo", 24_000, 1, 320, 8, 1024),
        CodecInfo("encodec-24khz", 24_000, 1, 320, 32, 1024),
        CodecInfo("encodec-32khz", 32_000, 1, 640, 4, 2048),
        CodecInfo("encodec-48khz", 48_000, 2, 320, 16, 1024),
        CodecInfo("dac-16khz", 16_000, 1, 320, 12, 1024),
        CodecInfo("dac-24khz", 24_000, 1, 320, 32, 1024),
        CodecInfo("dac-44khz", 44_100, 1, 512, 9, 1024),
        CodecInfo("lac", 44_100, 1, 768, 14, 1024),
    )
}
"""What is known of the codecs in the catalogue before they are fetched."""

_TORCH_SUFFIXES = {".th", ".pth", ".pt", ".bin", ".ckpt"}
_HEADER = 8  # bytes in front of a safetensors header: its length


def facts_of(name_or_path: str | Path) -> CodecInfo | None:
    """The facts of a codec before it is fetched or opened; None where only its files tell them."""
    return None if Path(name_or_path).exists() else FACTS.get(str(name_or_path))


@closed()
def describe(name_or_path: str | Path) -> dict[str, Any]:
    """Facts about audio or a folder of it, codes, a checkpoint, a codec's folder, or one of the catalogue.

    The key "kind" says which. Raises the error of whatever it looks like when it is damaged, WeightsError
    when a checkpoint holds no tensors, and UnknownModel when there is nothing of that name.
    """
    path = Path(name_or_path)
    if path.is_dir():
        return _folder(path)
    if path.exists():
        if is_safetensors(path):
            return _safetensors(path)
        return _checkpoint(path) if path.suffix in _TORCH_SUFFIXES else _audio(path)
    if str(name_or_path) in FACTS:
        return {"kind": "codec", **next(row for row in catalogue() if row["name"] == str(name_or_path))}
    if path.suffix or len(path.parts) > 1:
        return _audio(path)  # which says that there is no such file
    raise UnknownModel(str(name_or_path), FACTS)


def _folder(path: Path) -> dict[str, Any]:
    """Of a checkpoint, or of the audio in it where there is none."""
    from audiogen_core.audio import probe
    from audiogen_core.dataset.folder import scan

    try:
        return _checkpoint(path)
    except WeightsError:
        infos = [probe(path / name) for name in scan(path)[0]]
        if not infos:
            raise
    rates = sorted({info.sample_rate for info in infos})
    seconds = sum(info.frames / info.sample_rate for info in infos)
    return {
        "kind": "audio",
        "path": str(path),
        "clips": len(infos),
        "seconds": seconds,
        "sample_rates": rates,
    }


def catalogue() -> list[dict[str, Any]]:
    """The codecs that have names, one mapping each."""
    from audiogen_core.codecs.catalog import CATALOG

    rows = []
    for name, info in FACTS.items():
        spec = CATALOG.get(name)
        rows.append(
            {
                **codec_facts(info),
                "license": spec.license if spec else "Apache-2.0",
                "cached": _cached(name),
                "source": spec.page if spec else "comes with audiogen-core",
            }
        )
    return rows


def codec_facts(info: CodecInfo) -> dict[str, Any]:
    """A CodecInfo as a mapping, with what follows from it."""
    return {
        **_facts(info),
        "codebooks": info.codebooks,
        "codebook_size": info.codebook_size,
        "bits_per_second": bits_per_second(info.codebooks, info.codebook_size, info.frame_rate),
    }


def autoencoder_facts(info: AutoencoderInfo) -> dict[str, Any]:
    """An AutoencoderInfo as a mapping, with what follows from it."""
    return {**_facts(info), "latent_channels": info.latent_channels}


def _facts(info: Info) -> dict[str, Any]:
    return {
        "name": info.name,
        "sample_rate": info.sample_rate,
        "channels": info.channels,
        "hop_length": info.hop_length,
        "frame_rate": info.frame_rate,
    }


def bits_per_second(codebooks: int, codebook_size: int, frame_rate: float) -> float:
    """What codes need when every entry is as likely as any other."""
    return codebooks * math.log2(codebook_size) * frame_rate


def is_safetensors(path: Path) -> bool:
    """Whether a file begins like one of safetensors: the length of a JSON object, and the object."""
    try:
        require_regular(path)
        with path.open("rb") as file:
            head = file.read(_HEADER + 1)
    except OSError:
        return False
    length = int.from_bytes(head[:_HEADER], "little")
    return head[_HEADER:] == b"{" and 2 <= length <= path.stat().st_size - _HEADER


def _cached(name: str) -> bool:
    from audiogen_core import hub
    from audiogen_core.codecs.catalog import CATALOG

    if name not in CATALOG:
        return True
    try:
        hub.here(CATALOG[name])
    except DownloadError:
        return False
    return True


def _audio(path: Path) -> dict[str, Any]:
    import numpy as np

    from audiogen_core import recipe
    from audiogen_core.audio import probe, stream

    info = probe(path)
    samples, peak, power, over = 0, 0.0, 0.0, 0
    for block in stream(path):
        samples += block.shape[1]
        peak = max(peak, float(np.abs(block).max()))
        power += float(np.square(block, dtype=np.float64).sum())
        over += int(np.count_nonzero(np.abs(block) >= 1))
    rms = math.sqrt(power / (samples * info.channels))
    tag = recipe.find(path)
    return {
        "kind": "audio",
        "format": info.format,
        "subtype": info.subtype,
        "sample_rate": info.sample_rate,
        "channels": info.channels,
        "samples": samples,
        "seconds": samples / info.sample_rate,
        "peak": peak,
        "peak_dbfs": _dbfs(peak),
        "rms_dbfs": _dbfs(rms),
        "samples_at_full_scale": over,
        "bytes": path.stat().st_size,
        "recipe": {"synthetic": True, **vars(tag)} if tag else None,
    }


def _dbfs(level: float) -> float | None:
    """dB below full scale; None for silence."""
    return 20 * math.log10(level) if level > 0 else None


def _safetensors(path: Path) -> dict[str, Any]:
    from audiogen_core.formats.safetensors_file import read_safetensors

    metadata = read_safetensors(path)[1]
    if metadata.get("audiogen") == "codes":
        return _codes(path)
    if metadata.get("audiogen") == "latents":
        return _latents(path)
    return {**_checkpoint(path), "metadata": metadata}


def _codes(path: Path) -> dict[str, Any]:
    from audiogen_core.codes import Codes

    codes = Codes.load(path)
    return {
        "kind": "codes",
        "codec": codes.codec,
        "codebooks": codes.codebooks,
        "codebook_size": codes.codebook_size,
        "frames": codes.frames,
        "frame_rate": codes.frame_rate,
        "seconds": codes.duration,
        "length": codes.length,
        "bits_per_second": bits_per_second(codes.codebooks, codes.codebook_size, codes.frame_rate),
        "bytes": path.stat().st_size,
    }


def _latents(path: Path) -> dict[str, Any]:
    from audiogen_core.codes import Latents

    latents = Latents.load(path)
    channels, frames = latents.values.shape
    return {
        "kind": "latents",
        "autoencoder": latents.autoencoder,
        "channels": channels,
        "frames": frames,
        "frame_rate": latents.frame_rate,
        "seconds": frames / latents.frame_rate,
        "length": latents.length,
        "bytes": path.stat().st_size,
    }


def _checkpoint(path: Path) -> dict[str, Any]:
    """Tensors and settings, and the codec they make if they do."""
    from audiogen_core import weights

    table = weights.read(path)
    settings = _settings(path)
    is_pointer = "pretrained" in settings  # to another codec
    if not (table or is_pointer):
        raise WeightsError(f"{path}: holds no tensors")
    info = None if is_pointer else _codec(path)
    facts: dict[str, Any] = {"kind": "checkpoint"}
    if isinstance(info, CodecInfo):
        facts = {"kind": "codec", **codec_facts(info)}
    elif info is not None:
        facts = {"kind": "autoencoder", **autoencoder_facts(info)}
    dtypes: dict[str, int] = {}
    for name in table:
        dtypes[table.dtype(name)] = dtypes.get(table.dtype(name), 0) + math.prod(table.shape(name))
    facts |= {"tensors": len(table), "parameters": sum(dtypes.values()), "parameters_by_dtype": dtypes}
    return facts | ({"settings": settings} if settings else {})


def _codec(path: Path) -> CodecInfo | AutoencoderInfo | None:
    from audiogen_core import codecs, hub

    try:
        return codecs.load(path, fetch=hub.here).info
    except ModelError:
        return None


def _settings(path: Path) -> dict[str, Any]:
    """The plain values at the top of a torch checkpoint, beside its tensors."""
    if path.suffix not in _TORCH_SUFFIXES:
        return {}
    from audiogen_core import weights

    tree = weights.read_checkpoint(path)
    return {
        str(key): value
        for key, value in tree.items()
        if isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= 200)
    }
