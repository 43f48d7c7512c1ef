"""The MusicGen that comes with the package: what it does, and figures of its music that can fail."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from audiogen_core.audio import Audio
from audiogen_core.compose import TEMPI, compose
from audiogen_core.musicgen.files import Files
from audiogen_core.recipe import Recipe
from audiogen_core.sampling import Sampling
from audiogen_mlx.catalog import MUSICGEN
from audiogen_mlx.cli import cli
from audiogen_mlx.convert import convert
from audiogen_mlx.musicgen.generate import MusicGen
from support.heard import HOP, tempo


@pytest.fixture(scope="module")
def model() -> MusicGen:
    return MusicGen.load("demo")


@pytest.fixture(scope="module")
def made(model: MusicGen) -> dict[str, Audio]:
    """A clip of each style and tempo, by its prompt."""
    styles = ("piano", "music box", "beat", "chiptune")
    prompts = [f"{tempo} {style} in C minor" for style in styles for tempo in TEMPI]
    return dict(zip(prompts, model.generate_batch(prompts, seconds=6, seed=3), strict=True))


def run(*arguments: object):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def brightness(audio: Audio) -> np.ndarray:
    """The share of energy above 4 kHz in each frame of 20 ms: what drums have and nothing else."""
    frames = audio.samples[0, : audio.samples.shape[1] // 480 * 480].reshape(-1, 480) * np.hanning(480)
    power = np.abs(np.fft.rfft(frames)) ** 2
    return power[:, 80:].sum(axis=1) / (power.sum(axis=1) + 1e-6)


def in_scale(audio: Audio, tonic: int, scale: tuple[int, ...]) -> float:
    """The share of energy from 100 Hz to 2 kHz whose nearest semitone is in the scale; 7 of 12 of noise."""
    x = audio.samples[0]
    power = sum(
        np.abs(np.fft.rfft(x[i : i + 8192] * np.hanning(8192))) ** 2 for i in range(0, len(x) - 8192, 4096)
    )
    hertz = np.fft.rfftfreq(8192, 1 / 24000)
    heard = (hertz > 100) & (hertz < 2000)
    semitones = np.rint(69 + 12 * np.log2(hertz[heard] / 440)).astype(int)
    return float(power[heard][np.isin((semitones - tonic) % 12, scale)].sum() / power[heard].sum())


def test_it_is_there_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    rows = json.loads(run("models", "--json").stdout)
    demo = next(row for row in rows if (row["name"], row["job"]) == ("demo", "musicgen"))
    assert (demo["repository"], demo["licence"]) == ("comes with audiogen-mlx", "Apache-2.0")
    assert 1e6 < demo["bytes"] < 7e6
    assert (MUSICGEN["demo"].path / "MODEL_CARD.md").is_file()


def test_its_defaults_are_its_own(model: MusicGen) -> None:
    settings = model.settings(seed=1)
    assert settings.frames == 750
    assert settings.guidance_scale == model.defaults.guidance_scale
    assert settings.sampling.top_k == model.defaults.top_k
    assert settings.window == 800
    given = model.settings(guidance_scale=3, sampling=Sampling(top_k=7, seed=2), seed=5)
    assert (given.guidance_scale, given.sampling.top_k, given.seed) == (3, 7, 5)


def test_a_clip_is_as_long_as_asked_for_and_the_same_again(model: MusicGen) -> None:
    first, again = (model.generate("slow piano in C minor", seconds=1.5, seed=4) for _ in range(2))
    assert first.samples.shape == (1, 36_000)
    np.testing.assert_array_equal(first.samples, again.samples)
    other = model.generate("slow piano in C minor", seconds=1.5, seed=5)
    assert np.abs(first.samples - other.samples).max() > 0.01


def test_each_of_a_batch_is_what_it_is_alone(model: MusicGen) -> None:
    prompts = ["fast chiptune", "gentle music box lullaby in A minor"]
    together = model.generate_codes_batch(prompts, seconds=1, seed=8)
    for index, prompt in enumerate(prompts):
        alone = model.generate_codes(prompt, seconds=1, seed=8 + index)
        np.testing.assert_array_equal(together[index].values, alone.values)


@pytest.mark.slow
def test_longer_than_a_window_and_streamed(model: MusicGen) -> None:
    options = {"seconds": 14.0, "seed": 1}
    pieces = [piece.samples for piece in model.stream("upbeat drum groove", **options)]
    assert len(pieces) > 3
    whole = model.generate("upbeat drum groove", **options)
    assert whole.samples.shape == (1, 1050 * HOP)
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), whole.samples, rtol=0, atol=1e-5)


def test_a_clip_is_gone_on_with(model: MusicGen) -> None:
    piece = compose(2_000_600_000, seconds=3, style="beat")
    codes = model.codec.encode(piece.audio, codebooks=4)
    made = model.generate_codes("beat", prompt_audio=piece.audio, seconds=6, seed=1)
    assert made.values.shape == (4, 450)
    np.testing.assert_array_equal(made.values[:, :225], codes.values)
    new = Audio(model.decode(made).samples[:, 225 * HOP :], 24000)
    assert (brightness(new) > 0.3).mean() > 0.05  # its drums go on


def test_drums_are_heard_where_they_are_asked_for(made: dict[str, Audio]) -> None:
    heard = {prompt: (brightness(clip) > 0.3).mean() for prompt, clip in made.items()}
    drums = [share for prompt, share in heard.items() if "beat" in prompt or "chiptune" in prompt]
    none = [share for prompt, share in heard.items() if "piano" in prompt or "music box" in prompt]
    composed = [compose(2_000_300_000, seconds=6, style=style).audio for style in ("beat", "chiptune")]
    real = np.mean([(brightness(audio) > 0.3).mean() for audio in composed])
    assert 0.6 * real < np.mean(drums) < 1.7 * real  # as much as in the music it learned from
    assert np.mean(drums) > 5 * np.mean(none)


def test_notes_are_in_the_key_that_was_asked_for(made: dict[str, Audio]) -> None:
    tonal = [clip for prompt, clip in made.items() if "piano" in prompt or "music box" in prompt]
    minor = (0, 2, 3, 5, 7, 8, 10)
    assert np.mean([in_scale(clip, 0, minor) for clip in tonal]) > 0.85
    assert np.mean([in_scale(clip, 1, minor) for clip in tonal]) < 0.7


def test_the_tempo_is_heard_that_was_asked_for(made: dict[str, Audio]) -> None:
    pieces = [compose(2_000_300_000 + index, seconds=6) for index in range(6)]
    assert [tempo(piece.audio) for piece in pieces] == [piece.attributes["tempo"] for piece in pieces]
    kept = [tempo(clip) == prompt.split()[0] for prompt, clip in made.items()]
    assert sum(kept) >= 10  # of 12; chance gives 4


def test_no_clip_falls_silent(made: dict[str, Audio]) -> None:
    for prompt, clip in made.items():
        levels = np.square(clip.samples[0].reshape(-1, 12_000)).mean(axis=1)  # of each half of a second
        assert levels.min() > 10**-5, prompt  # -50 dB


def test_words_it_has_never_seen_are_named(model: MusicGen) -> None:
    with pytest.warns(UserWarning, match="has never seen: Théremin, F#; it passes over that"):
        model.generate_codes("slow Théremin on F#", seconds=0.1, seed=0)
    with pytest.warns(UserWarning, match=r"cannot follow F# minor \(the nearest is C minor\)"):
        model.generate_codes("slow piano in F# minor", seconds=0.1, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.generate_codes("Calm piano, in C minor!", seconds=0.1, seed=0)


def test_the_command_makes_a_file_and_makes_it_again(tmp_path: Path) -> None:
    output, again = tmp_path / "first.wav", tmp_path / "again.wav"
    result = run("musicgen", "slow piano in C minor", "-m", "demo", "-o", output, "-s", 1, "--seed", 3)
    assert (result.exit_code, result.stdout.strip()) == (0, str(output)), result.output
    assert "Hz" in result.stderr or "0 s" in result.stderr  # the picture's axis
    assert Audio.load(output).duration == 1
    recipe = Recipe.read(output)
    assert recipe.model == "demo"
    assert recipe.settings["top_k"] == MusicGen.load("demo").defaults.top_k
    assert run("replay", output, "-o", again, "-q").exit_code == 0
    assert again.read_bytes() == output.read_bytes()


def test_a_dry_run_knows_its_frames() -> None:
    facts = json.loads(run("musicgen", "x", "-m", "demo", "-o", "x.wav", "--dry-run", "--json").stdout)
    assert (facts["frames"], facts["window_frames"], facts["download_bytes"]) == (750, 800, 0)


def test_it_can_be_converted_and_verified(tmp_path: Path, model: MusicGen) -> None:
    folder = convert(Files(MUSICGEN["demo"].path), tmp_path / "small", bits=8, dtype="float16")
    small = MusicGen.load(folder)
    assert small.defaults == model.defaults
    assert small.generate("fast chiptune", seconds=0.2, seed=1).samples.shape == (1, 15 * HOP)
    facts = json.loads(run("verify", folder, "--json").stdout)
    assert (facts["family"], facts["codec"]) == ("musicgen", "demo")
