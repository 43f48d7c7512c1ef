"""Every code block of the README files and the documentation runs, in the order of its page.

Pages are marked up for this by comments that readers do not see: see `support.code_blocks`.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from support.code_blocks import PROGRAM, ROOT, Block, Page, commands, lines, pages, read_page
from support.documented import give
from support.programs import program

PAGES = pages()
LANGUAGES = {"bash", "python", "text"}
INLINE = re.compile(r"`((?:uv run (?:--package \S+ )?)?audiogen-[a-z]+ [a-z][^`]*)`")


def cases() -> list[Any]:
    return [pytest.param(page, id=page.name, marks=[pytest.mark.slow] if page.slow else []) for page in PAGES]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", cases())
def test_blocks_run(page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in dict.fromkeys(page.given):
        give(name, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in page.blocks:
        if block.parse or block.language == "text":
            continue
        if block.language == "python":
            source = compile(block.runnable, f"{page.name}:{block.line}", "exec")
            with contextlib.redirect_stdout(None):
                exec(source, names)
        else:
            run_shell(block)


def run_shell(block: Block) -> None:
    here = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{here}{os.pathsep}{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.runnable], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, f"{block.page}:{block.line}:\n{block.runnable}\n{done.stderr}"


@pytest.mark.parametrize("page", [pytest.param(page, id=page.name) for page in PAGES])
def test_every_command_and_option_exists(page: Page) -> None:
    assert {block.language for block in page.blocks} <= LANGUAGES, "every block names its language"
    for block in page.blocks:
        if block.language == "bash":
            for words in commands(block.text):
                parse(words, f"{block.page}:{block.line}")
            for line in lines(block.text):
                check_foreign(line, block)
        elif block.language == "python":
            compile(block.text, str(block.page), "exec")


@pytest.mark.parametrize("path", [pytest.param(page.path, id=page.name) for page in PAGES])
def test_commands_in_sentences_exist(path: Path) -> None:
    for found in INLINE.findall(path.read_text(encoding="utf-8")):
        for words in commands(found):
            check_options(words, str(path))


def parse(words: list[str], where: str) -> None:
    """Parse a command as its program would, and stop before it does anything."""
    command = check_options(words, where)
    if command is not None and not {"--help", "-h"} & set(words):
        command.make_context(words[1], words[2:])


def check_options(words: list[str], where: str) -> Any:
    """The command, once its name and its options are known to exist; None for the program itself."""
    group = program(words[0])
    if words[1].startswith("-"):
        assert words[1] in {"--version", "--help", "-h", "--install-completion", "--show-completion"}, where
        return None
    assert words[1] in group.commands, f"{where}: {words[0]} has no command {words[1]}"
    command = group.commands[words[1]]
    known = {name for each in command.params for name in (*each.opts, *each.secondary_opts)} | {
        "--help",
        "-h",
    }
    unknown = {word.split("=")[0] for word in words[2:] if re.match(r"--?[a-zA-Z]", word)} - known
    assert not unknown, f"{where}: {words[0]} {words[1]} has no {', '.join(sorted(unknown))}"
    return command


def check_foreign(line: str, block: Block) -> None:
    """Lines that are not run here: what they install exists."""
    if not re.match(r"(uv )?pip install ", line.strip()):
        return
    for package, extras in re.findall(r"(audiogen-[a-z]+)(?:\[([a-z,]+)\])?", line.split("#")[0]):
        described = tomllib.loads(
            (ROOT / "packages" / package / "pyproject.toml").read_text(encoding="utf-8")
        )
        offered = described["project"].get("optional-dependencies", {})
        assert set(extras.split(",")) - {""} <= set(offered), f"{block.page}:{block.line}: {line}"


def test_marks_that_find_nothing_are_told(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text('<!-- test: "no such text" -> "x" -->\n```bash\necho\n```\n')
    with pytest.raises(ValueError, match="finds nothing"):
        _ = read_page(page).blocks[0].runnable
    page.write_text("<!-- test: nonsense -->\n```bash\necho\n```\n")
    with pytest.raises(ValueError, match="not understood"):
        read_page(page)


def test_wrong_options_are_found() -> None:
    with pytest.raises(AssertionError, match="has no --wrong"):
        check_options(["audiogen-core", "info", "a.wav", "--wrong"], "here")
    with pytest.raises(AssertionError, match="has no command sing"):
        check_options(["audiogen-core", "sing"], "here")
    assert PROGRAM.fullmatch("audiogen-core") and not PROGRAM.fullmatch("audiogen")
