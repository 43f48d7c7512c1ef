"""Models by name: from a stand-in for the hub, with the text encoder that they share."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from audiogen_core import hub, hub_client
from audiogen_core.errors import DownloadError
from audiogen_core.models import ModelSpec, find
from audiogen_core.musicgen.catalog import TEXT_ENCODERS
from audiogen_mlx.catalog import STABLE_AUDIO as CATALOG
from audiogen_mlx.cli import cli
from audiogen_mlx.stable_audio import StableAudio
from support.loopback_hub import ALLOWED, LoopbackHub, point_at

FIXTURES = Path(__file__).parents[1] / "fixtures" / "stable-audio"
NAME = "stable-audio-open-small"
T5 = "google-t5/t5-base"


def files(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (FIXTURES / folder).iterdir()}


def as_checkpoint(path: Path) -> bytes:
    """The same tensors as torch saves them."""
    import torch
    from safetensors.torch import load_file

    written = io.BytesIO()
    torch.save({"state_dict": load_file(path)}, written)
    return written.getvalue()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    model = files("tiny-small")
    model["model_config.json"] = model["model_config.json"].replace(b"../t5", b"t5-base")
    model["base_model_config.json"] = model["model_config.json"].replace(b"rf_denoiser", b"rectified_flow")
    model["base_model.ckpt"] = as_checkpoint(FIXTURES / "tiny-small" / "model.safetensors")
    repos = {CATALOG[NAME].repo: model, T5: files("t5")}
    with LoopbackHub(repos) as found:
        point_at(found.endpoint, tmp_path / "cache", monkeypatch)
        monkeypatch.setattr(hub_client, "RETRY_DELAYS", (0.0, 0.0))
        for table in (CATALOG, TEXT_ENCODERS):
            for name, spec in table.items():
                if isinstance(spec, ModelSpec):
                    monkeypatch.setitem(table, name, replace(spec, revision=found.revision))
        yield found


def test_a_name_brings_the_model_and_its_text_encoder(server: LoopbackHub) -> None:
    clip = StableAudio.load(NAME).generate("a bell", seconds=0.3, steps=2, seed=1)
    local = StableAudio.load(FIXTURES / "tiny-small").generate("a bell", seconds=0.3, steps=2, seed=1)
    assert np.array_equal(clip.samples, local.samples)
    before = len(server.log)
    StableAudio.load(NAME)
    assert len(server.log) == before


def test_only_the_files_of_the_model_are_fetched(server: LoopbackHub) -> None:
    StableAudio.load(NAME)
    fetched = {path.rsplit("/", 1)[1] for method, path, _ in server.log if method == "GET"}
    assert fetched == {"model_config.json", "model.safetensors", "config.json", "tokenizer.json"}


def test_the_base_checkpoint_beside_it(server: LoopbackHub) -> None:
    base = StableAudio.load(f"{NAME}-base")
    assert base.config.objective == "rectified_flow"
    options = {"seconds": 0.3, "steps": 2, "seed": 1, "sampler": "euler", "guidance_scale": 1.0}
    same = StableAudio.load(FIXTURES / "tiny-small").generate("a bell", **options)
    assert np.array_equal(base.generate("a bell", **options).samples, same.samples)


def test_a_gated_model_names_its_page(server: LoopbackHub) -> None:
    server.faults.gated = True
    with pytest.raises(DownloadError, match=f"gated.*https://huggingface.co/{CATALOG[NAME].repo}"):
        StableAudio.load(NAME)


def run(*arguments: str | Path):
    return CliRunner().invoke(cli, ["stable-audio", "a bell", *map(str, arguments)])


def test_the_command_says_licence_and_page_before_it_fetches(server: LoopbackHub, tmp_path: Path) -> None:
    output = tmp_path / "bell.wav"
    result = run("-m", NAME, "-o", output, "--seconds", "0.3", "--steps", "2", "--seed", "1")
    assert result.exit_code == 0
    assert "Stability AI Community License" in result.stderr
    assert CATALOG[NAME].page in result.stderr
    again = run(
        "-m", NAME, "-o", output, "--seconds", "0.3", "--steps", "2", "--seed", "1", "--offline", "--force"
    )
    assert again.exit_code == 0


def test_a_dry_run_says_what_would_be_fetched(server: LoopbackHub, tmp_path: Path) -> None:
    output = tmp_path / "bell.wav"
    result = run("-m", NAME, "-o", output, "--seconds", "0.3", "--dry-run")
    assert result.exit_code == 0
    for word in ("download", "Stability AI Community License", CATALOG[NAME].page):
        assert word in result.stdout
    assert not any(method == "GET" and path.endswith("safetensors") for method, path, _ in server.log)


def test_a_dry_run_fetches_no_text_encoder(server: LoopbackHub, tmp_path: Path) -> None:
    """Of a model that is here without its T5: what is missing is told, and nothing is fetched."""
    hub.fetch(CATALOG[NAME], ALLOWED)
    before = len(server.log)
    arguments = ("-m", NAME, "-o", tmp_path / "bell.wav", "--seconds", "0.3", "--dry-run")
    offline = run(*arguments, "--offline")
    assert offline.exit_code == 1 and "downloads are off" in offline.stderr
    assert len(server.log) == before
    facts = json.loads(run(*arguments, "--json").stdout)
    sizes = [path.stat().st_size for path in (FIXTURES / "t5").iterdir()]
    assert 0 < facts["download_bytes"] <= sum(sizes)
    assert (facts["sampler"], facts["license"]) == ("pingpong", "Apache-2.0")
    assert not any(method == "GET" for method, _, _ in server.log[before:])
    StableAudio.load(NAME)
    again = json.loads(run(*arguments, "--offline", "--json").stdout)
    assert again["download_bytes"] == 0 and again["weight_bytes"] == facts["weight_bytes"]
    assert facts["not_followed"] == []  # which the tokenizer tells, and that is yet to come


def test_offline_without_the_files_is_one_sentence(server: LoopbackHub, tmp_path: Path) -> None:
    result = run("-m", NAME, "-o", tmp_path / "bell.wav", "--seconds", "0.3", "--offline")
    assert result.exit_code == 1
    assert "downloads are off" in result.stderr
    assert not server.log


def test_a_gated_model_on_the_command_line(server: LoopbackHub, tmp_path: Path) -> None:
    server.faults.gated = True
    result = run("-m", NAME, "-o", tmp_path / "bell.wav", "--seconds", "0.3")
    assert result.exit_code == 1
    assert CATALOG[NAME].page in result.stderr and "hf auth login" in result.stderr


def test_every_entry_is_pinned_and_says_its_terms() -> None:
    for name, spec in {**CATALOG, **TEXT_ENCODERS}.items():
        assert spec.name == name and spec.pinned and spec.license
        assert find(CATALOG | TEXT_ENCODERS, name) == (spec if isinstance(spec, ModelSpec) else spec.path)
