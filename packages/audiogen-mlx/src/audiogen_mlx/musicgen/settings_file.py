"""The settings of a MusicGen's folder: transformers' or our JSON, or what an audiocraft checkpoint holds."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audiogen_core import weights
from audiogen_core.errors import ModelError
from audiogen_mlx.musicgen.config import FORMAT
from audiogen_mlx.musicgen.weights import Layout

CONFIG = "config.json"
STATE = "state_dict.bin"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises ModelError."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such file") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path}: expected a JSON object, found {type(found).__name__}")
    return found


def read_package(path: Path) -> dict[str, Any]:
    """The settings in an audiocraft checkpoint, with their references put in. Raises ModelError."""
    import yaml

    text = weights.read_checkpoint(path).get("xp.cfg")
    if not isinstance(text, str):
        raise ModelError(f"{path}: no audiocraft checkpoint: it has no settings (xp.cfg)")
    try:
        tree = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ModelError(f"{path}: xp.cfg is not YAML ({error})") from error
    if not isinstance(tree, dict):
        raise ModelError(f"{path}: xp.cfg is not a table of settings")
    resolved: dict[str, Any] = _resolved(tree, tree, 0)
    return resolved


def _resolved(value: Any, tree: Mapping[str, Any], depth: int) -> Any:
    """A value with every `${a.b}` in it replaced; one that leads nowhere stays as it is."""
    if isinstance(value, dict):
        return {key: _resolved(below, tree, depth) for key, below in value.items()}
    if isinstance(value, list):
        return [_resolved(below, tree, depth) for below in value]
    match = re.fullmatch(r"\$\{([\w.]+)\}", value) if isinstance(value, str) else None
    if match is None or depth > 8:
        return value
    target: Any = tree
    for part in match[1].split("."):
        if not isinstance(target, dict) or part not in target:
            return value
        target = target[part]
    return _resolved(target, tree, depth + 1)


def read_settings(folder: Path, path: Path) -> tuple[Layout, dict[str, Any]]:
    """Which layout a folder has, and its settings. Raises ModelError when there is no MusicGen in it."""
    if (folder / CONFIG).is_file() and path.name != STATE:
        settings = read_json(folder / CONFIG)
        return ("audiogen" if settings.get("format") == FORMAT else "transformers"), settings
    if (folder / STATE).is_file():
        return "audiocraft", read_package(folder / STATE)
    raise ModelError(
        f"{path}: no MusicGen in this folder; expected {CONFIG} of transformers (or of convert), or {STATE} "
        "of audiocraft"
    )


def text_encoder_name(settings: Mapping[str, Any]) -> str:
    """The name of the T5 that audiocraft's settings ask for, without its owner."""
    node: Any = settings
    for part in ("conditioners", "description", "t5", "name"):
        node = node.get(part) if isinstance(node, Mapping) else None
    return str(node).rpartition("/")[2]
