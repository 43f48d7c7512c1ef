"""What the page of a run shows: what the model has learnt, what it makes, and what was left out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from audiogen_core.dataset.encode import Found, length
from audiogen_core.training import metrics
from audiogen_core.training.page import Clip, Section, write_report
from audiogen_core.training.pictures import LOSSES
from audiogen_minigpt import checkpoint
from audiogen_minigpt.codec_choice import spread
from audiogen_minigpt.evaluate import Evaluation, Verdict
from audiogen_minigpt.info import codes_info

DATA = "data"
SAMPLES = "free"


def write_page(
    out: Path,
    folder: Path,
    found: Found | None,
    evaluation: Evaluation,
    verdict: Verdict,
    commands: Sequence[tuple[str, str]],
) -> Path:
    """Write the page of a run: what it has learnt, what it makes, how it came to that, and what was left out.

    commands  what to type next: what for, and the line
    """
    data, state = codes_info(out / DATA), checkpoint.find(out)
    config = state.config
    facts = {
        "audio": found.headline if found else folder.name,
        "codec": data["codec"],
        "to train on": length(data["train"]["seconds"]),
        "held out": length(data["val"]["seconds"]),
        "model": f"{config.preset}, {config.layers} layers of {config.width}, layout {config.layout}, "
        f"{config.codebooks} codebooks",
        "began with": str(state.state["config"].get("start") or "nothing"),
        "training": f"{state.step:,} updates, {length(state.state['progress']['elapsed'])}",
        "judged and played": f"as it was after {evaluation.step:,} updates",
    }
    costs: list[Sequence[Any]] = [
        ("bits for a second of audio", ""),
        ("this model", evaluation.bits_per_second),
        ("pairs of codes", evaluation.bigram_bits),
        ("single codes", evaluation.unigram_bits),
    ]
    pairs = []
    for number, entry in enumerate(evaluation.continuations, 1):
        picture = out / entry["picture"] if entry["picture"] else None
        pairs.append(Clip(f"Original {number}: {entry['track']}", out / entry["original"]))
        title = f"Continuation {number}: the second half is the model's"
        pairs.append(Clip(title, out / entry["sound"], picture))
    free = [
        Clip(f"Sample {number}", path, path.with_suffix(".png"))
        for number, path in enumerate(sorted((out / SAMPLES).glob("*.wav")), 1)
    ]
    made = [record for record in metrics.read(out) if record["kind"] == "sample"]
    way = [Clip(f"After {record['step']} updates", Path(record["path"])) for record in spread(made, 5)]
    on = "held-out data" if evaluation.split == "val" else "the training data, because none was held out"
    left_out = [(skip.path, f"{skip.why}: {skip.message}") for skip in found.skips] if found else []
    sections = [
        Section("Verdict", verdict.sentence, rows=[("to", "type"), *commands]),
        Section("New sounds", "Made from nothing but a seed.", clips=free),
        Section(
            "Continuations", "The first half is given, the second half is made up.", clips=pairs, columns=2
        ),
        Section("How well it predicts", f"Measured on {on}; fewer bits are better.", rows=costs),
        Section(
            "While it trained",
            "Mean nats per code; and the same opening, gone on with at each checkpoint.",
            picture=out / LOSSES,
            clips=[clip for clip in way if clip.sound.is_file()],
        ),
        *([Section("Left out", rows=[("file", "why"), *left_out])] if left_out else []),
    ]
    return write_report(out, f"audiogen-minigpt: {folder.name}", facts, sections)
