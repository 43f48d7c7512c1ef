"""Style conditioning: its options, the published parameters, and clips that give no style."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import yaml

from audiogen_core import weights
from audiogen_core.audio import Audio
from audiogen_core.errors import AudioError, ModelError, OptionError, SoundWarning, WeightsError
from audiogen_core.formats.stored import StoredArray
from audiogen_core.musicgen.config import STYLE, StyleConfig
from audiogen_core.musicgen.positions import positions
from audiogen_core.musicgen.style import excerpt
from audiogen_core.weights import Weights
from audiogen_mlx.musicgen.mert import Mert
from audiogen_mlx.musicgen.style import StyleConditioner, load_style

FOLDER = Path(__file__).parents[1] / "fixtures" / "musicgen" / "audiocraft-style"


def settings(**style: object) -> dict:
    tree = yaml.safe_load(weights.read_checkpoint(FOLDER / "state_dict.bin")["xp.cfg"])
    tree["conditioners"]["self_wav"]["style"].update(style)
    return tree


def table() -> Weights:
    return weights.read(FOLDER / "state_dict.bin")


@cache
def conditioner() -> StyleConditioner:
    return StyleConditioner(
        load_style(table(), StyleConfig.from_audiocraft(settings())), lambda: Mert.load(FOLDER / "mert")
    )


def sound(seconds: float, rate: int = 32_000, channels: int = 1) -> Audio:
    samples = np.random.default_rng(1).standard_normal((channels, round(seconds * rate)))
    return Audio(samples.astype(np.float32) * 0.2, rate)


@pytest.mark.parametrize(("seconds", "tokens"), [(1.5, 8), (3.0, 15), (4.5, 23), (0.5, 3), (10.0, 50)])
def test_five_tokens_a_second(seconds, tokens):
    made = conditioner().embed(sound(11), excerpt_seconds=seconds)
    assert made.shape == (tokens, 48)


@pytest.mark.parametrize(("ds_factor", "tokens"), [(1, 224), (5, 45), (75, 3)])
def test_vectors_per_token(ds_factor, tokens):
    audio = sound(4)
    made = np.array(conditioner().embed(audio, ds_factor=ds_factor))
    assert made.shape == (tokens, 48)
    every = np.array(conditioner().embed(audio, ds_factor=1))
    np.testing.assert_allclose(made, every[::ds_factor], rtol=0, atol=1e-5)


def test_more_codebooks_hold_more_of_the_style():
    network = conditioner().network
    heard = network.normalised(network.context(conditioner().mert(mx.array(sound(3, 24_000).samples))))
    codes = network.codes(heard, 6)
    assert len(codes) == 6
    errors = [
        float(mx.mean(mx.square(heard - network.quantizer.decode(codes[:count])))) for count in (1, 3, 6)
    ]
    assert errors[0] > errors[1] > errors[2]


def test_excerpt_is_the_middle_or_where_it_is_asked_for():
    audio = sound(5)
    np.testing.assert_array_equal(excerpt(audio, 32_000, 3.0), audio.samples[0, 32_000:128_000])
    np.testing.assert_array_equal(excerpt(audio, 32_000, 1.5, 0.25), audio.samples[0, 8_000:56_000])
    np.testing.assert_array_equal(excerpt(audio, 32_000, 5.0), audio.samples[0])
    odd = Audio(audio.samples[:, :96_003], 32_000)
    np.testing.assert_array_equal(excerpt(odd, 32_000, 3.0), odd.samples[0, 1:96_001])


def test_same_clip_from_a_file_and_twice():
    audio = sound(4, 44_100, channels=2)
    first = np.array(conditioner().embed(audio))
    np.testing.assert_array_equal(first, np.array(conditioner().embed(audio)))
    later = np.array(conditioner().embed(audio, start=0.9))
    assert not np.array_equal(first, later)


def test_file(tmp_path):
    path = sound(4, 44_100, channels=2).save(tmp_path / "style.wav", subtype="FLOAT")
    made = np.array(conditioner().embed(path))
    np.testing.assert_array_equal(made, np.array(conditioner().embed(sound(4, 44_100, channels=2))))


def test_mert_is_read_once_and_only_for_a_style():
    calls = []

    def load() -> Mert:
        calls.append(1)
        return conditioner().mert

    fresh = StyleConditioner(conditioner().network, load)
    assert fresh.embed(None).shape == (1, 48)
    assert not calls
    fresh.embed(sound(3))
    fresh.embed(sound(3))
    assert len(calls) == 1


def test_no_style_is_zeros():
    np.testing.assert_array_equal(np.array(conditioner().null(7)), np.zeros((7, 48), np.float32))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"eval_q": 0}, "eval_q must be from 1 to 6, got 0"),
        ({"eval_q": 7}, "eval_q must be from 1 to 6, got 7"),
        ({"eval_q": 2.5}, "eval_q must be a whole number, got 2.5"),
        ({"eval_q": math.nan}, "eval_q must be a whole number, got nan"),
        ({"ds_factor": 0}, "ds_factor must be from 1 to 75, got 0"),
        ({"excerpt_seconds": 0.4}, "excerpt_seconds must be from 0.5 to 10, got 0.4"),
        ({"excerpt_seconds": math.nan}, "excerpt_seconds must be from 0.5 to 10, got nan"),
        ({"start": -0.1}, "can start at 0 to 1.00 s, got -0.1"),
        ({"start": 1.1}, "can start at 0 to 1.00 s, got 1.1"),
        ({"start": math.inf}, "can start at 0 to 1.00 s, got inf"),
    ],
)
def test_options_out_of_range(options, reason):
    with pytest.raises(OptionError, match=reason):
        conditioner().embed(sound(4), **options)


def test_style_that_is_missing_or_not_audio(tmp_path):
    with pytest.raises(AudioError, match=r"gone\.wav"):
        conditioner().embed(tmp_path / "gone.wav")
    (tmp_path / "text.wav").write_text("not a sound")
    with pytest.raises(AudioError, match=r"text\.wav"):
        conditioner().embed(tmp_path / "text.wav")


def test_style_that_is_too_short(tmp_path):
    path = sound(2.9).save(tmp_path / "brief.wav")
    with pytest.raises(AudioError, match=r"brief\.wav is too short: it has 2\.90 s and an excerpt of 3 s"):
        conditioner().embed(path)


def test_style_that_is_silent_where_it_is_heard():
    samples = np.array(sound(6).samples)
    samples[:, 40_000:150_000] = 0
    audio = Audio(samples, 32_000)
    with pytest.raises(AudioError, match=r"the style clip is silent from 1\.50 s on"):
        conditioner().embed(audio)
    assert conditioner().embed(audio, start=0.0).shape == (15, 48)


def test_style_that_is_silent_in_mono():
    left = sound(6).samples[0]
    with (
        pytest.warns(SoundWarning, match="antiphase"),
        pytest.raises(AudioError, match="the style clip is silent"),
    ):
        conditioner().embed(Audio(np.stack([left, -left]), 32_000))


def published() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published style conditioner, below its prefix."""
    shapes: dict[str, tuple[int, ...]] = {
        "embed.weight": (512, 768),
        "embed.bias": (512,),
        "output_proj.weight": (1536, 512),
        "output_proj.bias": (1536,),
        "batch_norm.running_mean": (512,),
        "batch_norm.running_var": (512,),
        "batch_norm.num_batches_tracked": (),
    }
    for i in range(8):
        at = f"transformer.layers.{i}"
        shapes |= {
            f"{at}.self_attn.in_proj_weight": (1536, 512),
            f"{at}.self_attn.out_proj.weight": (512, 512),
        }
        shapes |= {f"{at}.linear1.weight": (2048, 512), f"{at}.linear2.weight": (512, 2048)}
        for norm in ("norm1", "norm2"):
            shapes |= {f"{at}.{norm}.weight": (512,), f"{at}.{norm}.bias": (512,)}
    for i in range(6):
        at = f"rvq.vq.layers.{i}._codebook"
        shapes |= {f"{at}.inited": (1,), f"{at}.cluster_size": (1024,)}
        shapes |= {f"{at}.embed": (1024, 512), f"{at}.embed_avg": (1024, 512)}
    return shapes


