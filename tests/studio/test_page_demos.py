"""The page over the demo models of all packages, and the pictures of it that the tutorial shows.

AUDIOGEN_PICTURES=docs/assets/studio has the pictures written there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from audiogen_core import jobs
from audiogen_core.audio import Audio
from audiogen_core.compose import write_folder
from audiogen_core.recipe import Recipe
from audiogen_core.studio.studio import Studio
from support.browser import Seen, chromium, drawn, needs_chromium, served

pytestmark = [needs_chromium, pytest.mark.slow, pytest.mark.timeout(1800)]

LONG = 120.0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Studio]]:
    with served(tmp_path_factory.mktemp("library")) as place:
        yield place


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


def settings(place: tuple[str, Studio], name: str) -> dict[str, Any]:
    return dict(Recipe.read(place[1].library.path(name)).settings)


def test_a_clip_goes_through_all_jobs(browser: Any, place: tuple[str, Studio]):
    seen = Seen(browser, place[0])
    seen.page.locator(".words button:visible", has_text="piano").first.click()
    seen.page.wait_for_function("document.querySelector('#musicgen-prompt textarea').value == 'piano'")
    seen.fill("musicgen-prompt", "slow piano in C minor")
    seen.fill("musicgen-seconds", "6")
    seen.fill("musicgen-seed", "1")
    seen.page.locator("#musicgen-make").click()
    seen.page.wait_for_function("audiogen.live && audiogen.live.heard > 0.5", timeout=1000 * LONG)
    assert seen.page.locator(".card").count() == 0  # heard before it was whole
    drawn(seen, "live")
    first = seen.clip(seconds=LONG)
    seen.page.wait_for_function("document.querySelector('#cards img').naturalWidth > 0")
    drawn(seen, "made")

    seen.page.locator("#use-vamp-audio").click()
    seen.page.locator("#vamp-audio [aria-label=Clear]").wait_for()
    seen.fill("vamp-seed", "2")
    vamped = seen.make("vamp", LONG)
    assert settings(place, vamped)["command"] == "vamp"
    drawn(seen, "vamped")

    seen.page.locator("#use input").nth(0).fill("1")
    seen.page.locator("#use input").nth(1).fill("2.5")
    seen.page.locator("#use-stable-audio-inpaint").click()
    seen.page.locator("#stable-audio-init_audio [aria-label=Clear]").wait_for()
    seen.fill("stable-audio-prompt", "soft strings")
    seen.fill("stable-audio-steps", "4")
    inpainted = seen.make("stable-audio", LONG)
    assert settings(place, inpainted)["inpaint"] == [[1, 2.5]]

    seen.page.locator("#use-generate-prompt_audio").click()
    seen.page.locator("#generate-prompt_audio [aria-label=Clear]").wait_for()
    seen.page.locator("#generate-seconds").locator("input").first.fill("14")
    continued = seen.make("generate", LONG)
    assert place[1].library.clip(continued).seconds == pytest.approx(14, abs=0.05)

    seen.tab("Library")
    seen.page.wait_for_function("document.querySelectorAll('#rows .pick').length == 4")
    seen.page.locator("#rows .pick").last.click()
    assert seen.clip(continued) == first
    drawn(seen, "library")
    bytes_of_first = place[1].library.path(first).read_bytes()
    seen.page.locator("#replay").click()
    again = seen.clip(first, LONG)
    assert place[1].library.path(again).read_bytes() == bytes_of_first
    assert seen.elsewhere == [] and seen.errors == []
    seen.context.close()


def test_every_demo_makes_sound(browser: Any, place: tuple[str, Studio], tmp_path: Path):
    from audiogen_core.studio.page import Page

    clip = write_folder(tmp_path / "music", minutes=0.05, seed=2, piece_seconds=3.0)[0]
    seen, page, made = Seen(browser, place[0]), Page(place[1]), []
    for name, form in page.forms.items():
        if not any(entry.name == "demo" and entry.here for entry in form.job.models()):
            continue
        seen.tab(page._titles[name])
        for field in form.fields.values():
            if field.option.argument and field.option.role == "audio":
                seen.give(f"{name}-{field.name}", clip)
            elif field.option.argument:
                seen.fill(f"{name}-{field.name}", "slow piano")
        if "seconds" in form.fields:
            seen.fill(f"{name}-seconds", "2")
        recipe = Recipe.read(place[1].library.path(seen.make(name, LONG)))
        assert (recipe.package, recipe.settings["command"]) == (form.job.package, form.job.name)
        made.append(name)
    assert len(made) >= 5 and seen.elsewhere == [] and seen.errors == []
    seen.context.close()


def test_a_mask_says_where_vampnet_makes_anew(browser: Any, place: tuple[str, Studio], tmp_path: Path):
    clip = write_folder(tmp_path / "music", minutes=0.05, seed=2, piece_seconds=3.0)[0]
    job = jobs.find("vamp")
    model = job.open(model="demo")
    layout = model.prepared(job.options(audio=clip))[0].layout
    mask = np.zeros((layout.codebooks, layout.frames), np.uint8)
    mask[:, layout.frames // 2 :] = 255
    Image.fromarray(mask).save(tmp_path / "second half.png")
    Image.fromarray(mask[:, 1:]).save(tmp_path / "too short.png")
    seen = Seen(browser, place[0])
    seen.tab("VampNet")
    seen.give("vamp-audio", clip)
    seen.fill("vamp-seed", "3")
    seen.open("What is kept of the clip")
    seen.give("vamp-mask", tmp_path / "too short.png")
    seen.page.locator("#vamp-make").click()
    seen.said("was it made for a clip of another length?", LONG)
    seen.clear("vamp-mask")
    seen.give("vamp-mask", tmp_path / "second half.png")
    seen.fill("vamp-prefix", "2")
    before = seen.picked
    seen.page.locator("#vamp-make").click()
    seen.said("Done", LONG)
    made = Audio.load(place[1].library.path(seen.clip(before)))
    asked = job.options(audio=clip, seed=3, prefix=2.0).standard()
    expected = model.clip(replace(asked, mask=tmp_path / "second half.png"))
    other = model.clip(asked)
    assert np.abs(made.samples - expected.samples).max() < 1e-3 < np.abs(made.samples - other.samples).max()
    drawn(seen, "mask")
    seen.page.locator("#again").click()
    seen.has("vamp-mask")
    assert seen.elsewhere == [] and seen.errors == []
    seen.context.close()


def test_it_is_seen_in_the_dark_and_on_a_phone(browser: Any, place: tuple[str, Studio]):
    for name, width in (("dark", 1280), ("phone", 400)):
        seen = Seen(browser, place[0], width=width, dark=True)
        seen.tab("Library")
        seen.page.locator("#rows .pick").first.click()
        seen.clip()
        seen.page.wait_for_function("document.querySelector('#cards img').naturalWidth > 0")
        if width == 400:
            seen.page.locator(".stage").scroll_into_view_if_needed()
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
        assert seen.page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
        drawn(seen, name)
        seen.context.close()


def test_a_model_is_trained_stopped_and_used(browser: Any, place: tuple[str, Studio], tmp_path: Path):
    clips = write_folder(tmp_path / "music", minutes=1.0, seed=1, piece_seconds=20.0)
    seen = Seen(browser, place[0])
    seen.tab("Train")
    seen.page.set_input_files("#train-clips input[type=file]", [str(path) for path in clips])
    seen.page.locator("#train-clips .file-preview").wait_for()
    seen.page.get_by_role("button", name="Options").click()
    seen.fill("train-name", "Small Hours")
    seen.fill("train-steps", "20")
    seen.page.locator("#train-begin").click()
    shown = "document.querySelector('#train-shown').innerText"
    seen.page.wait_for_function(f"{shown}.includes('step-')", timeout=4000 * LONG)  # a sample by the way
    seen.page.locator("#train-stop").click()
    seen.page.wait_for_function(f"!{shown}.includes('running')", timeout=4000 * LONG)
    assert "stopped" in seen.page.inner_text("#train-shown")
    seen.page.locator("#train-go-on").click()
    seen.page.wait_for_function(f"{shown}.includes('done')", timeout=4000 * LONG)
    assert seen.page.locator("#train-shown polyline").count() >= 1
    assert seen.page.locator("#train-shown audio").count() >= 1
    seen.page.locator("#train-shown").scroll_into_view_if_needed()
    seen.page.locator("#train-shown audio").last.scroll_into_view_if_needed()
    drawn(seen, "trained")
    seen.context.close()
    seen = Seen(browser, place[0])
    seen.tab("A model of your own")
    seen.page.locator("#generate-model input").click()
    seen.page.get_by_role("option", name="small-hours").click()
    seen.page.locator("#generate-seconds").locator("input").first.fill("1")
    name = seen.make("generate", LONG)
    assert Recipe.read(place[1].library.path(name)).model.endswith("small-hours/run")
    seen.context.close()
