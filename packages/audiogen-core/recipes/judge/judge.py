"""Judges folders of clips by numbers that can fail, beside a ceiling and a floor.

    python judge.py FOLDER... --transcriber nmp.onnx [--corpus CORPUS] [--cache FILE] [-o TABLE.md]

See clips.py for what a folder holds, transcribe.py for where nmp.onnx comes from. The ceiling is music that
was composed but never trained on, as it is and as the demo codec gives it back; the floor is the same clips
with other clips' captions, and codes drawn one by one.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path

import clips as sets
import numpy as np
import torch
from classifier import Classifier
from judging import Judge, Row
from memory import Memory
from transcribe import Transcriber

from audiogen_core import codecs
from audiogen_core.files import atomic_path

COLUMNS = {
    "clips": "clips",
    "key": "in key",
    "any_key": "in some key",
    "grid": "on grid",
    "any_grid": "on some grid",
    "in_time": "in time",
    "style": "style",
    "tempo": "tempo",
    "bpm": "tempo within 4 %",
    "lead": "lead",
    "silent": "silent",
    "clipped": "clipped",
    "cut_off": "cut off",
    "cut_off_faded": "cut off after a fade",
    "notes": "notes/s",
    "pitch_distance": "basic-pitch Frechet",
    "mel_distance": "log-mel Frechet",
    "memory": "longest copy, s",
}
REFERENCE_CLIPS = 80


def prepare(judge: Judge, seconds: float, count: int, reference: int, cache: Path | None) -> list[Row]:
    """Refer to held-out music, and give the rows of the ceiling and of the floor; from a file if it has them.

    The file holds the classifier, too. It is made where it is not there, or was made with other settings.
    """
    pieces = judge.memory.pieces if judge.memory else 0
    settings = {
        "seconds": seconds,
        "count": count,
        "reference": reference,
        "pieces": pieces,
        "figures": list(COLUMNS),
    }
    if cache and cache.exists():
        found = torch.load(cache, weights_only=True)
        if found["settings"] == settings:
            judge.classifier.load(found["classifier"])
            judge.refer(found["pitches"].numpy(), found["spectra"].numpy())
            rows: list[Row] = json.loads(found["rows"])
            return rows
    judge.classifier.train(judge.codec)
    known = [judge.hear(clip) for clip in sets.composed(sets.REFERENCE, reference, seconds)]
    tables = [np.concatenate([getattr(each, name) for each in known]) for name in ("pitches", "spectra")]
    judge.refer(*tables)
    rows = [plain(row) for row in baselines(judge, seconds, count)]
    if cache:
        pitches, spectra = (torch.from_numpy(table) for table in tables)
        state = {"settings": settings, "classifier": judge.classifier.state(), "rows": json.dumps(rows)}
        with atomic_path(cache) as temporary:
            torch.save({**state, "pitches": pitches, "spectra": spectra}, temporary)
    return rows


def baselines(judge: Judge, seconds: float, count: int) -> list[Row]:
    """The rows of the ceiling and of the floor."""
    real = sets.composed(sets.HELD_OUT, count, seconds)
    again = sets.reconstructed(real, judge.codec, 4)
    heard = [judge.hear(clip) for clip in real]
    noise = [judge.hear(clip) for clip in sets.unigram(again, judge.codec)]
    return [
        judge.row("held-out music", heard),
        judge.row("as the codec gives it back, 4 codebooks", [judge.hear(clip) for clip in again]),
        judge.shuffled("held-out music, captions shuffled", heard),
        judge.row("codes drawn one by one", noise),
    ]


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = ["| what | " + " | ".join(COLUMNS.values()) + " |", "| --- |" + " ---: |" * len(COLUMNS)]
    for row in rows:
        lines.append("| " + " | ".join([row["what"], *(_cell(row.get(key)) for key in COLUMNS)]) + " |")
    return "\n".join(lines) + "\n"


def plain(row: Row) -> Row:
    """The row with None for what is not a number."""
    unknown = {key for key, value in row.items() if isinstance(value, float) and math.isnan(value)}
    return {key: None if key in unknown else value for key, value in row.items()}


def _cell(value: float | int | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.2f}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Judge folders of clips.")
    add = parser.add_argument
    add("folders", type=Path, nargs="*", help="each with captions.jsonl")
    add("--transcriber", type=Path, required=True, help="nmp.onnx of basic-pitch")
    add("--corpus", type=Path, help="holds train.npz, to look for copies of it")
    add("--seconds", type=float, default=10.0, help="judged of each clip")
    add("--count", type=int, default=40, help="clips in each row of the ceiling and the floor")
    add("--cache", type=Path, help="keeps what is the same for all folders")
    add("-o", "--output", type=Path, help="the table as Markdown")
    add("--json", type=Path, help="the same as JSON")
    return parser.parse_args()


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    memory = Memory.read(options.corpus / "train.npz") if options.corpus else None
    codec = codecs.load_codec("demo", ops="torch")
    judge = Judge(Transcriber(options.transcriber), Classifier(), codec, memory)
    rows = prepare(judge, options.seconds, options.count, REFERENCE_CLIPS, options.cache)
    for folder in options.folders:
        heard = [judge.hear(clip) for clip in sets.load(folder, options.seconds)]
        rows.append(plain(judge.row(folder.name, heard)))
        rows.append(plain(judge.shuffled(f"{folder.name}, captions shuffled", heard)))
    print(table(rows), end="")
    for path, text in ((options.output, table(rows)), (options.json, json.dumps(rows, indent=2) + "\n")):
        if path:
            with atomic_path(path) as temporary:
                temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
