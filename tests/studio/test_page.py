"""The page in a browser, over a job of tones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audiogen_core import jobs
from audiogen_core.audio import Audio
from audiogen_core.recipe import Recipe
from audiogen_core.studio.studio import Studio
from support import tones
from support.browser import Seen, chromium, needs_chromium, served

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        tones.install(tmp_path_factory.mktemp("installed"), patch)
        of_all = jobs.every  # two of them do, and the page is there sooner
        patch.setattr(jobs, "every", lambda: [each for each in of_all() if each.name in ("tones", "vamp")])
        patch.setitem(jobs.FAMILY, "audiogen-absent", "pip install audiogen-absent")
        yield tmp_path_factory.mktemp("library")


@pytest.fixture(scope="module")
def place(library: Path) -> Iterator[tuple[str, Studio]]:
    with served(library) as place:
        yield place


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def seen(browser: Any, place: tuple[str, Studio]) -> Iterator[Seen]:
    seen = Seen(browser, place[0])
    yield seen
    assert seen.elsewhere == [], "the page asks other machines for something"
    assert seen.errors == []
    seen.context.close()


def test_text_becomes_sound_that_is_heard_before_it_is_whole(seen: Seen, place: tuple[str, Studio]):
    seen.tab("Tones")
    seen.fill("tones-prompt", "a <b>low</b> tone")
    seen.fill("tones-seconds", "2")
    seen.fill("tones-seed", "9007199254740993")
    seen.fill("tones-wait", "0.2")
    seen.page.locator("#tones-make").click()
    seen.page.wait_for_function("audiogen.live && audiogen.live.heard > 0.2")
    assert "of 2 s of audio" in seen.page.inner_text("#status") and seen.page.locator(".card").count() == 0
    name = seen.clip()
    seen.page.wait_for_function("document.querySelector('#cards audio').currentTime > 0")  # it went on
    recipe = Recipe.read(place[1].library.path(name))
    assert recipe.seed == 2**53 + 1 and recipe.settings["prompt"] == "a <b>low</b> tone"
    assert "a <b>low</b> tone" in seen.page.inner_text("#cards")
    picture = "document.querySelector('#cards img').naturalWidth"
    seen.page.wait_for_function(f"{picture} == 800")


def test_variations_lie_side_by_side_and_each_is_kept_in_four_formats(
    seen: Seen, place: tuple[str, Studio], tmp_path: Path
):
    seen.tab("Tones")
    seen.page.get_by_label("Variations").first.wait_for(state="attached")
    seen.page.locator("div[role=tabpanel]:visible").get_by_label("Variations").fill("3")
    seen.fill("tones-seed", "5")
    seen.fill("tones-seconds", "0.5")
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
    seen.tab("Tones")
    seen.fill("tones-seconds", "60")
    seen.fill("tones-wait", "0.05")
    seen.page.locator("#tones-make").click()
    seen.said("of 60 s")
    seen.page.locator("#cancel").click()
    seen.said("Cancelled")
    assert place[1].queue.all()[0].state == "cancelled"
    seen.fill("tones-pitch", "5000")
    seen.page.locator("#tones-make").click()
    seen.said("pitch must be")
    seen.fill("tones-pitch", "440")
    seen.fill("tones-seed", "high")
    seen.page.locator("#tones-make").click()
    seen.said("seed")


def test_a_clip_goes_on_to_jobs_and_a_dropped_one_is_made_again_to_the_same_bytes(
    seen: Seen, place: tuple[str, Studio], tmp_path: Path
):
    studio = place[1]
    Audio(np.full((1, 4000), 0.25, np.float32), tones.RATE).save(tmp_path / "mine.wav")
    seen.tab("Tones")
    seen.page.set_input_files("#tones-clip input[type=file]", tmp_path / "mine.wav")
    seen.page.locator("#tones-clip [aria-label=Clear]").wait_for()
    seen.fill("tones-seconds", "0.5")
    seen.fill("tones-seed", "11")
    made = studio.library.path(seen.make("tones")).read_bytes()
    assert len(made) > 2 * 8000
    seen.page.locator("#use-vamp-audio").click()  # one click from there to another job
    seen.page.locator("#vamp-audio [aria-label=Clear]").wait_for()
    assert seen.page.locator("#vamp-make").is_visible()
    seen.page.locator("#use input").nth(1).fill("0.25")
    seen.page.locator("#use-tones-part").click()
    seen.page.locator("#tones-make").wait_for()
    assert seen.value("tones-part") == "0:0.25"
    (tmp_path / "from elsewhere.wav").write_bytes(made)
    seen.tab("Library")
    before = seen.clip()
    seen.page.set_input_files("#drop input[type=file]", tmp_path / "from elsewhere.wav")
    dropped = seen.clip(before)
    seen.page.locator("#replay").click()
    again = seen.clip(dropped)
    assert studio.library.path(again).read_bytes() == made
    seen.page.locator("#again").click()
    seen.page.locator("#tones-make").wait_for()
    assert seen.value("tones-seed") == "11" and seen.value("tones-seconds") == "0.5"
    seen.page.locator("#tones-clip [aria-label=Clear]").wait_for()  # what went in is there, too


def test_the_library_outlives_the_server_and_is_searched_and_cleared(
    browser: Any, tmp_path: Path, library: Path
):
    with served(tmp_path) as (address, _):
        seen = Seen(browser, address)
        seen.tab("Tones")
        for prompt in ("a rare word", "another"):
            seen.fill("tones-prompt", prompt)
            seen.fill("tones-seconds", "0.25")
            seen.make("tones")
        seen.context.close()
    with served(tmp_path) as (address, studio):
        seen = Seen(browser, address)
        seen.tab("Library")
        seen.page.wait_for_function("document.querySelectorAll('#rows .pick').length == 2")
        seen.fill("search", "RARE")
        seen.page.wait_for_function("document.querySelectorAll('#rows .pick').length == 1")
        seen.page.locator("#rows .pick").click()
        seen.clip()
        seen.page.once("dialog", lambda dialog: dialog.dismiss())
        seen.page.locator("#delete").click()
        seen.page.once("dialog", lambda dialog: dialog.accept())
        seen.page.locator("#delete").click()
        seen.page.wait_for_function("document.querySelectorAll('#rows .pick').length == 0")
        assert len(studio.library.clips()) == 1
        seen.context.close()


def test_what_is_missing_says_so(seen: Seen):
    seen.tab("absent")
    assert "pip install audiogen-absent" in seen.page.inner_text("div[role=tabpanel]:visible")
    seen.tab("broken")
    assert "No module named 'support.no_such_module'" in seen.page.inner_text("div[role=tabpanel]:visible")


def test_by_the_keyboard_and_on_a_phone(browser: Any, place: tuple[str, Studio]):
    seen = Seen(browser, place[0], width=400, dark=True)
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 400
    seen.tab("Tones")
    seen.page.locator("#tones-prompt textarea").focus()
    seen.page.keyboard.type("by keys")
    for _ in range(60):  # to the button, and past all that has a place between
        seen.page.keyboard.press("Tab")
        if seen.page.evaluate("document.activeElement.id") == "tones-make":
            break
    seen.page.keyboard.press("Enter")
    seen.clip()
    assert "by keys" in seen.page.inner_text("#cards")
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 400
    seen.page.locator("#cards .pick").focus()
    shown = "getComputedStyle(document.activeElement).outlineStyle"
    seen.page.keyboard.press("Tab")
    assert seen.page.evaluate(shown) != "none"
    seen.context.close()
