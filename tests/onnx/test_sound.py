"""Sound in blocks: cutting, joining, pasting and measuring do not depend on how it is cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiogen_core.audio import Audio, pieces, resampled
from audiogen_core.errors import AudioError
from audiogen_onnx.vampnet.loudness import Meter, loudness
from audiogen_onnx.vampnet.sound import (
    Circle,
    ClipSource,
    FileSource,
    Store,
    as_original,
    cut,
    glide,
    measure,
    pasted,
)

RNG = np.random.default_rng(8)
SOUND = (RNG.standard_normal((2, 30_000)) * 0.1).astype(np.float32)


def blocks(samples: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
    """Cut at these sizes, over and over."""
    out, at, turn = [], 0, 0
    while at < samples.shape[1]:
        out.append(samples[:, at : at + sizes[turn % len(sizes)]])
        at += sizes[turn % len(sizes)]
        turn += 1
    return out


SIZES = st.lists(st.integers(1, 9000), min_size=1, max_size=4)


@settings(max_examples=30)
@given(SIZES, st.integers(1, 20_000))
def test_pieces_are_of_one_size(sizes, size):
    found = list(pieces(blocks(SOUND, sizes), size))
    assert np.array_equal(np.concatenate(found, axis=1), SOUND)
    assert {piece.shape[1] for piece in found[:-1]} <= {size}


@settings(max_examples=40)
@given(SIZES, st.integers(-5000, 40_000), st.integers(1, 45_000))
def test_cut_fills_up_with_silence(sizes, start, length):
    found = np.concatenate(list(cut(blocks(SOUND, sizes), start, length, 2)), axis=1)
    padded = np.pad(SOUND, ((0, 0), (5000, 90_000)))
    assert np.array_equal(found, padded[:, 5000 + start : 5000 + start + length])


@pytest.mark.parametrize("length", [0, 700, 22_050, 30_000])
@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_the_meter_measures_what_the_whole_measures(length, rate):
    samples = SOUND[:, : max(1, length)] * np.linspace(0.001, 1, max(1, length), dtype=np.float32)
    meter = Meter(rate, 2)
    for block in blocks(samples, [1, 777, 5000]):
        meter.add(block)
    assert meter.loudness() == pytest.approx(loudness(Audio(samples, rate)), abs=1e-6)
    assert meter.length == samples.shape[1]
    assert meter.peak == pytest.approx(np.abs(samples).max())


def test_a_single_channel_measures_as_on_the_average():
    both = Meter(44_100, 2)
    both.add(np.tile(SOUND[:1], (2, 1)))
    one = Meter(44_100, 1)
    one.add(SOUND[:1])
    assert both.mean_loudness() == pytest.approx(one.loudness(), abs=1e-9)


def test_nothing_to_measure_is_refused(monkeypatch):
    source = ClipSource(Audio(SOUND, 44_100))
    monkeypatch.setattr(ClipSource, "blocks", lambda self, rate: iter(()))
    with pytest.raises(AudioError, match="too short"):
        measure(source, 44_100)


def test_a_file_and_a_clip_are_the_same_source(tmp_path):
    clip = ClipSource(Audio(SOUND, 44_100))
    clip.audio.save(tmp_path / "a.wav", subtype="FLOAT")
    file = FileSource.open(tmp_path / "a.wav")
    assert (file.sample_rate, file.channels, file.length) == (44_100, 2, 30_000)
    for rate in (44_100, 16_000):
        ours, theirs = (np.concatenate(list(source.blocks(rate)), axis=1) for source in (clip, file))
        assert np.allclose(ours, theirs, atol=1e-6)


@settings(max_examples=20)
@given(SIZES)
def test_glide_changes_only_the_end_and_arrives(sizes):
    lead = np.ones((2, 100), np.float32)
    found = np.concatenate(list(glide(blocks(SOUND, sizes), 30_000, lead)), axis=1)
    assert np.array_equal(found[:, :-100], SOUND[:, :-100])
    assert np.allclose(found[:, -1], 1)
    weight = (np.arange(1, 101) / 100).astype(np.float32)
    assert np.allclose(found[:, -100:], SOUND[:, -100:] * (1 - weight) + weight, atol=1e-6)


def test_paste_keeps_the_original_to_the_bit_outside_and_the_made_inside():
    made = np.full((2, 30_000), 0.5, np.float32)
    spans = [(-np.inf, 1000), (10_000, 20_000), (29_000, np.inf)]
    found = np.concatenate(list(pasted(blocks(made, [777]), blocks(SOUND, [5000]), spans, 50)), axis=1)
    for kept in (slice(1000, 10_001), slice(20_000, 29_001)):
        assert np.array_equal(found[:, kept], SOUND[:, kept])
    for ours in (slice(0, 949), slice(10_050, 19_949), slice(29_050, 30_000)):
        assert np.allclose(found[:, ours], 0.5)


def test_a_store_gives_back_what_it_was_given(tmp_path):
    with Store(2, tmp_path) as store:
        for block in blocks(SOUND, [123, 4000]):
            store.add(block)
        for _ in range(2):
            assert np.array_equal(np.concatenate(list(store.blocks()), axis=1), SOUND)
        assert np.array_equal(np.concatenate(list(store.part(50, 60)), axis=1), SOUND[:, 50:110])
    assert not list(tmp_path.iterdir())


def test_resampling_in_blocks_is_resampling_the_whole():
    whole = Audio(SOUND, 44_100).resample(16_000).samples
    found = np.concatenate(list(resampled(blocks(SOUND, [999]), 44_100, 16_000, 2)), axis=1)
    assert np.allclose(found, whole, atol=1e-6)


def test_resampling_as_the_original_leaves_something() -> None:
    with pytest.raises(AudioError, match="too short to resample: 1 samples"):
        as_original(Audio(np.ones((1, 1), np.float32), 44_100), 8_000)


@pytest.mark.parametrize("length", [1000, 999, 640, 90])
def test_a_circle_surrounds_the_clip_with_itself(length):
    samples = SOUND[:, :length]
    circle = Circle(length, 64, min(3, length // 64))
    around = np.concatenate(list(circle.around(ClipSource(Audio(samples, 44_100)), 44_100)), axis=1)
    before = circle.margin * 64
    assert np.array_equal(around[:, before : before + length], samples)
    wanted = (circle.frames + 2 * circle.margin) * 64
    expected = samples[:, np.arange(-before, wanted - before) % length]
    assert np.array_equal(around, expected[:, : around.shape[1]])
    assert -(-around.shape[1] // 64) == circle.frames + 2 * circle.margin
    codes = np.arange(circle.frames)[None]
    assert circle.codes(codes).shape[1] == circle.frames + 2 * circle.margin
    assert np.array_equal(circle.codes(codes)[:, circle.margin :][:, : circle.frames], codes)
