"""The verdict of a run: whether the model does better than counts do on music that it has not heard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audiogen_core.dataset.shards import Meta
from audiogen_core.training import metrics
from audiogen_minigpt.config import ModelConfig
from audiogen_minigpt.evaluate import Evaluation, Verdict, evaluate, verdict
from audiogen_minigpt.settings import TrainConfig
from audiogen_minigpt.train import train
from support.tokens import write_codes

MODEL = ModelConfig(layers=2, heads=2, width=32, context=64, layout="first", codebooks=1, codebook_size=8)


def _second_order(rng: np.random.Generator, frames: int) -> np.ndarray:
    """Codes that follow from the two before them; from one alone, hardly. Some are met more often."""
    codes = [0, 1]
    for _ in range(frames - 2):
        surely = (3 * codes[-2] + 5 * codes[-1] + codes[-2] * codes[-1]) % 6
        codes.append(surely if rng.random() < 0.9 else int(rng.integers(6)))
    return np.array(codes)[:, None]


def _pairs_or_nothing(rng: np.random.Generator, frames: int) -> np.ndarray:
    """Codes drawn one by one, some more often than others."""
    return rng.choice(8, (frames, 1), p=[0.3, 0.3, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05])


def _learnt(
    tmp_path: Path, codes: Callable[[np.random.Generator, int], np.ndarray], **settings: Any
) -> tuple[Verdict, Evaluation]:
    """The verdict on a run with these settings, on tracks of such codes."""
    data, rng = tmp_path / "data", np.random.default_rng(0)
    meta = Meta("nothing", "00000000", 8000, 160, codebooks=1, codebook_size=8)
    write_codes(data, meta, [codes(rng, 1000) for _ in range(8)], [codes(rng, 1000) for _ in range(3)])
    given = {"batch": 8, "lr": 3e-3, "sample_seconds": 0.0, "dtype": "float32", "log_every": 10, **settings}
    train(TrainConfig(str(data), str(tmp_path / "run"), model=MODEL, **given))
    found = evaluate(tmp_path / "run", clips=0)
    return verdict(found, metrics.read(tmp_path / "run")), found


def test_a_run_that_learnt_nothing(tmp_path: Path) -> None:
    told, found = _learnt(tmp_path, _second_order, steps=1, lr=1e-5)
    assert told.level == "nothing" and told.sentence.startswith("nothing yet: a second costs it ")
    assert found.bits_per_second > found.unigram_bits > found.bigram_bits
    assert f"{found.unigram_bits:,.0f}" in told.sentence


def test_a_run_that_learnt_the_notes_but_not_the_order(tmp_path: Path) -> None:
    told, found = _learnt(tmp_path, _second_order, steps=24, lr=4e-3, eval_every=6)
    assert found.bigram_bits < found.bits_per_second < 0.98 * found.unigram_bits
    assert told.level == "notes"
    assert told.sentence.startswith("this has learnt the notes but not the order: ")
    assert told.more and "; train about " in told.sentence


def test_a_run_that_learnt_the_order(tmp_path: Path) -> None:
    told, found = _learnt(tmp_path, _second_order, steps=250)
    assert found.bits_per_second < 0.9 * found.bigram_bits
    assert told.level == "order" and told.more is None
    share = round(100 * (1 - found.bits_per_second / found.bigram_bits))
    assert f"{share} % less than by counts of pairs" in told.sentence


@pytest.mark.slow
def test_where_there_is_no_order_none_is_found(tmp_path: Path) -> None:
    told, _ = _learnt(tmp_path, _pairs_or_nothing, steps=120)
    assert told.level != "order"


def _records(*costs: tuple[int, float], kind: str = "eval") -> list[dict[str, Any]]:
    losses = [{"kind": kind, "step": step, "bits_per_second": bits} for step, bits in costs]
    last = costs[-1][0]
    return [*losses, {"kind": "train", "step": last, "bits_per_second": 1.0, "elapsed": 10.0 * last}]


NOTES = Evaluation(80, "step", "val", 4, 3.0, [3.0], 900.0, 1000.0, 800.0)


def test_how_much_longer_follows_from_what_the_last_doubling_saved() -> None:
    told = verdict(NOTES, _records((20, 1100.0), (40, 1000.0), (80, 900.0)))
    assert told.more == pytest.approx(800 * (2 ** ((900 - 0.98 * 800) / 100) - 1))
    assert "train about 16m more" in told.sentence


@pytest.mark.parametrize(
    ("curve", "words"),
    [
        ([(40, 900.0), (80, 900.0)], "stopped getting better"),
        ([(40, 850.0), (80, 900.0)], "add music rather than time"),
        ([(80, 900.0)], "cannot be told yet"),
        ([(40, 900.5), (80, 900.0)], "cannot be told yet"),
    ],
)
def test_where_time_alone_does_not_help_none_is_promised(curve: list[tuple[int, float]], words: str) -> None:
    told = verdict(NOTES, _records(*curve))
    assert told.more is None and words in told.sentence and "train about" not in told.sentence


def test_a_model_that_could_play_before_is_not_praised_for_it() -> None:
    good = replace(NOTES, bits_per_second=300.0)
    same = verdict(good, _records((0, 300.0), (40, 300.2), (80, 300.0)))
    assert same.level == "order" and "has not bent the model it began with yet" in same.sentence
    bent = verdict(good, _records((0, 400.0), (40, 310.0), (80, 300.0)))
    assert "this knows notes and order" in bent.sentence  # it did before
    assert "the model it began with needed 400 bits" in bent.sentence
    hardly = verdict(good, _records((0, 303.0), (40, 301.0), (80, 300.0)))
    assert "your music has hardly bent the model it began with yet (303 bits)" in hardly.sentence
    assert not (same.worse or bent.worse or hardly.worse)
    worse = verdict(good, _records((0, 250.0), (40, 290.0), (80, 300.0)))
    assert worse.worse and worse.more is None and "not bent" not in worse.sentence
    assert "training made it worse at music it has not heard: it began with 250 bits" in worse.sentence
    assert "add music" in worse.sentence
    learnt = verdict(good, _records((0, 900.0), (40, 310.0), (80, 300.0)))
    assert "this has learnt notes and order" in learnt.sentence  # it did not


def test_copies_and_missing_material_are_told() -> None:
    copied = replace(NOTES, quoted=[4.0, 5.0, 6.0], quoted_original=[0.2, 0.3, 0.4])
    assert "5.0 s at a time are copies" in verdict(copied, _records((80, 900.0))).sentence
    usual = replace(NOTES, quoted=[4.0, 5.0, 6.0], quoted_original=[3.0, 4.0, 5.0])
    assert "copies" not in verdict(usual, _records((80, 900.0))).sentence
    alone = replace(NOTES, split="train")
    assert "nothing was held out" in verdict(alone, _records((80, 900.0), kind="train")).sentence
