"""Whole files through a codec, in bounded memory: what `encode` and `decode` of the command line do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from audiogen_core import finish
from audiogen_core.audio import Audio, probe, stream
from audiogen_core.codec import Autoencoder, AutoencoderInfo, Codec, CodecInfo, Info
from audiogen_core.codes import Codes, Latents
from audiogen_core.errors import CodesError, OptionError
from audiogen_core.output import Output, Take
from audiogen_core.progress import OnStep
from audiogen_core.recipe import Recipe
from audiogen_core.sound_reader import FileInfo, Floats
from audiogen_core.store import cut


def load_coded(path: str | Path) -> Codes | Latents:
    """What `encode` wrote, codes or latents. Raises CodesError."""
    from audiogen_core.describe import is_safetensors
    from audiogen_core.formats.safetensors_file import read_safetensors

    if is_safetensors(Path(path)) and read_safetensors(path)[1].get("audiogen") == "latents":
        return Latents.load(path)
    return Codes.load(path)


def conversion(info: FileInfo, codec: Codec | Autoencoder) -> str:
    """What has to be changed in a file of this kind before the codec takes it: one line, or ""."""
    wanted = codec.info
    changes = []
    if info.sample_rate != wanted.sample_rate:
        changes.append(f"resampled from {info.sample_rate} Hz to {wanted.sample_rate} Hz")
    if info.channels != wanted.channels:
        changes.append(f"mixed from {_channels(info.channels)} to {_channels(wanted.channels)}")
    return f"{' and '.join(changes)} for {wanted.name}" if changes else ""


def coded_size(info: CodecInfo | AutoencoderInfo, seconds: float, codebooks: int | None = None) -> float:
    """Bytes of the codes or latents of so many seconds, as `encode_file` gives them: four for a number."""
    rows = info.latent_channels if isinstance(info, AutoencoderInfo) else codebooks or info.codebooks
    return 4 * rows * seconds * info.frame_rate


def encode_file(
    path: str | Path,
    codec: Codec | Autoencoder,
    *,
    codebooks: int | None = None,
    channel: str | None = None,
    on_step: OnStep | None = None,
) -> Codes | Latents:
    """The codes, or the mean latents, of an audio file of any length, resampled and mixed as needed.

    channel  what is taken out of stereo, "left", "right", "mid" or "side"; None mixes all
    on_step  called with (seconds done, seconds in all; 0 when not known)

    Raises AudioError when the file is not readable, AudioMismatch when its channels cannot be mixed,
    OptionError for an impossible number of codebooks.
    """
    info = codec.info
    if isinstance(codec, Autoencoder) and codebooks is not None:
        raise OptionError(f"{info.name} makes latents and has no codebooks to choose from")
    header = probe(path)
    blocks = stream(
        path, sample_rate=info.sample_rate, channels=info.channels, channel=channel, block_seconds=10.0
    )
    told = _telling(blocks, info, header.frames / header.sample_rate, on_step)
    return codec.encode_clip(told) if isinstance(codec, Autoencoder) else codec.encode_clip(told, codebooks)


def decode_file(
    coded: Codes | Latents,
    codec: Codec | Autoencoder,
    path: str | Path,
    asked: Output | None = None,
    *,
    recipe: Recipe | None = None,
    on_step: OnStep | None = None,
) -> finish.Saved:
    """Decode into an audio file, trimmed to the length of the original.

    asked    what is done to the sound; nothing when absent
    on_step  called with (seconds done, seconds in all)

    Raises CodesError when the codes or latents are not this codec's, AudioError when the file cannot be
    written, and as `finish.form` does.
    """
    info = codec.info
    match coded, codec:
        case Codes(), Codec():
            blocks = codec.decode_clip(coded)
        case Latents(), Autoencoder():
            blocks = codec.decode_clip(coded)
        case _:
            kind, other = ("codes", "latents") if isinstance(coded, Codes) else ("latents", "codes")
            raise CodesError(f"these are {kind}, but {info.name} makes {other}; name what made them")
    longest = int(coded.values.shape[1]) * info.hop_length
    length = longest if coded.length is None else min(coded.length, longest)
    if length == 0:
        raise CodesError("the codes stand for no samples: there is nothing to decode")
    told = _telling(cut(blocks, 0, length, info.channels), info, length / info.sample_rate, on_step)
    pieces = (Audio(block, info.sample_rate) for block in told)
    take = Take(pieces, info.sample_rate, info.channels, {}, closed=True)
    return finish.save(take, asked or Output(), Path(path), recipe)


def _telling(
    blocks: Iterable[Floats], info: Info, seconds: float, on_step: OnStep | None
) -> Iterator[Floats]:
    """The blocks, each told to `on_step` when the next one is asked for."""
    done = 0
    for block in blocks:
        yield block
        done += block.shape[1]
        if on_step is not None:
            on_step(done / info.sample_rate, seconds)


def _channels(count: int) -> str:
    return {1: "mono", 2: "stereo"}.get(count, f"{count} channels")
