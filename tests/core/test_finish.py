"""What is done to a clip between the model and its file: level, fades, joining, conversion."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest

from audiogen_core.audio import Audio
from audiogen_core.compose import compose
from audiogen_core.errors import AudioMismatch, OptionError
from audiogen_core.finish import CEILING, LOSSY_CEILING, finished, form, limited, live, whole
from audiogen_core.jobs import Continuing
from audiogen_core.loudness import loudness
from audiogen_core.options import Clip, audio
from audiogen_core.output import Sound, Take

RATE = 16_000
MUSIC = compose(2, seconds=6).audio.resample(RATE).mix(1).normalize(-6)


@dataclass(frozen=True)
class Asked(Continuing):
    prompt_audio: Annotated[Clip | None, audio("A clip to go on with.", "--continue")] = None


def take(samples: np.ndarray, *, rate: int = RATE, size: int = 1_000, **facts: Any) -> Take:
    pieces = (
        Audio(samples[:, start : start + size].astype(np.float32), rate)
        for start in range(0, samples.shape[1], size)
    )
    return Take(pieces, rate, len(samples), {}, **facts)


def done(samples: np.ndarray, **asked: Any) -> np.ndarray:
    return whole(take(samples), Asked(**asked)).samples


def test_nothing_is_done_unless_it_is_asked_for() -> None:
    clip = Audio(3 * MUSIC.samples, RATE)
    assert whole(Take(iter([clip]), RATE, 1, {}), Asked()) is clip
    np.testing.assert_array_equal(done(clip.samples), clip.samples)


@pytest.mark.parametrize("scale", [0.1, 1, 4])
def test_one_gain_keeps_the_peak_below_full_scale(scale: float) -> None:
    loud = scale * MUSIC.samples
    made = done(loud, normalize=True)
    assert np.abs(made).max() == pytest.approx(min(CEILING, np.abs(loud).max()), rel=1e-6)
    np.testing.assert_allclose(made / np.abs(made).max(), loud / np.abs(loud).max(), atol=1e-6)


def test_gain_is_in_decibels_and_stays_below_full_scale_where_that_is_asked_for() -> None:
    np.testing.assert_allclose(done(MUSIC.samples, gain=-6), MUSIC.samples * 10 ** (-6 / 20), atol=1e-6)
    assert np.abs(done(MUSIC.samples, gain=30)).max() > 10
    assert np.abs(done(MUSIC.samples, gain=30, normalize=True)).max() == pytest.approx(CEILING)
    with pytest.raises(OptionError, match="gain or loudness, not both"):
        Asked(gain=1, loudness=-20)


@pytest.mark.parametrize("wanted", [-40, -23, -14, -9])
def test_a_loudness_is_reached_and_peaks_are_limited(wanted: float) -> None:
    made = whole(take(MUSIC.samples), Asked(loudness=wanted, normalize=True))
    assert loudness(made) == pytest.approx(wanted, abs=0.1)
    assert made.peak <= CEILING * 1.0001
    free = whole(take(MUSIC.samples), Asked(loudness=wanted, normalize=False))
    assert loudness(free) == pytest.approx(wanted, abs=0.1)


def test_silence_cannot_be_made_louder() -> None:
    assert not done(np.zeros((1, RATE)), loudness=-14, normalize=True).any()


def test_a_limiter_holds_peaks_and_leaves_the_rest() -> None:
    quiet = 0.5 * MUSIC.samples
    loud = quiet.copy()
    loud[:, 2 * RATE : 2 * RATE + 40] *= 9
    for size in (37, 1_000, loud.shape[1]):
        blocks = [loud[:, start : start + size] for start in range(0, loud.shape[1], size)]
        made = np.concatenate(list(limited(blocks, RATE, 0.5)), axis=1)
        assert made.shape == loud.shape and np.abs(made).max() <= 0.5 * 1.0001
        far = np.r_[0 : 2 * RATE - 700, 2 * RATE + 740 : loud.shape[1]]
        np.testing.assert_array_equal(made[:, far], loud[:, far])


def test_a_stream_is_limited_and_takes_no_loudness() -> None:
    loud = 4 * MUSIC.samples
    pieces = list(live(take(loud), Asked(normalize=True)))
    joined = np.concatenate([piece.samples for piece in pieces], axis=1)
    assert len(pieces) > 10 and joined.shape == loud.shape
    assert np.abs(joined).max() <= CEILING * 1.0001
    with pytest.raises(OptionError, match="loudness is known of whole clips alone"):
        live(take(loud), Asked(loudness=-20))


TONE = 0.5 * np.cos(2 * np.pi * 200 * np.arange(2 * RATE) / RATE)[None]


@pytest.mark.parametrize(
    ("fade", "start", "end"),
    [("auto", 0.02, 0.25), (1.0, 0.02, 1.0), (0.005, 0.005, 0.005), ((0.5, 0.1), 0.5, 0.1), (0.0, 0, 0)],
)
def test_fades(fade: Any, start: float, end: float) -> None:
    made = done(TONE, fade=fade)
    first, last = round(start * RATE), round(end * RATE)
    np.testing.assert_array_equal(
        made[:, first : 2 * RATE - last], TONE.astype(np.float32)[:, first : -last or None]
    )
    if first:
        assert made[0, 0] == 0 and np.abs(made[0, : first // 2]).max() < 0.26
        assert made[0, -1] == 0 and np.abs(made[0, -last // 2 :]).max() < 0.26


def test_an_end_that_ends_by_itself_is_left_and_so_is_a_loop() -> None:
    envelope = np.minimum(1, np.minimum(np.arange(2 * RATE), np.arange(2 * RATE)[::-1]) / 200)
    quiet = np.pad(TONE * envelope, ((0, 0), (100, 100)))
    np.testing.assert_array_equal(done(quiet, fade="auto"), quiet.astype(np.float32))
    assert not np.array_equal(done(quiet, fade=0.25), quiet.astype(np.float32))
    loop = whole(take(TONE, closed=True), Asked(fade="auto"))
    np.testing.assert_array_equal(loop.samples, TONE.astype(np.float32))


@pytest.mark.parametrize("fade", [-1, (0.1, -0.1), (1,), (1, 2, 3), "soft"])
def test_a_fade_that_is_none(fade: Any) -> None:
    with pytest.raises(OptionError, match="fade"):
        Asked(fade=fade)


def test_a_clip_shorter_than_its_fade() -> None:
    made = done(TONE[:, :100], fade=1.0)
    assert made.shape == (1, 100) and made[0, 0] == 0 and made[0, -1] == 0


def test_rate_and_channels() -> None:
    made = whole(take(MUSIC.samples), Asked(sample_rate=24_000, channels=2))
    assert (made.sample_rate, made.channels) == (24_000, 2)
    assert made.duration == pytest.approx(MUSIC.duration, abs=1e-4)
    np.testing.assert_allclose(made.samples[0], MUSIC.resample(24_000).samples[0], atol=1e-5)
    mono = whole(take(np.concatenate([MUSIC.samples, -0.5 * MUSIC.samples])), Asked(channels=1))
    np.testing.assert_allclose(mono.samples, 0.25 * MUSIC.samples, atol=1e-6)


def test_channels_that_cannot_be_mixed_are_told_before() -> None:
    with pytest.raises(AudioMismatch, match="2 channels cannot be mixed to 5"):
        form(Asked(channels=5), Sound(RATE, 2))


@pytest.mark.parametrize(
    ("name", "rate", "fits"),
    [
        ("a.opus", 32_000, 48_000),
        ("a.opus", 16_000, 16_000),
        ("a.mp3", 96_000, 48_000),
        ("a.wav", 31_999, 31_999),
    ],
)
def test_a_format_that_does_not_hold_the_rate_gets_another(name: str, rate: int, fits: int) -> None:
    assert form(Asked(normalize=True), Sound(rate, 1), Path(name)).sample_rate == fits
    assert form(Asked(), Sound(rate, 1), Path(name)).sample_rate == rate
    assert form(Asked(sample_rate=rate), Sound(8_000, 1), Path(name)).sample_rate == rate


def test_how_samples_are_stored() -> None:
    assert form(Asked(subtype="24"), Sound(RATE, 1), Path("a.flac")).subtype == "PCM_24"
    assert form(Asked(subtype="float"), Sound(RATE, 1), Path("a.wav")).subtype == "FLOAT"
    with pytest.raises(
        OptionError, match=r"a\.flac: \.flac is not stored as float: it is stored as 16 or 24"
    ):
        form(Asked(subtype="float"), Sound(RATE, 1), Path("a.flac"))
    with pytest.raises(OptionError, match=r"\.opus is not stored as 16: it has a way of its own"):
        form(Asked(subtype="16"), Sound(RATE, 1), Path("a.opus"))


def test_lossy_files_have_room_for_what_their_decoders_add() -> None:
    made = list(finished(take(4 * MUSIC.samples), Asked(normalize=True), Sound(RATE, 1), path=Path("a.mp3")))
    assert np.abs(np.concatenate(made, axis=1)).max() == pytest.approx(LOSSY_CEILING)


# -- going on with a clip --------------------------------------------------------------------------

CLIP = compose(3, seconds=3).audio.resample(22_050).normalize(0)  # at full scale, of another rate
STEREO = Audio(np.concatenate([CLIP.mix(1).samples, 0.5 * CLIP.mix(1).samples]), 22_050)


def going_on(clip: Audio | Path, new: np.ndarray, seconds: float, **asked: Any) -> Audio:
    """`new` after a clip, as a model of another rate and one channel makes it."""
    begun = (clip if isinstance(clip, Audio) else Audio.load(clip)).resample(RATE).mix(1).samples
    samples = np.concatenate([0.7 * begun, new], axis=1)  # as its codec hears it
    return whole(
        take(samples, known=begun.shape[1], seconds=seconds),
        Asked(prompt_audio=clip, keep_original=True, normalize=True, **asked),
    )


@pytest.mark.parametrize("scale", [0.01, 1.0])
@pytest.mark.parametrize("new", [0.02, 0.5, 3.0])
def test_the_clip_stays_as_it_is_and_what_follows_joins_it_in_level(scale: float, new: float) -> None:
    clip = Audio(scale * STEREO.samples, 22_050)
    made = going_on(clip, new * MUSIC.samples / MUSIC.peak, 7.0, fade="auto")
    assert (made.sample_rate, made.channels, made.samples.shape[1]) == (22_050, 2, 7 * 22_050)
    length = clip.samples.shape[1]
    np.testing.assert_array_equal(made.samples[:, :length], clip.samples)
    after = made.samples[:, length:]
    assert np.abs(after).max() <= CEILING * 1.0001
    near = [np.sqrt((part[:, : 2 * 22_050] ** 2).mean()) for part in (clip.samples[:, ::-1], after)]
    assert abs(20 * np.log10(near[1] / near[0])) < 12
    step = np.abs(np.diff(made.samples[:, length - 1 : length + 1])).max()
    assert step <= np.abs(np.diff(clip.samples)).max()


def test_what_follows_is_in_time() -> None:
    clip = Audio(0.1 * STEREO.samples, 22_050)
    click = np.zeros((1, 2 * RATE))
    click[0, RATE] = 0.5  # a second after the clip's end
    made = going_on(clip, click, clip.duration + 2.0)
    after = np.abs(made.samples[0, clip.samples.shape[1] + 500 :])
    assert (after.argmax() + 500) / 22_050 == pytest.approx(1.0, abs=1e-4)


def test_only_what_is_new() -> None:
    both = going_on(STEREO, MUSIC.samples, 7.0)
    new = going_on(STEREO, MUSIC.samples, 7.0, only_new=True)
    np.testing.assert_array_equal(new.samples, both.samples[:, STEREO.samples.shape[1] :])
    plain = whole(take(np.concatenate([TONE, MUSIC.samples], axis=1), known=2 * RATE), Asked(only_new=True))
    np.testing.assert_array_equal(plain.samples, MUSIC.samples)


def test_a_clip_of_24_bits_keeps_them(tmp_path: Path) -> None:
    path = STEREO.save(tmp_path / "a.wav", subtype="PCM_24")
    asked = Asked(prompt_audio=path, keep_original=True)
    assert form(asked, Sound(RATE, 1), Path("b.wav")) == Sound(22_050, 2, None, "PCM_24")
    assert form(asked, Sound(RATE, 1), Path("b.mp3")).subtype is None
    STEREO.save(path, subtype="FLOAT", force=True)
    assert form(asked, Sound(RATE, 1), Path("b.flac")).subtype == "PCM_24"


def test_a_level_that_is_asked_for_is_that_of_the_whole() -> None:
    made = going_on(STEREO, MUSIC.samples, 7.0, loudness=-20)
    assert loudness(made) == pytest.approx(-20, abs=0.1)


def test_no_more_seconds_than_there_are() -> None:
    with pytest.raises(OptionError, match=r"the clip to go on with has 3\.00 s; ask for more seconds"):
        going_on(STEREO, MUSIC.samples, 3.0)
