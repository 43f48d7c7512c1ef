"""The models of all packages in Python: one shape, one way to ask, and clips that carry what made them."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from audiogen_core import jobs
from audiogen_core.audio import Audio
from audiogen_core.errors import AudioError, OptionError, UnknownModel
from audiogen_core.noise import SeededNoise
from audiogen_core.options import described
from audiogen_core.recipe import Recipe
from audiogen_core.sampling import Sampling
from support.commands import call
from support.programs import program

ROOT = Path(__file__).parents[1]

TINY = str(ROOT / "tests" / "fixtures" / "stable-audio-3" / "tiny-small")
OPENED = {"stable-audio-3": TINY}
"""The model of a job, where that is not the demo."""

# By job ("PACKAGE JOB" where the first package that has it is not meant): what is made first, other keywords,
# and the same for the command.
ASKED: dict[str, tuple[tuple[Any, ...], dict[str, Any], list[str]]] = {
    "musicgen": (("slow piano",), {"seconds": 0.5}, ["slow piano", "-m", "demo", "--seconds", "0.5"]),
    "audiogen-onnx musicgen": (
        ("slow piano",),
        {"seconds": 0.5},
        ["slow piano", "-m", "demo", "--seconds", "0.5"],
    ),
    "stable-audio": (
        ("slow piano",),
        {"seconds": 0.5, "steps": 1},
        ["slow piano", "-m", "demo", "--seconds", "0.5", "--steps", "1"],
    ),
    "stable-audio-3": (
        ("slow piano",),
        {"seconds": 0.5, "steps": 2},
        ["slow piano", "-m", TINY, "--seconds", "0.5", "--steps", "2"],
    ),
    "vamp": (("in.wav",), {"steps": 2}, ["in.wav", "-m", "demo", "--steps", "2"]),
    "generate": ((0.5,), {}, ["demo", "--seconds", "0.5"]),
}


def told_of(job: str) -> jobs.Job:
    package, _, name = job.rpartition(" ")
    return jobs.find(name, package or None)


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {name: told_of(name).open(model=OPENED.get(name, "demo"), threads=1) for name in ASKED}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    clip = 0.3 * np.random.default_rng(0).normal(size=(24_000, 1)).clip(-3, 3)
    soundfile.write("in.wav", clip, 24_000)
    return tmp_path


def made(models: dict[str, Any], job: str, **more: Any) -> Audio:
    first, named, _ = ASKED[job]
    clip: Audio = models[job].generate(*first, **named, **{"seed": 3, **more})
    return clip


@pytest.mark.parametrize("job", ASKED)
def test_one_shape(models: dict[str, Any], job: str) -> None:
    model, told = models[job], told_of(job)
    for verb in (model.generate, model.stream):
        names = list(inspect.signature(verb).parameters)
        assert set(names) >= {each.name for each in described(told.options)}
        assert set(names) >= {"seed", "sampling", "on_step"}
        assert not any(each.kind is each.VAR_KEYWORD for each in inspect.signature(verb).parameters.values())
        assert "Seed of the random numbers" in inspect.getdoc(verb)
    assert set(inspect.signature(type(model).load).parameters) == {each.name for each in described(told.load)}
    assert next(iter(inspect.signature(type(model).load).parameters)) == "model"
    assert (
        repr(model) == f"{type(model).__name__}({OPENED.get(job, 'demo')!r}, {model.channels} ch, "
        f"{model.sample_rate / 1000:g} kHz)"
    )
    seconds = inspect.signature(models["musicgen"].generate).parameters["seconds"]
    assert (seconds.kind, seconds.default, seconds.annotation) == (seconds.KEYWORD_ONLY, None, float | None)


@pytest.mark.parametrize("package", ["audiogen_core", "audiogen_mlx", "audiogen_onnx", "audiogen_minigpt"])
def test_packages_say_their_version(package: str) -> None:
    from importlib.metadata import version

    assert import_module(package).__version__ == version(package.replace("_", "-"))


@pytest.mark.parametrize("job", ASKED)
@pytest.mark.filterwarnings("ignore::audiogen_core.audio.ClippingWarning")
def test_a_saved_clip_is_the_file_of_the_command_and_is_made_again(models: dict[str, Any], job: str) -> None:
    told = told_of(job)
    clip = made(models, job, normalize=True, fade="auto")  # what commands do unless they are told otherwise
    saved = clip.save("python.wav").read_bytes()
    done = call(
        program(told.package),
        told.name,
        *ASKED[job][2],
        "--seed",
        3,
        "--threads",
        1,
        "-o",
        "command.wav",
        "-q",
    )
    assert done.exit_code == 0, done.stderr
    assert Path("command.wav").read_bytes() == saved
    done = call(program(told.package), "replay", "python.wav", "-o", "again.wav", "-q")
    assert done.exit_code == 0, done.stderr
    assert Path("again.wav").read_bytes() == saved
    for source in ("python.wav", Path("python.wav"), clip.recipe):
        again = jobs.replay(source)
        np.testing.assert_array_equal(again.samples, clip.samples)
        assert again.recipe == clip.recipe


@pytest.mark.parametrize("job", ASKED)
def test_the_pieces_of_a_stream_are_the_clip(models: dict[str, Any], job: str) -> None:
    first, named, _ = ASKED[job]
    pieces = [piece.samples for piece in models[job].stream(*first, **named, seed=3)]
    whole = made(models, job)
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), whole.samples, atol=1e-6)


@pytest.mark.parametrize("job", ASKED)
def test_a_seed_in_sampling_is_the_seed(models: dict[str, Any], job: str) -> None:
    by_sampling = made(models, job, seed=None, sampling=Sampling(seed=3))
    assert by_sampling.recipe is not None and by_sampling.recipe.seed == 3


@pytest.mark.parametrize("job", ["musicgen", "audiogen-onnx musicgen", "vamp", "generate"])
def test_sampling_says_how_tokens_are_drawn(models: dict[str, Any], job: str) -> None:
    cold = made(models, job, sampling=Sampling(temperature=0.25))
    same = made(
        models,
        job,
        **(
            {"temperature": 0.25}
            if job == "vamp"
            else {"temperature": 0.25, "top_k": 250, "top_p": 0.0, "min_p": 0.0}
        ),
    )
    np.testing.assert_array_equal(cold.samples, same.samples)
    assert not np.array_equal(cold.samples, made(models, job, temperature=2.0).samples)


@pytest.mark.parametrize(
    ("job", "sampling"),
    [
        ("vamp", Sampling(top_k=3)),
        ("stable-audio", Sampling(temperature=2.0)),
        ("stable-audio-3", Sampling(temperature=2.0)),
    ],
)
def test_what_a_model_does_not_draw_by_is_refused(
    models: dict[str, Any], job: str, sampling: Sampling
) -> None:
    with pytest.raises(OptionError, match="this model does not draw by t"):
        made(models, job, sampling=sampling)


@pytest.mark.parametrize("job", ASKED)
def test_the_same_mistakes_end_in_the_same_errors(models: dict[str, Any], job: str) -> None:
    first, named, _ = ASKED[job]
    model = models[job]
    for verb in (model.generate, model.stream):
        with pytest.raises(OptionError, match=r"no option sed; did you mean .*seed"):
            verb(*first, **named, sed=3)
        with pytest.raises(OptionError, match="seed must be a whole number"):
            verb(*first, **named, seed=-1)
        with pytest.raises(OptionError, match="by place, once"):
            verb(*first, "more", **named)
        with pytest.raises(OptionError, match="sampling must be a value of Sampling"):
            verb(*first, **named, sampling=1)
    with pytest.raises(UnknownModel, match="unknown model 'no-such-model'"):
        type(model).load("no-such-model")
    with pytest.raises(OptionError, match="no option dtyp"):
        type(model).load(OPENED.get(job, "demo"), dtyp=3)


def test_of_a_batch_each_clip_carries_its_own_recipe(models: dict[str, Any]) -> None:
    pair = models["musicgen"].generate_batch(["slow piano", "fast drums"], seconds=0.5, seed=3)
    alone = models["musicgen"].generate("fast drums", seconds=0.5, seed=4)
    assert pair[1].recipe == alone.recipe != pair[0].recipe
    for job in ("stable-audio", "stable-audio-3"):
        pair = models[job].generate_batch(["slow piano", "fast drums"], seconds=0.5, steps=1, seed=3)
        alone = models[job].generate("fast drums", seconds=0.5, steps=1, seed=4)
        assert pair[1].recipe == alone.recipe != pair[0].recipe
    pair = models["generate"].generate_batch(2, 0.5, seed=3)
    assert pair[1].recipe == models["generate"].generate(0.5, seed=4).recipe
    best, other = models["vamp"].vamp_variations("in.wav", 2, seed=3, steps=2)
    assert other.audio.recipe == models["vamp"].vamp("in.wav", seed=other.seed, steps=2).recipe
    np.testing.assert_array_equal(jobs.replay(best.audio.recipe).samples, best.audio.samples)


def test_a_clip_that_came_from_no_file_is_asked_for(models: dict[str, Any]) -> None:
    clip = Audio.load("in.wav")
    vamped = models["vamp"].generate(clip, seed=3, steps=2)
    assert vamped.recipe.inputs["audio"].startswith("samples ")
    with pytest.raises(AudioError, match=r"went in as audio came from no file: .*--use audio=FILE"):
        jobs.replay(vamped.recipe)
    again = jobs.replay(vamped.recipe, {"audio": "in.wav"})
    np.testing.assert_array_equal(again.samples, vamped.samples)
    other = clip.normalize(-20).save("other.wav")
    with pytest.raises(AudioError, match="not the file that went in as audio"):
        jobs.replay(vamped.recipe, {"audio": other})
    vamped.save("vamped.wav")
    done = call(
        program("audiogen-onnx"), "replay", "vamped.wav", "--use", "audio=in.wav", "-o", "again.wav", "-q"
    )
    assert done.exit_code == 0, done.stderr
    np.testing.assert_array_equal(Audio.load("again.wav").samples, Audio.load("vamped.wav").samples)


def test_what_no_recipe_can_tell_is_not_claimed(models: dict[str, Any]) -> None:
    codec = models["musicgen"].codec
    codes = codec.encode(Audio(np.full((1, 4_800), 0.1, np.float32), 24_000), codebooks=4)
    unclaimed = [
        made(models, "stable-audio", seed=None, noise=SeededNoise(1)),
        made(models, "stable-audio-3", seed=None, noise=SeededNoise(1)),
        made(models, "vamp", seed=None, noise=SeededNoise(1)),
        made(models, "vamp", mask=np.ones(75, bool)),
        made(models, "musicgen", prompt_codes=codes),
    ]
    assert [clip.recipe for clip in unclaimed] == [None] * 5


def test_files_are_not_written_over_unless_asked(models: dict[str, Any]) -> None:
    clip = Audio.load("in.wav")
    before = Path("in.wav").read_bytes()
    codes = models["musicgen"].codec.encode(clip.resample(models["musicgen"].sample_rate))
    codes.save("a.safetensors")
    for value, path in ((clip.normalize(), "in.wav"), (codes, "a.safetensors")):
        with pytest.raises(OptionError, match="exists already; say force=True to write over it"):
            value.save(path)
    assert Path("in.wav").read_bytes() == before
    assert clip.normalize().save("in.wav", force=True).read_bytes() != before
    codes.save("a.safetensors", force=True)


def test_a_recipe_names_the_best_of_several(models: dict[str, Any]) -> None:
    best = models["vamp"].vamp("in.wav", variations=2, seed=3, steps=2)
    assert isinstance(best.recipe, Recipe) and best.recipe.seed in (3, 4)
    np.testing.assert_array_equal(jobs.replay(best.recipe).samples, best.samples)


@pytest.mark.slow
def test_type_checkers_know_the_options(folder: Path) -> None:
    """What pyright and editors see is what mypy sees: parameters that are written in the options alone."""
    (folder / "mine.py").write_text(
        "from audiogen_core import Audio\n"
        "from audiogen_minigpt import Generator\n"
        "from audiogen_mlx import MusicGen, StableAudio, StableAudio3\n"
        "from audiogen_onnx import Vampnet\n"
        "a: Audio = MusicGen.load('demo', bits=4).generate('x', seconds=3, melody='in.wav', seed=1)\n"
        "b: Audio = StableAudio.load('demo', dtype='float16').generate('x', seconds=3, steps=2, seed=1)\n"
        "c: Audio = Vampnet.load('demo', threads=1).vamp(a, infill=(1.0, 2.0), loop=True, seed=1)\n"
        "d: Audio = Generator.load('demo', which='best').generate(3, prompt_audio=a, top_p=0.9, seed=1)\n"
        "e: list[Audio] = MusicGen.load('demo').generate_batch(['x', None], seconds=3)\n"
        "f: Audio = StableAudio3.load('x', bits=8).generate('x', inpaint=((1.0, 2.0),), bars=2, bpm=90)\n"
        "MusicGen.load('demo').generate('x', secnds=3)\n"
        "StableAudio.load('demo').stream('x', steps='two')\n"
        "StableAudio3.load('x').stream('x', steps='two')\n"
        "Vampnet.load('demo').generate()\n"
        "Generator.load('demo', devce='cpu')\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", folder / "mine.py"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    found = re.findall(r"mine\.py:(\d+): error: (.*?)  \[", told)
    assert [int(line) for line, _ in found] == [11, 12, 13, 14, 15], told
    for (_, text), part in zip(
        found, ("secnds", "expected", "expected", "Missing positional", "devce"), strict=True
    ):
        assert part in text
