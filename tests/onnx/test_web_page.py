"""The page that `audiogen-onnx web` writes, in Debian's chromium.

AUDIOGEN_PICTURES=FOLDER has pictures of it written there, by the slow tests.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audiogen_core.audio import Audio
from audiogen_core.compose import compose
from audiogen_onnx.catalog import CATALOG
from audiogen_onnx.musicgen.generate import MusicGen
from audiogen_onnx.vampnet.generate import Vampnet
from audiogen_onnx.vampnet.options import Options
from audiogen_onnx.web.site import write_site
from support import exported, musicgen_onnx
from support.browser import Seen, chromium, needs_chromium
from support.page import page_server, stand_in, web_package

pytestmark = needs_chromium

PUBLISHED = ("musicgen-mono", "musicgen-stereo")

NAME = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A page that computes nothing, of a model whose folder has a name that is HTML."""
    place = tmp_path_factory.mktemp("page")
    shutil.copytree(CATALOG["demo"].path, place / NAME)
    with pytest.MonkeyPatch.context() as patch:
        write_site(["demo", place / NAME], place / "site", runtime_dir=stand_in(place / "ort", patch))
    with page_server(place / "site") as address:
        yield address


@pytest.fixture
def seen(browser: Any, still: str) -> Iterator[Seen]:
    seen = Seen(browser, still)
    yield seen
    assert seen.elsewhere == [], "the page asks other machines for something"
    assert seen.errors == []
    seen.context.close()


def test_a_name_that_is_html_is_shown_as_text(seen: Seen):
    options = seen.page.locator("#model option").all_inner_texts()
    assert options == ["MusicGen, demo (float32)", "VampNet, demo (int8)", f"VampNet, {NAME} (int8)"]
    assert seen.page.locator("img").count() == 0
    seen.page.select_option("#model", "2")
    seen.page.set_input_files("#clip", {"name": NAME, "mimeType": "audio/wav", "buffer": b"no sound"})
    assert seen.page.inner_text("#opened") == NAME
    seen.page.locator("#make").click()
    seen.page.wait_for_selector("#status.failed")
    assert seen.page.inner_text("#status") == f"{NAME}: this browser cannot read it as sound."
    assert seen.page.locator("img").count() == 0


def test_each_model_has_its_own_fields_and_defaults(seen: Seen):
    assert seen.page.locator("#prompt").is_visible() and not seen.page.locator("#drop").is_visible()
    assert seen.page.input_value("#seconds") == "10"
    assert seen.page.input_value("#temperature") == "0.5"
    seen.page.select_option("#model", "1")
    assert seen.page.locator("#drop").is_visible() and not seen.page.locator("#prompt").is_visible()
    assert seen.page.input_value("#temperature") == "0.85"
    seed = seen.page.input_value("#seed")
    seen.page.locator("#another").click()
    assert seen.page.input_value("#seed") != seed


def test_mistakes_are_one_sentence(seen: Seen):
    page = seen.page
    page.select_option("#model", "1")
    page.locator("#make").click()
    assert page.inner_text("#status") == "Open a clip first."
    clip = compose(1, seconds=0.6).audio.mix(1).resample(24_000)
    short = Audio(clip.samples[:, :5000], 24_000)
    for audio, words in ((short, "too short"), (clip, "later one")):
        page.set_input_files("#clip", {"name": "clip.wav", "mimeType": "audio/wav", "buffer": _bytes(audio)})
        page.fill("#from", "0.4")
        page.fill("#to", "0.2")
        page.locator("#make").click()
        page.wait_for_function(f"() => document.querySelector('#status').innerText.includes({words!r})")
    page.select_option("#model", "0")
    page.locator("#make").click()  # what stands in the place of onnxruntime computes nothing
    page.wait_for_function("() => document.querySelector('#status').className == 'failed'")
    assert page.locator("#make").is_enabled() and not page.locator("#cancel").is_visible()


