"""From a folder of audio to a page, stage by stage, each of which is done once."""

from __future__ import annotations

import base64
import html
import io
import json
import math
import multiprocessing
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from audiogen_core.audio import Audio
from audiogen_core.compose import compose
from audiogen_core.dataset.encode import Found, NoUsableAudio
from audiogen_core.errors import DownloadError, ModelError, OptionError
from audiogen_core.models import ModelSpec
from audiogen_core.recipe import Recipe
from audiogen_core.training import metrics
from audiogen_core.training.page import Clip, Section, write_report
from audiogen_core.training.signals import Stop
from audiogen_minigpt import checkpoint
from audiogen_minigpt.codec_choice import choose_codec
from audiogen_minigpt.info import codes_info
from audiogen_minigpt.options import Load
from audiogen_minigpt.run import RunReport, run
from audiogen_minigpt.settings import Settings, TrainConfig

CODEC = Path(__file__).parents[1] / "fixtures" / "encodec" / "24k"
SMALL = Settings(
    {"steps": 4, "batch": 2, "sample_seconds": 0.5, "eval_every": 2},
    {"layers": 1, "heads": 2, "width": 16, "context": 48, "codebooks": 2},
)


@pytest.fixture
def music(tmp_path: Path) -> Path:
    folder = tmp_path / "my <music> é"
    folder.mkdir()
    for index in range(3):
        rng = np.random.default_rng(index)
        sound = rng.uniform(-0.3, 0.3, (1, 24000 * 2)).astype(np.float32)
        Audio(sound, 24000).save(folder / f"{index} & more.wav")
    return folder


def _run(music: Path, out: Path, **options: Any) -> RunReport:
    return run(music, out, **{"settings": SMALL, "codec": str(CODEC), "workers": 1, **options})


