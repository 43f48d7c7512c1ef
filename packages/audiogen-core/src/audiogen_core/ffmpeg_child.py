"""The process in which FFmpeg decodes one file: its standard input. Samples go to standard output.

First a line of JSON, what FileInfo has; then stretches of float32 samples, interleaved, each behind its
length in bytes (32 bits, little-endian); then a length of 0 and a line of JSON. {"error": ...} stands in for
a line.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import av
from av.codec.context import Flags2

MEMORY = 1 << 30
"""Bytes of data that the process may have."""

SECONDS, SECONDS_PER_MB = 20, 20
"""Of CPU time that decoding may take: FFmpeg decodes 1 MB of AAC in about a second."""

CODECS = (
    "aac,aac_latm,alac,ac3,eac3,amrnb,amrwb,ape,flac,mp1,mp2,mp3,mp3float,opus,libopus,vorbis,libvorbis,"
    "speex,libspeex,tta,wavpack,wmav1,wmav2,wmapro,wmalossless,pcm_u8,pcm_s16le,pcm_s16be,pcm_s24le,pcm_s24be,"
    "pcm_s32le,pcm_s32be,pcm_f32le,pcm_f32be,pcm_f64le,pcm_f64be,pcm_s8,"
    "pcm_mulaw,pcm_alaw"
)
"""Decoders that may run. None of them is for pictures."""

OPTIONS = {
    "protocol_whitelist": "none",  # nothing is opened beside the file that is given
    "codec_whitelist": CODECS,
    "max_streams": "64",
}
SPEAKERS = ("FL", "FR", "FC", "LFE", "BL", "BR", "FLC", "FRC", "BC", "SL", "SR")
"""What FFmpeg calls the speakers, in the order of the bits of WAVEFORMATEXTENSIBLE."""

STATING = ("mov", "matroska", "asf", "wv", "tta", "ape", "caf", "au")
"""Kinds of files that say how long they are."""

END = bytes(4)
MAX_CHANNELS = 32
LONGEST_COMMENT = 60_000  # characters
MOST_PADDING = 4096  # samples: two frames of HE-AAC
LATE = 0.25  # seconds that may be missing to what a file says of its length


class Refused(Exception):
    """A file that is not decoded, and why."""


def main() -> None:
    out = sys.stdout.buffer
    _bound(os.fstat(0).st_size)
    end = b""  # of the samples, once they have begun
    try:
        for sent in _answers(sys.argv[1]):
            out.write(sent)
            end = END
    except Refused as error:
        out.write(end + _line(error=str(error)))
    except (av.FFmpegError, ValueError, MemoryError, OverflowError) as error:
        cause = getattr(error, "strerror", None) or str(error) or type(error).__name__
        out.write(end + _line(error=f"damaged or cut off ({cause})"))
    out.flush()
    os._exit(0)  # without taking FFmpeg down step by step


def _answers(kind: str) -> Iterator[bytes]:
    source = io.FileIO(0, closefd=False)
    container: Any = av.open(source, format=kind, options=OPTIONS, metadata_errors="replace")
    if not container.streams.audio:
        raise Refused("holds no sound")
    stream = container.streams.audio[0]
    stream.codec_context.thread_count = 1  # each thread of many would take memory
    if (kind, stream.codec_context.name) == ("caf", "alac"):
        # FFmpeg takes off the samples by which the last packet is short, though ALAC's last packet is short.
        stream.codec_context.flags2 |= Flags2.skip_manual
    frames = (frame for packet in container.demux(stream) for frame in packet.decode())
    frame: Any = next(frames, None)
    if frame is None:
        raise Refused("holds no samples")
    rate, layout = frame.sample_rate, frame.layout
    if layout.nb_channels > MAX_CHANNELS:
        raise Refused(f"{layout.nb_channels} channels; 1 to {MAX_CHANNELS} are accepted")
    stated = _stated(container, stream, kind)
    comments = [text for key, text in container.metadata.items() if key.lower() == "comment"]
    yield _line(
        format=kind,
        subtype=stream.codec_context.name,
        sample_rate=rate,
        channels=layout.nb_channels,
        frames=round(stated * rate),
        comment=comments[0][:LONGEST_COMMENT] if comments else "",
        counted=False,
        speakers=_speakers(layout),
    )
    resampler = av.AudioResampler(format="flt", layout=layout, rate=rate)
    got, held, row = 0, b"", 4 * layout.nb_channels
    while frame is not None:
        if (frame.sample_rate, frame.layout.name) != (rate, layout.name):
            raise Refused(
                f"changes from {rate} Hz, {layout.name} to {frame.sample_rate} Hz, {frame.layout.name} after "
                f"{got / rate:.1f} s; convert it first, or cut it there"
            )
        frame.pts = None  # so that no silence is put where times are missing
        for packed in resampler.resample(frame):
            got += packed.samples
            held += bytes(packed.planes[0])[: packed.samples * row]
            # An MP4 file says to the sample where the sound ends within its last frame.
            late = got - round(stated * rate) if kind == "mov" and stated else 0
            if (whole := len(held) - max(0, late if late < MOST_PADDING else 0) * row) > 0:
                yield whole.to_bytes(4, "little") + held[:whole]
                held = held[whole:]
        frame = next(frames, None)
    if got / rate < stated - LATE:
        raise Refused(f"cut off: {got / rate:.1f} s of sound instead of {stated:.1f} s")
    yield END + _line(samples=got)


def _stated(container: Any, stream: Any, kind: str) -> float:
    """Seconds of sound that the file says it has, 0 where FFmpeg guesses them from its size."""
    if kind not in STATING:
        return 0.0
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    if container.duration is not None and len(container.streams) == 1:
        return float(container.duration / av.time_base)
    return 0.0


def _speakers(layout: Any) -> int:
    return sum(1 << SPEAKERS.index(each.name) for each in layout.channels if each.name in SPEAKERS)


def _bound(size: int) -> None:
    with suppress(ImportError):
        import resource

        seconds = SECONDS + size * SECONDS_PER_MB // 1_000_000
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))


def _line(**said: Any) -> bytes:
    return json.dumps(said).encode() + b"\n"


if __name__ == "__main__":
    main()
