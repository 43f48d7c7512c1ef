"""What a LoRA teaches the demo MusicGen: `python learned.py FOLDER --style "organ hymn" [-o TABLE.md]`.

FOLDER gets clips/, 20 composed pieces of a minute, of a style that the model never heard; kept/, clips that
the model makes of what it knows; and run/, which tunes it on both with the settings that are usual. The same
command goes on where it was stopped.

The same prompts with the same seeds, with the adapter and without: for the style that it was tuned on, and
for those that the model knew before. A small classifier, trained on composed pieces of all of them, says what
it hears. The ceiling is composed music that neither has seen, as the codec gives it back; the floor is the
model without the adapter.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from itertools import cycle, islice, product
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "judge"))
from classifier import Classifier

from audiogen_core import codecs
from audiogen_core.audio import Audio
from audiogen_core.codec import Codec
from audiogen_core.compose import DEFAULT_STYLES, HELD_OUT_STYLES, STYLES, TEMPI, compose, write_folder
from audiogen_core.compose.folder import CAPTIONS
from audiogen_core.files import atomic_path
from audiogen_mlx.musicgen.generate import MusicGen
from audiogen_mlx.musicgen.tune import tune
from audiogen_mlx.musicgen.tune_options import Tuning

CODEBOOKS = 4
SECONDS = 9.6
"""Of a clip: ten, nine or seven and a half bars, so that every clip of a piece begins where a beat does. The
demo counts beats from the first frame of a clip, and learned nothing usable of clips cut anywhere."""

PIECES, PIECE_SECONDS, SEED = 20, 60.0, 71
KEPT, KEPT_SEED = 36, 1000
"""Clips that the model makes before it is tuned, and their first seed: others than those it is judged by."""

HELD_OUT = 2_000_600_000
"""Seeds of the pieces of the ceiling."""

Row = dict[str, Any]


def prompts(styles: Sequence[str], count: int) -> list[tuple[str, str]]:
    """So many prompts, each with its style: styles, keys and tempi in turn."""
    kinds = [(style, key, tempo) for style in styles for key, tempo in product(STYLES[style].keys, TEMPI)]
    if len(styles) > 1:  # not one style after the other
        kinds.sort(key=lambda kind: (STYLES[kind[0]].keys.index(kind[1]), tuple(TEMPI).index(kind[2])))
    return [(f"{tempo} {style} in {key}", style) for style, key, tempo in islice(cycle(kinds), count)]


def made(model: MusicGen, asked: Sequence[tuple[str, str]], seconds: float, seed: int = 0) -> list[Audio]:
    return model.generate_batch([prompt for prompt, _ in asked], seconds=seconds, seed=seed)


def composed(style: str, count: int, seconds: float, codec: Codec) -> list[Audio]:
    pieces = [compose(HELD_OUT + i, seconds=seconds, style=style) for i in range(count)]
    return [codec.decode(codec.encode(piece.audio, CODEBOOKS)) for piece in pieces]


def share(heard: Sequence[str], wanted: Sequence[str]) -> float:
    return sum(one == other for one, other in zip(heard, wanted, strict=True)) / len(wanted)


def taught(folder: Path, style: str, minutes: float) -> Path:
    """The adapter of a run in a folder, after as many minutes of training."""
    clips = folder / "clips"
    if not (clips / CAPTIONS).is_file():
        write_folder(
            clips,
            minutes=PIECES * PIECE_SECONDS / 60,
            seed=SEED,
            styles=[style],
            piece_seconds=PIECE_SECONDS,
            force=True,
        )
    kept = folder / "kept"
    if not (kept / f"{KEPT - 1}.txt").is_file():
        kept.mkdir(exist_ok=True)
        asked_for = prompts(DEFAULT_STYLES, KEPT)
        sounds = made(MusicGen.load("demo"), asked_for, SECONDS, seed=KEPT_SEED)
        for index, (sound, (prompt, _)) in enumerate(zip(sounds, asked_for, strict=True)):
            sound.save(kept / f"{index}.wav", force=True)
            (kept / f"{index}.txt").write_text(prompt + "\n", encoding="utf-8")
    asked = Tuning(
        folder=clips, keep=kept, model="demo", time=60 * minutes, samples=0, threads=1, seconds=SECONDS
    )
    tuned = tune(asked, folder / "run", on_record=_say)
    if tuned.adapter is None or tuned.signal is not None:
        raise SystemExit(1)
    return tuned.adapter


def _say(record: dict[str, Any]) -> None:
    if record["kind"] == "eval":
        print(f"step {record['step']}: held-out loss {record['loss']:.3f}", flush=True)


def trained(style: str, codec: Codec, cache: Path | None) -> Classifier:
    """A classifier that knows the style too; from a file that keeps it, or else put there."""
    classifier = Classifier((*DEFAULT_STYLES, style))
    kept = torch.load(cache, weights_only=True) if cache and cache.exists() else {}
    if kept.get("style") == style:
        classifier.load(kept["classifier"])
        return classifier
    classifier.train(codec)
    if cache:
        with atomic_path(cache) as temporary:
            torch.save({"style": style, "classifier": classifier.state()}, temporary)
    return classifier


def judge(
    adapter: Path, style: str, count: int, seconds: float, cache: Path | None = None, model: str = "demo"
) -> list[Row]:
    """The rows of the table: what is heard in clips of each kind, and what of it is right."""
    codec = codecs.load_codec("demo", ops="torch")
    classifier = trained(style, codec, cache)
    new, old = prompts([style], count), prompts(DEFAULT_STYLES, count)
    sounds = {("composed", "new"): composed(style, count, seconds, codec)}
    for name, lora in (("untuned", None), ("tuned", [adapter])):
        opened = MusicGen.load(model, lora=lora)
        for which, asked in (("new", new), ("old", old)):
            sounds[name, which] = made(opened, asked, seconds)
    rows = []
    for (name, which), clips in sounds.items():
        heard = [classifier(clip)["style"] for clip in clips]
        wanted = [each for _, each in (new if which == "new" else old)]
        counts = {each: heard.count(each) for each in classifier.styles}
        rows.append(
            {
                "what": name,
                "prompts": which,
                "clips": len(clips),
                "right": share(heard, wanted),
                "heard": counts,
            }
        )
    return rows


def told_apart(rows: Sequence[Row]) -> float:
    """The share of clips of the new prompts that the classifier puts on the right side: tuned or not."""
    right = {row["what"]: row["right"] for row in rows if row["prompts"] == "new"}
    return float((right["tuned"] + 1 - right["untuned"]) / 2)


def kept(rows: Sequence[Row]) -> float:
    """What is left of following prompts of old styles."""
    right = {row["what"]: row["right"] for row in rows if row["prompts"] == "old"}
    return float(right["tuned"] / right["untuned"])


def table(rows: Sequence[Row], style: str) -> str:
    """Markdown."""
    said = {"new": style, "old": "old styles"}
    names = list(rows[0]["heard"])
    lines = [
        f"| clips | prompts | number | as asked | {' | '.join(names)} |",
        f"| --- | --- | ---: | ---: |{' ---: |' * len(names)}",
    ]
    for row in rows:
        heard = " | ".join(str(row["heard"][name]) for name in names)
        lines.append(
            f"| {row['what']} | {said[row['prompts']]} | {row['clips']} | {row['right']:.2f} | {heard} |"
        )
    lines += [
        "",
        f"Tuned and untuned clips told apart: {told_apart(rows):.2f}; old styles kept: {kept(rows):.2f}.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="of the clips and the run")
    parser.add_argument("--style", choices=HELD_OUT_STYLES, required=True, help="that it is tuned on")
    parser.add_argument("--minutes", type=float, default=15.0, help="of training")
    parser.add_argument("--adapter", type=Path, help="one that is there already, instead of a run")
    parser.add_argument("--count", type=int, default=24, help="clips of each kind")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each clip")
    parser.add_argument("--cache", type=Path, help="keeps the classifier")
    parser.add_argument("-o", "--output", type=Path, help="the table as Markdown")
    parser.add_argument("--json", type=Path, help="the rows as JSON")
    given = parser.parse_args()
    torch.set_num_threads(1)
    adapter = given.adapter or taught(given.folder, given.style, given.minutes)
    rows = judge(adapter, given.style, given.count, given.seconds, given.cache)
    print(table(rows, given.style), end="")
    for path, text in (
        (given.output, table(rows, given.style)),
        (given.json, json.dumps(rows, indent=2) + "\n"),
    ):
        if path:
            with atomic_path(path) as temporary:
                temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
