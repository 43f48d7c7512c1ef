"""Beats and downbeats of a sound, by WaveBeat's graph: onnxruntime and numpy only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audiogen_core.audio import Audio
from audiogen_core.errors import ManifestError
from audiogen_onnx.manifest import Manifest
from audiogen_onnx.session import Session
from audiogen_onnx.vampnet.beats import Beats
from audiogen_onnx.vampnet.sound import as_original

Floats = NDArray[np.float32]

GRAPH = "beats"
"""Its name in a manifest."""

HEIGHT = 0.5
"""What a peak must reach, as a share of the highest."""

BEAT_DISTANCE, DOWNBEAT_DISTANCE = 0.25, 0.5
"""Seconds between two beats, and between two downbeats, at least."""

SAME = 0.05
"""Seconds: a beat so near to a downbeat is that downbeat."""

_WINDOW = 1 << 20  # samples of a long clip that are new in each run of the graph


class BeatTracker:
    """WaveBeat, ready to be used.

    path       of `beats.onnx`
    providers  of onnxruntime, in the order of preference; None: the CPU
    threads    of one operator; None: all cores

    Raises ManifestError when the file is no graph, or not this one.
    """

    def __init__(
        self, path: str | Path, providers: Sequence[str] | None = None, threads: int | None = None
    ) -> None:
        self._session = Session(path, providers, threads)
        facts = self._session.metadata
        try:
            self.sample_rate = int(facts["sample_rate"])
            self.frame_rate = float(facts["frame_rate"])
            self._hop, self._reach = int(facts["hop_length"]), int(facts["reach"])
        except (KeyError, ValueError) as error:
            raise ManifestError(f"{path}: not a graph of WaveBeat; export wavebeat.pth again") from error
        if min(self.sample_rate, self.frame_rate, self._hop) <= 0 or self._reach < 0:
            raise ManifestError(f"{path}: not a graph of WaveBeat; export wavebeat.pth again")

    @classmethod
    def of(
        cls, folder: str | Path, providers: Sequence[str] | None = None, threads: int | None = None
    ) -> BeatTracker:
        """The tracker of an exported folder. Raises ManifestError when it holds none."""
        with Manifest.opened(folder) as manifest:
            if GRAPH not in manifest.graphs:
                raise ManifestError(
                    f"{folder}: holds no graph of beats; export it from checkpoints that include "
                    "wavebeat.pth, or name beats by bpm or a list of times"
                )
            return cls(manifest.graph_path(folder, GRAPH), providers, threads)

    def track(self, audio: Audio) -> Beats:
        """The beats of a clip. Silence has none."""
        beat, downbeat = self.curves(audio)
        beats = self._times(beat, BEAT_DISTANCE)
        downbeats = self._times(downbeat, DOWNBEAT_DISTANCE)
        apart = np.abs(beats[:, None] - downbeats).min(axis=1, initial=np.inf) > SAME
        return Beats.at(beats[apart], downbeats=downbeats)

    def curves(self, audio: Audio) -> Floats:
        """Probabilities of a beat and of a downbeat (2, frames), each frame 1 / frame_rate seconds.

        Of any length: a long clip is worked off in parts that overlap by what the network hears. Silence is
        0 throughout; the original divides by zero there.
        """
        samples = as_original(audio, self.sample_rate).samples[0]
        frames = -(-len(samples) // self._hop)
        peak = float(np.abs(samples).max())
        if peak == 0:
            return np.zeros((2, frames), np.float32)
        samples = samples / np.float32(peak)
        window = max(1, _WINDOW // self._hop) * self._hop
        out = np.empty((2, frames), np.float32)
        for start in range(0, len(samples), window):
            first = max(0, start - self._reach)
            part = samples[first : start + window + self._reach]
            curves = self._session.run({"audio": part[None, None]})["beats"][0]
            begin, skip = start // self._hop, (start - first) // self._hop
            count = min(window // self._hop, frames - begin)
            out[:, begin : begin + count] = curves[:, skip : skip + count]
        return out

    def _times(self, curve: Floats, distance: float) -> NDArray[np.float64]:
        highest = float(curve.max())
        if highest == 0:
            return np.zeros(0)
        peaks = find_peaks(curve / np.float32(highest), HEIGHT, self.frame_rate * distance)
        return peaks / self.frame_rate


def find_peaks(curve: Floats, height: float, distance: float) -> NDArray[np.int64]:
    """Local maxima of at least `height`, `distance` or more apart; the higher goes before the lower.

    Of a plateau the middle counts, rounded down; neither end of the curve is a peak. As
    `scipy.signal.find_peaks` finds them.
    """
    edges = np.flatnonzero(np.diff(curve)) + 1  # where a new level begins
    starts, ends = np.append(0, edges), np.append(edges, len(curve))
    levels = curve[starts]
    inner = np.flatnonzero((levels[1:-1] > levels[:-2]) & (levels[1:-1] > levels[2:])) + 1
    peaks = (starts[inner] + ends[inner] - 1) // 2
    peaks = peaks[curve[peaks] >= height]
    apart, kept = math.ceil(distance), np.ones(len(peaks), np.bool_)
    for index in np.argsort(curve[peaks])[::-1]:
        if kept[index]:
            near = np.abs(peaks - peaks[index]) < apart
            kept[near] = False
            kept[index] = True
    return np.asarray(peaks[kept], np.int64)
