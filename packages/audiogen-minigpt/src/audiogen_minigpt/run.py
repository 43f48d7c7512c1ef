"""From a folder of audio to a page with new sounds, in five stages of which each resumes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audiogen_core.errors import OptionError
from audiogen_core.files import atomic_path, require_regular, require_room
from audiogen_core.models import Fetch
from audiogen_core.values import closed
from audiogen_minigpt import checkpoint
from audiogen_minigpt.evaluate import Evaluation, evaluate, read_evaluation
from audiogen_minigpt.report import NAME as REPORT
from audiogen_minigpt.report import Clip, Section, write_report
from audiogen_minigpt.schedule import parse_time
from audiogen_minigpt.settings import Settings, load_config

if TYPE_CHECKING:
    from audiogen_minigpt.train import TrainResult

DATA = "data"
SAMPLES = "free"
STAGES = ("encode", "train", "judge", "sample", "report")

OnStep = Callable[[float, float], None]


@dataclass(frozen=True)
class RunReport:
    """How a run ended.

    run     its folder
    page    report.html, or None when a signal came before
    step    updates of the model
    done    the stages that had something to do, of `STAGES`; empty when all was there
    signal  the signal that ended it early, or None
    """

    run: Path
    page: Path | None
    step: int
    done: tuple[str, ...]
    signal: int | None


@closed()
def run(
    folder: str | Path,
    out: str | Path,
    *,
    time: str | float | None = None,
    codec: str | None = None,
    settings: Settings | None = None,
    workers: int | None = None,
    new_data: bool = False,
    on_stage: Callable[[str], OnStep | None] | None = None,
    on_record: Callable[[dict[str, Any]], None] | None = None,
    fetch: Fetch | None = None,
) -> RunReport:
    """Make a model of a folder of audio, and sounds with it, in one folder; what is there is not done again.

    folder    audio files, at any depth
    out       gets data/ (codes), ckpt/, samples/, eval/, free/, metrics.jsonl and report.html
    time      of training, such as "10m" or seconds; None: as before, or else ten minutes
    codec     name or path; None: as before, or else "demo"
    settings  anything else about training
    workers   processes that encode; None: one per core
    new_data  training that has begun may go on with codes of a folder that has changed since
    on_stage  called with each stage's name as it begins; may return an `on_step(done, total)` for it
    on_record called with each record of metrics.jsonl
    fetch     how a codec that is not here comes; see `audiogen_core.codecs.load`

    Raises OptionError when both folders are one, and what `encode`, `train` and `evaluate` raise.
    """
    out = Path(out)
    if out.resolve() == Path(folder).resolve():
        raise OptionError(f"{out}: holds the audio, and the sounds made would join it; name another run")
    require_room(out / REPORT)
    from audiogen_minigpt.encode import encode

    begin = on_stage or (lambda stage: None)
    settings = settings or Settings()
    if time is not None:
        seconds = parse_time(time) if isinstance(time, str) else float(time)
        settings = Settings({"seconds": seconds}).over(settings)
    before, done = load_config(out), []
    source = codec or (before.codec if before else None) or "demo"
    if encode(
        folder, out / DATA, codec=source, workers=workers, fetch=fetch, on_step=begin("encode")
    ).encoded:
        done.append("encode")
    result = _train(out, settings, source, new_data, begin("train"), on_record, fetch)
    if result.ran:
        done.append("train")
    if result.signal is not None:
        return RunReport(out, None, result.step, tuple(done), result.signal)
    evaluation = read_evaluation(out)
    if evaluation is None or evaluation.step != result.step:
        evaluation = evaluate(out, out / DATA, codec=source, fetch=fetch, on_step=begin("judge"))
        done.append("judge")
    if _sample(out, result.step, source, lambda: begin("sample"), fetch):
        done.append("sample")
    page = out / REPORT
    if done or not page.is_file():
        page = _report(out, Path(folder), evaluation)
        done.append("report")
    return RunReport(out, page, result.step, tuple(done), None)


def _train(
    out: Path,
    settings: Settings,
    codec: str,
    new_data: bool,
    on_step: OnStep | None,
    on_record: Callable[[dict[str, Any]], None] | None,
    fetch: Fetch | None,
) -> TrainResult:
    """Train on the codes of the run, or go on with it."""
    from audiogen_minigpt.shards import Meta
    from audiogen_minigpt.train import train

    facts, before = Meta.load(out / DATA).facts, load_config(out)
    settings = Settings({"data": str(out / DATA), "run": str(out), "codec": codec}).over(settings)
    config = settings.resumed(before, facts) if before else settings.config(facts)
    return train(config, resume=True, new_data=new_data, on_step=on_step, on_record=on_record, fetch=fetch)


def _sample(
    out: Path,
    step: int,
    codec: str,
    begin: Callable[[], OnStep | None],
    fetch: Fetch | None,
    count: int = 3,
    seconds: float = 10.0,
) -> bool:
    """Make clips from nothing, unless they are there already; returns whether they had to be made."""
    stamp = out / SAMPLES / "made.json"
    wanted = {"step": step, "count": count, "seconds": seconds}
    try:
        require_regular(stamp)
        if json.loads(stamp.read_text(encoding="utf-8")) == wanted:
            return False
    except (OSError, ValueError):
        pass
    from audiogen_minigpt.clips import write_clips
    from audiogen_minigpt.generate import Generator

    on_step = begin()
    generator = Generator.load(out, codec=codec, fetch=fetch)
    write_clips(generator, stamp.parent, count=count, seconds=seconds, on_step=on_step)
    with atomic_path(stamp) as temporary:
        temporary.write_text(json.dumps(wanted), encoding="utf-8")
    return True


def _report(out: Path, folder: Path, evaluation: Evaluation) -> Path:
    from audiogen_minigpt.info import codes_info
    from audiogen_minigpt.pictures import LOSSES

    data, state = codes_info(out / DATA), checkpoint.find(out)
    config = state.config
    facts = {
        "audio": folder.name,
        "codec": data["codec"],
        "to train on, minutes": data["train"]["seconds"] / 60,
        "held out, minutes": data["val"]["seconds"] / 60,
        "files left out": sum(data["left_out"].values()),
        "model": f"{config.preset}, {config.layers} layers of {config.width}, layout {config.layout}, "
        f"{config.codebooks} codebooks",
        "updates": state.step,
        "training, minutes": state.state["progress"]["elapsed"] / 60,
    }
    rows: list[Sequence[Any]] = [
        ("bits for a second of audio", ""),
        ("this model", evaluation.bits_per_second),
        ("pairs of codes", evaluation.bigram_bits),
        ("single codes", evaluation.unigram_bits),
    ]
    continued = []
    for number, entry in enumerate(evaluation.continuations, 1):
        picture = out / entry["picture"] if entry["picture"] else None
        continued.append(Clip(f"Original {number}: {entry['track']}", out / entry["original"]))
        continued.append(
            Clip(f"Continuation {number}: the second half is the model's", out / entry["sound"], picture)
        )
    free = [
        Clip(f"Sample {number}", path, path.with_suffix(".png"))
        for number, path in enumerate(sorted((out / SAMPLES).glob("*.wav")), 1)
    ]
    held_out = (
        "held-out data" if evaluation.split == "val" else "the training data, because none was held out"
    )
    sections = [
        Section("New sounds", "Made from nothing but a seed.", clips=free),
        Section("Continuations", "The first half is given, the second half is made up.", clips=continued),
        Section("How well it predicts", f"Measured on {held_out}; fewer bits are better.", rows=rows),
        Section("Loss", "Mean nats per code.", picture=out / LOSSES),
    ]
    return write_report(out, f"audiogen-minigpt: {folder.name}", facts, sections)
