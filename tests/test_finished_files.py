"""What every command that makes sound does to it before it is written, and what is told of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from audiogen_core.audio import Audio, ClippingWarning, probe
from audiogen_core.compose import compose
from audiogen_core.loudness import loudness
from audiogen_core.recipe import Recipe
from audiogen_onnx import Vampnet
from support.commands import call
from support.programs import program
from support.vampnet_fakes import fake_vampnet

FIXTURES = Path(__file__).parent / "fixtures"
PROMPTED = {
    "musicgen": (
        *("audiogen-mlx", "musicgen", "slow piano", "-m", FIXTURES / "musicgen/musicgen-mono"),
        *("--tokenizer", FIXTURES / "musicgen/tokenizer"),
    ),
    "stable-audio": (
        *("audiogen-mlx", "stable-audio", "a bell", "-m", FIXTURES / "stable-audio/tiny-small"),
        *("--t5", FIXTURES / "stable-audio/t5", "--steps", 2),
    ),
    "generate": (
        *("audiogen-minigpt", "generate", FIXTURES / "replay/minigpt"),
        *("--codec", FIXTURES / "encodec/24k"),
    ),
}
MAKING = {
    **{name: (*command, "--seconds", 0.35) for name, command in PROMPTED.items()},
    "vamp": ("audiogen-onnx", "vamp", "in.wav", "--steps", 2, "--fine-steps", 1),
}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stereo clip of another rate than the models', at full scale."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Vampnet, "load", lambda *_, **__: fake_vampnet())
    music = compose(3, seconds=0.25).audio.resample(22_050).mix(1).normalize(0).samples
    Audio(np.concatenate([music, 0.5 * music]), 22_050).save("in.wav")


def make(command: tuple[object, ...], *more: object) -> str:
    name, *arguments = command
    done = call(program(str(name)), *arguments, "--seed", 7, *more)
    assert done.exit_code == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize("making", MAKING)
def test_a_clip_does_not_clip_and_ends_in_silence(making: str) -> None:
    make(MAKING[making], "-o", "a.wav")
    made = Audio.load("a.wav")
    assert made.peak < 1 and np.abs(made.samples[:, -20:]).max() < 1e-3
    settings = Recipe.read("a.wav").settings
    assert (settings["normalize"], settings["fade"]) == (True, "auto")


@pytest.mark.parametrize("making", MAKING)
def test_what_is_asked_for_is_done_and_done_again(making: str) -> None:
    asked = (
        "--loudness",
        -20,
        "--fade",
        "0.1:0.05",
        "--subtype",
        24,
        "--sample-rate",
        24_000,
        "--channels",
        2,
    )
    make(MAKING[making], "-o", "a.wav", *asked)
    facts, made = probe("a.wav"), Audio.load("a.wav")
    assert (facts.subtype, facts.sample_rate, facts.channels) == ("PCM_24", 24_000, 2)
    assert loudness(made) == pytest.approx(-20, abs=0.2)
    again = call(program(str(MAKING[making][0])), "replay", "a.wav", "-o", "again.wav", "-q")
    assert again.exit_code == 0, again.stderr
    assert Path("again.wav").read_bytes() == Path("a.wav").read_bytes()


def test_a_file_of_floats_keeps_what_is_beyond_full_scale() -> None:
    make(MAKING["vamp"], "-o", "a.wav", "--no-normalize", "--fade", 0, "--subtype", "float", "--gain", 12)
    assert probe("a.wav").subtype == "FLOAT" and Audio.load("a.wav").peak > 1


@pytest.mark.parametrize("making", MAKING)
def test_opus_works_with_every_model(making: str) -> None:
    told = make(MAKING[making], "-o", "a.opus")
    rate = probe("a.opus").sample_rate
    assert (f"a.opus: resampled to {rate} Hz; .opus does not hold" in told) == (making != "generate")
    seconds = 0.25 if making == "vamp" else 0.35
    assert Audio.load("a.opus").duration == pytest.approx(seconds, abs=0.01)


@pytest.mark.parametrize("making", PROMPTED)
def test_a_clip_that_is_continued_stays_as_it_is(making: str) -> None:
    command = (*PROMPTED[making], "--continue", "in.wav", "--seconds", 0.42)
    make(command, "-o", "a.wav")
    clip, made = Audio.load("in.wav"), Audio.load("a.wav")
    length = clip.samples.shape[1]
    assert (made.sample_rate, made.channels, made.samples.shape[1]) == (22_050, 2, round(0.42 * 22_050))
    np.testing.assert_array_equal(made.samples[:, :length], clip.samples)
    assert np.abs(made.samples[:, length:]).max() > 0.01
    make(command, "-o", "new.wav", "--only-new")
    np.testing.assert_array_equal(Audio.load("new.wav").samples, made.samples[:, length:])
    again = call(program(str(command[0])), "replay", "a.wav", "-o", "again.wav", "-q")
    assert again.exit_code == 0, again.stderr
    assert Path("again.wav").read_bytes() == Path("a.wav").read_bytes()
    name, *arguments = command
    short = call(program(str(name)), *arguments, "-o", "b.wav", "--seconds", 0.2, "--seed", 1)
    assert short.exit_code == 1 and "more --seconds" in short.stderr


def test_or_comes_as_the_model_makes_it() -> None:
    command = (*PROMPTED["musicgen"], "--continue", "in.wav", "--seconds", 0.42)
    make(command, "-o", "a.wav", "--no-keep-original")
    coded = Audio.load("a.wav")
    assert coded.sample_rate != 22_050 and coded.duration == pytest.approx(0.42, abs=0.02)


def test_samples_of_a_clip_are_stored_as_finely_as_they_came() -> None:
    Audio.load("in.wav").normalize(-1.3).save("fine.wav", subtype="PCM_24")
    make((*PROMPTED["musicgen"], "--continue", "fine.wav", "--seconds", 0.42), "-o", "a.wav")
    clip = Audio.load("fine.wav").samples
    np.testing.assert_array_equal(Audio.load("a.wav").samples[:, : clip.shape[1]], clip)
    assert probe("a.wav").subtype == "PCM_24"


def test_a_loop_goes_round() -> None:
    make((*MAKING["vamp"], "--loop"), "-o", "a.wav", "--no-normalize")
    make((*MAKING["vamp"], "--loop"), "-o", "b.wav", "--no-normalize", "--fade", 0)
    np.testing.assert_array_equal(Audio.load("a.wav").samples, Audio.load("b.wav").samples)


def test_the_end_line_tells_what_is_wrong_with_a_clip() -> None:
    told = make(MAKING["musicgen"], "-o", "a.wav", "--gain", -120)
    assert "CHECK" not in told  # quiet for less than two seconds
    with pytest.warns(ClippingWarning):
        told = make(MAKING["musicgen"], "-o", "b.wav", "--gain", 90, "--no-normalize")
    assert "CHECK: " in told and "samples clipped, the first at 0.0 s" in told
    name, *arguments = MAKING["musicgen"]
    done = call(program(str(name)), *arguments, "--seed", 7, "-o", "c.wav", "--json")
    assert json.loads(done.stdout)["faults"] == []


def test_python_takes_the_same_options() -> None:
    from audiogen_mlx import MusicGen

    model = MusicGen.load(FIXTURES / "musicgen/musicgen-mono", tokenizer=str(FIXTURES / "musicgen/tokenizer"))
    plain = model.generate("slow piano", seconds=0.4, seed=7)
    asked = {"seconds": 0.4, "seed": 7, "fade": "auto", "normalize": True, "sample_rate": 24_000}
    made = model.generate("slow piano", **asked)
    assert made.sample_rate == 24_000 and made.peak < 1 and abs(made.samples[0, -1]) < 1e-3
    assert not np.array_equal(plain.samples[:, -1], made.samples[:, -1])
    clip = Audio.load("in.wav")
    both = model.generate("slow piano", prompt_audio=clip, seconds=0.42, seed=7, keep_original=True)
    np.testing.assert_array_equal(both.samples[:, : clip.samples.shape[1]], clip.samples)
    pieces = list(model.stream("slow piano", seconds=0.4, seed=7, gain=6))
    joined = np.concatenate([piece.samples for piece in pieces], axis=1)
    np.testing.assert_allclose(joined, plain.samples * 10 ** (6 / 20), rtol=1e-5, atol=1e-6)
    vamped = fake_vampnet().vamp(clip, steps=2, fine_steps=1, seed=1, fade=0.1, normalize=True, gain=20)
    assert vamped.peak < 1 and abs(vamped.samples[0, -1]) < 1e-6


def test_a_clip_without_a_name_is_called_after_what_was_asked() -> None:
    make(MAKING["stable-audio"])
    make(MAKING["stable-audio"])
    make((*PROMPTED["generate"], "--continue", "in.wav", "--seconds", 0.35))
    assert sorted(path.name for path in Path().glob("*-7*.wav")) == [
        "a-bell-7-2.wav", "a-bell-7.wav", "in-generate-7.wav",
    ]  # fmt: skip
    again = call(program("audiogen-mlx"), "replay", "a-bell-7.wav", "-q")
    assert (again.exit_code, again.stdout) == (0, "a-bell-7-again.wav\n")
    assert Path("a-bell-7-again.wav").read_bytes() == Path("a-bell-7.wav").read_bytes()


def test_names_of_before_are_taken_with_a_hint() -> None:
    _, _, model, *codec = PROMPTED["generate"]
    old = ("audiogen-minigpt", "generate", "-m", model, *codec, "--prompt-audio", "in.wav", "--seconds", 0.35)
    told = make(old, "-o", "a.wav")
    assert told.count("hint: --prompt-audio is called --continue now") == 1
    told = make((*MAKING["generate"],), "-o", "b.wav")
    assert told.count("hint: RUN is given by --model now") == 1
    told = make((*MAKING["vamp"], "--infill", "0.05:0.1"), "-o", "c.wav")
    assert told.count("hint: --infill is called --inpaint now") == 1
    assert "hint" not in make((*MAKING["vamp"], "--inpaint", "0.05:0.1"), "-o", "d.wav")


def test_a_length_may_be_called_a_duration() -> None:
    told = make((*PROMPTED["generate"], "--continue", "in.wav", "--duration", 0.35), "-o", "e.wav")
    assert told.count("hint: --duration is called --seconds now") == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ("audiogen-mlx", "musicgen", "slow", "piano", "-m", "demo"),
            "a prompt of several words stands in quotes",
        ),
        (
            ("audiogen-minigpt", "generate"),
            "missing option '--model' / '-m': Folder of a run or of a checkpoint, or: demo; see ",
        ),
    ],
)
def test_wrong_usage_says_what_to_write(arguments: tuple[str, ...], told: str) -> None:
    done = call(program(arguments[0]), *arguments[1:])
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ") and told in done.stderr


def test_errors_are_led_by_the_option_and_are_results_of_json() -> None:
    name, *arguments = MAKING["musicgen"]
    done = call(program(str(name)), *arguments, "--top-k", -1, "--json")
    assert done.exit_code == 1
    sentence = "--top-k must be a whole number of 0 or more, got -1"
    assert done.stderr == f"error: {sentence}\n"
    assert json.loads(done.stdout) == {"error": sentence, "kind": "OptionError"}
    done = call(program(str(name)), *arguments, "--no-such", "--json")
    assert done.exit_code == 2 and json.loads(done.stdout)["kind"] == "NoSuchOption"


def test_several_clips_are_lines_of_json() -> None:
    name, *arguments = MAKING["stable-audio"]
    done = call(program(str(name)), *arguments, "--seed", 7, "-n", 2, "-o", "a.wav", "--json")
    assert [json.loads(line)["path"] for line in done.stdout.splitlines()] == ["a-1.wav", "a-2.wav"]


@pytest.mark.parametrize("package", ["audiogen-core", "audiogen-mlx", "audiogen-onnx", "audiogen-minigpt"])
def test_every_package_lists_checks_and_tells_of_its_models(package: str) -> None:
    app = program(package)
    assert {"models", "verify", "info", "replay"} <= set(app.commands)
    rows = json.loads(call(app, "models", "--json").stdout)
    assert "demo" in {row["name"] for row in rows}
    assert call(app, "verify", "demo", "--json").exit_code == 0
    assert json.loads(call(app, "info", "in.wav", "--json").stdout)["kind"] == "audio"
    assert call(app, "info", "demo", "--json").exit_code == 0
