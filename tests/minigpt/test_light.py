"""Checkpoints for generating alone, and models by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from audiogen_core.errors import ModelError, OptionError
from audiogen_core.models import Shipped
from audiogen_core.sampling import Sampling
from audiogen_minigpt import catalog, checkpoint
from audiogen_minigpt.config import SAMPLING
from audiogen_minigpt.export import export
from audiogen_minigpt.info import info
from audiogen_minigpt.model import GPT
from audiogen_minigpt.options import Options, resolve
from support.training import FACTS, MODEL

OWN = Sampling(temperature=(0.5, 0.6, 0.7, 0.8), top_k=7, top_p=0.9)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    torch.manual_seed(3)
    state = {"model": MODEL.to_dict(), "data": FACTS, "val_loss": 1.5, "progress": {"elapsed": 9.0}}
    tensors = dict(GPT(MODEL).named_parameters())
    checkpoint.save(tmp_path / "run", 7, tensors, {"moments/x": torch.zeros(2, 3)}, state)
    return tmp_path / "run"


def test_a_light_checkpoint_is_the_model_in_half_precision(run: Path, tmp_path: Path) -> None:
    folder = checkpoint.write_light(checkpoint.find(run), tmp_path / "light")
    whole, light_model = (checkpoint.load_model(path)[0] for path in (run, folder))
    for one, other in zip(whole.parameters(), light_model.parameters(), strict=True):
        assert other.dtype == torch.float32
        assert torch.equal(one.half().float(), other)
    size = sum(path.stat().st_size for path in (run / "ckpt" / "step-00000007").iterdir())
    assert sum(path.stat().st_size for path in folder.iterdir()) < 0.7 * size


def test_it_knows_how_its_codes_are_drawn(run: Path, tmp_path: Path) -> None:
    found = checkpoint.find(run)
    assert checkpoint.sampling_of(checkpoint.write_light(found, tmp_path / "own", OWN)) == OWN
    assert checkpoint.sampling_of(checkpoint.write_light(found, tmp_path / "none")) == SAMPLING
    assert checkpoint.sampling_of(run) == SAMPLING
    assert checkpoint.sampling_of(tmp_path / "nowhere") == SAMPLING


def test_what_is_said_wins_over_the_models_own_way() -> None:
    def sampling(**said: Any) -> Sampling:
        return resolve(Options(seed=5, **said), OWN, 24_000, 320).sampling

    assert sampling() == Sampling(OWN.temperature, 7, 0.9, 0.0, 5)
    assert sampling(temperature=0.3, top_k=0, min_p=0.1) == Sampling(0.3, 0, 0.9, 0.1, 5)
    assert sampling(temperature=[0.1, 0.2], top_p=0.0).temperature == (0.1, 0.2)


def test_its_revision_follows_its_weights(run: Path, tmp_path: Path) -> None:
    found = checkpoint.find(run)
    first = checkpoint.read(checkpoint.write_light(found, tmp_path / "a"))
    assert first.revision == checkpoint.read(checkpoint.write_light(found, tmp_path / "b")).revision
    assert first.revision.startswith("step-00000007-")
    assert info(tmp_path / "a")["revision"] == first.revision
    torch.manual_seed(4)
    checkpoint.save(run, 7, dict(GPT(MODEL).named_parameters()), {"x": torch.zeros(1)}, found.state)
    assert (
        checkpoint.read(checkpoint.write_light(checkpoint.find(run), tmp_path / "c")).revision
        != first.revision
    )


def test_it_is_not_trained_on(run: Path, tmp_path: Path) -> None:
    folder = export(run, tmp_path / "light", "light")
    with pytest.raises(ModelError, match="made for generating alone"):
        checkpoint.read(folder).training_tensors()


def test_a_folder_in_use_is_not_written_over(run: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").touch()
    with pytest.raises(OptionError, match="exists already"):
        checkpoint.write_light(checkpoint.find(run), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["precious"]


@pytest.mark.parametrize("name", ["model.safetensors", "state.json"])
def test_a_manifest_without_a_file_that_is_needed_is_refused(run: Path, tmp_path: Path, name: str) -> None:
    folder = checkpoint.write_light(checkpoint.find(run), tmp_path / "light")
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["files"][name]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match="list of files is damaged"):
        checkpoint.read(folder)


def test_names_stand_for_folders_of_the_package(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = checkpoint.write_light(checkpoint.find(run), tmp_path / "package" / "data" / "toy")
    monkeypatch.setattr("audiogen_core.models.files", lambda name: tmp_path / name)
    spec = Shipped("toy", "minigpt", "package", "data/toy", "Apache-2.0")
    monkeypatch.setitem(catalog.CATALOG, "toy", spec)
    assert catalog.locate("toy") == folder
    assert checkpoint.find("toy").step == info("toy")["step"] == 7
    assert catalog.locate("elsewhere") == Path("elsewhere")
    (tmp_path / "toy").mkdir()
    assert catalog.locate("toy") == Path("toy")  # what is there wins
    with pytest.raises(ModelError, match=r"did you mean toy\?"):
        checkpoint.find("toyy")
