"""`audiogen-onnx web`: what it writes, refuses and fetches. Its page in a browser is in test_web_page."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from audiogen_core.errors import DownloadError, ManifestError, MissingDependency, ModelError, OptionError
from audiogen_onnx.catalog import CATALOG, MUSICGEN
from audiogen_onnx.cli import cli
from audiogen_onnx.web import runtime
from audiogen_onnx.web.site import PAGE, write_site
from support.commands import call
from support.page import stand_in


@pytest.fixture
def computing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return stand_in(tmp_path / "ort", monkeypatch)


def told(site: Path) -> list[dict[str, Any]]:
    return json.loads((site / "models.json").read_text(encoding="utf-8"))


def test_the_demos_in_a_folder(tmp_path, computing):
    facts = write_site(["demo"], tmp_path / "site", runtime_dir=computing, offline=True)
    assert json.loads(json.dumps(facts)) == told(tmp_path / "site")
    assert [each["name"] for each in facts] == ["MusicGen, demo", "VampNet, demo"]
    there = {
        str(path.relative_to(tmp_path / "site")) for path in (tmp_path / "site").rglob("*") if path.is_file()
    }
    files = [file for model in facts for graph in model["graphs"].values() for file in graph.values()]
    files += [file for file in facts[0]["texts"].values() if file]
    expected = {*PAGE, "models.json", *(f"runtime/{name}" for name in runtime.FILES)}
    assert there == expected | {file["file"] for file in files}
    for file in files:
        content = (tmp_path / "site" / file["file"]).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file["size"], file["sha256"])
    musicgen, vampnet = facts
    assert musicgen["graphs"]["codec.decoder"] == vampnet["graphs"]["codec.decoder"]  # shared
    assert len(musicgen["speeds"]) == musicgen["config"]["width"] // 2


def test_the_command(tmp_path, computing):
    def asked(site: Path, *more: str) -> Any:
        model = str(CATALOG["demo"].path)
        return call(cli, "web", model, "-o", site, "--runtime", computing, "--offline", "--json", *more)

    made = asked(tmp_path / "site")
    assert made.exit_code == 0, made.stderr
    assert json.loads(made.stdout)["models"] == ["VampNet, demo"]
    assert "python -m http.server -d" in made.stderr
    again = asked(tmp_path / "site")
    assert again.exit_code == 1 and "exists already" in again.stderr and again.stderr.count("\n") == 1
    assert asked(tmp_path / "site", "--force").exit_code == 0
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("kept")
    other = asked(tmp_path / "other", "--force")
    assert other.exit_code == 1 and "something else" in other.stderr
    assert (tmp_path / "other" / "mine.txt").read_text() == "kept"
    twice = call(cli, "web", "one", "--model", "two", "-o", tmp_path / "twice")
    assert twice.exit_code == 2


def test_models_that_the_page_has_no_place_for(tmp_path, computing):
    prefixed = Path(shutil.copytree(MUSICGEN["demo"].path, tmp_path / "prefixed"))
    facts = json.loads((prefixed / "manifest.json").read_text())
    facts["model"]["text_in_prefix"] = True
    (prefixed / "manifest.json").write_text(json.dumps(facts))
    with pytest.raises(OptionError, match="models of text alone"):
        write_site([prefixed], tmp_path / "site", runtime_dir=computing)
    with pytest.raises(ManifestError, match="no such folder"):
        write_site([tmp_path / "none"], tmp_path / "site", runtime_dir=tmp_path / "asked for last")
    with pytest.raises(OptionError, match="a list of folders"):
        write_site("demo", tmp_path / "site", runtime_dir=computing)
    with pytest.raises(OptionError, match="at least one"):
        write_site([], tmp_path / "site", runtime_dir=computing)
    changed = Path(shutil.copytree(CATALOG["demo"].path, tmp_path / "changed"))
    facts = json.loads((changed / "manifest.json").read_text())
    for defaults, wrong in (({"typical_mass": 0.5}, "typical_mass"), ({}, "'magnet'")):
        family = {} if defaults else {"family": "magnet"}
        (changed / "manifest.json").write_text(json.dumps({**facts, "defaults": defaults, **family}))
        with pytest.raises(OptionError, match=wrong):
            write_site([changed], tmp_path / "site", runtime_dir=computing)
    assert not (tmp_path / "site").exists()


def test_a_damaged_folder_is_refused(tmp_path, computing):
    folder = Path(shutil.copytree(MUSICGEN["demo"].path, tmp_path / "model"))
    with (folder / "cross.onnx.data").open("r+b") as data:
        data.write(b"\1")
    with pytest.raises(ManifestError, match="its content is not the one"):
        write_site([folder], tmp_path / "site", runtime_dir=computing)
    facts = json.loads((folder / "manifest.json").read_text())
    facts["parts"][0]["file"] = "../tokenizer.json"
    (folder / "manifest.json").write_text(json.dumps(facts))
    with pytest.raises(ManifestError):
        write_site([folder], tmp_path / "site", runtime_dir=computing)


def test_another_runtime_is_refused(tmp_path, computing):
    next(computing.iterdir()).write_bytes(b"another")
    with pytest.raises(ModelError, match=r"take that version"):
        write_site(["demo"], tmp_path / "site", runtime_dir=computing)
    with pytest.raises(ModelError, match="holds no onnxruntime-web"):
        write_site(["demo"], tmp_path / "site", runtime_dir=tmp_path)


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An empty cache, and what stands in the place of npm; it is told what to answer with."""
    monkeypatch.setenv("AUDIOGEN_ONNX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(runtime.shutil, "which", lambda name: f"/usr/bin/{name}")
    asked: list[list[str]] = []

    def answers(archive: Path | None, error: str = "") -> list[list[str]]:
        def instead(command: list[str], **how: Any) -> None:
            asked.append(command)
            if error:
                raise subprocess.CalledProcessError(1, command, stderr=error)
            if archive is not None:
                shutil.copyfile(archive, Path(command[-1]) / "onnxruntime-web.tgz")

        monkeypatch.setattr(runtime.subprocess, "run", instead)
        return asked

    return answers


def packed(place: Path, source: Path, *names: str) -> Path:
    import tarfile

    archive = place / "packed.tgz"
    with tarfile.open(archive, "w:gz") as made:
        for name in names:
            made.add(source / name, f"package/dist/{name}")
        made.add(source / names[0], "../../outside.mjs")
    return archive


def test_npm_is_asked_once_and_said_so(tmp_path, computing, npm):
    asked, said = npm(packed(tmp_path, computing, *runtime.FILES)), []
    found = runtime.runtime(offline=False, notify=said.append)
    assert runtime.runtime(offline=True, notify=said.append) == found
    assert len(asked) == 1 and f"onnxruntime-web@{runtime.VERSION}" in asked[0]
    assert "--ignore-scripts" in asked[0]
    assert said == [f"fetching onnxruntime-web {runtime.VERSION} (MIT) with npm, to {found}"]
    assert {path.name for path in found.iterdir()} == set(runtime.FILES)
    assert not list(tmp_path.rglob("outside.mjs"))


def test_offline_nothing_is_fetched(tmp_path, computing, npm, monkeypatch):
    asked = npm(None)
    with pytest.raises(DownloadError, match="--offline"):
        runtime.runtime(offline=True, notify=print)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError, match="HF_HUB_OFFLINE"):
        runtime.runtime(offline=False, notify=print)
    assert asked == []


