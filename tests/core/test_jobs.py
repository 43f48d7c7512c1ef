"""Jobs: found, described, run by their command, and made again from what their recipes keep."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, ClassVar

import jsonschema
import numpy as np
import pytest

from audiogen_core import cli, commands, jobs
from audiogen_core.audio import Audio
from audiogen_core.errors import AudioError, ModelError, OptionError
from audiogen_core.jobs import Job, JobLoad, JobOptions, Take
from audiogen_core.models import ModelSpec, Shipped
from audiogen_core.options import Clip, argument, audio, option, place
from audiogen_core.recipe import Recipe
from support.commands import call

RATE = 8_000
SILENT = (100, 101, 104)
"""Seeds that give no sound."""


@dataclass(frozen=True)
class Options(JobOptions):
    prompt: Annotated[str, argument("What to hear.")]
    seconds: Annotated[float, option("Its length.", "-s", unit="s", gt=0, le=10)] = 1.0
    loud: Annotated[float | None, option("How loud.", ge=0, le=1, some=True)] = None
    start: Annotated[Clip | None, audio("A clip to begin with.", "--continue")] = None


@dataclass(frozen=True)
class Load(JobLoad):
    model: Annotated[str, place("Name or path.", "-m")] = "small"
    codec: Annotated[str | None, place("The codec.")] = None


class Hum:
    """Bursts of noise of the seed, after the clip it begins with."""

    opened: ClassVar[list[dict[str, Any]]] = []

    def __init__(self, name: str, threads: int | None = None) -> None:
        self.revision = f"revision of {name}"
        self.threads = threads or 3

    @classmethod
    def load(cls, name: str, **load: Any) -> Hum:
        cls.opened.append({"model": name, **load})
        return cls(name, load["threads"])

    def takes(self, options: Options, count: int = 1, *, folder: Path | None = None) -> Iterator[Take]:
        for seed in range(options.seed or 0, (options.seed or 0) + count):
            noise = np.random.default_rng(seed).normal(0, 0.1, (1, round(options.seconds * RATE)))
            noise *= 0 if seed in SILENT else np.arange(noise.shape[1]) % 2_000 < 1_000
            pieces = [Audio(noise.astype(np.float32), RATE)]
            if options.start is not None:
                start = options.start if isinstance(options.start, Audio) else Audio.load(options.start)
                pieces.insert(0, start.resample(RATE).mix(1))
            yield Take(
                self._told(pieces, options), RATE, 1, options.asked() | {"seconds": options.seconds}, seed
            )

    def _told(self, pieces: list[Audio], options: Options) -> Iterator[Audio]:
        for index, piece in enumerate(pieces):
            options.on_step(index, len(pieces))
            yield piece


CATALOG = {
    "small": Shipped("small", "hum", "audiogen_core", "data/absent", "Apache-2.0"),
    "large": ModelSpec("large", "hum", "someone/large", "a" * 40, (), "MIT", "Large.", understands=("loud",)),
}


def estimate(load: Load, options: Options, *, offline: bool) -> dict[str, Any]:
    return {"model": load.model, "seconds": options.seconds, "offline": offline}


HERE = "core_test_jobs"
HUM = Job(
    name="hum",
    title="Hum",
    summary="Hum a little.",
    package="audiogen-core",
    load=Load,
    options=Options,
    conductor=f"{HERE}:Hum",
    catalog=f"{HERE}:CATALOG",
    estimate=f"{HERE}:estimate",
    renamed={"length": "seconds", "continued": "start"},
)


@pytest.fixture(autouse=True)
def reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """This module under a name that a job can be given."""
    import sys

    monkeypatch.setitem(sys.modules, HERE, sys.modules[__name__])
    Hum.opened.clear()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    app = cli.Program("audiogen-core", "audiogen-core", "A thing.")
    commands.add_job(app, HUM)
    commands.add_replay(app, HUM)
    return lambda *arguments: call(app, *arguments)


def test_the_jobs_of_all_packages_are_found_in_order():
    names = [job.name for job in jobs.installed()]
    assert names[:6] == ["musicgen", "stable-audio", "stable-audio-3", "magnet", "vamp", "generate"]
    assert jobs.broken() == {}
    for job in jobs.installed():
        assert jobs.find(job.name) is job
        told = job.schema()
        jsonschema.Draft202012Validator.check_schema(told)
        assert {"seed", "model"} <= set(told["properties"])
        assert all(entry["description"] for entry in told["properties"].values())
        if job.name not in ("stable-audio-3", "magnet"):  # there is none of these
            demo = next(entry for entry in job.models() if entry.name == "demo")
            assert demo.here and demo.license == "Apache-2.0"
    packages = {job.package for job in jobs.every() if job.name == "musicgen"}
    assert packages == {"audiogen-mlx", "audiogen-onnx"}
    for package in packages:
        assert jobs.find("musicgen", package).package == package
    with pytest.raises(OptionError, match="there is no job 'vamp' in audiogen-mlx; there are"):
        jobs.find("vamp", "audiogen-mlx")
    with pytest.raises(OptionError, match="there is no job 'dance'; there are: musicgen, stable-audio"):
        jobs.find("dance")


def test_every_job_can_be_imported_and_says_what_it_makes():
    for job in jobs.installed():
        for reference in (job.conductor, job.catalog, job.estimate, *([job.advice] if job.advice else [])):
            assert jobs.imported(reference) is not None
        assert callable(jobs.imported(job.conductor).load)


def test_models_say_what_they_understand():
    assert [entry.name for entry in HUM.models()] == ["small", "large"]
    small, large = HUM.models()
    assert small.options == ("prompt", "seconds", "start", "seed") and not small.here
    assert large.options == ("prompt", "seconds", "loud", "start", "seed") and not large.here


def test_a_package_that_does_not_start_is_told_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    class Point:
        name, dist = "hum", None

        def load(self) -> Job:
            raise ImportError("libmusic.so.1: cannot open\nshared object file")

    monkeypatch.setattr(metadata, "entry_points", lambda group: [Point()])
    monkeypatch.syspath_prepend(tmp_path)  # what is installed along another path is looked up anew
    assert jobs.installed() == []
    assert jobs.broken() == {"": "libmusic.so.1: cannot open shared object file"}
    with pytest.raises(ModelError, match="does not start: libmusic"):
        jobs.find("hum")


def test_a_model_that_does_not_start_is_told_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    class Point:
        name, dist = "hum", None

        def load(self) -> Job:
            return replace(HUM, conductor="audiogen_core_of_nowhere:Hum")

    monkeypatch.setattr(metadata, "entry_points", lambda group: [Point()])
    monkeypatch.syspath_prepend(tmp_path)  # what is installed along another path is looked up anew
    assert jobs.broken(imports=False) == {}
    assert "audiogen_core_of_nowhere" in jobs.broken()["audiogen-core"]


# -- the command -----------------------------------------------------------------------------------


def test_a_command_makes_a_file_and_makes_it_again(run, tmp_path):
    Audio(np.full((1, 800), 0.25, np.float32), RATE).save("in.wav")
    made = run(
        "hum", "a song", "-o", "a.wav", "--seed", 3, "--continue", "in.wav", "--codec", "c", "--threads", 2
    )
    assert made.exit_code == 0, made.stderr
    assert made.stdout == "a.wav\n" and "again: audiogen-core replay a.wav -o AGAIN.wav" in made.stderr
    recipe = Recipe.read("a.wav")
    assert (recipe.model, recipe.revision, recipe.seed) == ("small", "revision of small", 3)
    assert recipe.settings == {
        "command": "hum", "prompt": "a song", "seconds": 1.0, "start": "in.wav", "codec": "c", "threads": 2,
        "normalize": True, "fade": "auto",
    }  # fmt: skip
    assert set(recipe.inputs) == {"start"}
    again = run("replay", "a.wav", "-o", "b.wav", "-q")
    assert again.exit_code == 0, again.stderr
    assert Path("b.wav").read_bytes() == Path("a.wav").read_bytes()
    other = run("replay", "a.wav", "-o", "c.wav", "-q", "--threads", 4)
    assert other.exit_code == 0, other.stderr
    assert np.array_equal(Audio.load("c.wav").samples, Audio.load("a.wav").samples)
    assert Recipe.read("c.wav").settings["threads"] == 4
    assert [(one["codec"], one["threads"]) for one in Hum.opened] == [("c", 2), ("c", 2), ("c", 4)]


@pytest.mark.parametrize(("channel", "heard"), [("left", 0.25), ("right", -0.25), ("side", 0.25), ("mid", 0)])
def test_one_side_of_the_clips_that_go_in_can_be_taken(run, channel, heard):
    rows = np.repeat([[0.25], [-0.25]], 800, axis=1).astype(np.float32)
    Audio(rows, RATE).save("in.wav", subtype="FLOAT")
    made = run("hum", "x", "-o", "a.wav", "--seed", 3, "--continue", "in.wav", "--channel", channel)
    assert made.exit_code == 0, made.stderr
    np.testing.assert_allclose(Audio.load("a.wav").samples[:, :800], heard, atol=1e-4)
    recipe = Recipe.read("a.wav")
    assert (recipe.settings["channel"], recipe.settings["start"]) == (channel, "in.wav")
    assert set(recipe.inputs) == {"start"}
    Path("in.wav").rename("moved.wav")
    again = run("replay", "a.wav", "-o", "b.wav", "--use", "start=moved.wav")
    assert again.exit_code == 0, again.stderr
    np.testing.assert_array_equal(Audio.load("b.wav").samples, Audio.load("a.wav").samples)
    assert run("hum", "x", "-o", "c.wav", "--continue", "moved.wav", "--channel", "up").exit_code == 1


@pytest.mark.parametrize("how", [("--use", "start=moved.wav"), ("--continue", "moved.wav")])
def test_what_was_moved_is_named(run, how):
    Audio(np.full((1, 800), 0.25, np.float32), RATE).save("in.wav")
    assert run("hum", "x", "-o", "a.wav", "--seed", 3, "--continue", "in.wav").exit_code == 0
    Path("in.wav").rename("moved.wav")
    gone = run("replay", "a.wav", "-o", "b.wav")
    assert gone.exit_code == 1 and "in.wav" in gone.stderr
    assert run("replay", "a.wav", "-o", "b.wav", *how).exit_code == 0


def test_variations_count_their_seeds_up(run):
    made = run("hum", "x", "-o", "a.wav", "--seed", 3, "--variations", 12, "-q")
    assert made.stdout.split() == [f"a-{number:02}.wav" for number in range(1, 13)]
    assert run("hum", "x", "-o", "single.wav", "--seed", 14, "-q").exit_code == 0
    assert Path("single.wav").read_bytes() == Path("a-12.wav").read_bytes()


def test_a_dry_run_opens_nothing(run):
    told = run("hum", "x", "-o", "a.wav", "--dry-run", "--offline", "--json")
    assert json.loads(told.stdout) == {"model": "small", "seconds": 1.0, "offline": True}
    assert not Hum.opened and not list(Path().iterdir())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["hum", "x", "-o", "a.xyz"], "cannot write .xyz"),
        (["hum", "x", "-o", "none/a.wav"], "does not exist; make it first"),
        (["hum", "x", "-o", "a.wav", "--seconds", 11], "seconds must be more than 0 and at most 10"),
        (["hum", "x", "-o", "a.wav", "--variations", 0], "variations must be a whole number"),
        (["hum", "x", "-o", "a.wav", "--seed", -1], "seed must be a whole number of 0 or more"),
        (["hum", "x", "-o", "a.wav", "--continue", "gone.wav"], "gone.wav"),
        (["hum", "x", "-o", "a.wav", "--continue", "text.wav"], "text.wav"),
        (["replay", "plain.wav", "-o", "a.wav"], "carries no recipe"),
        (["replay", "plain.wav", "-o", "a.xyz"], "cannot write .xyz"),
    ],
)
def test_mistakes_are_told_before_a_model_is_opened(run, arguments, says):
    Path("text.wav").write_text("not audio")
    Audio(np.zeros((1, 800), np.float32), RATE).save("plain.wav")
    done = run(*arguments)
    assert done.exit_code == 1 and not Hum.opened
    assert done.stderr.startswith("error: ") and says in done.stderr and done.stderr.count("\n") == 1
    assert not Path("a.wav").exists() and not Path("a.xyz").exists()


def test_a_drawn_seed_is_shown(run):
    made = run("hum", "x", "-o", "a.wav")
    assert f"seed: {Recipe.read('a.wav').seed}\n" in made.stderr


@pytest.mark.parametrize(
    ("seed", "more", "kept", "told"),
    [
        (100, [], [100], ["CHECK: silent from 0.0 to 3.0 s"]),
        (
            100,
            ["--retry", 1],
            [101],
            ["a.wav: silent from 0.0 to 3.0 s; made again with seed 101", "CHECK: "],
        ),
        (100, ["--retry", 5], [102], ["again with seed 101", "again with seed 102"]),
        (99, ["--retry", 3, "-n", 3], [99, 102, 103], ["a-2.wav: silent", "a-3.wav: silent"]),
        (7, ["--retry", 3], [7], []),
    ],
)
def test_a_faulty_clip_is_told_and_made_again(run, seed, more, kept, told):
    done = run("hum", "x", "-o", "a.wav", "--seed", seed, "--seconds", 3, "--fade", 0, *more)
    assert done.exit_code == 0, done.stderr
    assert [Recipe.read(path).seed for path in done.stdout.split()] == kept
    assert all(sentence in done.stderr for sentence in told)
    assert ("CHECK" in done.stderr) == (kept[-1] in SILENT)
    assert sorted(path.name for path in Path().iterdir()) == done.stdout.split()
    again = run("replay", done.stdout.split()[-1], "-o", "again.wav", "-q")
    assert (
        again.exit_code == 0 and Path("again.wav").read_bytes() == Path(done.stdout.split()[-1]).read_bytes()
    )


# -- recipes ---------------------------------------------------------------------------------------


def recipe(**settings: Any) -> Recipe:
    named = {"command": "hum", "prompt": "x", **settings}
    return Recipe("audiogen-core", "0.1", "small", "r", 1, named)


def test_old_names_are_known():
    load, options = jobs.again(HUM, recipe(length=2.0, codec="c"), threads=2)
    assert (load.codec, load.threads, options.seconds, options.seed) == ("c", 2, 2.0, 1)
    with pytest.raises(AudioError, match=r"gone\.wav"):
        jobs.again(HUM, recipe(continued="gone.wav"))


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"colour": 3}, "settings of another version: colour"),
        ({"seconds": -1}, "the recipe is damaged"),
        ({"prompt": None}, "the recipe is damaged"),
        ({"command": "dance"}, "made by audiogen-core dance"),
        ({"command": 3}, "made by audiogen-core"),
        ({"unlisted": True}, "another version: unlisted"),  # a file cannot allow itself what a user must
        ({"fetch": "x"}, "another version: fetch"),
        ({"on_step": "x"}, "another version: on_step"),
        ({"threads": 0}, "the recipe is damaged .*threads"),
        ({"options": 5}, "another version: options"),
    ],
)
def test_recipes_that_cannot_be_followed(changed, says):
    with pytest.raises(AudioError, match=says):
        jobs.again(HUM, recipe(**changed))


def test_only_what_has_a_place_can_have_moved():
    with pytest.raises(
        OptionError, match="nothing called melody can have moved; what can: model, codec, start"
    ):
        jobs.again(HUM, recipe(), {"melody": "a.wav"})


def test_another_file_or_model_is_no_replay(tmp_path):
    clip = Audio(np.zeros((1, 800), np.float32), RATE).save(tmp_path / "a.wav")
    with pytest.raises(AudioError, match="not the file that went in as start; its hash is another"):
        jobs.again(HUM, recipe(start=str(clip)))
    with pytest.raises(ModelError, match="not the model that made this file"):
        jobs.check_revision(recipe().revision, "small", "another")


def test_of_other_packages_files_the_package_is_named():
    other = replace(recipe(), package="audiogen-other")
    with pytest.raises(
        AudioError, match=r"made by audiogen-other hum, which can make it again; this is audiogen-core hum"
    ):
        jobs.job_of(other, {"hum": HUM})
    unnamed = replace(other, package="audiogen-onnx", settings={})
    with pytest.raises(AudioError, match="made by audiogen-onnx vamp"):
        jobs.job_of(unnamed, {"hum": HUM})
