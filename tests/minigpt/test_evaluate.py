"""Judging: losses beside counts, quotations, variety, distance, and the continuations one can hear."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiogen_core import codecs
from audiogen_core.audio import Audio
from audiogen_core.codec import fingerprint
from audiogen_core.compose import write_folder
from audiogen_core.dataset.encode import encode
from audiogen_core.dataset.shards import Meta, Track, checksum, write_shard
from audiogen_core.errors import CodesError, ModelError, OptionError
from audiogen_core.training import metrics
from audiogen_minigpt import checkpoint
from audiogen_minigpt.catalog import locate
from audiogen_minigpt.config import ModelConfig
from audiogen_minigpt.evaluate import evaluate, read_evaluation
from audiogen_minigpt.measures import baselines, embed, entropies, kernel_distance, longest_quotes
from audiogen_minigpt.train import train
from support.tokens import write_tokens
from support.training import MODEL, tiny

CODEC = Path(__file__).parents[1] / "fixtures" / "encodec" / "24k"


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokens(tmp_path_factory.mktemp("data") / "tokens")


@pytest.fixture(scope="module")
def trained(tokens: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    train(tiny(tokens, run, steps=60, eval_every=30))
    return run


def test_figures_without_a_codec(tokens: Path, trained: Path, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[tuple[int, int]] = []
    result = evaluate(trained, clips=2, seconds=4.0, on_step=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == 3 and seen[0] == (1, 4)  # one validation track, though two were asked for
    known = baselines(tokens)
    assert (result.unigram_bits, result.bigram_bits) == (known.unigram_bits, known.bigram_bits)
    assert result.bits_per_second < result.bigram_bits < result.unigram_bits
    assert (result.step, result.split, result.windows) == (60, "val", 9)
    logged = [record for record in metrics.read(trained) if record["kind"] == "eval"][-1]
    assert result.loss == pytest.approx(logged["loss"], rel=0.05)  # of other windows
    assert "codec cannot be used" in caplog.text and not result.continuations
    assert len(result.entropy) == 4 and all(0 < value <= 4 for value in result.entropy)
    assert len(result.quoted) == 1 and result.quoted_original[0] >= 1 / 50
    assert read_evaluation(trained) == result
    assert json.loads((trained / "eval.json").read_text())["loss"] == result.loss


def test_the_best_checkpoint(trained: Path) -> None:
    result = evaluate(trained, which="best", clips=0)
    assert result.step == checkpoint.find(trained, "best").step
    assert result.entropy == [] and result.distance is None


def test_checkpoint_needs_its_data_named(tokens: Path, trained: Path) -> None:
    folder = trained / "ckpt" / "step-00000030"
    with pytest.raises(OptionError, match="name the folder of codes"):
        evaluate(folder, clips=0)
    assert evaluate(folder, tokens, clips=0).step == 30


def test_a_model_that_belongs_to_a_package_is_judged_where_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_folder("music", minutes=0.2, seed=3, piece_seconds=6)
    encode("music", "codes")
    place = locate("demo")
    before = {path: path.stat().st_mtime for folder in (place, place.parent) for path in folder.iterdir()}
    evaluate("demo", "codes", clips=0, windows=1)
    assert Path("eval.json").is_file()
    assert before == {path: path.stat().st_mtime for path in before}
    assert set(before) == {path for folder in (place, place.parent) for path in folder.iterdir()}


def test_data_that_does_not_fit(trained: Path, tmp_path: Path) -> None:
    other = write_tokens(tmp_path / "other", codec="else")
    with pytest.raises(OptionError, match="codec: nothing in"):
        evaluate(trained, other, clips=0)
    with pytest.raises(ModelError, match="neither a run nor a checkpoint"):
        evaluate(tmp_path, other, clips=0)


def test_without_anything_held_out(trained: Path, tmp_path: Path) -> None:
    data = write_tokens(tmp_path / "tokens", train=2, val=0)
    assert evaluate(trained, data, clips=0).split == "train"
    empty = write_tokens(tmp_path / "empty", train=0, val=0)
    with pytest.raises(CodesError, match="no codes to judge by"):
        evaluate(trained, empty, clips=0)


def test_continuations_can_be_heard_and_seen(tmp_path: Path) -> None:
    codec = codecs.load(CODEC)
    info, rng = codec.info, np.random.default_rng(0)
    data = tmp_path / "tokens"
    data.mkdir()
    Meta.of(info, fingerprint(codec.codebook_vectors()), 4, {}).save(data)
    parts = []
    for index, split in enumerate(("train", "val", "val")):
        codes = rng.integers(0, info.codebook_size, (200, 4)).astype(np.uint16)
        parts.append((Track(f"<{index}>\n.wav", 200, None, split, 0.0, "", checksum(codes)), codes))
    write_shard(data, 0, parts)
    shape = {**MODEL.to_dict(), "codebook_size": info.codebook_size}
    settings = {"steps": 4, "eval_every": 2, "sample_seconds": 1.0, "codec": str(CODEC)}
    train(tiny(data, tmp_path / "run", model=ModelConfig(**shape), **settings))
    for step in (2, 4):
        sample = Audio.load(tmp_path / "run" / "samples" / f"step-{step:08d}.wav")
        assert sample.samples.shape == (1, info.hop_length * 75)
        assert (tmp_path / "run" / "samples" / f"step-{step:08d}.png").is_file()
    assert (tmp_path / "run" / "loss.png").is_file()
    result = evaluate(tmp_path / "run", clips=2, seconds=2.0, codec=str(CODEC))
    assert [entry["track"] for entry in result.continuations] == ["<1>\n.wav", "<2>\n.wav"]
    for entry in result.continuations:
        original, sound = (Audio.load(tmp_path / "run" / entry[key]) for key in ("original", "sound"))
        assert original.samples.shape == sound.samples.shape == (1, 150 * info.hop_length)
        half = 70 * info.hop_length
        assert np.array_equal(original.samples[:, :half], sound.samples[:, :half])
        assert (tmp_path / "run" / entry["picture"]).read_bytes()[:4] == b"\x89PNG"
    assert result.distance is None or np.isfinite(result.distance)


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 3))
def test_longest_quote_is_found(seed: int, length: int, codebooks: int) -> None:
    """Against a comparison of every pair of places."""
    rng = np.random.default_rng(seed)
    known = [rng.integers(0, 3, (60, codebooks)) for _ in range(2)]
    asked = rng.integers(0, 3, (50, codebooks))
    place = rng.integers(0, 60 - length + 1)
    asked[:length] = known[1][place : place + length]
    data = _Tracks(known)
    assert longest_quotes([asked], data) == [_longest_slowly(asked, known)]  # type: ignore[arg-type]


def test_no_quote() -> None:
    data = _Tracks([np.zeros((10, 2), np.int64)])
    assert longest_quotes([np.ones((5, 2), np.int64)], data) == [0]  # type: ignore[arg-type]


class _Tracks:
    """As much of a Dataset as is read."""

    def __init__(self, tracks: list[np.ndarray]) -> None:
        self.tracks = tracks

    def track(self, index: int) -> np.ndarray:
        return self.tracks[index]


def _longest_slowly(asked: np.ndarray, known: list[np.ndarray]) -> int:
    longest = 0
    for track in known:
        for i in range(len(asked)):
            for j in range(len(track)):
                run = 0
                while (
                    i + run < len(asked)
                    and j + run < len(track)
                    and np.array_equal(asked[i + run], track[j + run])
                ):
                    run += 1
                longest = max(longest, run)
    return longest


def test_entropy() -> None:
    even = np.stack([np.arange(16) % 8, np.zeros(16, np.int64)], axis=1)
    assert entropies([even[:4], even[4:]]) == pytest.approx([3.0, 0.0])


def test_distance_tells_sets_apart() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(2, 8, 3)).astype(np.float32)

    def clips(high: int) -> list[np.ndarray]:
        return [rng.integers(0, high, (300, 2)) for _ in range(4)]

    one, same, other = (embed(clips(high), vectors, 10.0) for high in (8, 8, 3))
    assert one.shape == (120, 6)
    near, far = kernel_distance(one, same), kernel_distance(one, other)
    assert near is not None and far is not None
    assert abs(near) < 5 < 100 < far
    assert kernel_distance(one[:1], other) is None
    assert embed([np.zeros((3, 2), np.int64)], vectors, 10.0).size == 0
