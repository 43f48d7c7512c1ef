"""The page in a browser, over a job of tones.

One server and one page are enough for all tests: each fills in what it needs. The server is the second on its
library.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from audiogen_core import jobs
from audiogen_core.audio import Audio
from audiogen_core.errors import OptionError
from audiogen_core.options import described
from audiogen_core.recipe import Recipe, hash_file
from audiogen_core.studio.queue import ENDED
from audiogen_core.studio.studio import Asked, Studio
from support import tones
from support.browser import Seen, chromium, needs_chromium, served

pytestmark = needs_chromium

BEFORE = ("a rare word", "another")
"""What was made by the server before."""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        tones.install(tmp_path_factory.mktemp("installed"), patch)
        tones.beside_vamp_alone(patch)
        patch.setitem(jobs.FAMILY, "audiogen-absent", "pip install audiogen-absent")
        yield tmp_path_factory.mktemp("library")


@pytest.fixture(scope="module")
def place(library: Path) -> Iterator[tuple[str, Studio]]:
    first = Studio(library, offline=True)
    first.start()
    for prompt in BEFORE:
        work = first.accept(Asked({"prompt": prompt, "seconds": 0.25}, job="tones"))
        while first.queue.get(work.id).state not in ENDED:
            time.sleep(0.02)
    first.close()
    with served(library) as place:
        yield place


@pytest.fixture(scope="module")
def page(place: tuple[str, Studio], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    heard = tmp_path_factory.mktemp("microphone") / "heard.wav"
    times = np.arange(48_000) / 48_000
    Audio(np.sin(2 * np.pi * 1000 * times)[None].astype(np.float32) / 2, 48_000).save(heard)
    with chromium(heard) as browser:
        seen = Seen(browser, place[0])
        yield seen
        seen.context.close()


@pytest.fixture
def seen(page: Seen) -> Iterator[Seen]:
    yield page
    assert page.elsewhere == [], "the page asks other machines for something"
    assert page.errors == []


def filled(seen: Seen, **values: str) -> None:
    """The form of tones with these options, and all others as usual that tests fill in."""
    seen.tab("Tones")
    usual = {"prompt": "a tone", "seconds": "0.25", "seed": "", "wait": "0", "pitch": "440", "part": ""}
    for name, value in {**usual, **values}.items():
        seen.fill(f"tones-{name}", value)
    for name in ("clip", "tune"):
        seen.clear(f"tones-{name}")
    seen.variations(1)


def test_text_becomes_sound_that_is_heard_before_it_is_whole(seen: Seen, place: tuple[str, Studio]):
    filled(seen, prompt="a <b>low</b> tone", seconds="2", seed="9007199254740993", wait="0.2")
    before = seen.picked
    seen.page.locator("#tones-make").click()
    seen.wait("audiogen.live && audiogen.live.heard > 0.2")
    assert "of 2 s of audio" in seen.page.inner_text("#status") and seen.picked == before
    name = seen.clip(before)
    seen.wait("document.querySelector('#cards audio').currentTime > 0")  # it went on
    recipe = Recipe.read(place[1].library.path(name))
    assert recipe.seed == 2**53 + 1 and recipe.settings["prompt"] == "a <b>low</b> tone"
    assert "a <b>low</b> tone" in seen.page.inner_text("#cards")
    seen.wait("document.querySelector('#cards img').naturalWidth == 800")


def test_what_is_missing_says_so(seen: Seen):
    said = {"absent": "pip install audiogen-absent", "broken": "No module named 'support.no_such_module'"}
    for tab, words in said.items():
        seen.tab(tab)
        seen.page.locator("div[role=tabpanel]:visible", has_text=words).wait_for()


def test_variations_lie_side_by_side_and_each_is_kept_in_four_formats(
    seen: Seen, place: tuple[str, Studio], tmp_path: Path
):
    filled(seen, seed="5", seconds="0.5")
    seen.variations(3)
    seen.make("tones")
    assert [f"seed {seed}" in seen.page.inner_text("#cards") for seed in (5, 6, 7)] == [True] * 3
    second = seen.page.locator("#cards .card").nth(1)
    second.locator(".pick").click()
    name = seen.clip(str(seen.page.locator("#cards .pick").first.get_attribute("data-clip")))
    recipe = Recipe.read(place[1].library.path(name))
    assert recipe.seed == 6
    for format in ("WAV", "FLAC", "OGG", "MP3"):
        with seen.page.expect_download() as download:
            seen.page.locator("#cards .picked .keep a", has_text=format).click()
        kept = tmp_path / download.value.suggested_filename
        download.value.save_as(kept)
        assert kept.suffix == f".{format.lower()}" and Recipe.read(kept) == recipe


def test_cancel_stops_it_and_a_mistake_is_one_sentence(seen: Seen, place: tuple[str, Studio]):
    filled(seen, seconds="60", wait="0.25")
    seen.page.locator("#tones-make").click()
    seen.said("of 60 s")
    seen.page.locator("#cancel").click()
    seen.said("Cancelled")
    assert place[1].queue.all()[0].state == "cancelled"
    seen.fill("tones-pitch", "5000")
    seen.page.locator("#tones-make").click()
    seen.said("“Pitch” must be")
    seen.fill("tones-pitch", "440")
    seen.fill("tones-seed", "high")
    seen.page.locator("#tones-make").click()
    seen.said("“Seed” must be")
    filled(seen)
    seen.page.locator("#tones-make").click()
    seen.said("Done")


def test_a_clip_goes_on_to_jobs_and_a_dropped_one_is_made_again_to_the_same_bytes(
    seen: Seen, place: tuple[str, Studio], tmp_path: Path
):
    studio = place[1]
    Audio(np.full((1, 4000), 0.25, np.float32), tones.RATE).save(tmp_path / "mine.wav")
    filled(seen, seconds="0.5", seed="11")
    seen.give("tones-clip", tmp_path / "mine.wav")
    made = studio.library.path(seen.make("tones")).read_bytes()
    assert len(made) > 2 * 8000
    seen.page.locator("#use-vamp-audio").click()  # one click from there to another job
    seen.has("vamp-audio")
    assert seen.page.locator("#vamp-make").is_visible()
    seen.page.locator("#use input").nth(1).fill("0.25")
    seen.page.locator("#use-tones-part").click()
    seen.page.locator("#tones-make").wait_for()
    assert seen.value("tones-part") == "0:0.25"
    (tmp_path / "from elsewhere.wav").write_bytes(made)
    seen.tab("Library")
    before = seen.picked
    seen.page.set_input_files("#drop input[type=file]", tmp_path / "from elsewhere.wav")
    dropped = seen.clip(before)
    seen.page.locator("#replay").click()
    again = seen.clip(dropped)
    assert studio.library.path(again).read_bytes() == made
    seen.page.locator("#again").click()
    seen.page.locator("#tones-make").wait_for()
    assert seen.value("tones-seed") == "11" and seen.value("tones-seconds") == "0.5"
    seen.has("tones-clip")  # what went in is there, too


def test_the_library_outlives_the_server_and_is_searched_and_cleared(seen: Seen, place: tuple[str, Studio]):
    seen.tab("Library")
    rows = "document.querySelectorAll('#rows .pick').length"
    for prompt in BEFORE:
        seen.fill("search", prompt.upper())
        seen.wait(f"{rows} == 1 && document.querySelector('#rows').innerText.includes({prompt!r})")
    seen.page.locator("#rows .pick").click()
    name = str(seen.page.locator("#rows .pick").get_attribute("data-clip"))
    seen.wait(f"document.querySelector('#cards .picked .pick')?.dataset.clip == {name!r}")
    assert place[1].library.clip(name).recipe is not None
    seen.page.once("dialog", lambda dialog: dialog.dismiss())
    seen.page.locator("#delete").click()
    seen.page.once("dialog", lambda dialog: dialog.accept())
    seen.page.locator("#delete").click()
    seen.wait(f"{rows} == 0")
    assert name not in {clip.name for clip in place[1].library.clips()}
    seen.fill("search", "")
    seen.wait(f"{rows} >= {len(BEFORE) - 1}")


def test_a_clip_is_recorded(seen: Seen, place: tuple[str, Studio]):
    filled(seen)
    recorder = seen.page.locator("#tones-clip")
    recorder.get_by_label("Record audio").click()
    recorder.get_by_role("button", name="Record", exact=True).click()
    seen.page.wait_for_timeout(1000)
    recorder.get_by_role("button", name="Stop").first.click()
    recorder.get_by_label("Download").wait_for()  # it has been brought in
    library = place[1].library
    sound = Audio.load(library.path(seen.make("tones"))).samples[0]
    recorded = sound[: -tones.RATE // 4]
    assert len(recorded) > 0.3 * tones.RATE
    heard = np.abs(np.fft.rfft(recorded * np.hanning(len(recorded))))
    assert np.argmax(heard) * tones.RATE / len(recorded) == pytest.approx(1000, abs=10)
    recorder.get_by_label("Clear").click()
    recorder.get_by_label("Upload file").click()


def test_a_file_that_is_no_sound_goes_in(seen: Seen, place: tuple[str, Studio], tmp_path: Path):
    (tmp_path / "tune.txt").write_text("440 660\n")
    (tmp_path / "tune.exe").write_text("440 660\n")
    filled(seen, seconds="0.5", seed="1")
    seen.give("tones-tune", tmp_path / "tune.txt")
    made = place[1].library.path(seen.make("tones"))
    recipe = Recipe.read(made)
    assert recipe.inputs["tune"] == hash_file(tmp_path / "tune.txt")
    halves = np.abs(np.fft.rfft(Audio.load(made).samples[0].reshape(2, -1)))
    assert halves.argmax(axis=1).tolist() == [110, 165]
    seen.page.locator("#again").click()
    seen.has("tones-tune")


def test_by_the_keyboard_and_on_a_phone(seen: Seen):
    seen.page.set_viewport_size({"width": 400, "height": 900})
    seen.page.emulate_media(color_scheme="dark", reduced_motion="reduce")
    seen.load()
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 400
    assert seen.page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    filled(seen, prompt="")
    before = seen.picked
    seen.page.locator("#tones-prompt textarea").focus()
    seen.page.keyboard.type("by keys")
    for _ in range(60):  # to the button, and past all that has a place between
        seen.page.keyboard.press("Tab")
        if seen.page.evaluate("document.activeElement.id") == "tones-make":
            break
    seen.page.keyboard.press("Enter")
    seen.clip(before)
    assert "by keys" in seen.page.inner_text("#cards")
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 400
    seen.page.locator("#cards .pick").focus()
    shown = "getComputedStyle(document.activeElement).outlineStyle"
    seen.page.keyboard.press("Tab")
    assert seen.page.evaluate(shown) != "none"


def test_make_lies_over_what_is_scrolled_below_it(seen: Seen):
    seen.page.set_viewport_size({"width": 390, "height": 700})
    seen.load()
    seen.tab("Tones")
    on_top = """() => {
        const box = document.querySelector('#tones-make').getBoundingClientRect();
        return document.elementFromPoint(box.x + box.width / 4, box.y + box.height / 2).id;
    }"""
    for _ in range(6):
        assert seen.page.evaluate(on_top) == "tones-make"
        seen.page.mouse.wheel(0, 45)
        seen.page.wait_for_timeout(50)
    layers = "each => Number(getComputedStyle(each).zIndex) || 0"
    labels = "all => all.map(" + layers + ")"
    make = seen.page.locator("#tones-make").evaluate(layers)
    assert make > max(seen.page.locator("[data-testid=block-info]").evaluate_all(labels))
    seen.page.set_viewport_size({"width": 1280, "height": 900})


def test_numbers_with_a_comma_and_times_are_read():
    from audiogen_core.studio.form import _of_text

    fields = {field.name: field for field in described(jobs.find("musicgen").options)}
    length, heat = fields["seconds"], fields["temperature"]
    assert [_of_text(length, text) for text in ("4,5", "4.5", "1:30", "2m")] == [4.5, 4.5, 90, 120]
    assert _of_text(fields["guidance_scale"], "3,5") == 3.5
    assert _of_text(heat, "1, 0.5") == (1, 0.5)
    with pytest.raises(OptionError, match="Length: 'long' is no time; write for example"):
        _of_text(length, "long")
