"""Notes of a clip, found by Spotify's basic-pitch network (Apache-2.0) in onnxruntime.

The network is the file nmp.onnx of the package basic-pitch, which is not a dependency of ours:

    uv pip install --target FOLDER --no-deps basic-pitch     # FOLDER/basic_pitch/saved_models/icassp_2022/

It gives, for each of 88 piano keys and every 256 samples at 22,050 Hz, how likely a note sounds there and how
likely one begins there. How notes are read off that is written here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiogen_core.audio import Audio
from audiogen_core.errors import MissingDependency, ModelError

RATE = 22_050  # Hz
HOP = 256  # samples in a frame: 86.13 a second
LOWEST_KEY = 21  # MIDI pitch of the first of 88

ONSET_THRESHOLD, NOTE_THRESHOLD = 0.5, 0.3
SHORTEST = 4  # frames; what sounds shorter is no note

_WINDOW, _FRAMES = 43_844, 172  # samples the network takes, frames it gives
_EDGE = 15  # frames at each end of a window that the neighbour knows better
_STEP = (_FRAMES - 2 * _EDGE) * HOP

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Note:
    """MIDI pitch; onset and end in seconds."""

    pitch: int
    onset: float
    end: float


@dataclass(frozen=True, eq=False)
class Transcription:
    """How likely notes sound and begin, float32 (frames, 88) each, and the notes read off that."""

    sounding: Floats
    beginning: Floats
    notes: tuple[Note, ...]


class Transcriber:
    """The network, loaded from nmp.onnx. Raises ModelError, MissingDependency."""

    def __init__(self, path: Path) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingDependency("onnxruntime", "pip install onnxruntime") from error
        if not path.is_file():
            raise ModelError(f"{path}: no such file; it is nmp.onnx of the package basic-pitch")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session: Any = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, audio: Audio) -> Transcription:
        sounding, beginning = self._likelihoods(audio)
        return Transcription(sounding, beginning, tuple(read_notes(sounding, beginning)))

    def _likelihoods(self, audio: Audio) -> tuple[Floats, Floats]:
        samples = audio.mix(1).resample(RATE).samples[0]
        frames = -(-len(samples) // HOP)
        count = -(-frames * HOP // _STEP)
        padded = np.zeros((count - 1) * _STEP + _WINDOW + _EDGE * HOP, np.float32)
        padded[_EDGE * HOP : _EDGE * HOP + len(samples)] = samples[: len(padded) - _EDGE * HOP]
        windows = np.stack([padded[i * _STEP : i * _STEP + _WINDOW] for i in range(count)])
        names = ["StatefulPartitionedCall:1", "StatefulPartitionedCall:2"]
        sounding, beginning = self._session.run(names, {"serving_default_input_2:0": windows[:, :, None]})
        cut = slice(_EDGE, _FRAMES - _EDGE)
        return (
            sounding[:, cut].reshape(-1, sounding.shape[2])[:frames],
            beginning[:, cut].reshape(-1, beginning.shape[2])[:frames],
        )


def read_notes(sounding: Floats, beginning: Floats) -> list[Note]:
    """Notes begin at peaks of `beginning` and last until `sounding` has fallen, or the next begins."""
    before, after = np.roll(beginning, 1, axis=0), np.roll(beginning, -1, axis=0)
    before[0] = after[-1] = 0
    peaks = (beginning > ONSET_THRESHOLD) & (beginning >= before) & (beginning > after)
    notes = []
    for key in np.flatnonzero(peaks.any(axis=0)):
        starts = np.flatnonzero(peaks[:, key])
        for start, following in zip(starts, [*starts[1:], len(beginning)], strict=True):
            quiet = np.flatnonzero(sounding[start + 1 : following, key] < NOTE_THRESHOLD)
            stop = start + 1 + int(quiet[0]) if len(quiet) else following
            if stop - start >= SHORTEST:
                at = start + _between(before[start, key], beginning[start, key], after[start, key])
                onset = max(0.0, at * HOP / RATE)
                notes.append(Note(LOWEST_KEY + int(key), onset, stop * HOP / RATE))
    return sorted(notes, key=lambda note: (note.onset, note.pitch))


def _between(before: float, at: float, after: float) -> float:
    """Where the top of a parabola through three values lies, in frames from the middle one."""
    bend = before - 2 * at + after
    return 0.0 if bend == 0 else float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5))
