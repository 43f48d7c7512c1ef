"""The figures of the model card: `python evaluate.py demo.safetensors -o FIGURES.json [--audio FOLDER]`.

Held-out pieces on and off the codec's frames, styles it has never met, Opus beside it on the same clips, and
real recordings where a folder is given. Distances are those of losses.py.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from data import HELD_OUT_PIECES
from losses import distances, si_sdr
from numpy.typing import NDArray

from audiogen_core.audio import Audio
from audiogen_core.codec import Codec
from audiogen_core.codecs.frame import load
from audiogen_core.compose import DEFAULT_STYLES, HELD_OUT_STYLES, compose
from audiogen_core.errors import AudioError
from audiogen_core.files import atomic_path
from audiogen_core.ops import resolve

SECONDS = 10.0
PIECES_PER_STYLE = 6
OPUS_KBPS = (8.0, 13.0, 26.0)
SUFFIXES = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif"}

Clip = NDArray[np.float32]  # (1, samples) at 24 kHz
Row = dict[str, Any]


def pieces(styles: Iterable[str], start: int) -> list[Clip]:
    """Pieces that were never trained on, style by style."""
    return [
        compose(HELD_OUT_PIECES + start + 100 * place + i, seconds=SECONDS, style=style).audio.samples
        for place, style in enumerate(styles)
        for i in range(PIECES_PER_STYLE)
    ]


def off_frames(clips: list[Clip], hop_length: int) -> list[Clip]:
    """The same clips without their first samples, so that no note starts on a frame."""
    draws = np.random.Generator(np.random.PCG64(0))
    return [clip[:, int(draws.integers(1, hop_length)) :] for clip in clips]


def recordings(folder: Path) -> list[Clip]:
    """Up to half a minute from the middle of each audio file below a folder."""
    clips = []
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES):
        audio = Audio.load(path, sample_rate=24000, channels=1)
        start = max(0.0, audio.duration / 2 - 15)
        clips.append(audio.slice(start, start + 30).samples)
    if not clips:
        raise AudioError(f"{folder}: holds no audio files ({', '.join(sorted(SUFFIXES))})")
    return clips


def score(name: str, kbps: float, clips: list[Clip], redo: Callable[[Clip], Clip]) -> Row:
    """Mean distances over clips between each and what `redo` makes of it."""
    values = []
    for clip in clips:
        x, y = torch.tensor(clip), torch.tensor(redo(clip)[:, : clip.shape[1]])
        mel, spectrum, _ = distances(y, x)
        values.append((float(mel), float(spectrum), float(si_sdr(y, x)[0])))
    mel_mean, spectrum_mean, ratio = np.mean(values, axis=0)
    return {
        "what": name,
        "kbps": round(kbps, 1),
        "mel": round(float(mel_mean), 3),
        "mel10": round(float(mel_mean) / np.log(10), 3),
        "spectrum": round(float(spectrum_mean), 3),
        "si_sdr": round(float(ratio), 1),
    }


def codec_rows(codec: Codec, clips: list[Clip], counts: Iterable[int]) -> list[Row]:
    info = codec.info
    bits = info.frame_rate * np.log2(info.codebook_size) / 1000  # kbps of one codebook
    return [
        score(f"{count} codebooks", count * bits, clips, partial(_redo, codec, count)) for count in counts
    ]


def opus_rows(clips: list[Clip]) -> list[Row]:
    """Opus as libsndfile writes it, near some rates; the rate is that of the files."""
    rows = []
    for kbps in OPUS_KBPS:
        low, high = 0.0, 1.0  # the compression level: 1 is the smallest file
        for _ in range(10):
            level = (low + high) / 2
            low, high = (level, high) if _opus_rate(level, clips[::4]) > kbps else (low, level)
        row = score("Opus", _opus_rate(high, clips), clips, partial(_opus, high))
        rows.append(row)
    return rows


def codebook_facts(codec: Codec, clips: list[Clip]) -> dict[str, list[float]]:
    """How evenly the entries are used: nats of each codebook's distribution, and their exponentials."""
    codes = np.concatenate([codec.encode(Audio(clip, 24000)).values for clip in clips], axis=1)
    nats = []
    for row in codes:
        share = np.bincount(row, minlength=codec.info.codebook_size) / codes.shape[1]
        nats.append(float(-np.sum(share[share > 0] * np.log(share[share > 0]))))
    return {"nats": [round(n, 2) for n in nats], "perplexity": [round(float(np.exp(n))) for n in nats]}


