"""Generating: batches, streams, seeds, windows, ends that come early, and options that cannot be."""

from __future__ import annotations

import dataclasses
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from audiogen_core.audio import Audio
from audiogen_core.codes import Codes
from audiogen_core.errors import AudioError, CodesError, ModelError, OptionError
from audiogen_core.musicgen.conditioning import read
from audiogen_core.musicgen.options import Options
from audiogen_core.sampling import Sampling
from audiogen_mlx.musicgen import MusicGen

FOLDER = Path(__file__).parents[1] / "fixtures" / "musicgen"
PROMPTS = ["80s pop track with bassy drums and synth", "a dreamy lo-fi loop in C# minor, 90 BPM", "rock"]
SEEDED = Sampling(seed=11, top_k=20)


@cache
def model(name: str = "musicgen-mono") -> MusicGen:
    beside: dict[str, Any] = {"tokenizer": FOLDER / "tokenizer"}
    if name.startswith("audiocraft"):
        beside |= {"t5": FOLDER / "t5", "codec": FOLDER.parent / "encodec" / "32k"}
    return MusicGen.load(FOLDER / name, **beside)


def tone(seconds: float = 1.0, hertz: float = 330.0, channels: int = 1, rate: int = 32_000) -> Audio:
    wave = 0.3 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)
    return Audio(np.tile(wave.astype(np.float32), (channels, 1)), rate)


def same(one: Codes, other: Codes) -> None:
    np.testing.assert_array_equal(one.values, other.values)


# Lengths and seeds


@pytest.mark.parametrize(
    ("seconds", "frames", "samples"),
    [
        (0.02, 1, 640),
        (0.3, 15, 9_600),
        (0.58, 29, 18_560),
        (12 / 70, 9, 5_486),  # 4 beats at 1,400 a minute
        (0.999, 50, 31_968),
        (1.0, 50, 32_000),
    ],
)
def test_a_clip_has_exactly_the_seconds_asked_for(seconds: float, frames: int, samples: int):
    asked: dict[str, Any] = {"seconds": seconds, "sampling": SEEDED}
    codes = model().generate_codes("rock", **asked)
    assert codes.frames == frames
    whole = model().decode(codes)
    assert whole.samples.shape == (1, samples)
    streamed = np.concatenate([piece.samples for piece in model().stream("rock", **asked)], axis=1)
    assert streamed.shape == (1, samples)
    batch = model().generate_batch(["rock", None], **asked)
    assert [clip.samples.shape for clip in batch] == [(1, samples)] * 2


def test_windows_and_what_is_gone_on_with_leave_the_length_exact():
    long = model().generate("rock", seconds=1.2345678, window_seconds=0.4, seed=1)
    assert long.samples.shape == (1, 39_506)
    continued = model().generate("rock", seconds=1.2345678, prompt_audio=tone(0.51), seed=1)
    assert continued.samples.shape == (1, 39_506)


def test_recipes_of_the_first_release_leave_out_a_frame_that_is_begun():
    """They name every option, asked for or not; the clip made again tells its true length."""
    named = dict.fromkeys(("melody", "style", "window_seconds"))
    again = Options.of_recipe({"prompt": "rock", "seconds": 1.7142857, "seed": 1, **named})
    (take,) = model().takes(again)
    assert sum(piece.samples.shape[1] for piece in take.pieces) == 85 * 640
    assert take.settings["seconds"] == 1.7
    now = Options.of_recipe({"prompt": "rock", "seconds": 1.7142857, "seed": 1})
    assert sum(piece.samples.shape[1] for piece in next(model().takes(now)).pieces) == 54_857


def test_codes_tell_where_they_are_from():
    codes = model("musicgen-stereo").generate_codes("rock", seconds=0.1, sampling=SEEDED)
    assert (codes.codebooks, codes.codebook_size, codes.frame_rate) == (8, 64, 50)
    assert "-stereo@" in codes.codec
    assert model("musicgen-stereo").decode(codes).channels == 2


def test_a_seed_repeats_and_another_differs():
    made = [model().generate_codes("rock", seconds=0.5, sampling=Sampling(seed=seed)) for seed in (5, 5, 6)]
    same(made[0], made[1])
    assert (made[0].values != made[2].values).any()


def test_no_seed_draws_one():
    made = [model().generate_codes("rock", seconds=0.5) for _ in range(2)]
    assert (made[0].values != made[1].values).any()


def test_greedy_does_not_draw():
    made = [model().generate_codes("rock", seconds=0.5, sampling=Sampling(0, seed=s)) for s in (1, 2)]
    same(*made)


