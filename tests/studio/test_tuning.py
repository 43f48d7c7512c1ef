"""Tuning in the studio, and the adapters that come of it; without a browser but for the slow test at the end.

AUDIOGEN_PICTURES=docs/assets/studio has the pictures written there.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from audiogen_core import jobs, lora
from audiogen_core.compose import write_folder
from audiogen_core.errors import AudioError, OptionError
from audiogen_core.jobs import Training
from audiogen_core.recipe import Recipe
from audiogen_core.studio import adapters, show
from audiogen_core.studio.queue import Missing
from audiogen_core.studio.studio import ADAPTERS, Asked, Studio, clips_of
from audiogen_core.studio.trainer import _said
from support.browser import Seen, chromium, drawn, needs_chromium, served

LONG = 600.0


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    return Studio(tmp_path / "library", offline=True)


def put(folder: Path, *files: str) -> Path:
    """What looks like an adapter that was trained."""
    for name in files or ("adapter_config.json", "adapter_model.safetensors"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    return folder


def training_of(job: str) -> Training:
    return next(each for each in jobs.trainings() if each.job == job)


def tuned(studio: Studio, name: str, tmp_path: Path, job: str = "musicgen", *files: str) -> Path:
    """A training that came to an adapter, without the work."""
    (clip, *_) = write_folder(tmp_path / name, minutes=1 / 60, seed=1, piece_seconds=1.0)
    studio.trainings.go_on = lambda name: None  # type: ignore[method-assign]
    studio.trainings.begin(training_of(job), name, [clip], ["--steps", "1"], ["a caption\n"])
    folder = studio.trainings.folder / name
    assert (folder / "clips" / f"{clip.stem}.txt").read_text() == "a caption\n"
    return put(folder / "run" / "adapter", *files)


def test_clips_that_cannot_be_read_are_left_out_by_name(studio: Studio, tmp_path: Path):
    (clip,) = write_folder(tmp_path / "music", minutes=1 / 60, seed=1, piece_seconds=1.0)
    (tmp_path / "again").mkdir()
    twin = shutil.copyfile(clip, tmp_path / "again" / clip.name)
    (tmp_path / "text.wav").write_text("la la la")
    (tmp_path / "cut.wav").write_bytes(clip.read_bytes()[:20])
    wrong = [tmp_path / "text.wav", tmp_path / "cut.wav"]
    studio.trainings.go_on = lambda name: None  # type: ignore[method-assign]

    with pytest.raises(AudioError, match=r"^text\.wav: .*; cut\.wav: ") as refused:
        studio.trainings.begin(training_of("musicgen"), "mine", wrong, [])
    assert str(tmp_path) not in str(refused.value) and not studio.trainings.names()

    captions = ["nothing", "the first", "nothing", "the second"]
    name = studio.trainings.begin(
        training_of("musicgen"), "mine", [wrong[0], clip, wrong[1], twin], [], captions
    )
    kept = studio.trainings.folder / name / "clips"
    assert {path.name: path.read_text() for path in kept.glob("*.txt")} == {
        f"{clip.stem}.txt": "the first",
        f"{clip.stem}-2.txt": "the second",
    }
    now = studio.trainings.progress(name)
    assert [each.split(" (")[0] for each in now.left_out] == ["text.wav", "cut.wav"]
    assert str(tmp_path) not in show.training(now) and "cut.wav" in show.training(now)

    with pytest.raises(Missing, match="no report yet"):
        studio.trainings.report(name)
    page = put(studio.trainings.folder / name / "run", "report.html") / "report.html"
    assert studio.trainings.report(name) == page
    assert "/report" in show.training(studio.trainings.progress(name))


def test_every_package_tunes_what_it_has():
    """By names of their own; what comes of each is for a job that merges adapters."""
    tuning = {each.name: each for each in jobs.trainings() if each.adapter}
    assert {each.job for each in tuning.values()} == {"musicgen", "vamp"}
    assert len({each.title for each in tuning.values()}) == 1 and len(tuning) == 2
    for each in tuning.values():
        assert jobs.find(each.job, each.package).adapters
        fields = jobs.imported(each.options)()
        assert [field.name for field in fields][:2] == ["model", "time"]


def test_the_tab_has_all_of_them(studio: Studio):
    """Each with its options, which no two share a place for."""
    from audiogen_core.studio.page import Page  # gradio takes seconds to import

    trainers = {each.training.name: each for each in Page(studio)._trainers}
    assert set(trainers) == {each.name for each in jobs.trainings()}
    for name, trainer in trainers.items():
        assert set(trainer.asked) == {field.name for field in trainer.fields}
        assert {each.elem_id for each in trainer.asked.values()} == {f"{name}-{key}" for key in trainer.asked}


def test_what_a_vampnet_learned_is_for_vamp(studio: Studio, tmp_path: Path):
    place = tuned(studio, "tape", tmp_path, "vamp", "coarse/lora.pth", "c2f/lora.pth")
    job = jobs.find("vamp")
    assert studio.adapters(job) == {"tape": place}
    assert studio.adapters(jobs.find("musicgen", "audiogen-mlx")) == {}
    (clip,) = (studio.trainings.folder / "tape" / "clips").glob("*.wav")
    values = {"audio": str(clip), "model": "demo", "lora": ["tape:0.5"]}
    work = studio.accept(Asked(values=values, job="vamp", package="audiogen-onnx"))
    assert work.load["lora"] == [f"{place}:0.5"]


def test_adapters_of_a_job_are_those_trained_for_it_and_those_put_there(studio: Studio, tmp_path: Path):
    job = jobs.find("musicgen", "audiogen-mlx")
    assert studio.adapters(job) == {}
    place = tuned(studio, "waltz", tmp_path)
    brought = put(studio.library.folder / ADAPTERS / "tape")
    (brought.parent / "rain.safetensors").write_bytes(b"")
    (brought.parent / ".hidden").write_bytes(b"")
    assert studio.adapters(job) == {
        "tape": brought, "rain": brought.parent / "rain.safetensors", "waltz": place
    }  # fmt: skip
    assert "waltz" not in studio.adapters(jobs.find("stable-audio"))
    assert studio.trainings.models("musicgen") == {}


def test_an_adapter_is_asked_for_by_its_name(studio: Studio, tmp_path: Path):
    place = tuned(studio, "waltz", tmp_path)
    values = {"prompt": "a waltz", "model": "demo", "lora": ["waltz:0.5"]}
    work = studio.accept(Asked(values=values, job="musicgen", package="audiogen-mlx"))
    assert work.load["lora"] == [f"{place}:0.5"]
    for other in ("polka:0.5", str(tmp_path)):
        with pytest.raises(OptionError, match="places on this machine"):
            studio.accept(Asked(values={**values, "lora": [other]}, job="musicgen", package="audiogen-mlx"))


def test_what_an_adapter_was_merged_for_is_made_again(studio: Studio, tmp_path: Path):
    place = tuned(studio, "waltz", tmp_path)
    recipe = Recipe(
        "audiogen-mlx",
        "0.1.0",
        "demo",
        seed=1,
        settings={"command": "musicgen", "prompt": "a waltz", "seconds": 2.0, "lora": [f"{place}:0.5"]},
        inputs={"lora": lora.hashed(str(place))},
    )
    assert studio.replay(recipe).load["lora"] == [f"{place}:0.5"]
    job = jobs.job_of(recipe)
    assert clips_of(job, replace(recipe, inputs={**recipe.inputs, "melody": "5"})) == [("melody", "5")]
    more = {**recipe.settings, "lora": [f"{place}:0.5", f"{place}:0.2"]}
    with pytest.raises(AudioError, match="does not say which adapters"):
        studio.replay(replace(recipe, settings=more))
    elsewhere = put(tmp_path / "elsewhere")
    other = {**recipe.settings, "lora": [f"{elsewhere}:0.5"]}
    with pytest.raises(OptionError, match="places on this machine"):
        studio.replay(replace(recipe, settings=other, inputs={"lora": lora.hashed(str(elsewhere))}))


def test_a_list_of_sliders_is_an_option_and_back(tmp_path: Path):
    here = {"waltz": tmp_path / "waltz", "tape": tmp_path / "tape"}
    listed = adapters.rows(here, [f"{tmp_path / 'waltz'}:0.5", f"{tmp_path / 'gone'}:-1"])
    assert [row["strength"] for row in listed] == [0.5, 0.0, -1.0]
    assert adapters.texts(listed) == ["waltz:0.5", f"{tmp_path / 'gone'}:-1"]
    assert adapters.rows(here, adapters.texts(listed)) == listed
    assert adapters.texts(adapters.rows(here)) == [] == adapters.texts(None)


def test_options_are_said_as_the_command_takes_them():
    tune = training_of("musicgen")
    fields = {each.name: each for each in jobs.imported(tune.options)()}
    assert list(fields)[:2] == ["model", "time"]
    said = {
        "time": ("10m", ["--time", "10m"]),
        "rank": (16, []),
        "lr": (0.001, ["--lr", "0.001"]),
        "targets": ("fc1 fc2", ["--targets", "fc1", "--targets", "fc2"]),
        "steps": ("", []),
    }
    for name, (value, words) in said.items():
        assert _said(fields[name], value) == words


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Studio]]:
    with served(tmp_path_factory.mktemp("library")) as place:
        yield place


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@needs_chromium
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_sound_is_taught_and_used(browser: Any, place: tuple[str, Studio], tmp_path: Path):
    clips = write_folder(tmp_path / "music", minutes=0.6, seed=7, piece_seconds=6.0, styles=["marimba waltz"])
    seen = Seen(browser, place[0])
    seen.page.set_default_timeout(1000 * LONG)
    seen.tab("Tune")
    seen.page.set_input_files("#tune-clips input[type=file]", [str(path) for path in clips])
    caption = seen.page.locator("#tune-captions [data-testid=cell-0-1]")
    caption.wait_for()
    caption.dblclick()
    seen.page.keyboard.press("Control+a")
    seen.page.keyboard.type("fast waltz for marimba")
    seen.page.keyboard.press("Enter")
    drawn(seen, "tune")
    seen.page.locator("div[role=tabpanel]:visible").get_by_role("button", name="Options").click()
    seen.fill("tune-name", "Waltz")
    seen.fill("tune-steps", "12")
    seen.page.locator("#tune-begin").click()
    shown = "document.querySelector('#tune-shown').innerText"
    seen.page.wait_for_function(f"{shown}.includes('before')", timeout=1000 * LONG)
    seen.page.locator("#tune-stop").click()
    seen.page.wait_for_function(f"!{shown}.includes('running')", timeout=1000 * LONG)
    assert "stopped" in seen.page.inner_text("#tune-shown")
    seen.page.locator("#tune-go-on").click()
    seen.page.wait_for_function(f"{shown}.includes('done')", timeout=1000 * LONG)
    assert seen.page.locator("#tune-shown polyline").count() == 2
    assert seen.page.locator("#tune-shown audio").count() >= 2
    seen.page.locator("#tune-shown audio").last.scroll_into_view_if_needed()
    drawn(seen, "tuned")
    told = (place[1].trainings.folder / "waltz" / "clips" / f"{clips[0].stem}.txt").read_text()
    assert told == "fast waltz for marimba"
    seen.page.get_by_role("link", name="The report").wait_for()

    seen.tab("MusicGen")
    slider = seen.page.locator("#musicgen-lora input[type=range]")
    slider.fill("0.8")
    assert seen.page.locator("#musicgen-lora output").inner_text() == "0.8"
    slider.focus()
    seen.page.keyboard.press("ArrowRight")
    seen.page.wait_for_function("document.querySelector('#musicgen-lora output').innerText == '0.85'")
    assert seen.page.evaluate("document.activeElement.type") == "range"  # the keyboard stays there
    seen.fill("musicgen-prompt", "fast waltz for marimba")
    seen.fill("musicgen-seconds", "2")
    seen.page.locator("#musicgen-lora").scroll_into_view_if_needed()
    drawn(seen, "adapters")
    recipe = Recipe.read(place[1].library.path(seen.make("musicgen", LONG)))
    (used,) = recipe.settings["lora"]
    assert used.endswith("waltz/run/adapter:0.85") and recipe.inputs["lora"]
    seen.page.locator("#musicgen-lora input[type=range]").fill("0")
    seen.page.locator("#again").click()
    seen.page.wait_for_function("document.querySelector('#musicgen-lora output').innerText == '0.85'")
    assert seen.elsewhere == [] and seen.errors == []
    seen.context.close()
    for name, width, dark in (("tune-dark", 1280, True), ("tune-phone", 400, False)):
        seen = Seen(browser, place[0], width=width, dark=dark)
        seen.tab("Tune")
        seen.page.wait_for_function(f"{shown}.includes('done')")
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
        drawn(seen, name)
        seen.context.close()


@needs_chromium
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_vampnet_is_taught_and_used(browser: Any, place: tuple[str, Studio], tmp_path: Path):
    clips = write_folder(tmp_path / "music", minutes=0.2, seed=7, piece_seconds=4.0)
    seen = Seen(browser, place[0])
    seen.page.set_default_timeout(1000 * LONG)
    seen.tab("Tune")
    seen.page.locator("div[role=tabpanel]:visible").get_by_role("tab", name="VampNet", exact=True).click()
    seen.page.set_input_files("#tune-vampnet-clips input[type=file]", [str(path) for path in clips])
    seen.fill("tune-vampnet-name", "Tape")
    seen.page.locator("#tune-vampnet-begin").scroll_into_view_if_needed()
    seen.page.locator("div[role=tabpanel]:visible").get_by_role("button", name="Options").last.click()
    for name, value in {"steps": "2", "seconds": "2", "batch": "2", "samples": "1"}.items():
        seen.fill(f"tune-vampnet-{name}", value)
    seen.page.locator("#tune-vampnet-begin").click()
    shown = "document.querySelector('#tune-vampnet-shown').innerText"
    seen.page.wait_for_function(f"{shown}.includes('done')", timeout=1000 * LONG)
    assert seen.page.locator("#tune-vampnet-shown audio").count() >= 2
    assert not seen.page.locator("#tune-vampnet-captions").is_visible()

    seen.tab("VampNet")
    seen.page.locator("#vamp-lora input[type=range]").fill("0.8")
    seen.give("vamp-audio", clips[0])
    recipe = Recipe.read(place[1].library.path(seen.make("vamp", LONG)))
    (used,) = recipe.settings["lora"]
    assert used.endswith("tape/run/adapter:0.8") and recipe.inputs["lora"]
    assert seen.elsewhere == [] and seen.errors == []
    seen.context.close()
