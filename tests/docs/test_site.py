"""The documentation builds without a warning, and its generated parts are complete."""

from __future__ import annotations

import html
import importlib.util
import os
import pkgutil
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from audiogen_core.recipe import Recipe
from support.programs import PROGRAMS, program

ROOT = Path(__file__).parents[2]
HOOKS = ROOT / "docs" / "hooks"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "AUDIOGEN_DOCS_QUICK": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


def hook(name: str) -> ModuleType:
    """A file of docs/hooks as a module."""
    if str(HOOKS) not in sys.path:  # they import one another
        sys.path.append(str(HOOKS))
    spec = importlib.util.spec_from_file_location(f"hooks_{name}", HOOKS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for their own
    spec.loader.exec_module(module)
    return module


def text_of(page: Path) -> str:
    return html.unescape(re.sub(r"<[^>]+>", " ", page.read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_option_of_every_command_is_in_the_reference(site: Path, name: str) -> None:
    commands = program(name).commands
    sections = re.split(
        r"<h2 ", (site / "reference" / "cli" / name / "index.html").read_text(encoding="utf-8")
    )
    by_name = {re.search(r'id="([\w-]+)"', section)[1]: section for section in sections[1:]}
    assert set(by_name) == set(commands)
    for command in commands.values():
        for parameter in command.params:
            if parameter.param_type_name == "option" and not parameter.hidden:
                for option in (*parameter.opts, *parameter.secondary_opts):
                    assert f"<code>{option}</code>" in by_name[command.name], f"{command.name} {option}"


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_public_name_is_in_the_reference(site: Path, name: str) -> None:
    package = import_module(name.replace("-", "_"))
    for public in set(package.__all__) - {"__version__"}:
        home = getattr(getattr(package, public), "__module__", package.__name__).split(".")[0]
        page = site / "reference" / "api" / home.replace("_", "-") / "index.html"  # of the package it is of
        named = re.findall(r'id="(audiogen_[\w.]+)"', page.read_text(encoding="utf-8"))
        documented = {identifier.rsplit(".", 1)[-1] for identifier in named}
        assert public in documented or f"{package.__name__}.{public}" in text_of(page), public


def test_every_model_of_the_catalogues_has_a_row(site: Path) -> None:
    page = (site / "reference" / "models" / "index.html").read_text(encoding="utf-8")
    models = hook("models")
    for name in {name for catalogue in models.CATALOGUES.values() for name in catalogue}:
        assert f"<code>{name}</code>" in page
    assert "made:" not in text_of(site / "reference" / "models" / "index.html")


def test_every_card_is_in_the_site(site: Path) -> None:
    shown = text_of(site / "reference" / "demo-models" / "index.html")
    paths = hook("cards").paths()
    assert paths
    for path in paths:
        title = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ").strip()
        assert title.replace("`", "") in shown


def test_every_demo_stands_beside_ceiling_and_floor(site: Path) -> None:
    page = (site / "reference" / "demo-models" / "index.html").read_text(encoding="utf-8")
    table = re.search(r'id="side-by-side".*?<table>(.*?)</table>', page, re.DOTALL)[1]
    names = [html.unescape(each) for each in re.findall(r"<tr>\s*<td>(.*?)</td>\s*<td[^>]*>\d+</td>", table)]
    of = [name.partition(":")[0] for name in names]
    assert of[:2] == ["ceiling", "floor"]
    cards = [path.read_text(encoding="utf-8") for path in hook("cards").paths()]
    judged = {
        card.splitlines()[0].removeprefix("# The demo ") for card in cards if "| what | clips |" in card
    }
    assert set(of[2:]) == judged >= {"GPT", "MusicGen", "Stable Audio", "VampNet"}


def test_every_page_is_linked(site: Path) -> None:
    written = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    named = set(re.findall(r"([\w./-]+\.md)", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    assert written <= named


def test_what_is_heard_is_there(site: Path) -> None:
    """Players and pictures of every page, by paths that lead to files without a server."""
    sounds, heard = hook("sounds"), set()
    for page in site.rglob("*.html"):
        for source in re.findall(r'<(?:audio|img)[^>]* src="([^"]+)"', page.read_text(encoding="utf-8")):
            assert (page.parent / source).resolve().is_file(), f"{page}: {source}"
            heard.add(Path(source).name)
    assert {f"{name}.{kind}" for name in sounds.SOUNDS for kind in ("wav", "png")} <= heard
    for name in sounds.SOUNDS:
        with Image.open(site / sounds.PLACE / f"{name}.png") as picture:
            assert picture.convert("RGBA").getpixel((0, 0))[3] == 0, "the ground is the page's, light or dark"
    assert 'src="assets/sounds/piano.wav"' in (site / "index.html").read_text(encoding="utf-8")
    gallery = (site / "listen" / "index.html").read_text(encoding="utf-8")
    assert gallery.count("<audio") == gallery.count("audiogen recipe 1") == len(sounds.SOUNDS)


def test_what_the_readme_lets_one_hear_is_made_by_the_commands_of_the_site() -> None:
    sounds, linked = hook("sounds"), (ROOT / "README.md").read_text(encoding="utf-8")
    clips = re.findall(r"\]\((docs/assets/\w+\.mp3)\)", linked)
    assert len(clips) == len(list((ROOT / "docs" / "assets").glob("*.mp3"))) == 3
    for clip in clips:
        recipe, words = Recipe.read(ROOT / clip), sounds.commands_of(sounds.SOUNDS[Path(clip).stem])[-1]
        assert recipe.settings["command"] == words[1] and recipe.model == "demo"
        assert recipe.seed == int(words[words.index("--seed") + 1])


@pytest.mark.slow
def test_every_clip_is_made_by_its_command(tmp_path: Path) -> None:
    sounds = hook("sounds")
    sounds.make(tmp_path, short=True)
    for name, sound in sounds.SOUNDS.items():
        recipe = Recipe.read(tmp_path / f"{name}.wav")
        assert sounds.commands_of(sound)[-1][1] == recipe.settings["command"]


FOLDERS = {
    name: f"packages/audiogen-{name}/src/audiogen_{name}/" for name in ("core", "mlx", "onnx", "minigpt")
}
"""What the pages call the folders of the packages."""


def test_what_pages_name_is_there() -> None:
    """Files by their path in the repository or in a package, modules and their names by their dots."""
    pages = [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "SECURITY.md",
        *(ROOT / "docs").rglob("*.md"),
    ]
    for page in pages:
        for name in re.findall(r"`([\w./-]+)`", page.read_text(encoding="utf-8")):
            first, _, rest = name.partition("/")
            if first in FOLDERS and rest:
                assert (ROOT / FOLDERS[first] / rest).exists(), f"{page.name}: {name}"
            elif first in ("tests", "docs", "scripts", "packages") and rest:
                assert (ROOT / name).exists(), f"{page.name}: {name}"
            elif re.fullmatch(r"audiogen_\w+(\.\w+)+", name):
                assert pkgutil.resolve_name(name) is not None, f"{page.name}: {name}"


def test_lines_of_names_become_lists() -> None:
    shown = hook("docstrings").as_markdown(
        "Makes it.\n\nseconds  how long\n         it lasts\nforce    write over\n\nRaises it.\n```\na  b\n```"
    )
    assert "- `seconds`: how long\n  it lasts\n- `force`: write over" in shown
    assert "```\na  b\n```" in shown


def test_pictures_are_there_and_small() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    pictures = [
        page.parent / name
        for page in pages
        for name in re.findall(r"!\[[^\]]+\]\(([\w./-]+)\)", page.read_text(encoding="utf-8"))
    ]
    assert ROOT / "docs" / "assets" / "first.png" in pictures
    for picture in pictures:
        assert picture.stat().st_size < 150_000
    with Image.open(ROOT / "docs" / "assets" / "first.png") as drawn:
        assert drawn.convert("RGBA").getpixel((0, 0))[3] == 0, "the ground is the page's, light or dark"
