"""Vamped clips for the judge: `python make_clips.py MODEL --out FOLDER [--infill] [OPTION=VALUE...]`.

Each is made from a piece that was never trained on, and has its facts: with periodic prompts, as a vamp is by
default, or with two seconds in the middle made anew. Options are those of a vamp.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from audiogen_core.compose import compose
from audiogen_onnx import Vampnet

PIECES = 2_000_600_000
"""Seeds of the pieces."""


def make(model: Vampnet, out: Path, clips: range, seconds: float, **options: Any) -> None:
    """Write clips and captions.jsonl."""
    out.mkdir(parents=True)
    lines = []
    for index in clips:
        piece = compose(PIECES + index, seconds=seconds)
        facts = {name: piece.attributes[name] for name in ("style", "tempo", "key", "lead")}
        model.vamp(piece.audio, seed=index, **options).save(out / f"{index}.wav", subtype="FLOAT", force=True)
        lines.append(json.dumps({"path": f"{index}.wav", **facts}))
    (out / "captions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a folder, or demo")
    parser.add_argument("--out", type=Path, required=True, help="a folder that is not there yet")
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--first", type=int, default=0, help="number of the first: others are other clips")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--infill", action="store_true", help="make two seconds in the middle, keep the rest")
    parser.add_argument("options", nargs="*", metavar="OPTION=VALUE", help="of a vamp, the value in JSON")
    given = parser.parse_args()
    options = {name: json.loads(value) for name, _, value in (text.partition("=") for text in given.options)}
    if given.infill:
        options["infill"] = (given.seconds / 2 - 1, given.seconds / 2 + 1)
    clips = range(given.first, given.first + given.count)
    make(Vampnet.load(given.model, threads=1), given.out, clips, given.seconds, **options)


if __name__ == "__main__":
    main()