# Batches


@pytest.mark.parametrize("name", ["musicgen-mono", "musicgen-stereo", "musicgen-melody", "audiocraft-text"])
def test_an_item_of_a_batch_is_what_it_is_alone(name: str):
    batch = model(name).generate_codes_batch(PROMPTS, seconds=0.4, sampling=SEEDED)
    for index, prompt in enumerate(PROMPTS):
        alone = dataclasses.replace(SEEDED, seed=11 + index)
        same(batch[index], model(name).generate_codes(prompt, seconds=0.4, sampling=alone))


def test_a_batch_may_mix_prompts_and_none():
    batch = model().generate_codes_batch([None, "rock"], seconds=0.3, sampling=SEEDED)
    same(batch[0], model().generate_codes(None, seconds=0.3, sampling=SEEDED))
    later = dataclasses.replace(SEEDED, seed=12)
    same(batch[1], model().generate_codes("rock", seconds=0.3, sampling=later))


def test_a_batch_may_have_a_melody_for_each():
    music = model("musicgen-melody")
    tunes = [tone(hertz=330), None, tone(hertz=392)]
    batch = music.generate_codes_batch(PROMPTS, melody=tunes, seconds=0.4, sampling=SEEDED)
    for index, (prompt, tune) in enumerate(zip(PROMPTS, tunes, strict=True)):
        alone = dataclasses.replace(SEEDED, seed=11 + index)
        same(batch[index], music.generate_codes(prompt, melody=tune, seconds=0.4, sampling=alone))
    assert (batch[0].values != music.generate_codes(PROMPTS[0], seconds=0.4, sampling=SEEDED).values).any()


def test_a_batch_of_styles_text_alone_and_both():
    music = model("audiocraft-style")
    clip = Audio(
        np.load(FOLDER / "audiocraft-style" / "io.npz")["style_audio_int16"][None].astype(np.float32) / 32768,
        32_000,
    )
    prompts, styles = [PROMPTS[0], None, PROMPTS[1]], [clip, clip, None]
    batch = music.generate_codes_batch(prompts, style=styles, seconds=0.2, sampling=SEEDED)
    for index, (prompt, style) in enumerate(zip(prompts, styles, strict=True)):
        alone = dataclasses.replace(SEEDED, seed=11 + index)
        same(batch[index], music.generate_codes(prompt, style=style, seconds=0.2, sampling=alone))


def test_batches_of_sound():
    made = model().generate_batch(PROMPTS[:2], seconds=0.2, sampling=SEEDED)
    assert [clip.samples.shape for clip in made] == [(1, 6400)] * 2
    np.testing.assert_array_equal(
        made[0].samples, model().generate(PROMPTS[0], seconds=0.2, sampling=SEEDED).samples
    )


# Streams


@pytest.mark.parametrize("name", ["musicgen-mono", "musicgen-stereo"])
@pytest.mark.parametrize("options", [{"seconds": 3.1}, {"seconds": 3.3, "window_seconds": 1.5}])
def test_the_pieces_of_a_stream_are_the_whole(name: str, options: dict[str, float]):
    pieces = list(model(name).stream("rock", sampling=SEEDED, **options))
    assert len(pieces) > 1
    whole = model(name).generate("rock", sampling=SEEDED, **options)
    np.testing.assert_array_equal(np.concatenate([piece.samples for piece in pieces], axis=1), whole.samples)


def test_a_stream_may_end_early_and_mistakes_are_told_at_once():
    stream = model().stream("rock", seconds=10, sampling=SEEDED)
    next(stream)
    stream.close()
    with pytest.raises(OptionError):
        model().stream("rock", seconds=-1)


# Windows and beginnings


def test_windows_begin_with_the_end_of_the_one_before():
    music = model()
    whole = music.generate_codes(
        "rock", seconds=2.0, window_seconds=0.8, stride_seconds=0.5, sampling=Sampling(0)
    )
    assert whole.frames == 100
    info = music.codec.info
    for start in range(25, 75, 25):
        seam = Codes(whole.values[:, start : start + 15], 64, 50.0, info.name)
        again = music.generate_codes("rock", seconds=0.8, prompt_codes=seam, sampling=Sampling(0))
        np.testing.assert_array_equal(again.values, whole.values[:, start : start + 40])


def test_a_stride_is_six_tenths_of_a_window():
    settings = model().settings(seconds=60)
    assert (settings.frames, settings.window, settings.stride) == (3000, 1500, 900)


