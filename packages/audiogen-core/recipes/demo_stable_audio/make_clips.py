"""Clips of a model for the judge: `python make_clips.py MODEL --out FOLDER [--continue]`.

Prompts name style, tempo, key and lead of pieces that were never trained on, in the words of the captions.
With `--continue` the first seconds of those pieces are gone on with, and judged after them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from audiogen_core.compose import compose
from audiogen_mlx.stable_audio import StableAudio

PIECES = 2_000_500_000
"""Seeds of the pieces whose captions and beginnings are taken."""

PROMPT_SECONDS = 4.0


def make(model: StableAudio, out: Path, clips: range, seconds: float, prompted: bool, **options: Any) -> None:
    """Write clips and captions.jsonl."""
    out.mkdir(parents=True)
    lines = []
    for index in clips:
        piece = compose(PIECES + index, seconds=PROMPT_SECONDS)
        facts = {key: piece.attributes[key] for key in ("style", "tempo", "key", "lead")}
        caption = f"{facts['tempo']} {facts['style']} in {facts['key']}"
        given = {"prompt_audio": piece.audio} if prompted else {}
        clip = model.generate(caption, seconds=seconds, seed=index, **given, **options)
        clip.save(out / f"{index}.wav", subtype="FLOAT", force=True)
        start = {"start": PROMPT_SECONDS} if prompted else {}
        lines.append(json.dumps({"path": f"{index}.wav", "caption": caption, **facts, **start}))
    (out / "captions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Clips of a model for the judge.")
    parser.add_argument("model", help="a folder, or demo")
    parser.add_argument("--out", type=Path, required=True, help="a folder that is not there yet")
    parser.add_argument("--continue", dest="prompted", action="store_true", help="go on with held-out pieces")
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--first", type=int, default=0, help="number of the first: others are other clips")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--sampler")
    parser.add_argument("--guidance", type=float)
    given = parser.parse_args()
    model = StableAudio.load(given.model)
    options = {"steps": given.steps, "sampler": given.sampler, "guidance_scale": given.guidance}
    clips = range(given.first, given.first + given.count)
    make(model, given.out, clips, given.seconds, given.prompted, **options)


if __name__ == "__main__":
    main()
