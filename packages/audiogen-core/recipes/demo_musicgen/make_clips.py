"""Clips of a MusicGen for the judge: `python make_clips.py MODEL --out FOLDER [--continue]`.

Every style, key and tempo of the composer is asked for in turn, in plain words. Continuations go on for ten
seconds after four seconds of pieces that were never trained on, and are told what these pieces are.
"""

from __future__ import annotations

import argparse
import json
from itertools import cycle, islice, product
from pathlib import Path
from typing import Any

from audiogen_core.codes import Codes
from audiogen_core.compose import DEFAULT_STYLES, STYLES, TEMPI, compose
from audiogen_core.sampling import Sampling
from audiogen_mlx.musicgen.generate import MusicGen

PROMPT_PIECES = 2_000_500_000
"""Seeds of the pieces that are gone on with."""

PROMPT_SECONDS = 4.0
AT_ONCE = 50  # clips in a batch


def free(first: int, count: int) -> list[dict[str, Any]]:
    """What is asked for, with its facts: each kind in turn."""
    kinds = [
        (style, key, tempo) for style in DEFAULT_STYLES for key, tempo in product(STYLES[style].keys, TEMPI)
    ]
    return [
        {"style": style, "key": key, "tempo": tempo, "lead": STYLES[style].lead}
        for style, key, tempo in islice(cycle(kinds), first, first + count)
    ]


def held_out(model: MusicGen, first: int, count: int) -> tuple[list[dict[str, Any]], list[Codes]]:
    """Facts of pieces, and the codes of their beginnings."""
    facts, codes = [], []
    for index in range(first, first + count):
        piece = compose(PROMPT_PIECES + index, seconds=PROMPT_SECONDS)
        known = {name: piece.attributes[name] for name in ("style", "tempo", "key", "lead")}
        facts.append({**known, "start": PROMPT_SECONDS})
        codes.append(model.codec.encode(piece.audio, codebooks=model.config.codebooks))
    return facts, codes


def words(facts: dict[str, Any]) -> str:
    return f"{facts['tempo']} {facts['style']} in {facts['key']}"


def make(
    model: MusicGen,
    out: Path,
    first: int,
    facts: list[dict[str, Any]],
    codes: list[Codes],
    **options: Any,
) -> None:
    """Write clips, their codes and captions.jsonl."""
    out.mkdir(parents=True)
    lines, sampling = [], options.pop("sampling")
    for start in range(0, len(facts), AT_ONCE):
        batch = facts[start : start + AT_ONCE]
        if codes:
            options["prompt_codes"] = codes[start : start + AT_ONCE]
        made = model.generate_codes_batch(
            [words(one) for one in batch], sampling=sampling, seed=first + start, **options
        )
        for index, (known, one) in enumerate(zip(batch, made, strict=True), first + start):
            one.save(out / f"{index}.safetensors", force=True)
            model.decode(one).save(out / f"{index}.wav", subtype="FLOAT", force=True)
            named = {"path": f"{index}.wav", "codes": f"{index}.safetensors", "caption": words(known)}
            lines.append(json.dumps({**named, **known}))
    (out / "captions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a folder, or demo")
    parser.add_argument("--out", type=Path, required=True, help="a folder that is not there yet")
    parser.add_argument("--continue", dest="prompted", action="store_true", help="go on with held-out pieces")
    parser.add_argument("--count", type=int, help="36, or 30 continuations")
    parser.add_argument("--first", type=int, default=0, help="number of the first: others are other clips")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--guidance-scale", type=float)
    parser.add_argument("--temperature", type=float)
    parser.add_argument("--top-k", type=int)
    parser.add_argument("--top-p", type=float)
    parser.add_argument("--min-p", type=float)
    given = parser.parse_args()
    model = MusicGen.load(given.model)
    defaults = model.defaults
    own = {name: getattr(given, name) for name in ("temperature", "top_k", "top_p", "min_p")}
    drawn = {
        **defaults.sampling().to_dict(),
        **{name: value for name, value in own.items() if value is not None},
    }
    scale = defaults.guidance_scale if given.guidance_scale is None else given.guidance_scale
    first, seconds = given.first, given.seconds
    if given.prompted:
        facts, codes = held_out(model, first, given.count or 30)
        seconds += PROMPT_SECONDS
    else:
        facts, codes = free(first, given.count or 36), []
    options = {"seconds": seconds, "guidance_scale": scale, "sampling": Sampling(**drawn)}
    make(model, given.out, first, facts, codes, **options)


if __name__ == "__main__":
    main()
