"""What mkdocs runs: pages made from the programs and packages themselves."""

from __future__ import annotations

import re
import sys
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import cards
import commands
import models
import sounds

_CALL = re.compile(r"^<!-- made: (?P<what>[\w-]+)(?: (?P<argument>[\w-]+))? -->$", re.MULTILINE)
_PAGE = re.compile(r"reference/(?P<kind>cli|api)/(?P<name>audiogen-[a-z]+)\.md")

API = {
    "audiogen-core": [
        "audio", "codes", "codec", "codecs", "recipe", "sampling", "noise", "patterns", "weights", "compose",
        "jobs", "options", "models", "hub", "dataset.folder", "dataset.encode", "dataset.options",
        "dataset.shards", "plot", "terminal_picture", "errors", "musicgen.generate", "musicgen.options",
        "musicgen.melody", "musicgen.style",
    ],
    "audiogen-mlx": [
        "musicgen.generate", "musicgen.options", "stable_audio.generate",
        "stable_audio.options", "stable_audio.settings", "stable_audio_3.generate", "stable_audio_3.options",
        "stable_audio_3.settings", "stable_audio.conductor", "convert", "stable_audio_3.convert", "verify",
        "ops", "blas", "catalog",
    ],
    "audiogen-onnx": [
        "vampnet.generate", "vampnet.options", "exporter.export", "vampnet.verify", "vampnet.mask",
        "musicgen.generate", "musicgen.options", "musicgen.manifest", "exporter.musicgen.export",
        "magnet.generate", "magnet.options", "magnet.staged", "exporter.magnet",
        "vampnet.beats", "vampnet.sampling", "codec", "session", "manifest", "catalog",
        "web.site", "web.runtime",
    ],
    "audiogen-minigpt": [
        "settings", "config", "train", "run", "generate", "options", "evaluate", "export", "dataset", "info",
    ],
}  # fmt: skip
"""The modules that are the public face of each package, in reading order."""


def api_page(name: str) -> str:
    """The reference of a package: its docstring, then its modules."""
    package = name.replace("-", "_")
    module = import_module(package)
    names = ", ".join(f"`{each}`" for each in sorted(module.__all__))
    parts = [
        f"# {package}",
        (module.__doc__ or "").strip(),
        f"`from {package} import ...` gives: {names}. Everything else is imported from its module.",
    ]
    for module_name in API[name]:
        parts += [
            f"## {package}.{module_name}",
            f"::: {package}.{module_name}\n    options: {{ {_OPTIONS} }}",
        ]
    return "\n\n".join(parts) + "\n"


_OPTIONS = "show_root_heading: false, show_root_toc_entry: false"


def generated(path: str) -> str | None:
    """The text of a page that nobody writes, or None."""
    found = _PAGE.fullmatch(path)
    if not found:
        return None
    return (commands.page if found["kind"] == "cli" else api_page)(found["name"])


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages."""
    from mkdocs.structure.files import File

    for kind in ("cli", "api"):
        for name in commands.PROGRAMS:
            path = f"reference/{kind}/{name}.md"
            files.append(File.generated(config, path, content=generated(path)))
    for file in sounds.files(config):
        files.append(file)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Put tables and players where a page asks for them: `<!-- made: models audiogen-core -->`."""
    makers = {
        "models": models.table,
        "text-encoders": models.text_encoders,
        "cards": cards.cards,
        "judged": cards.judged,
        "gallery": partial(sounds.gallery, page=page),
        "player": partial(sounds.player, page=page),
        "listen": partial(sounds.listen, page=page),
    }

    def made(found: re.Match[str]) -> str:
        arguments = [found["argument"]] if found["argument"] else []
        return makers[found["what"]](*arguments)

    return _CALL.sub(made, markdown)