def zeros(shape: tuple[int, ...]) -> StoredArray:
    return StoredArray(shape, "float32", lambda: np.zeros(shape, np.float32))


def test_published_parameters_are_all_used():
    full = Weights({STYLE + name: zeros(shape) for name, shape in published().items()}, "published")
    network = load_style(full, StyleConfig())
    assert (network.sizes.inputs, network.sizes.outputs) == (768, 1536)
    assert network(mx.zeros((1, 224, 768)), eval_q=3, stride=15).shape == (1, 15, 1536)


def test_parameters_that_do_not_fit():
    for name, shape, reason in (
        ("transformer.layers.1.linear1.weight", (127, 32), r"linear1\.weight \(127, 32\) instead of"),
        ("embed.weight", (32,), "expected a matrix"),
        ("rvq.vq.layers.2._codebook.embed", (64, 31), r"layers\.2\._codebook\.embed. has shape"),
    ):
        changed = Weights({**table()._arrays, STYLE + name: zeros(shape)}, "changed")
        with pytest.raises((WeightsError, ModelError), match=reason):
            load_style(changed, StyleConfig(heads=4))
    with pytest.raises(ModelError, match="cannot have 5 heads"):
        load_style(table(), StyleConfig(heads=5))


def test_mert_of_another_width():
    network = conditioner().network
    wide = load_style(
        Weights({STYLE + name: zeros(shape) for name, shape in published().items()}, "published"),
        StyleConfig(),
    )
    with pytest.raises(ModelError, match=r"gives vectors of 48, .* takes 768; use m-a-p/MERT-v1-95M"):
        StyleConditioner(wide, lambda: Mert.load(FOLDER / "mert")).embed(sound(3))
    assert network.sizes.inputs == 48


