"""Files that name a model of the hub: nothing comes offline or in a dry run, and nothing silently."""

from __future__ import annotations

import ast
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from importlib.resources import files
from pathlib import Path

import pytest
import torch

from audiogen_core import codecs, describe, hub, hub_client
from audiogen_core.errors import AudiogenError, DownloadError, ModelError
from audiogen_core.models import ModelSpec, find
from audiogen_core.musicgen.catalog import TEXT_ENCODERS
from support.commands import call
from support.loopback_hub import ALLOWED, LoopbackHub, point_at
from support.sounds import tone

PACKAGES = Path(__file__).parents[2] / "packages"
LAC, T5 = "hugggof/vampnet", "google-t5/t5-base"
COMMANDS = {
    "core": "audiogen_core.main:commands",
    "onnx": "audiogen_onnx.cli:cli",
    "minigpt": "audiogen_minigpt.cli:commands",
    "mlx": "audiogen_mlx.cli:cli",
}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """Serves files of the right names that are no models: what matters is whether they are asked for."""
    junk = dict.fromkeys(("codec.pth", "coarse.pth", "c2f.pth", "model.safetensors"), b"x" * 2000)
    junk |= {"config.json": b"{}", "tokenizer.json": b"{}"}
    with LoopbackHub({LAC: junk, T5: junk, "someone/music": junk}) as server:
        point_at(server.endpoint, tmp_path / "cache", monkeypatch)
        ours = replace(TEXT_ENCODERS["t5-base"], revision=server.revision)
        monkeypatch.setitem(TEXT_ENCODERS, "t5-base", ours)
        monkeypatch.setattr(hub_client, "RETRY_DELAYS", (0.0, 0.0))
        monkeypatch.chdir(tmp_path)
        tone(1.0, sample_rate=24_000).save("a.wav")
        yield server