def test_what_npm_may_do_wrong(tmp_path, computing, npm, monkeypatch):
    npm(None, "npm error code E404\nmore")
    with pytest.raises(DownloadError, match=r"npm error code E404$"):
        runtime.runtime(offline=False, notify=print)
    npm(None)
    with pytest.raises(DownloadError, match="expected one"):
        runtime.runtime(offline=False, notify=print)
    npm(packed(tmp_path, computing, *list(runtime.FILES)[1:]))
    with pytest.raises(DownloadError, match="cannot be read"):
        runtime.runtime(offline=False, notify=print)
    (tmp_path / "text.tgz").write_text("no archive")
    npm(tmp_path / "text.tgz")
    with pytest.raises(DownloadError, match="cannot be read"):
        runtime.runtime(offline=False, notify=print)
    (computing / next(iter(runtime.FILES))).write_bytes(b"another")
    npm(packed(tmp_path, computing, *runtime.FILES))
    with pytest.raises(ModelError, match="take that version"):
        runtime.runtime(offline=False, notify=print)
    monkeypatch.setattr(runtime.shutil, "which", lambda name: None)
    with pytest.raises(MissingDependency, match="npm"):
        runtime.runtime(offline=False, notify=print)
    assert not list((tmp_path / "cache").glob("onnx*"))