class _Page(HTMLParser):
    """The sounds in a page, how many pictures it holds, and what it would load from elsewhere."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.sounds: list[Audio] = []
        self.pictures = 0
        self.elsewhere: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href", "srcset", "poster", "data") and not (value or "").startswith("data:"):
                self.elsewhere.append(value or "")
        kind, _, content = (dict(attrs).get("src") or "").partition(";base64,")
        if tag == "audio":
            assert kind == "data:audio/flac"
            samples, rate = soundfile.read(
                io.BytesIO(base64.b64decode(content)), dtype="float32", always_2d=True
            )
            self.sounds.append(Audio(samples.T, rate))
        if tag == "img":
            assert kind == "data:image/png"
            self.pictures += 1


def test_every_stage_once(music: Path, tmp_path: Path) -> None:
    out, stages = tmp_path / "run1", []
    first = _run(music, out, on_stage=lambda stage: stages.append(stage))
    assert first.done == ("encode", "train", "judge", "sample", "report")
    assert stages == ["look", "encode", "train", "judge", "sample"]
    assert (first.step, first.signal, first.page) == (4, None, out / "report.html")
    page = _Page((out / "report.html").read_text(encoding="utf-8"))
    assert page.elsewhere == []  # it plays wherever it is taken
    names = ["free/sample-1", "free/sample-2", "free/sample-3", "eval/original-1", "eval/continuation-1"]
    for name, sound in zip(
        [*names, "samples/step-00000002", "samples/step-00000004"], page.sounds, strict=True
    ):
        kept = Audio.load(out / f"{name}.wav")
        assert sound.sample_rate == kept.sample_rate
        np.testing.assert_allclose(sound.samples, kept.samples, atol=1e-4)
    assert page.pictures == 5  # of what the model made at the end, and of the losses
    recipe = Recipe.read(out / "free" / "sample-2.wav")
    assert recipe.seed == 1 and recipe.revision == "step-00000004"
    assert json.loads((out / "eval.json").read_text())["step"] == 4
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.*") if path.name != "report.jsonl"}
    again = _run(music, out, settings=None, codec=None)  # what it was begun with is remembered
    assert again.done == () and again.page == out / "report.html"
    after = {path: path.stat().st_mtime_ns for path in out.rglob("*.*") if path.name != "report.jsonl"}
    same = {path for path in before if before[path] == after[path]}
    assert {path.name for path in set(before) - same} <= {"meta.json", "plan.json"}


def test_what_validation_found_best_is_judged_and_plays(music: Path, tmp_path: Path) -> None:
    """A rate at which the loss rises: the checkpoint before that is taken in the end, and in generate."""
    out, settings = tmp_path / "run1", Settings({**SMALL.train, "lr": 2.0, "eval_every": 1}, SMALL.shape)
    result = _run(music, out, settings=settings)
    losses = {record["step"]: record["loss"] for record in metrics.read(out) if record["kind"] == "eval"}
    best = min(losses, key=losses.__getitem__)
    assert best < result.step == 4
    assert json.loads((out / "eval.json").read_text())["step"] == best
    assert Recipe.read(out / "free" / "sample-1.wav").revision == f"step-{best:08d}"
    assert Load(str(out)).chosen == "better" and Load(str(out), which="last").chosen == "last"
    assert result.verdict and f"best after {best} of 4 updates" in result.verdict.sentence
    assert _run(music, out, settings=settings).done == ()


def test_stopped_and_gone_on_with(music: Path, tmp_path: Path) -> None:
    def stop_in_training(stage: str) -> Callable[[int, int], None] | None:
        def on_step(done: int, total: int) -> None:
            if done == 2:
                signal.raise_signal(signal.SIGINT)

        return on_step if stage == "train" else None

    out = tmp_path / "run1"
    first = _run(music, out, on_stage=stop_in_training)
    assert first.signal == signal.SIGINT and first.done == ("encode", "train") and first.page is None
    second = _run(music, out)
    assert second.done == ("train", "judge", "sample", "report") and second.step == 4


@pytest.mark.slow
def test_longer_training_makes_new_sounds(music: Path, tmp_path: Path) -> None:
    out = tmp_path / "run1"
    _run(music, out)
    longer = run(music, out, settings=Settings({"steps": 6}), workers=1)
    assert longer.step == 6 and longer.done == ("train", "judge", "sample", "report")
    assert Recipe.read(out / "free" / "sample-1.wav").revision == "step-00000006"
    in_time = run(music, out, time=0.01, workers=1)
    assert in_time.step > 6


def test_folder_without_usable_audio(tmp_path: Path) -> None:
    folder = tmp_path / "music"
    folder.mkdir()
    (folder / "noise.wav").write_bytes(b"no sound at all")
    with pytest.raises(NoUsableAudio) as caught:
        _run(folder, tmp_path / "run1")
    assert caught.value.exit_code == 3


def test_the_folder_of_audio_is_not_written_into(music: Path) -> None:
    before = sorted(music.iterdir())
    with pytest.raises(OptionError, match="name another run"):
        _run(music, music)
    assert sorted(music.iterdir()) == before


def test_page_escapes_what_it_shows(tmp_path: Path) -> None:
    sound = tmp_path / "a b" / "<x>\udcff.wav"
    sound.parent.mkdir()
    Audio(np.zeros((1, 800), np.float32), 8000).save(sound)
    clip = Clip("<script>", sound, tmp_path / "missing.png")
    section = Section("T & C", "a < b", [("h", "i"), ("<k>", None), ("n", 12345), ("x", 0.5)], clips=[clip])
    path = write_report(tmp_path, 'a "<title>"', {"k\udcff": True}, [section])
    page = path.read_text(encoding="utf-8")
    assert "<script>" not in page and "&lt;script&gt;" in page and "12,345" in page
    assert _Page(page).pictures == 0 and len(_Page(page).sounds) == 1


def test_what_is_found_is_told_before_anything_is_done(music: Path, tmp_path: Path) -> None:
    (music / "notes.wav").write_text("these are notes, no sound")
    whole = (music / "0 & more.wav").read_bytes()
    (music / "half.wav").write_bytes(whole[: len(whole) // 2])
    told: list[str] = []

    def on_stage(stage: str) -> None:
        if stage == "encode":
            assert told[0] == "3 files, 6 s; 2 left out: half.wav (cut off), notes.wav (no audio)"
            assert told[1].startswith("held out to judge by: ")
            assert told[2].startswith("to do: encode 6 s, about ") and "train 4 updates" in told[2]

    result = _run(music, tmp_path / "run1", notify=told.append, on_stage=on_stage)
    assert result.verdict and told[-3:] == [
        f"verdict: {result.verdict.sentence}",
        f"hear more: {result.next[0]}",
        f"train on: {result.next[1]}",
    ]
    assert shlex.split(result.next[1])[:5] == [
        "audiogen-minigpt",
        "run",
        str(music),
        "-o",
        str(tmp_path / "run1"),
    ]
    page = (tmp_path / "run1" / "report.html").read_text(encoding="utf-8")
    assert "2 left out: half.wav (cut off)" in page and html.escape(result.verdict.sentence) in page


def test_the_same_time_asked_for_twice_is_given_once(music: Path, tmp_path: Path) -> None:
    out, settings = tmp_path / "run1", Settings({"batch": 2, "sample_seconds": 0.0}, SMALL.shape)
    first = _run(music, out, settings=settings, time=1.0)
    assert first.step > 0 and re.search(r" --time \d+m$", first.next[1])
    again = _run(music, out, settings=settings, time=1.0)
    assert again.done == () and again.step == first.step


def test_a_folder_that_takes_far_longer_than_the_time_is_refused(
    music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules["audiogen_minigpt.run"]
    monkeypatch.setattr(module, "choose_codec", lambda *_: (str(CODEC), 1000.0))
    with pytest.raises(
        OptionError, match=r"encoding 6 s of audio takes about 1h40m here, more than --time 1m"
    ):
        _run(music, tmp_path / "run1", settings=Settings({}, SMALL.shape), time="1m")
    assert not list((tmp_path / "run1" / "data").glob("shard-*"))


def test_what_the_end_needs_follows_from_what_was_timed(
    music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under load judging and making sounds take longer: more is kept for them, and less of them is done."""
    module = sys.modules["audiogen_minigpt.run"]
    monkeypatch.setattr(module.clock, "monotonic", lambda: 1000.0)
    made = module._Run(music, tmp_path, SMALL, None, Stop(), lambda text: None, None, started=1000.0)
    made.budget = 180.0
    config = TrainConfig("data", str(tmp_path / "run"), eval_windows=16, sample_seconds=5.0)
    assert (made.left, made.after) == (180.0, 36.0)
    quick = ({"kind": "eval", "seconds": 0.8}, {"kind": "sample", "seconds": 1.0})
    slow = ({"kind": "eval", "seconds": 16.0}, {"kind": "sample", "seconds": 15.0})
    for record in quick:
        made._learn_pace(record, config)
    assert (made.after, made._windows(), made._sounds()) == (36.0, 256, (3, 10.0))
    for record in slow:
        made._learn_pace(record, config)
    assert made.after == 32 * 1.0 + 4.0 * 1.5 * 6.0  # the fewest windows, the shortest clip
    assert (made._windows(), made._sounds()) == (32, (3, 6.0))
    made._learn_pace({"kind": "sample", "seconds": 1500.0}, config)
    assert (made.after, made._sounds()) == (90.0, (1, 4.0))  # never more than half


