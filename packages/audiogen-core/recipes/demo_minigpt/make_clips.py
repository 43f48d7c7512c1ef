"""Clips of a model for the judge: `python make_clips.py MODEL --out FOLDER [--continue]`.

Free clips begin from nothing and promise nothing, so their captions are empty. Continuations go on for ten
seconds after four seconds of pieces that were never trained on, and are held to those pieces' facts.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from itertools import count as numbers
from pathlib import Path
from typing import Any

from audiogen_core.audio import Audio
from audiogen_core.compose import TEMPI, Piece, compose
from audiogen_core.sampling import Sampling
from audiogen_minigpt.generate import Generator

PROMPT_PIECES = 2_000_500_000
"""Seeds of the pieces that are gone on with."""

PROMPT_SECONDS = 4.0


def prompts(tempo: str | None, first: int) -> Iterator[Piece]:
    """Beginnings of pieces that nobody trained on, of one tempo or of all."""
    for seed in numbers(PROMPT_PIECES + first):
        piece = compose(seed, seconds=PROMPT_SECONDS)
        if tempo in (None, piece.attributes["tempo"]):
            yield piece


def make(
    generator: Generator,
    out: Path,
    count: int,
    seconds: float,
    sampling: Sampling,
    prompted: bool,
    tempo: str | None = None,
    first: int = 0,
) -> None:
    """Write clips, their codes and captions.jsonl."""
    out.mkdir(parents=True)
    lines, pieces = [], prompts(tempo, first)
    for index in range(first, first + count):
        facts: dict[str, Any] = {}
        prompt: Audio | None = None
        if prompted:
            piece = next(pieces)
            prompt = piece.audio
            known = {key: piece.attributes[key] for key in ("style", "tempo", "key", "lead")}
            facts = {**known, "start": PROMPT_SECONDS}
        drawn = Sampling(**{**sampling.to_dict(), "seed": index})
        codes = generator.generate_codes(seconds, prompt_audio=prompt, sampling=drawn)
        codes.save(out / f"{index}.safetensors", force=True)
        generator.codec.decode(codes).save(out / f"{index}.wav", subtype="FLOAT", force=True)
        lines.append(json.dumps({"path": f"{index}.wav", "codes": f"{index}.safetensors", **facts}))
    (out / "captions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Clips of a model for the judge.")
    parser.add_argument("model", help="a run, or demo")
    parser.add_argument("--out", type=Path, required=True, help="a folder that is not there yet")
    parser.add_argument("--continue", dest="prompted", action="store_true", help="go on with held-out pieces")
    parser.add_argument("--tempo", choices=list(TEMPI), help="of the pieces that are gone on with")
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--first", type=int, default=0, help="number of the first: others are other clips")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--temperature", type=float, nargs="+")
    parser.add_argument("--top-k", type=int)
    options = parser.parse_args()
    generator = Generator.load(options.model)
    table = generator.sampling.to_dict()
    if options.temperature:
        given = options.temperature
        table["temperature"] = given[0] if len(given) == 1 else given
    if options.top_k is not None:
        table["top_k"] = options.top_k
    drawn = Sampling(**table)
    asked = options.count, options.seconds, drawn, options.prompted, options.tempo, options.first
    make(generator, options.out, *asked)


if __name__ == "__main__":
    main()