def test_settings_of_the_published_model():
    tree = {
        "sample_rate": 32_000,
        "transformer_lm": {"num_heads": 24},
        "conditioners": {
            "self_wav": {
                "model": "style",
                "style": {
                    "model_name": "mert",
                    "transformer_scale": "default",
                    "sample_rate": "${sample_rate}",
                    "length": 3.0,
                    "ds_factor": 15,
                    "n_q_out": 6,
                    "eval_q": 3,
                    "q_dropout": True,
                    "bins": 1024,
                    "varying_lengths": [1.5, 4.5],
                    "batch_norm": True,
                    "use_middle_of_segment": False,
                },
            }
        },
    }
    assert StyleConfig.from_audiocraft(tree) == StyleConfig()


@pytest.mark.parametrize(
    "style",
    [
        {"model_name": "encodec"},
        {"eval_q": 7},
        {"eval_q": None},
        {"n_q_out": 0},
        {"ds_factor": 0},
        {"length": "long"},
        {"sample_rate": -1},
    ],
)
def test_settings_that_cannot_be(style):
    with pytest.raises(ModelError):
        StyleConfig.from_audiocraft(settings(**style))


def test_settings_of_another_conditioner():
    with pytest.raises(ModelError, match="no conditioner of the kind 'style'"):
        StyleConfig.from_audiocraft(
            {"conditioners": {"self_wav": {"model": "chroma_stem", "chroma_stem": {}}}}
        )


def test_positions():
    made = positions(3, 8)
    assert made.dtype == np.float32
    for place in range(3):
        for i in range(4):
            angle = place / 10_000 ** (i / 3)
            assert made[place, i] == pytest.approx(math.cos(angle), abs=1e-6)
            assert made[place, 4 + i] == pytest.approx(math.sin(angle), abs=1e-6)


def test_positions_with_a_clock():
    plain, made = positions(2000, 8), positions(2000, 8, (9.0, 4.5))
    np.testing.assert_array_equal(made[:, [0, 1, 4, 5]], plain[:, [0, 1, 4, 5]])
    for place in (0, 1, 8, 1799, 1999):
        for column, period in ((2, 9.0), (3, 4.5)):
            angle = 2 * math.pi * place / period
            assert made[place, column] == pytest.approx(math.cos(angle), abs=1e-6)
            assert made[place, 4 + column] == pytest.approx(math.sin(angle), abs=1e-6)
