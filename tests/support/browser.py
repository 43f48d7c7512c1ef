"""A studio with its page in this process, and Debian's chromium that looks at it."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from PIL import Image

from audiogen_core.studio.service import application
from audiogen_core.studio.studio import Studio

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium")


@contextmanager
def served(folder: Path, **facts: Any) -> Iterator[tuple[str, Studio]]:
    """A studio over a folder, with the page: its address, and itself."""
    from audiogen_core.studio.page import mount  # gradio takes seconds to import

    studio = Studio(folder, offline=True, **facts)
    app, guarded = application(studio)
    mount(app, studio)
    studio.start()
    try:
        with listening(guarded) as (host, port):
            yield f"http://{host}:{port}/", studio
    finally:
        studio.close()


@contextmanager
def listening(app: Any) -> Iterator[tuple[str, int]]:
    """An application that is served by this process: where."""
    place = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [place]}, daemon=True)
    thread.start()
    try:
        yield place.getsockname()
    finally:
        server.should_exit = True
        thread.join(10)
        place.close()


@contextmanager
def chromium(heard: Path | None = None) -> Iterator[Any]:
    """A browser, until the block ends. `heard` is a WAV file that its microphone hears, over and over."""
    from playwright.sync_api import sync_playwright

    microphone = [
        "--use-fake-ui-for-media-stream",  # whoever uses it has allowed that
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={heard}",
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", *(microphone if heard else ())]
        )
        try:
            yield browser
        finally:
            browser.close()


class Seen:
    """A page as somebody uses it, with what it asked other machines for and what went wrong in it."""

    def __init__(self, browser: Any, address: str, *, width: int = 1280, dark: bool = False) -> None:
        self.context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",
        )
        self.page = self.context.new_page()
        self.page.set_default_timeout(120_000)  # machines that run tests are busy
        self._address = address
        self.elsewhere: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self._asked(request.url, address))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.load()

    def load(self) -> None:
        """As if it were opened anew."""
        self.page.goto(self._address)
        self.page.wait_for_selector(".make")

    def _asked(self, url: str, address: str) -> None:
        if not url.startswith((address, "data:", "blob:")):
            self.elsewhere.append(url)

    def tab(self, name: str) -> None:
        """Open a tab, by the menu of those for which there is no room if need be."""
        tab = self.page.get_by_role("tablist").first.get_by_role("tab", name=name, exact=True)
        if tab.is_visible():
            tab.click()
            return
        self.page.locator(".overflow-menu > button").first.click()
        self.page.locator(".overflow-dropdown button", has_text=name).click()

    def open(self, group: str) -> None:
        """Unfold a group of options of the job whose tab is open."""
        self.page.locator("div[role=tabpanel]:visible").get_by_role("button", name=group).click()

    def fill(self, name: str, value: str) -> None:
        """Put a text into an option, "tones-seed" say."""
        self.page.locator(f"#{name}").locator("textarea, input").first.fill(value)

    def value(self, name: str) -> str:
        return str(self.page.locator(f"#{name}").locator("textarea, input").first.input_value())

    def give(self, name: str, path: Path) -> None:
        """Put a file into an option."""
        self.page.set_input_files(f"#{name} input[type=file]", path)
        self.has(name)

    def has(self, name: str) -> None:
        """Wait until an option has a file."""
        self.page.locator(f"#{name} [aria-label=Clear]").wait_for()

    def clear(self, name: str) -> None:
        """Take the file out of an option, if it has one."""
        button = self.page.locator(f"#{name} [aria-label=Clear]")
        if button.count():
            button.click()
            button.wait_for(state="detached")

    def variations(self, count: int) -> None:
        """Of the job whose tab is open."""
        self.page.locator("div[role=tabpanel]:visible").get_by_label("Variations").fill(str(count))

    def wait(self, condition: str, seconds: float = 60.0, **more: Any) -> None:
        """Wait until JavaScript is true."""
        self.page.wait_for_function(condition, timeout=1000 * seconds, polling=50, **more)

    @property
    def picked(self) -> str:
        """The name of the clip that is picked; "" when none is."""
        each = self.page.locator("#cards .picked .pick")
        return str(each.get_attribute("data-clip")) if each.count() else ""

    def make(self, job: str, seconds: float = 60.0) -> str:
        """Make, and wait for the clip: its name."""
        before = self.picked
        self.page.locator(f"#{job}-make").click()
        return self.clip(before, seconds)

    def clip(self, but: str = "", seconds: float = 60.0) -> str:
        """The name of the clip that is picked, as soon as it is another."""
        self.wait(
            "but => { const failed = document.querySelector('#status .failed');"
            " if (failed) throw new Error(failed.innerText);"
            " const each = document.querySelector('#cards .picked .pick');"
            " return each && each.dataset.clip != but }",
            seconds,
            arg=but,
        )
        return self.picked

    def said(self, words: str, seconds: float = 60.0) -> None:
        """Wait until the state of the work has these words."""
        self.wait("words => document.querySelector('#status').innerText.includes(words)", seconds, arg=words)


def drawn(seen: Seen, name: str) -> None:
    """A picture of the page as it is, for the tutorial."""
    if folder := os.environ.get("AUDIOGEN_PICTURES"):
        seen.page.wait_for_timeout(600)
        path = Path(folder, f"{name}.png")
        seen.page.screenshot(path=path)
        with Image.open(path) as full:  # few colours, so that the file is small
            full.convert("RGB").quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)