def test_what_is_continued_is_the_beginning():
    clip = tone(0.5, channels=2, rate=16_000)
    music = model()
    codes = music.generate_codes("rock", seconds=1.0, prompt_audio=clip, sampling=SEEDED)
    begun = music.codec.encode(clip.mix(1).resample(32_000))
    np.testing.assert_array_equal(codes.values[:, : begun.frames], begun.values)
    assert codes.frames == 50


def test_a_beginning_longer_than_a_window():
    music = model()
    info = music.codec.info
    rng = np.random.default_rng(0)
    begun = Codes(rng.integers(0, 64, (4, 60)), 64, 50.0, info.name)
    options: dict[str, Any] = {"window_seconds": 0.8, "stride_seconds": 0.5, "sampling": Sampling(0)}
    made = music.generate_codes("rock", seconds=2.0, prompt_codes=begun, **options)
    assert made.frames == 100
    np.testing.assert_array_equal(made.values[:, :60], begun.values)
    heard = Codes(begun.values[:, 45:], 64, 50.0, info.name)
    later = music.generate_codes("rock", seconds=0.8, prompt_codes=heard, sampling=Sampling(0))
    np.testing.assert_array_equal(made.values[:, 45:85], later.values)


# Guidance


def test_a_negative_prompt_takes_the_place_of_none():
    music = model()
    options: dict[str, Any] = {"seconds": 0.4, "sampling": Sampling(0)}
    plain = music.generate_codes("rock", **options)
    away = music.generate_codes("rock", negative_prompt="drums", **options)
    assert (plain.values != away.values).any()
    itself = music.generate_codes("rock", negative_prompt="rock", **options)
    same(itself, music.generate_codes("rock", guidance_scale=1, **options))


@pytest.mark.parametrize("name", ["musicgen-mono", "musicgen-melody"])
def test_negative_prompts_in_batches(name: str):
    options: dict[str, Any] = {"seconds": 0.3, "negative_prompt": "a noisy crowd"}
    batch = model(name).generate_codes_batch([*PROMPTS[:2], None], sampling=SEEDED, **options)
    for index, prompt in enumerate([*PROMPTS[:2], None]):
        alone = dataclasses.replace(SEEDED, seed=11 + index)
        same(batch[index], model(name).generate_codes(prompt, sampling=alone, **options))


def test_guidance_of_nothing_is_none():
    options: dict[str, Any] = {"seconds": 0.3, "sampling": SEEDED}
    same(model().generate_codes(None, **options), model().generate_codes(None, guidance_scale=1, **options))


# Steps, early ends, memory


def test_steps_are_told_and_add_up():
    told: list[tuple[float, float]] = []
    model().generate_codes("rock", seconds=1.5, sampling=SEEDED, on_step=lambda *step: told.append(step))
    assert [total for _, total in told] == [75] * len(told)
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert told[-1][0] == 75
    assert len(told) >= 3


def test_what_a_step_raises_ends_the_run_and_memory_is_given_back():
    class Stop(Exception):
        pass

    def stop(done: float, total: float) -> None:
        raise Stop

    limit = mx.set_cache_limit(123_456_789)
    try:
        with pytest.raises(Stop):
            model().generate("rock", seconds=2, on_step=stop)
        assert mx.get_cache_memory() < 50_000  # keys and values of this run have 162,000 bytes
        mx.clear_cache()
        model().generate("rock", seconds=0.2)
        assert mx.get_cache_memory() == 0
        assert mx.set_cache_limit(123_456_789) == 123_456_789
    finally:
        mx.set_cache_limit(limit)


def test_numbers_that_overflow_are_told(monkeypatch: pytest.MonkeyPatch):
    network = model()._parts.transformer
    monkeypatch.setitem(network.norm, "weight", network.norm.weight * np.inf)
    with pytest.raises(ModelError, match="the model gave NaN or infinity"):
        model().generate_codes("rock", seconds=0.1)


# Precision


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_stays_close(dtype: str):
    half = MusicGen.load(FOLDER / "musicgen-mono", tokenizer=FOLDER / "tokenizer", dtype=dtype)
    tokens = mx.array(np.random.default_rng(0).integers(0, 64, (1, 4, 9)).astype(np.int32))
    logits = []
    for music in (model(), half):
        network = music._parts.transformer
        from audiogen_core.musicgen.conditioning import Rows

        logits.append(np.array(network(tokens, network.run(Rows(1), 9))))
    spread = logits[0].std()
    assert 0 < np.abs(logits[0] - logits[1]).max() < (0.02 if dtype == "float16" else 0.15) * spread
    assert half.generate("rock", seconds=0.1, sampling=SEEDED).samples.shape == (1, 3200)


