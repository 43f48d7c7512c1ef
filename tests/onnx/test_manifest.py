"""Manifests: written, read, and refused when they or their files are not what they say."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from audiogen_core.errors import ManifestError
from audiogen_core.verify import Digest
from audiogen_onnx import manifest as manifest_module
from audiogen_onnx.manifest import (
    GRAPHS,
    NAME,
    CodecGeometry,
    Graph,
    Manifest,
    NetworkGeometry,
    StoredFile,
)

CODEC = CodecGeometry("lac@0123abcd", 44100, 768, 14, 1024)


@pytest.fixture
def folder(tmp_path):
    """A folder of files that only look like graphs, and its manifest."""
    graphs = {}
    for name in GRAPHS:
        (tmp_path / f"{name}.onnx").write_text(f"graph {name}")
        if not name.endswith("_step"):
            (tmp_path / f"{name}.onnx.data").write_text(f"weights {name}")
    for name in GRAPHS:
        network = tmp_path / f"{name.removesuffix('_step')}.onnx"
        graphs[name] = Graph.of(tmp_path / f"{name}.onnx", network=network)
    Manifest(
        package_version="0.1.0",
        created_from={"coarse.pth": "ab" * 32},
        dtype="float32",
        codec=CODEC,
        coarse=NetworkGeometry(4, 0, 10.0),
        fine=NetworkGeometry(14, 4, 3.0),
        graphs=graphs,
    ).save(tmp_path)
    return tmp_path


def edit(folder, *keys, value):
    facts = json.loads((folder / NAME).read_text())
    inner = facts
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    (folder / NAME).write_text(json.dumps(facts))


def test_what_was_written_is_read(folder):
    manifest = Manifest.load(folder, verify=True)
    manifest.save(folder)
    assert Manifest.load(folder) == manifest
    assert manifest.codec == CODEC
    assert manifest.codec.frame_rate == 57.421875
    assert [CODEC.frames(net.window_seconds) for net in (manifest.coarse, manifest.fine)] == [575, 173]
    assert manifest.fine.predicted_codebooks == 10
    assert manifest.graph_path(folder, "coarse_step") == folder / "coarse_step.onnx"
    assert manifest.graphs["coarse_step"].data == manifest.graphs["coarse"].data
    with pytest.raises(ManifestError, match="has no graph 'beats'"):
        manifest.graph_path(folder, "beats")


def test_a_codec_has_both_its_graphs_or_none(folder):
    facts = json.loads((folder / NAME).read_text())
    graphs = facts["graphs"]
    del graphs["encoder"], facts["codec"]["loudness"], facts["defaults"]
    (folder / NAME).write_text(json.dumps(facts))
    with pytest.raises(ManifestError, match="graphs are missing: encoder"):
        Manifest.load(folder)
    del graphs["decoder"]
    (folder / NAME).write_text(json.dumps(facts))
    manifest = Manifest.load(folder)
    assert not manifest.has_codec and manifest.codec.loudness == -24.0 and manifest.defaults == {}


def test_files_that_changed_are_named(folder, monkeypatch):
    data = folder / "fine.onnx.data"
    data.write_text("wEights fine")
    with pytest.raises(ManifestError, match=r"fine.onnx.data: its content is not"):
        Manifest.load(folder)
    monkeypatch.setattr(manifest_module, "ALWAYS_HASHED", 11)  # now the file counts as large
    for verify in (False, True):
        with pytest.raises(ManifestError, match=r"fine.onnx.data: its content is not"):
            Manifest.load(folder, verify=verify)
    data.write_text("short")
    with pytest.raises(ManifestError, match=r"fine.onnx.data: has 5 bytes, manifest.json says 12"):
        Manifest.load(folder)
    data.unlink()
    with pytest.raises(ManifestError, match=r"fine.onnx.data: no such file"):
        Manifest.load(folder)


def write_and_date_back(data):
    times = data.stat().st_atime_ns, data.stat().st_mtime_ns
    data.write_text("wEights fine")
    data.write_text("weights fine")
    os.utime(data, ns=times)


def move_away_and_back(data):
    data.rename(data.with_name("kept"))
    data.write_text("wEights fine")
    data.with_name("kept").rename(data)


@pytest.mark.skipif(os.name == "nt", reason="the time of the inode is that of creation there")
@pytest.mark.parametrize("change", [write_and_date_back, move_away_and_back, Path.unlink])
@pytest.mark.parametrize("name", ["fine.onnx", "fine.onnx.data"])
def test_what_is_read_while_it_changes_is_refused(folder, change, name):
    """All is as it was at the end; in between other weights could be read."""
    with Manifest.opened(folder) as manifest:
        assert manifest == Manifest.load(folder)
    time.sleep(0.02)  # the clock of some disks has steps
    with pytest.raises(ManifestError, match=r"changed while they were read|no such file"):  # noqa: SIM117
        with Manifest.opened(folder):
            change(folder / name)


def test_large_files_are_hashed_once(folder, monkeypatch):
    monkeypatch.setattr(manifest_module, "ALWAYS_HASHED", 0)
    hashed = []
    matches = Digest.matches
    monkeypatch.setattr(Digest, "matches", lambda self, path: hashed.append(path.name) or matches(self, path))
    Manifest.load(folder)
    assert sorted(hashed) == sorted(path.name for path in folder.glob("*.onnx*"))
    hashed.clear()
    Manifest.load(folder)
    assert hashed == []
    data = folder / "fine.onnx.data"
    data.write_text("wEights fine")
    with pytest.raises(ManifestError, match=r"fine.onnx.data: its content is not"):
        Manifest.load(folder)
    data.write_text("weights fine")
    Manifest.load(folder)
    assert hashed == ["fine.onnx.data"] * 2


def test_seventeen_megabytes_of_zeros_with_one_byte_changed(folder):
    data = folder / "fine.onnx.data"
    data.write_bytes(bytes(17 << 20))
    stored = StoredFile.of(data)
    for graph in ("fine", "fine_step"):
        edit(folder, "graphs", graph, "data", value=vars(stored))
    Manifest.load(folder)
    with data.open("r+b") as file:
        file.seek(9 << 20)
        file.write(b"\1")
    with pytest.raises(ManifestError, match=r"fine.onnx.data: its content is not"):
        Manifest.load(folder)


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
def test_links_are_refused(folder):
    path = folder / "coarse.onnx"
    path.rename(folder / "real")
    path.symlink_to(folder / "real")
    with pytest.raises(ManifestError, match=r"coarse.onnx: is a link"):
        Manifest.load(folder)


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("format",), 2, "has format 2"),
        (("dtype",), "int2", "dtype 'int2'"),
        (("codec", "hop_length"), 0, "hop_length is 0"),
        (("codec", "hop_length"), True, "hop_length is True"),
        (("codec", "hop_length"), "768", "hop_length is '768'"),
        (("codec", "colour"), 3, "damaged or not a manifest"),
        (("coarse", "codebooks"), 15, "the coarse model reads 15 codebooks"),
        (("fine", "conditioning_codebooks"), 14, "14 conditioning"),
        (("fine", "window_seconds"), -3, "window is -3"),
        (("fine", "window_seconds"), float("nan"), "window is nan"),
        (("graphs",), {}, "graphs are missing: coarse"),
        (("codec", "loudness"), 3.0, "loudness is 3.0"),
        (("defaults",), 7, "damaged or not a manifest"),
        (("graphs",), [], "graphs are missing: coarse"),
        (("graphs",), 3, "damaged or not a manifest"),
        (("graphs", "fine", "graph", "file"), "../fine.onnx", "does not lie in the same folder"),
        (("graphs", "fine", "graph", "file"), 7, "damaged or not a manifest"),
        (("graphs", "fine", "graph", "sha256"), "", "has no SHA-256"),
        (("graphs", "fine", "graph", "size"), -1, "has the size -1"),
        (("graphs", "fine_step", "data", "size"), 11, "described twice"),
        (("graphs", "fine"), {"graph": None}, "damaged or not a manifest"),
        (("graphs", "fine"), None, "damaged or not a manifest"),
    ],
)
def test_descriptions_that_cannot_be(folder, keys, value, message):
    edit(folder, *keys, value=value)
    with pytest.raises(ManifestError, match=message):
        Manifest.load(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", "nul", "\x00", "[" * 100_000, " " * (1 << 20) + "{}"])
def test_what_is_no_manifest_is_refused(folder, text):
    (folder / NAME).write_text(text)
    with pytest.raises(ManifestError, match="damaged or not a manifest"):
        Manifest.load(folder)


def test_folders_without_one(tmp_path):
    with pytest.raises(ManifestError, match=r"holds no manifest.json.*audiogen-onnx export"):
        Manifest.load(tmp_path)
    with pytest.raises(ManifestError, match="no such folder"):
        Manifest.load(tmp_path / "none")


def test_a_wrong_manifest_is_not_even_made(folder):
    manifest = Manifest.load(folder)
    with pytest.raises(ManifestError, match="dtype 'float8'"):
        replace(manifest, dtype="float8")
    wrong = Graph(StoredFile("x.onnx", 1, "short"))
    with pytest.raises(ManifestError, match="a file of beats has no SHA-256"):
        replace(manifest, graphs={**manifest.graphs, "beats": wrong})
