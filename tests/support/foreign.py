"""Files that FFmpeg writes, through PyAV: M4A, WMA, WebM and what else libsndfile does not know."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from audiogen_core.audio import Audio

LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}
LOSSLESS = ("alac", "flac", "wavpack", "tta", "pcm_s16le", "pcm_s16be", "pcm_s24le")


def write_foreign(
    path: Path, audio: Audio, codec: str, *, form: str | None = None, comment: str = "", bit_rate: int = 0
) -> Path:
    """Encode a clip. `form` is FFmpeg's name of the container, chosen by the suffix when it is None."""
    layout = LAYOUTS[audio.channels]
    with av.open(str(path), "w", format=form) as container:
        if comment:
            container.metadata["comment"] = comment
        stream = container.add_stream(codec, rate=audio.sample_rate)
        stream.layout = layout
        if codec not in LOSSLESS:
            stream.bit_rate = bit_rate or 96_000 * audio.channels
        whole = av.AudioFrame.from_ndarray(np.ascontiguousarray(audio.samples), "fltp", layout)
        whole.sample_rate = audio.sample_rate
        resampler = av.AudioResampler(stream.format, stream.layout, audio.sample_rate)
        queue = av.AudioFifo()
        for frame in resampler.resample(whole):
            frame.pts = None
            queue.write(frame)
        done = 0
        while (frame := queue.read(stream.codec_context.frame_size or 1024, partial=True)) is not None:
            frame.pts, done = done, done + frame.samples
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