def _bytes(audio: Audio) -> bytes:
    import io

    import soundfile

    made = io.BytesIO()
    soundfile.write(made, audio.samples.T, audio.sample_rate, format="WAV", subtype="PCM_16")
    return made.getvalue()


@pytest.mark.parametrize(("width", "dark"), [(360, False), (360, True), (1280, False)])
def test_nothing_lies_outside(browser: Any, still: str, width: int, dark: bool):
    seen = Seen(browser, still, width=width, dark=dark)
    seen.page.locator("summary").click()
    for model in ("0", "1"):
        seen.page.select_option("#model", model)
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
    paper = seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(21, 21, 23)") == dark
    seen.context.close()


# With onnxruntime-web


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A page of the demos and of a VampNet in float32: its address, and a folder for clips."""
    place = tmp_path_factory.mktemp("page")
    write_site(["demo", exported.exported("small")], place / "site", runtime_dir=web_package())
    with page_server(place / "site") as address:
        yield address, place


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A page of MusicGens that have T5 and EnCodec, as the published ones."""
    site = tmp_path_factory.mktemp("page") / "site"
    write_site([musicgen_onnx.exported(name) for name in PUBLISHED], site, runtime_dir=web_package())
    with page_server(site) as address:
        yield address


def picture(seen: Seen, name: str) -> None:
    if folder := os.environ.get("AUDIOGEN_PICTURES"):
        seen.page.screenshot(path=Path(folder, f"{name}.png"), full_page=True)


def made(seen: Seen, seconds: float = 240.0) -> Any:
    """Press the button, and wait for the clip."""
    before = seen.page.evaluate("audiogen.clips.length")
    seen.page.locator("#make").click()
    seen.page.wait_for_function(
        "before => { const status = document.querySelector('#status');"
        " if (status.className == 'failed') throw new Error(status.innerText);"
        " return audiogen.clips.length > before }",
        arg=before,
        timeout=1000 * seconds,
    )
    return seen.page.evaluate("audiogen.clips.at(-1)")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_music_of_the_demo_has_the_codes_of_python(browser: Any, whole: tuple[str, Path], tmp_path: Path):
    seen = Seen(browser, whole[0])
    prompt, seed = "fast violin in A minor", 2**53 + 1
    seen.page.fill("#prompt", prompt)
    seen.page.fill("#seconds", "3")
    seen.page.fill("#seed", str(seed))
    clip = made(seen)
    with pytest.warns(UserWarning, match="cannot follow violin"):
        wanted = MusicGen.load("demo").generate_codes(prompt, seconds=3, seed=seed)
    np.testing.assert_array_equal(clip["codes"][0], wanted.values)
    assert "cannot follow violin (the nearest is" in seen.page.inner_text("#status")
    with seen.page.expect_download() as download:
        seen.page.locator(".clip a").first.click()
    assert download.value.suggested_filename == f"fast-violin-in-A-minor-{seed}.wav"
    download.value.save_as(tmp_path / "made.wav")
    sound, python = Audio.load(tmp_path / "made.wav"), MusicGen.load("demo").decode(wanted)
    assert sound.samples.shape == python.samples.shape == (1, 72_000)
    np.testing.assert_allclose(sound.samples, python.samples.clip(-1, 1), rtol=0, atol=1e-4)
    seen.page.wait_for_function("() => document.querySelector('.clip audio').duration > 2.9")
    picture(seen, "music-light")
    print(f"3 s of music in {clip['seconds']:.1f} s")
    assert seen.elsewhere == [] and seen.errors == []
    seen.context.close()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("model", "asked", "share"),
    [
        ("demo", {}, 0.5),
        ("demo", {"infill": (0.5, 1.5)}, 0.5),
        ("small", {"infill": (0.2, 0.7), "steps": 8, "keep": 2}, 1.0),
    ],
    ids=str,
)
def test_a_vamp_has_the_codes_of_python(
    browser: Any, whole: tuple[str, Path], model: str, asked: dict[str, Any], share: float
):
    """In float32 all codes are equal; of the demo's, which is int8, see the page of the documentation."""
    place = CATALOG["demo"].path if model == "demo" else exported.exported("small")
    vampnet = Vampnet.load(place, threads=1)
    rate = vampnet.sample_rate
    clip = compose(5, seconds=2 if model == "demo" else 1).audio.resample(rate)
    clip = Audio(clip.samples if model == "small" else clip.mix(1).samples, rate)
    path = whole[1] / f"{model}.wav"
    path.write_bytes(_bytes(clip))
    seen = Seen(browser, whole[0], dark=True)
    seen.page.select_option("#model", "1" if model == "demo" else "2")
    seen.page.set_input_files("#clip", path)
    seen.page.fill("#seed", "7")
    seen.page.locator("summary").click()
    for name in asked.keys() & {"steps", "keep"}:
        seen.page.fill(f"#{name}", str(asked[name]))
    if "infill" in asked:
        seen.page.fill("#from", str(asked["infill"][0]))
        seen.page.fill("#to", str(asked["infill"][1]))
    got = np.array(made(seen)["codes"])
    opened, mask = vampnet.prepared(Options(audio=path, **asked))
    wanted = opened.make(mask, 7, 1, None)[0]
    assert got.shape == wanted.codes.shape
    equal = (got == wanted.codes)[:, wanted.mask[: got.shape[1]]].mean()
    print(f"{model}: {equal:.2%} of the codes that were made are those of Python")
    assert equal >= share
    np.testing.assert_array_equal(
        got[:, ~wanted.mask[: got.shape[1]]], wanted.codes[:, ~wanted.mask[: got.shape[1]]]
    )
    picture(seen, "vamp-dark")
    assert seen.elsewhere == [] and seen.errors == []
    seen.context.close()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", PUBLISHED)
