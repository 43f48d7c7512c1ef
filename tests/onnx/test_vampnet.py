"""VampNet as a whole, with a real codec and networks that are easy to foresee."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from audiogen_core.audio import Audio
from audiogen_core.codes import Codes
from audiogen_core.compose import compose
from audiogen_core.errors import AudioError, CodesError, ManifestError, OptionError
from audiogen_core.noise import RecordedNoise, SeededNoise
from audiogen_onnx.vampnet.generate import Vampnet
from audiogen_onnx.vampnet.loudness import loudness
from audiogen_onnx.vampnet.options import VampOptions
from support.vampnet_fakes import demo_codec, fake_network, fake_vampnet

RATE, HOP = 24_000, 320
MUSIC = compose(3, seconds=3).audio.resample(RATE).mix(1)
STEREO = Audio(np.concatenate([MUSIC.samples, 0.4 * MUSIC.samples[:, ::-1]])[:, :61_111], RATE)
FAST = {"steps": 3, "fine_steps": 1}


@pytest.fixture
def vampnet() -> Vampnet:
    return fake_vampnet()


@pytest.mark.parametrize("samples", [240, 319, 321, 61_111])
@pytest.mark.parametrize("loop", [False, True])
def test_length_channels_and_loudness_are_those_of_the_clip(vampnet, samples, loop):
    clip = Audio(STEREO.samples[:, :samples] * 0.2, RATE)
    made = vampnet.vamp(clip, seed=1, loop=loop, **FAST)
    assert made.samples.shape == (2, samples)
    assert made.sample_rate == RATE
    if samples > 12_000:
        assert loudness(made) == pytest.approx(loudness(clip), abs=0.01)


@pytest.mark.parametrize("rate", [8000, 24_000, 44_100, 48_000])
def test_any_rate_in_and_out(vampnet, rate):
    clip = STEREO.resample(rate)
    assert vampnet.vamp(clip, seed=1, **FAST).sample_rate == RATE
    back = vampnet.vamp(clip, seed=1, sample_rate=rate, **FAST)
    assert back.sample_rate == rate and back.samples.shape == clip.samples.shape


def test_the_seed_decides(vampnet):
    first, again, other = (vampnet.vamp(STEREO, seed=seed, **FAST).samples for seed in (5, 5, 6))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.array_equal(first, vampnet.vamp(STEREO, noise=SeededNoise(5), **FAST).samples)


def test_channels_that_are_alike_stay_alike(vampnet):
    both = Audio(np.tile(MUSIC.samples, (2, 1)), RATE)
    made = vampnet.vamp(both, seed=1, **FAST).samples
    assert np.array_equal(made[0], made[1])
    alone = vampnet.vamp(MUSIC, seed=1, **FAST).samples[0]
    assert np.corrcoef(made[0], alone)[0, 1] > 0.999999


@pytest.mark.parametrize("rate", [24_000, 44_100])
def test_infill_leaves_the_rest_untouched_to_the_bit(vampnet, rate):
    clip = STEREO.resample(rate)
    made = vampnet.vamp(clip, seed=1, infill=(1.0, 1.5), sample_rate=rate, **FAST).samples
    first, last, fade = rate, round(1.5 * rate), rate // 100
    assert np.array_equal(made[:, :first], clip.samples[:, :first])
    assert np.array_equal(made[:, last:], clip.samples[:, last:])
    inside = slice(first + fade, last - fade)
    assert not np.allclose(made[:, inside], clip.samples[:, inside], atol=0.01)


def test_outpainting_adds_exactly_so_much(vampnet):
    made = vampnet.vamp(STEREO, seed=1, outpaint_left=0.3333, outpaint_right=0.5, **FAST).samples
    left = round(0.3333 * RATE)
    assert made.shape == (2, left + 61_111 + RATE // 2)
    kept = slice(left + 240, left + 61_111 - 240)
    assert np.array_equal(made[:, kept], STEREO.samples[:, 240:-240])
    assert np.abs(made[:, : left - 300]).max() > 0.001
    assert np.abs(made[:, -RATE // 2 + 300 :]).max() > 0.001


@pytest.mark.parametrize("samples", [61_111, 64_000])
def test_a_loop_has_no_jump_where_it_is_repeated(vampnet, samples):
    clip = Audio(compose(3, seconds=3).audio.resample(RATE).mix(1).samples[:, :samples], RATE)
    made = vampnet.vamp(clip, seed=2, loop=True, **FAST).samples[0]
    twice = np.concatenate([made, made])
    jump = abs(twice[samples] - twice[samples - 1])
    usual = np.quantile(np.abs(np.diff(made)), 0.999)
    assert jump <= usual


def test_time_stretch(vampnet):
    made = vampnet.vamp(STEREO, seed=1, time_stretch_factor=2, **FAST)
    assert made.samples.shape == (2, 2 * 61_111)


def test_variations_are_ranked_and_are_what_their_seed_gives(vampnet):
    found = list(vampnet.vamp_variations(MUSIC, 3, seed=10, **FAST))
    assert sorted(result.seed for result in found) == [10, 11, 12]
    assert [r.confidence for r in found] == sorted((r.confidence for r in found), reverse=True)
    for result in found:
        assert np.array_equal(vampnet.vamp(MUSIC, seed=result.seed, **FAST).samples, result.audio.samples)
    best = vampnet.vamp(MUSIC, seed=10, variations=3, **FAST)
    assert np.array_equal(best.samples, found[0].audio.samples)


def test_progress_goes_over_channels_and_variations_and_can_be_stopped(vampnet):
    told = []
    vampnet.vamp(STEREO, seed=1, variations=2, on_step=lambda *step: told.append(step), **FAST)
    total = told[-1][1]
    assert told == [(step, total) for step in range(1, int(total) + 1)]

    def stop(done: float, total: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        vampnet.vamp(STEREO, seed=1, on_step=stop, **FAST)


def test_upstream_goes_its_own_way(vampnet):
    made = vampnet.vamp(STEREO, seed=1, compat="upstream", steps=2)
    assert made.samples.shape == (1, 61_111), "the original is mono"
    with pytest.raises(OptionError, match="loop"):
        vampnet.vamp(STEREO, seed=1, compat="upstream", loop=True)


def test_a_silent_clip_is_refused_before_the_work(vampnet):
    with pytest.raises(AudioError, match="silent"):
        vampnet.vamp(Audio(np.zeros((1, 12_000), np.float32), RATE), seed=1, **FAST)


def test_what_is_inpainted_ends_with_the_clip_and_says_so(vampnet):
    with pytest.warns(UserWarning, match="ends with the clip"):
        made = vampnet.vamp(STEREO, seed=1, infill=(0.5, 60), **FAST)
    assert made.samples.shape[1] == vampnet.vamp(STEREO, seed=1, infill=(0.5, 1), **FAST).samples.shape[1]


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"steps": 0}, OptionError, "steps"),
        ({"temperature": -1}, OptionError, "temperature"),
        ({"variations": 0}, OptionError, "variations"),
        ({"seed": -1}, OptionError, "seed"),
        ({"seed": 1, "noise": RecordedNoise([])}, OptionError, "not both"),
        ({"mask": np.ones(7, bool)}, CodesError, "another length"),
        ({"sample_rate": 5}, AudioError, "sample rates"),
        ({"stepps": 3}, OptionError, "did you mean"),
    ],
)
def test_one_sentence_for_what_is_wrong(vampnet, options, error, says):
    with pytest.raises(error, match=says):
        vampnet.vamp(MUSIC, **options)


def test_temperature_0_is_the_same_for_every_seed(vampnet):
    cold = {"temperature": 0.0, "mask_temperature": 0.0, "roll": 0, **FAST}
    assert np.array_equal(
        vampnet.vamp(MUSIC, seed=1, **cold).samples, vampnet.vamp(MUSIC, seed=2, **cold).samples
    )


def test_codes_in_codes_out(vampnet):
    codes = vampnet.codec.encode(MUSIC)
    mask = np.ones(codes.values.shape, bool)
    mask[:, ::5] = False
    made = vampnet.vamp_codes(codes, mask, seed=1, steps=2)
    assert isinstance(made, Codes)
    assert (made.length, made.codec) == (codes.length, codes.codec)
    assert np.array_equal(made.values[~mask], codes.values[~mask])
    plain = vampnet.vamp_codes(codes.values, mask, seed=1, steps=2)
    assert np.array_equal(plain, made.values)
    batch = vampnet.vamp_codes(np.stack([codes.values] * 2), mask, seed=1, steps=2)
    assert np.array_equal(batch[0], plain) and not np.array_equal(batch[1], plain)
    longer = vampnet.vamp_codes(codes, mask, seed=1, steps=1, time_stretch_factor=2)
    assert longer.length == 2 * codes.length
    with pytest.raises(CodesError, match="made by"):
        vampnet.vamp_codes(replace(codes, codec="other"), mask, seed=1)


def test_fewer_rows_are_filled_up(vampnet):
    codes = vampnet.codec.encode(MUSIC, 2).values
    made = vampnet.vamp_codes(codes, np.zeros(codes.shape, bool), seed=1, steps=1)
    assert made.shape == (8, codes.shape[1])
    assert np.array_equal(made[:2], codes)


def test_parts_that_do_not_belong_together():
    codec, size = demo_codec(), 1024
    coarse, fine = fake_network("coarse", 2, 0, size, 9), fake_network("fine", 8, 2, size, 9)
    for wrong in (
        {"coarse": replace(coarse, codebooks=3)},
        {"fine": replace(fine, codebook_size=512)},
        {"fine": replace(fine, codebooks=9)},
    ):
        with pytest.raises(ManifestError, match="belong together"):
            Vampnet(**{"codec": codec, "coarse": coarse, "fine": fine, **wrong})


def test_networks_say_what_they_cannot_read():
    network = fake_network("coarse", 2, 0, 32, 9)
    assert network.logits(np.full((2, 5), 32)).shape == (2, 5, 32)
    assert network.logits(np.zeros((3, 2, 5), int)).shape == (3, 2, 5, 32)
    for wrong, says in (
        (np.zeros((3, 5), int), "reads codes"),
        (np.zeros((2, 5)), "integers"),
        (np.full((2, 5), 33), r"\[0, 32\)"),
    ):
        with pytest.raises(CodesError, match=says):
            network.logits(wrong)


def test_a_file_is_the_same_as_a_clip(vampnet, tmp_path):
    STEREO.save(tmp_path / "in.wav", subtype="FLOAT")
    options = VampOptions(**FAST)
    opened = vampnet.open(tmp_path / "in.wav", options)
    (made,) = opened.make(None, 7, 1, None)
    samples = np.concatenate(list(opened.sound(made, RATE, tmp_path)), axis=1)
    assert np.allclose(samples, vampnet.vamp(STEREO, seed=7, **FAST).samples, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [{"time_stretch_factor": 3}, {"compat": "upstream", "feedback_steps": 2}, {"feedback_steps": 3}],
)
def test_the_steps_that_were_foretold_are_taken(vampnet, options):
    codes = vampnet.codec.encode(MUSIC).values
    mask = np.ones(codes.shape, bool)
    told = []
    vampnet.vamp_codes(codes, mask, seed=1, steps=2, on_step=lambda *step: told.append(step), **options)
    total = vampnet.pair.steps(mask[None], VampOptions(steps=2, **options))
    assert told == [(step, total) for step in range(1, total + 1)]