# What cannot be


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": 0}, "seconds must be more than 0"),
        ({"seconds": float("nan")}, "seconds must be more than 0"),
        ({"seconds": 4000}, "at most 3600"),
        ({"seconds": 0.01}, "at least one frame, 0.02 s"),
        ({"guidance_scale": -1}, "guidance_scale must be from 0"),
        ({"guidance_scale": float("inf")}, "guidance_scale must be from 0"),
        ({"style_guidance": 1000}, "style_guidance must be from 0"),
        ({"negative_prompt": "x", "guidance_scale": 1}, "negative_prompt needs guidance"),
        ({"melody": tone()}, "melody: this model does not follow one"),
        ({"style": tone()}, "style: this model does not follow one"),
        ({"compat": "other"}, "compat must be"),
        ({"window_seconds": 1, "seconds": 2, "stride_seconds": 1}, "1 to 49 apart"),
        ({"window_seconds": 0.02, "seconds": 2}, "2 frames or more"),
        ({"prompt_audio": tone(), "seconds": 1.0}, "ask for more seconds"),
        ({"sampling": Sampling(temperature=[1, 1])}, "2 temperatures were given"),
        ({"speed": 2}, "there is no option speed"),
    ],
)
def test_impossible_options(options: dict[str, Any], message: str):
    with pytest.raises(OptionError, match=message):
        model().generate_codes("rock", **options)


@pytest.mark.parametrize("prompt", ["", "   ", "\n"])
def test_blank_prompts(prompt: str):
    with pytest.raises(OptionError, match="the prompt is empty"):
        model().generate_codes(prompt)
    with pytest.raises(OptionError, match="negative_prompt is empty"):
        model().generate_codes("rock", negative_prompt=prompt)


@pytest.mark.parametrize("prompts", [[], "rock"])
def test_a_batch_is_a_list(prompts: Any):
    with pytest.raises(OptionError, match="a list of one prompt or more"):
        model().generate_batch(prompts)


def test_lists_must_fit():
    with pytest.raises(OptionError, match="2 melodies for 3 prompts"):
        model("musicgen-melody").generate_batch(PROMPTS, melody=[tone(), tone()])
    with pytest.raises(OptionError, match="either all clips of a batch continue one"):
        model().generate_batch(PROMPTS[:2], prompt_audio=[tone(0.1), None], seconds=1)
    with pytest.raises(OptionError, match="must have one length"):
        model().generate_batch(PROMPTS[:2], prompt_audio=[tone(0.1), tone(0.2)], seconds=1)


def test_codes_of_another_codec():
    alien = Codes(np.zeros((4, 3), np.int32), 64, 50.0, "dac-44khz")
    with pytest.raises(CodesError, match="made by dac-44khz"):
        model().generate_codes("rock", prompt_codes=alien)
    few = Codes(np.zeros((2, 3), np.int32), 64, 50.0, model().codec.info.name)
    with pytest.raises(CodesError, match="have 2 codebooks, not 4"):
        model().generate_codes("rock", prompt_codes=few)


def test_clips_that_cannot_be_used(tmp_path: Path):
    music = model("musicgen-melody")
    silent = Audio(np.zeros((1, 32_000), np.float32), 32_000)
    with pytest.raises(AudioError, match="silent"):
        music.generate("rock", melody=silent)
    with pytest.raises(AudioError, match="too short"):
        music.generate("rock", melody=tone(0.05))
    with pytest.raises(AudioError, match="No such file"):
        music.generate("rock", melody=tmp_path / "none.wav")
    (tmp_path / "text.wav").write_text("not audio")
    with pytest.raises(AudioError, match=r"text\.wav"):
        music.generate("rock", melody=tmp_path / "text.wav")


def test_a_long_prompt_is_cut_with_a_warning():
    tokenizer = model()._parts.tokenizer
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(tokenizer, "rock " * 300)[0].shape[1] > 300
    with pytest.warns(
        UserWarning, match=r"5,000 characters; the model reads the first 512 of its \d+ tokens"
    ):
        ids, _ = read(tokenizer, "rock " * 1000)
    assert ids.shape[1] == 512
    with pytest.warns(UserWarning, match="reads all of it"):
        read(tokenizer, "r" + " " * 3000 + "k")
