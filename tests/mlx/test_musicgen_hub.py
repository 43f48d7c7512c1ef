"""MusicGen by name through the command: a stand-in for the hub, files of small checkpoints, every fault."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import huggingface_hub.constants as constants
import numpy as np
import pytest

from audiogen_core import hub, hub_client
from audiogen_core.audio import Audio
from audiogen_core.codecs import catalog as codec_catalog
from audiogen_core.models import FileSpec, ModelSpec
from audiogen_core.musicgen import catalog as catalogs
from audiogen_core.recipe import Recipe
from audiogen_mlx import catalog as mlx_catalog
from audiogen_mlx.catalog import MUSICGEN
from audiogen_mlx.cli import cli
from support.commands import call
from support.loopback_hub import ALLOWED, OFFLINE, LoopbackHub, point_at

FIXTURES = Path(__file__).parents[1] / "fixtures" / "musicgen"
CODEC = FIXTURES.parent / "encodec" / "32k"
NAME = "musicgen-small"
WEIGHTS = "model.safetensors"
QUICK = ("--seconds", 0.3, "--seed", 1)


def files(*folders: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes()
        for folder in folders
        for path in folder.iterdir()
        if path.is_file() and path.suffix in (".json", ".bin", ".safetensors")
    }


def repositories() -> dict[str, dict[str, bytes]]:
    tokenizer = FIXTURES / "tokenizer"
    style = FIXTURES / "audiocraft-style"
    models = {
        "small": files(FIXTURES / "musicgen-mono", tokenizer),
        "stereo-small": files(FIXTURES / "musicgen-stereo", tokenizer),
        "style": files(style),
    }
    return {
        **{f"facebook/musicgen-{name}": held for name, held in models.items()},
        "somebody/music": models["small"],
        "google-t5/t5-base": files(FIXTURES / "t5", tokenizer),
        "facebook/encodec_32khz": files(CODEC),
        catalogs.MERT.repo: {
            "config.json": (style / "mert" / "config.json").read_bytes(),
            "pytorch_model.bin": as_pickle(style / "mert" / WEIGHTS),
        },
    }


def as_pickle(path: Path) -> bytes:
    """The same tensors as torch saves them."""
    import io

    import torch
    from safetensors.torch import load_file

    written = io.BytesIO()
    torch.save(load_file(path), written)
    return written.getvalue()


def as_served(spec: ModelSpec) -> ModelSpec:
    """The entry of a catalogue, for the commit and the small files of the stand-in."""
    small = tuple(FileSpec(file.name) for file in spec.files)
    return replace(spec, revision=LoopbackHub.revision, files=small)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    with LoopbackHub(repositories()) as found:
        point_at(found.endpoint, tmp_path / "cache", monkeypatch)
        monkeypatch.setattr(hub_client, "RETRY_DELAYS", (0.0, 0.0))
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        tables = (MUSICGEN, mlx_catalog.CATALOG, catalogs.TEXT_ENCODERS, codec_catalog.CATALOG)
        for table in tables:
            for name, spec in list(table.items()):
                if isinstance(spec, ModelSpec):
                    monkeypatch.setitem(table, name, as_served(spec))
        monkeypatch.setattr(catalogs, "MERT", as_served(catalogs.MERT))
        yield found


def run(output: Path, *more: object, model: str = NAME):
    return call(cli, "musicgen", "slow piano", "-m", model, "-o", output, *QUICK, *more)


def told(result) -> str:
    """The one sentence a command left with."""
    assert result.exit_code == 1, result.output
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, result.stderr
    return errors[0]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    (tmp_path / "made").mkdir()
    return tmp_path / "made" / "piano.wav"


def test_the_first_run_says_what_it_fetches_and_the_second_needs_no_network(
    server: LoopbackHub, output: Path, tmp_path: Path
) -> None:
    first = run(output)
    assert (first.exit_code, first.stdout.strip()) == (0, str(output)), first.output
    notice = next(line for line in first.stderr.splitlines() if line.startswith("Downloading"))
    for part in (
        NAME,
        "1.0 MB",
        str(tmp_path / "cache"),
        "CC-BY-NC-4.0",
        MUSICGEN[NAME].page,
        "commercially",
    ):
        assert part in notice
    assert {path.rsplit("/", 1)[1] for method, path, _ in server.log if method == "GET"} == {
        "config.json", "tokenizer.json", WEIGHTS
    }  # fmt: skip
    before, made = len(server.log), output.read_bytes()
    again = run(output, "--offline", "--force")
    assert again.exit_code == 0 and "Downloading" not in again.stderr
    assert len(server.log) == before
    assert output.read_bytes() == made


def test_a_file_made_by_name_is_made_again_by_its_recipe(
    server: LoopbackHub, output: Path, tmp_path: Path
) -> None:
    assert run(output, model=f"facebook/{NAME}").exit_code == 0
    assert Recipe.read(output).model == f"facebook/{NAME}"
    again = tmp_path / "again.wav"
    result = call(cli, "replay", output, "-o", again, "--offline")
    assert result.exit_code == 0, result.output
    assert again.read_bytes() == output.read_bytes()


def test_a_stereo_model_by_name(server: LoopbackHub, output: Path) -> None:
    assert run(output, model="musicgen-stereo-small").exit_code == 0
    assert Audio.load(output).samples.shape == (2, 9_600)


def test_a_style_model_brings_its_text_encoder_codec_and_mert(
    server: LoopbackHub, output: Path, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, (1, 4 * 32_000)).astype(np.float32)
    clip = Audio(noise, 32_000).save(tmp_path / "clip.wav")
    plain = run(output, model="musicgen-style")
    assert plain.exit_code == 0, plain.output
    assert "mert" not in plain.stderr
    result = run(output, "--style", clip, "--force", model="musicgen-style")
    assert result.exit_code == 0, result.output
    assert f"from {catalogs.MERT.repo}" in result.stderr
    offline = run(output, "--style", clip, "--force", "--offline", model="musicgen-style")
    assert offline.exit_code == 0, offline.output


def test_a_dry_run_says_what_would_be_fetched(server: LoopbackHub, output: Path) -> None:
    result = run(output, "--dry-run", "--json")
    facts = json.loads(result.stdout)
    assert facts["download_bytes"] == sum(
        len(server.repos[MUSICGEN[NAME].repo][file.name]) for file in MUSICGEN[NAME].files
    )
    assert (facts["license"], facts["page"]) == ("CC-BY-NC-4.0", MUSICGEN[NAME].page)
    assert server.gets(WEIGHTS) == [] and not output.exists()


def test_offline_without_the_files(server: LoopbackHub, output: Path) -> None:
    assert "downloads are off" in told(run(output, "--offline"))
    assert server.log == [] and not output.exists()


def test_a_mistake_is_told_before_anything_is_fetched(server: LoopbackHub, output: Path) -> None:
    assert "temperature" in told(run(output, "--temperature", -1))
    assert "gone.wav" in told(run(output, "--melody", "gone.wav", model="musicgen-melody"))
    assert server.log == []


def test_a_broken_connection_is_taken_up_where_it_broke(
    server: LoopbackHub, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 4096)
    server.faults.cut_after, server.faults.cuts = 400_000, 1
    assert run(output).exit_code == 0
    assert server.gets(WEIGHTS) == [None, "bytes=397312-"]


def test_a_connection_that_keeps_breaking_and_then_holds(server: LoopbackHub, output: Path) -> None:
    server.faults.cut_after, server.faults.cuts = 400_000, -1
    assert "check the connection and try again" in told(run(output))
    assert not output.exists()
    server.faults.cuts = 0
    assert run(output).exit_code == 0


def test_a_file_that_arrives_damaged_is_named_and_not_kept(server: LoopbackHub, output: Path) -> None:
    server.faults.corrupt_at, server.faults.corruptions = 500_000, -1
    sentence = told(run(output))
    assert WEIGHTS in sentence and "does not have the hash" in sentence
    assert not output.exists()
    server.faults.corruptions = 0
    assert run(output).exit_code == 0


def test_a_file_damaged_in_the_cache_is_named(server: LoopbackHub, output: Path) -> None:
    assert run(output).exit_code == 0
    weights = next((hub.plan(MUSICGEN[NAME], ALLOWED).folder).glob(WEIGHTS)).resolve()
    damaged = bytearray(weights.read_bytes())
    damaged[300_000] ^= 1
    weights.write_bytes(damaged)
    sentence = told(run(output, "--force", "--offline"))
    assert WEIGHTS in sentence and "does not have the hash" in sentence
    assert run(output, "--force").exit_code == 0


def test_a_gated_repository_names_its_page_and_the_login(
    server: LoopbackHub, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.faults.gated = True
    sentence = told(run(output))
    assert MUSICGEN[NAME].page in sentence and "hf auth login" in sentence
    monkeypatch.setenv("HF_TOKEN", server.token)
    assert run(output).exit_code == 0


def test_faults_that_pass_are_tried_three_times(server: LoopbackHub, output: Path) -> None:
    server.faults.status, server.faults.statuses = 503, 2
    assert run(output).exit_code == 0
    output.unlink()
    server.faults.statuses = -1
    shutil.rmtree(hub.plan(MUSICGEN[NAME], OFFLINE).folder)
    before = len(server.log)
    assert "cannot be fetched from" in told(run(output))
    assert len(server.log) == before + 3


def test_waits_between_tries_grow(server: LoopbackHub, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(hub_client, "RETRY_DELAYS", (1.0, 4.0))
    monkeypatch.setattr("time.sleep", waited.append)
    server.faults.status, server.faults.statuses = 503, 2
    assert run(output).exit_code == 0
    assert waited == [1.0, 4.0]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_refusals_are_told_at_once(server: LoopbackHub, output: Path, status: int) -> None:
    server.faults.status, server.faults.statuses = status, -1
    told(run(output))
    assert len(server.log) == 1


def test_an_id_outside_the_catalogue_must_be_allowed(server: LoopbackHub, output: Path) -> None:
    assert "--unlisted" in told(run(output, model="somebody/music"))
    assert server.log == []
    result = run(output, "--unlisted", model="somebody/music")
    assert result.exit_code == 0, result.output
    assert "https://huggingface.co/somebody/music" in result.stderr
    offline = run(output, "--unlisted", "--offline", "--force", model="somebody/music")
    assert offline.exit_code == 0, offline.output


def test_a_repository_that_is_not_a_musicgen(server: LoopbackHub, output: Path) -> None:
    sentence = told(run(output, "--unlisted", model="google-t5/t5-base"))
    assert "config.json" in sentence and not output.exists()


def test_a_short_disk_is_told_before_the_download(
    server: LoopbackHub, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(output.parent)._replace(free=10**6)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
    assert "make room" in told(run(output))
    assert server.gets(WEIGHTS) == []


def test_a_disk_that_fills_up_while_writing(
    server: LoopbackHub, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(output).exit_code == 0
    output.unlink()

    def full(file: int) -> None:
        raise OSError(28, "No space left on device", str(output))

    monkeypatch.setattr(os, "fsync", full)
    assert "No space left" in told(run(output))
    assert list(output.parent.iterdir()) == []


def test_convert_and_verify_by_name(server: LoopbackHub, output: Path, tmp_path: Path) -> None:
    folder = tmp_path / "converted"
    result = call(cli, "convert", NAME, "-o", folder)
    assert (result.exit_code, result.stdout.strip()) == (0, str(folder)), result.output
    assert "Downloading" in result.stderr
    checked = call(cli, "verify", NAME, "--offline", "--json")
    assert json.loads(checked.stdout)["family"] == "musicgen"
    assert run(output, model=str(folder)).exit_code == 0
    named, converted = tmp_path / "named.wav", output
    assert run(named).exit_code == 0
    np.testing.assert_array_equal(Audio.load(named).samples, Audio.load(converted).samples)


# In a process of its own, as a user runs it


def process(server: LoopbackHub, home: Path, output: Path, *more: object) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_HOME": str(home), "HF_ENDPOINT": server.endpoint, "NO_PROXY": "127.0.0.1"}
    command = ["musicgen", "slow piano", "-m", NAME, "-o", output, *QUICK, *more]
    start = "from audiogen_mlx.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", start, *map(str, command)],
        env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.fixture
def pinned_server() -> Iterator[LoopbackHub]:
    """Serves the commit that the catalogue names."""
    with LoopbackHub(repositories(), revision=MUSICGEN[NAME].revision) as found:
        yield found
        found.released.set()


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        pytest.param(signal.SIGINT, 130, "interrupted", marks=pytest.mark.slow),
        (signal.SIGKILL, -signal.SIGKILL, ""),
    ],
    ids=["Ctrl-C", "killed"],
)
def test_a_run_that_is_stopped_while_fetching_goes_on_where_it_was(
    pinned_server: LoopbackHub, tmp_path: Path, output: Path, number: int, code: int, said: str
) -> None:
    server, home = pinned_server, tmp_path / "home"
    server.faults.stall_at = 500_000
    stopped = process(server, home, output)
    assert server.stalled.wait(60)
    stopped.send_signal(number)
    errors = stopped.communicate(timeout=60)[1]
    assert stopped.returncode == code and said in errors and "Traceback" not in errors
    server.released.set()
    assert list(output.parent.iterdir()) == []
    assert "downloads are off" in process(server, home, output, "--offline").communicate(timeout=60)[1]
    server.faults.stall_at = None
    whole = process(server, home, output)
    assert whole.communicate(timeout=120)[0].strip() == str(output)
    assert len(server.gets("config.json")) == 1
    assert process(server, home, output, "--offline", "--force").wait(120) == 0
