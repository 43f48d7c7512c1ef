"""Stable Audio 3 by name: from a stand-in for the hub, text encoder and licences with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from audiogen_core import hub_client
from audiogen_core.errors import DownloadError
from audiogen_core.models import FileSpec, ModelSpec
from audiogen_mlx.catalog import STABLE_AUDIO_3 as CATALOG
from audiogen_mlx.cli import cli
from audiogen_mlx.stable_audio_3 import StableAudio3
from support import stable_audio_3_runtime as runtime
from support.loopback_hub import LoopbackHub, point_at

SMALL = Path(__file__).parents[1] / "fixtures" / "stable-audio-3" / "tiny-small"
NAME = "stable-audio-3-small-music"
LICENCES = {"LICENSE.md": b"community", "LICENSE_GEMMA.md": b"gemma", "NOTICE": b"notice"}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    paths = [path for path in SMALL.rglob("*") if path.is_file()]
    files = {path.relative_to(SMALL).as_posix(): path.read_bytes() for path in paths} | LICENCES
    spec = CATALOG[NAME]
    assert isinstance(spec, ModelSpec)
    with LoopbackHub({spec.repo: files}) as found:
        point_at(found.endpoint, tmp_path / "cache", monkeypatch)
        monkeypatch.setattr(hub_client, "RETRY_DELAYS", (0.0, 0.0))
        unhashed = tuple(FileSpec(file.name) for file in spec.files)  # the stand-in states its own
        monkeypatch.setitem(CATALOG, NAME, replace(spec, revision=found.revision, files=unhashed))
        yield found


def test_a_name_brings_the_model_its_text_encoder_and_both_licences(server, tmp_path):
    clip = StableAudio3.load(NAME).generate("a bell", seconds=0.3, steps=2, seed=1)
    local = StableAudio3.load(SMALL).generate("a bell", seconds=0.3, steps=2, seed=1)
    assert np.array_equal(clip.samples, local.samples)
    gets = [path for method, path, _ in server.log if method == "GET" and "/resolve/" in path]
    fetched = {path.split("/resolve/")[1].split("/", 1)[1] for path in gets}
    assert fetched == {file.name for file in CATALOG[NAME].files}
    before = len(server.log)
    StableAudio3.load(NAME)
    assert len(server.log) == before


def test_archives_of_the_runtime_come_by_name_and_from_one_repository(tmp_path, monkeypatch):
    """Two names share a repository; each brings its own network, and neither is gated."""
    folder, names = tmp_path / "MLX", ("stable-audio-3-small-music-f16", "stable-audio-3-small-sfx-f16")
    runtime.write(SMALL, SMALL / "t5gemma-b-b-ul2", folder)
    other = dict(np.load(folder / "dit_sm-music_f16.npz"))
    other["transformer.project_out.weight"] = -other["transformer.project_out.weight"]
    np.savez(folder / "dit_sm-sfx_f16.npz", **other)
    files = {f"MLX/{path.name}": path.read_bytes() for path in folder.iterdir()}
    settings = (SMALL / "model_config.json").read_bytes()  # which tiny models need beside the archives
    specs = [spec for name in names if isinstance(spec := CATALOG[name], ModelSpec)]
    with LoopbackHub({specs[0].repo: files | LICENCES | {"MLX/model_config.json": settings}}) as found:
        point_at(found.endpoint, tmp_path / "cache", monkeypatch)
        for spec in specs:
            wanted = (*(FileSpec(file.name) for file in spec.files), FileSpec("MLX/model_config.json"))
            monkeypatch.setitem(CATALOG, spec.name, replace(spec, revision=found.revision, files=wanted))
        music, effects = (
            StableAudio3.load(name).generate("a bell", seconds=0.3, steps=2, seed=1) for name in names
        )
        local = StableAudio3.load(SMALL).generate("a bell", seconds=0.3, steps=2, seed=1)
    np.testing.assert_allclose(music.samples, local.samples, rtol=0, atol=1e-6)
    assert np.abs(effects.samples - local.samples).max() > 0.01
    kept = sorted(path.name for path in (tmp_path / "cache").rglob("*.npz"))
    assert len([name for name in kept if name.startswith("dit_")]) == 2


def test_a_gated_model_names_its_page(server):
    server.faults.gated = True
    with pytest.raises(DownloadError, match=f"gated.*https://huggingface.co/{CATALOG[NAME].repo}"):
        StableAudio3.load(NAME)


def test_the_command_says_licences_and_page_before_it_fetches(server, tmp_path):
    output = tmp_path / "bell.wav"
    more = ["--seconds", "0.3", "--steps", "2", "--seed", "1"]
    result = CliRunner().invoke(cli, ["stable-audio-3", "a bell", "-m", NAME, "-o", str(output), *more])
    assert result.exit_code == 0
    assert "Stability AI Community License" in result.stderr
    assert "Gemma" in result.stderr
    assert CATALOG[NAME].page in result.stderr
    again = ["-m", NAME, "-o", str(output), *more, "--offline", "--force"]
    assert CliRunner().invoke(cli, ["stable-audio-3", "a bell", *again]).exit_code == 0


def test_offline_without_it_says_so(server, tmp_path):
    arguments = ["-m", NAME, "-o", str(tmp_path / "a.wav"), "--offline", "-q"]
    result = CliRunner().invoke(cli, ["stable-audio-3", "a bell", *arguments])
    assert result.exit_code == 1
    assert NAME in result.stderr
    assert not (tmp_path / "a.wav").exists()


def test_interrupted_it_goes_on_where_it_was(server):
    server.faults.cut_after, server.faults.cuts = 500_000, 1
    StableAudio3.load(NAME)
    gets = [path for method, path, _ in server.log if method == "GET" and path.endswith("/model.safetensors")]
    assert len(gets) == 3  # the network's twice, the text encoder's once


def test_a_corrupted_file_is_refused(server):
    server.faults.corrupt_at, server.faults.corruptions = 5000, -1
    with pytest.raises(DownloadError, match="does not have the hash"):
        StableAudio3.load(NAME)


def test_a_gated_model_on_the_command_line(server, tmp_path):
    server.faults.gated = True
    result = CliRunner().invoke(cli, ["stable-audio-3", "a bell", "-m", NAME, "-o", str(tmp_path / "a.wav")])
    assert result.exit_code == 1
    assert CATALOG[NAME].page in result.stderr and "hf auth login" in result.stderr
    assert not (tmp_path / "a.wav").exists()


def test_a_dry_run_says_what_would_be_fetched(server, tmp_path):
    output = tmp_path / "bell.wav"
    result = CliRunner().invoke(
        cli, ["stable-audio-3", "a bell", "-m", NAME, "-o", str(output), "-s", "0.3", "--dry-run"]
    )
    assert result.exit_code == 0
    for word in ("download", "Stability AI Community License", "Gemma", CATALOG[NAME].page):
        assert word in result.stdout
    assert not any(method == "GET" and path.endswith("safetensors") for method, path, _ in server.log)


def test_every_entry_is_pinned_and_says_its_terms():
    assert len(CATALOG) == 9
    for name, spec in CATALOG.items():
        assert isinstance(spec, ModelSpec)
        assert spec.name == name and spec.pinned
        assert "Stability AI" in spec.license and "Gemma" in spec.license
        assert ("Gated" in spec.note) == (spec.repo != "stabilityai/stable-audio-3-optimized")
        assert {"LICENSE.md", "LICENSE_GEMMA.md"} <= {file.name for file in spec.files}