def demo(package: str, folder: str, name: str, change: Callable[[dict], object]) -> str:
    """A copy of a model that comes with a package, its settings changed, and their hash where it is kept."""
    shutil.copytree(str(files(package) / "data" / folder), "model")
    path = Path("model", name)
    settings = json.loads(path.read_text(encoding="utf-8"))
    change(settings)
    path.write_text(json.dumps(settings), encoding="utf-8")
    if name == "state.json":
        manifest = json.loads(Path("model/manifest.json").read_text(encoding="utf-8"))
        content = path.read_bytes()
        manifest["files"][name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        Path("model/manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return "model"


def pointer() -> tuple[object, ...]:
    torch.save({"pretrained": LAC}, "pointer.bin")
    return "core", "encode", "a.wav", "-o", "x.codes", "--codec", "pointer.bin"


def manifest() -> tuple[object, ...]:
    folder = demo("audiogen_onnx", "demo", "manifest.json", lambda it: it["codec"].update(name="lac"))
    return "onnx", "vamp", "a.wav", "-m", folder, "-o", "v.wav"


def state() -> tuple[object, ...]:
    folder = demo("audiogen_minigpt", "demo", "state.json", lambda it: it["data"].update(codec="lac"))
    return "minigpt", "generate", folder, "-o", "g.wav"


def encoding() -> tuple[object, ...]:
    return "minigpt", "encode", ".", "-o", "data", "--codec", "lac"


def run() -> tuple[object, ...]:
    return "minigpt", "run", ".", "-o", "run", "--codec", "lac", "--steps", 1


def named_codec() -> tuple[object, ...]:
    folder = demo("audiogen_mlx", "demo-musicgen", "config.json", lambda it: it.update(codec="lac"))
    return "mlx", "musicgen", "x", "-m", folder, "-o", "s.wav"


def text_encoder() -> tuple[object, ...]:
    def change(settings: dict) -> None:
        for one in settings["model"]["conditioning"]["configs"]:
            if one["type"] == "t5":
                one["config"]["t5_model_name"] = "t5-base"

    folder = demo("audiogen_mlx", "demo-stable-audio", "model_config.json", change)
    shutil.rmtree("model/t5")
    return "mlx", "stable-audio", "x", "-m", folder, "-o", "s.wav"


NAMING = [pointer, manifest, state, encoding, run, named_codec, text_encoder]


def done(program: str, *arguments: object) -> tuple[int, str]:
    module, _, name = COMMANDS[program].partition(":")
    result = call(getattr(import_module(module), name), *arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stderr


@pytest.mark.parametrize("naming", NAMING)
def test_offline_nothing_is_asked_for(server: LoopbackHub, naming: Callable[[], tuple[object, ...]]) -> None:
    code, said = done(*naming(), "--offline")
    assert code == 1 and "downloads are off" in said
    assert server.log == []


@pytest.mark.parametrize("naming", NAMING)
def test_a_download_is_told_before_it_begins(
    server: LoopbackHub, naming: Callable[[], tuple[object, ...]]
) -> None:
    code, said = done(*naming())
    assert code == 1  # what comes is no model
    assert said.index("Downloading ") < said.index("error: ")
    assert "Licence: " in said and any(method == "GET" for method, _, _ in server.log)


@pytest.mark.parametrize("naming", [manifest, state, named_codec, text_encoder])
def test_a_dry_run_fetches_nothing(server: LoopbackHub, naming: Callable[[], tuple[object, ...]]) -> None:
    """It asks the hub how large the files are, by their heads alone, and `--help` says so."""
    command = (*naming(), "--dry-run")
    code, said = done(*command, "--offline")
    assert code == 1 and "downloads are off" in said and server.log == []
    done(*command)
    assert server.log and {method for method, _, _ in server.log} == {"HEAD"}
    module, _, name = COMMANDS[str(command[0])].partition(":")
    said = " ".join(call(getattr(import_module(module), name), command[1], "--help").stdout.split())
    assert "Nothing is fetched; the hub is asked for the size of what would be, unless --offline" in said


def test_what_describes_a_file_asks_nobody(server: LoopbackHub) -> None:
    pointer()
    assert describe.describe("pointer.bin")["settings"] == {"pretrained": LAC}
    assert server.log == []


def test_python_is_warned_before_a_download(server: LoopbackHub) -> None:
    with pytest.warns(hub.DownloadNotice, match=f"from {LAC} to"), pytest.raises(AudiogenError):
        codecs.load("lac")
    with pytest.raises(DownloadError, match="downloads are off"):
        codecs.load("encodec-24khz", fetch=hub.here)


def test_a_model_outside_the_catalogues_needs_leave(server: LoopbackHub) -> None:
    spec = find({}, "someone/music", unlisted=True)
    assert isinstance(spec, ModelSpec)
    with pytest.raises(ModelError, match="--unlisted"):
        hub.asking()(spec)
    assert server.log == []
    assert hub.fetch(spec, ALLOWED).is_dir()


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGES.glob("*/src/**/*.py")):
        yield path.name, ast.parse(path.read_text(encoding="utf-8"))


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


NETWORK = (
    "huggingface_hub",
    "urllib.request",
    "http",
    "socket",
    "ssl",
    "ftplib",
    "requests",
    "httpx",
    "aiohttp",
)
WITHOUT = {"socket.gethostname", "huggingface_hub.constants"}
"""A name of this machine, and where the cache is: no request."""

LISTENS = {"serve.py", "guard.py"}
"""The service is asked, and asks nobody: it needs a socket to listen at, and takes addresses apart."""


def test_no_other_code_uses_the_network() -> None:
    strangers = {
        (name, what)
        for name, tree in modules()
        for what in imported(tree)
        if any(what == root or what.startswith(f"{root}.") for root in NETWORK) and what not in WITHOUT
    }
    assert {name for name, _ in strangers} - LISTENS == {"hub_client.py", "hub_guard.py"}


def test_whoever_loads_a_codec_hands_on_how_it_is_fetched() -> None:
    """Without a `Fetch`, `codecs.load` is for scripts of users."""
    silent, seen = [], 0
    for name, tree in modules():
        ours = (what for what in imported(tree) if what.startswith("audiogen_core.codecs.load"))
        bare = {what.rpartition(".")[2] for what in ours}
        for node in ast.walk(tree):
            verb = getattr(node, "func", None)
            of_codecs = isinstance(verb, ast.Attribute) and getattr(verb.value, "id", "") == "codecs"
            if not isinstance(node, ast.Call) or not (of_codecs or getattr(verb, "id", "") in bare):
                continue
            seen += 1
            if len(node.args) < 3 and not any(each.arg == "fetch" for each in node.keywords):
                silent.append((name, node.lineno))
    assert seen > 10 and silent == []
