"""The page's modules in node: the numbers, tokens and windows of Python."""

from __future__ import annotations

import io
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from audiogen_core.audio import Audio
from audiogen_core.musicgen.windows import plan as musicgen_windows
from audiogen_core.noise import SMALLEST, SeededNoise
from audiogen_core.prompts import VOICES
from audiogen_core.sampling import Sampling
from audiogen_core.tokenizer import Tokenizer
from audiogen_onnx.catalog import MUSICGEN
from audiogen_onnx.musicgen.sampling import filtered, pick
from audiogen_onnx.vampnet.draw import Filters, draw
from audiogen_onnx.vampnet.loudness import loudness
from audiogen_onnx.vampnet.network import plan
from audiogen_onnx.vampnet.options import VampOptions
from audiogen_onnx.vampnet.prompts import Layout, build_mask
from audiogen_onnx.web.site import KNOWN, PAGE
from support.page import PLACE, needs_node

DRIVER = Path(__file__).with_name("page_modules.mjs")

pytestmark = needs_node


def computed(*jobs: tuple[str, dict[str, Any]]) -> list[Any]:
    """What the modules make of some jobs."""
    done = subprocess.run(
        ["node", str(DRIVER), str(PLACE)],
        input=json.dumps(jobs),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", [name for name in PAGE if name.endswith(".mjs")])
def test_modules_are_whole(name):
    done = subprocess.run(["node", "--check", str(PLACE / name)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_file_of_the_page_is_copied():
    assert {path.name for path in PLACE.iterdir()} == set(PAGE)


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**53 + 1, 2**63 - 1])
def test_random_numbers_are_those_of_numpy(seed):
    order = [("bits", 5), ("uniform", 4), ("exponential", 60_000), ("uniform", 3), ("bits", 3)]
    (made,) = computed(("random", {"seed": str(seed), "order": order}))
    rng = np.random.default_rng(seed)
    assert made[0] == rng.integers(1 << 23, size=5, dtype=np.uint32).tolist()
    assert made[1] == rng.random(4, dtype=np.float32).tolist()
    wanted, exponential = rng.standard_exponential(60_000, dtype=np.float32), np.array(made[2], np.float32)
    # in the tail, one of 2,000, the logarithm is the C library's, to which JavaScript has no door
    tail = wanted > 7.69
    np.testing.assert_array_equal(exponential[~tail], wanted[~tail])
    np.testing.assert_array_almost_equal_nulp(exponential[tail], wanted[tail], 1)
    assert tail.any()
    assert made[3] == rng.random(3, dtype=np.float32).tolist()
    assert made[4] == rng.integers(1 << 23, size=3, dtype=np.uint32).tolist()


def test_no_exponential_number_is_nothing():
    """With this seed numpy draws a 0 soon."""
    (made,) = computed(("random", {"seed": "271", "order": [("exponential", 2304)]}))
    assert np.random.default_rng(271).standard_exponential(2304, dtype=np.float32)[-1] == 0
    assert made[0][-1] == SMALLEST == SeededNoise(271).exponential((1, 2304))[0, -1]


TEXTS = [
    "slow piano in C minor",
    "  Fast, CHIPTUNE!! at 140 bpm  ",
    "gentle lullaby for a music box; violin solo with café ♯ ½ ﬁne",
    "ｆｕｌｌ width, Ⅷ and 東京 — “quotes” … e\u0301",
    "<unk> </s> constructor 120.5 beats per minute",
    "No piano, just drums without  any music box; not a violin, no drums, no 120 bpm",
    "rock song with female vocals and violins, a harp",
    "jazz DRUMS with strings; drums, flute",
    " ".join(VOICES),
    "x" * 300,
    "a\u0000b\tc\u00a0d",
    "",
    "drums " * 500,
]


@pytest.mark.parametrize("which", ["demo", "t5"])
def test_tokens_are_those_of_the_library(which):
    demo = MUSICGEN["demo"].path
    folder = demo if which == "demo" else Path(__file__).parents[1] / "fixtures" / "musicgen" / "tokenizer"
    tokenizer = Tokenizer.load(folder)
    prompts = folder / "prompts.json"
    asked = {
        "tokenizer": str(folder / "tokenizer.json"),
        "prompts": str(prompts) if prompts.is_file() else None,
        "texts": TEXTS,
    }
    (made,) = computed(("tokens", asked))
    for text, row in zip(TEXTS, made, strict=True):
        cut = 512 if len(text) > 2000 else None
        assert row["ids"] == tokenizer.encode([text], max_length=cut)[0][0].tolist(), text
        near = {} if tokenizer.prompts is None else tokenizer.prompts.understood(text)[1]
        assert row["near"] == [f"{said} ({instead})" for said, instead in near.items()]


@pytest.mark.parametrize(
    "sampling",
    [Sampling(top_k=64), Sampling(top_k=0, top_p=0.9), Sampling(top_k=50, min_p=0.05), Sampling(top_k=0)],
    ids=str,
)
def test_musicgen_takes_the_same_tokens(sampling):
    rng = np.random.default_rng(1)
    rows = (3 * rng.standard_normal((400, 128))).astype(np.float32)
    rows[:50] = np.round(rows[:50])  # some are equal
    numbers = rng.integers(1 << 23, size=400).astype(np.float32) / np.float32(1 << 23)
    filters = {"topK": sampling.top_k, "topP": sampling.top_p, "minP": sampling.min_p}
    (made,) = computed(("picks", {"rows": rows.tolist(), "numbers": numbers.tolist(), "filters": filters}))
    assert made == pick(filtered(rows, sampling), numbers).tolist()


@pytest.mark.parametrize("top_p", [None, 0.9, 0.0])
@pytest.mark.parametrize("temperature", [1.0, 0.3, 0.0])
def test_vampnet_draws_the_same_tokens(temperature, top_p):
    rng = np.random.default_rng(2)
    rows = (3 * rng.standard_normal((200, 128))).astype(np.float32)
    rows[:50] = np.round(rows[:50])
    noise = rng.exponential(size=rows.shape).astype(np.float32)
    noise[5, 3] = SMALLEST
    given = None if temperature == 0 else noise
    filters = {"temperature": temperature, "topP": top_p}
    asked = {"rows": rows.tolist(), "noise": None if given is None else given.tolist(), "filters": filters}
    (made,) = computed(("draws", asked))
    tokens, chances = draw(rows, given, Filters(temperature=temperature, top_p=top_p))
    assert [token for token, _ in made] == tokens.tolist()
    np.testing.assert_allclose([chance for _, chance in made], chances, rtol=1e-6)


def test_windows_are_those_of_python():
    cases = [(frames, 500, 151, 37) for frames in (1, 499, 500, 501, 750, 1333, 4000)]
    cases += [(frames, 225, 38, 9) for frames in (224, 226, 777)]
    of_vampnet = [
        ("plan", dict(zip(("frames", "size", "before", "after"), each, strict=True))) for each in cases
    ]
    lengths = [(total, 800, 360) for total in (1, 800, 801, 1160, 1161, 3000)]
    of_musicgen = [
        ("windows", dict(zip(("total", "limit", "stride"), each, strict=True))) for each in lengths
    ]
    made = computed(*of_vampnet, *of_musicgen)
    assert made[: len(cases)] == [[vars(window) for window in plan(*each)] for each in cases]
    for each, windows in zip(lengths, made[len(cases) :], strict=True):
        total, limit, stride = each
        wanted = musicgen_windows(total, 0, limit, stride)
        assert [(w["prompt"], w["frames"]) for w in windows] == [(w.prompt, w.frames) for w in wanted]


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"period": 0, "prefix": 0.5},
        {"period": 1},
        {"period": 300, "keep": 8},
        {"suffix": 0.3, "keep": 0},
        {"infill": (0.5, 1.234)},
        {"infill": (0.0, 9.0), "period": 5, "keep": 2},
    ],
    ids=str,
)
def test_masks_are_those_of_python(asked):
    codec = {"sample_rate": 24_000, "hop_length": 320, "codebooks": 8}
    layout = Layout(24_000, 320, 8, 48_001)
    whole = {name: getattr(VampOptions.of(asked), name) for name in KNOWN}
    job = {"codec": codec, "asked": whole, "frames": layout.frames, "seed": "7"}
    (made,) = computed(("mask", job))
    np.testing.assert_array_equal(made, build_mask(VampOptions.of(asked), layout, noise=SeededNoise(7)))


@pytest.mark.parametrize("length", [3_000, 12_345, 60_000])
def test_loudness_is_that_of_python(length):
    rng = np.random.default_rng(3)
    samples = (rng.standard_normal((2, length)) * np.linspace(0, 0.3, length)).astype(np.float32)
    (made,) = computed(("loudness", {"channels": samples.tolist(), "rate": 24_000}))
    assert made == pytest.approx(loudness(Audio(samples, 24_000)), abs=1e-9)


def test_a_wav_file_is_read_again():
    samples = np.random.default_rng(4).uniform(-1.2, 1.2, (2, 1000)).astype(np.float32)
    (made,) = computed(("wav", {"channels": samples.tolist(), "rate": 24_000}))
    again, rate = soundfile.read(io.BytesIO(bytes(made)), dtype="float32")
    assert rate == 24_000
    np.testing.assert_allclose(again.T, np.clip(samples, -1, 1), atol=1 / 32_000)