def test_models_in_the_layout_of_transformers(browser: Any, published: str, name: str):
    seen = Seen(browser, published)
    seen.page.select_option("#model", str(PUBLISHED.index(name)))
    seen.page.fill("#prompt", "80s pop track with bassy drums and synth")
    seen.page.fill("#seconds", "1")
    seen.page.fill("#seed", "3")
    clip = made(seen)
    wanted = musicgen_onnx.model(name).generate_codes(
        "80s pop track with bassy drums and synth", seconds=1, seed=3
    )
    np.testing.assert_array_equal(clip["codes"][0], wanted.values)
    seen.context.close()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_cancel_leaves_the_page_ready(browser: Any, whole: tuple[str, Path]):
    seen = Seen(browser, whole[0], width=360)
    seen.page.fill("#prompt", "slow piano in C minor")
    seen.page.fill("#seconds", "60")
    seen.page.locator("#make").click()
    seen.page.wait_for_function(
        "() => document.querySelector('#status').innerText.startsWith('Making: 1 ')", timeout=240_000
    )
    picture(seen, "phone-making")
    seen.page.locator("#cancel").click()
    seen.page.wait_for_function(
        "() => document.querySelector('#status').innerText == 'Cancelled.'", timeout=60_000
    )
    seen.page.fill("#seconds", "1")
    made(seen)
    picture(seen, "phone")
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 360
    seen.context.close()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_file_that_was_changed_is_refused(browser: Any, whole: tuple[str, Path], tmp_path: Path):
    site = shutil.copytree(whole[1] / "site", tmp_path / "site")
    facts = json.loads((site / "models.json").read_text())
    stored = site / facts[0]["graphs"]["cross"]["data"]["file"]
    content = bytearray(stored.read_bytes())
    content[0] ^= 1
    stored.write_bytes(content)
    with page_server(site) as address:
        seen = Seen(browser, address)
        seen.page.fill("#prompt", "slow piano")
        seen.page.locator("#make").click()
        seen.page.wait_for_selector("#status.failed", timeout=120_000)
        assert "is not the file that models.json describes" in seen.page.inner_text("#status")
        seen.context.close()