def test_the_plan_of_a_run_that_goes_on_counts_what_it_had(
    music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules["audiogen_minigpt.run"]
    monkeypatch.setattr(module.clock, "monotonic", lambda: 1000.0)
    monkeypatch.setattr(module.clock, "time", lambda: 0.0)
    monkeypatch.setattr(module.clock, "localtime", time.gmtime)
    made = module._Run(music, tmp_path, Settings(), None, Stop(), lambda text: None, None, started=1000.0)
    made.budget = 360.0
    everything = Found.of(tmp_path, [], [])
    fresh = made._plan(everything, 0.0)[-1]
    assert fresh == "to do: train about 5m; judge and make sounds, about 72s; ends about 00:06:00"
    monkeypatch.setattr(module, "_times", lambda out: [100.0])
    more = made._plan(everything, 0.0)[-1]
    assert more == (
        "to do: train about 3m more, after 2m; judge and make sounds, about 72s; ends about 00:04:20"
    )


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("composed")
    for seed in range(5):
        compose(seed, seconds=6.0).audio.save(folder / f"{seed}.wav")
    return folder


def _until_trained(stage: str) -> Callable[[float, float], None] | None:
    """Stops a run when its training is done: what comes after is not looked at."""

    def on_step(done: float, total: float) -> None:
        if done == total:
            signal.raise_signal(signal.SIGINT)

    return on_step if stage == "train" else None


def test_a_run_starts_from_the_demo_model_where_it_fits(composed: Path, tmp_path: Path) -> None:
    told: list[str] = []
    settings = Settings({"steps": 1, "batch": 1, "sample_seconds": 0.0, "eval_windows": 1})
    run(
        composed, tmp_path / "bent", settings=settings, workers=1, notify=told.append, on_stage=_until_trained
    )
    assert any(line.startswith("it starts from the demo model") for line in told)
    made, demo = checkpoint.find(tmp_path / "bent"), checkpoint.find("demo")
    assert made.config == demo.config and made.sampling == demo.sampling
    evals = [record for record in metrics.read(tmp_path / "bent") if record["kind"] == "eval"]
    assert [record["step"] for record in evals] == [0, 1]
    assert evals[0]["loss"] < 0.5 * math.log(1024)  # it knew such music before
    held = codes_info(tmp_path / "bent" / "data")["val"]
    assert held["tracks"] == 1  # a whole file, from five on

    data = {path.name: path.read_bytes() for path in (tmp_path / "bent" / "data").iterdir() if path.is_file()}
    with pytest.raises(OptionError, match="began with the model demo"):
        run(composed, tmp_path / "bent", from_scratch=True)
    others = tmp_path / "others"
    others.mkdir()
    compose(9, seconds=6.0).audio.save(others / "another.wav")
    with pytest.raises(OptionError, match="holds none of the 5 files that"):
        run(others, tmp_path / "bent")
    kept = {path.name: path.read_bytes() for path in (tmp_path / "bent" / "data").iterdir() if path.is_file()}
    assert kept == data  # of a wrong folder nothing came in, and nothing went


@pytest.mark.slow
def test_from_scratch_it_does_not(composed: Path, tmp_path: Path) -> None:
    settings = Settings({"steps": 1, "batch": 1, "sample_seconds": 0.0}, {"codebooks": 1})
    run(composed, tmp_path / "run", settings=settings, workers=1, on_stage=_until_trained)
    assert checkpoint.find(tmp_path / "run").state["config"]["start"] is None
    with pytest.raises(OptionError, match="not both"):
        run(composed, tmp_path / "both", settings=Settings({"start": "demo"}), from_scratch=True)


def test_recordings_that_the_demo_codec_does_not_suit(music: Path) -> None:
    told: list[str] = []

    def fetch(spec: ModelSpec) -> Path:
        raise DownloadError(f"{spec.name}: no network")

    assert choose_codec(music, None, told.append, fetch, Stop())[0] == "demo"
    assert "so encodec-24khz is taken" in told[0]
    assert "encodec-24khz: no network" in told[1] and "expect blurred, rough sound" in told[1]


def test_music_that_the_demo_codec_suits(composed: Path) -> None:
    told: list[str] = []

    def fetch(spec: ModelSpec) -> Path:
        raise AssertionError("nothing is needed")

    name, pace = choose_codec(composed, None, told.append, fetch, Stop())
    assert name == "demo" and pace > 0 and told == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_stopped_while_encoding_nothing_is_lost(
    music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C on a terminal reaches the processes that encode, too: what they have begun is finished."""
    monkeypatch.setattr("audiogen_core.dataset.plan._SHARD_FILES", 1)

    def on_stage(stage: str) -> Callable[[float, float], None] | None:
        def on_step(done: float, total: float) -> None:
            for child in multiprocessing.active_children():
                os.kill(child.pid or 0, signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

        return on_step if stage == "encode" else None

    first = _run(music, tmp_path / "run1", on_stage=on_stage, workers=2)
    assert (first.signal, first.step, first.page) == (signal.SIGINT, 0, None)
    assert _run(music, tmp_path / "run1", workers=2).step == 4


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        (Settings({"steps": 4, "seconds": 60.0}), "a number of steps or a time, not both"),
        (Settings(size="huge"), "unknown size 'huge'"),
        (Settings(shape={"layout": "flat"}), "unknown layout 'flat'; did you mean flatten"),
        (Settings({"start": "nowhere"}), "unknown model 'nowhere'"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_done(
    settings: Settings, error: str, music: Path, tmp_path: Path
) -> None:
    with pytest.raises((OptionError, ModelError), match=error):
        run(music, tmp_path / "run1", settings=settings, codec=str(CODEC))
    assert not (tmp_path / "run1").exists()