def speed(codec: Codec, clip: Clip) -> dict[str, float]:
    """Seconds of work for one second of sound."""
    begin = time.perf_counter()
    codes = codec.encode(Audio(clip, 24000))
    middle = time.perf_counter()
    codec.decode(codes)
    seconds = clip.shape[1] / 24000
    return {
        "encode": round((middle - begin) / seconds, 4),
        "decode": round((time.perf_counter() - middle) / seconds, 4),
    }


def evaluate(codec: Codec, audio: Path | None, steps: Callable[[str], None]) -> dict[str, Any]:
    on = pieces(DEFAULT_STYLES, 10_000)
    sets = {"on the frames": on, "off the frames": off_frames(on, codec.info.hop_length)}
    sets |= {style: on[i * PIECES_PER_STYLE :][:PIECES_PER_STYLE] for i, style in enumerate(DEFAULT_STYLES)}
    sets |= {f"{style} (held out)": pieces([style], 20_000) for style in HELD_OUT_STYLES}
    if audio is not None:
        sets["recordings"] = recordings(audio)
    report: dict[str, Any] = {}
    for name, clips in sets.items():
        steps(name)
        full = name in ("on the frames", "off the frames", "recordings")
        report[name] = codec_rows(codec, clips, (1, 2, 4, 8) if full else (4, 8))
        report[name] += opus_rows(clips) if full else []
    report["codebooks"] = codebook_facts(codec, on)
    report["speed"] = speed(codec, on[0])
    return report


def table(rows: list[Row]) -> str:
    """Markdown."""
    lines = ["| | kbps | log-mel L1 | STFT | SI-SDR dB |", "| --- | --- | --- | --- | --- |"]
    lines += [f"| {r['what']} | {r['kbps']} | {r['mel10']} | {r['spectrum']} | {r['si_sdr']} |" for r in rows]
    return "\n".join(lines)


def _redo(codec: Codec, count: int, clip: Clip) -> Clip:
    return codec.decode(codec.encode(Audio(clip, 24000), min(count, codec.info.codebooks))).samples


def _opus(level: float, clip: Clip) -> Clip:
    samples: Clip = soundfile.read(_opus_file(level, clip), dtype="float32")[0][None]
    return samples


def _opus_rate(level: float, clips: list[Clip]) -> float:
    """kbps."""
    size = sum(len(_opus_file(level, clip).getvalue()) for clip in clips)
    return float(8 * size / (sum(clip.shape[1] for clip in clips) / 24000) / 1000)


def _opus_file(level: float, clip: Clip) -> io.BytesIO:
    file = io.BytesIO()
    soundfile.write(file, clip[0], 24000, format="OGG", subtype="OPUS", compression_level=level)
    file.seek(0)
    return file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="a frame codec as export.py writes it")
    parser.add_argument("-o", "--output", type=Path, help="write the figures as JSON")
    parser.add_argument("--audio", type=Path, help="a folder of recordings to judge it on as well")
    parser.add_argument("--ops", default="torch", help="numpy or torch")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    codec = load(arguments.file, resolve(arguments.ops))
    report = evaluate(codec, arguments.audio, print)
    for name, rows in report.items():
        print(f"\n{name}\n\n{table(rows) if isinstance(rows, list) else json.dumps(rows)}")
    if arguments.output:
        with atomic_path(arguments.output) as temporary:
            temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
