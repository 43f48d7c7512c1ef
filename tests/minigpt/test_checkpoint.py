"""Checkpoints: whole or not at all, checked when read, newest valid one first."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from audiogen_core.errors import AudiogenError, ModelError, OptionError, WeightsError
from audiogen_core.training.errors import DiskFull
from audiogen_minigpt import checkpoint
from audiogen_minigpt.config import ModelConfig
from audiogen_minigpt.dataset import check_data
from audiogen_minigpt.model import GPT
from support.training import FACTS, MODEL


def _save(run: Path, step: int, val_loss: float | None = None, config: ModelConfig = MODEL) -> GPT:
    torch.manual_seed(step)
    model = GPT(config)
    state = {"model": config.to_dict(), "data": FACTS, "val_loss": val_loss}
    tensors = dict(model.named_parameters())
    checkpoint.save(
        run, step, tensors, {"moments/x": torch.arange(6.0).view(2, 3), "n": torch.tensor(7)}, state
    )
    return model


def test_tensors_come_back_bit_for_bit(tmp_path: Path) -> None:
    model = _save(tmp_path, 12)
    found = checkpoint.newest(tmp_path)
    assert found is not None and found.step == 12
    tensors = found.model_tensors()
    assert set(tensors) == {name for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        assert torch.equal(tensors[name], parameter)
    training = found.training_tensors()
    assert torch.equal(training["moments/x"], torch.arange(6.0).view(2, 3))
    assert training["n"].shape == () and training["n"] == 7


def test_load_model_from_a_run_and_from_a_checkpoint(tmp_path: Path) -> None:
    _save(tmp_path, 1)
    model = _save(tmp_path, 2)
    before = torch.random.get_rng_state()
    for path in (tmp_path, tmp_path / "ckpt" / "step-00000002"):
        loaded, config, facts = checkpoint.load_model(path)
        assert config == MODEL
        assert facts == {**FACTS, "step": 2, "checkpoint": "step-00000002"}
        assert not loaded.training
        assert all(map(torch.equal, loaded.parameters(), model.parameters()))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_best_is_the_lowest_validation_loss(tmp_path: Path) -> None:
    for step, loss in ((1, 3.0), (2, 1.0), (3, 2.0), (4, None)):
        _save(tmp_path, step, loss)
    assert checkpoint.find(tmp_path, "best").step == 2
    assert checkpoint.find(tmp_path, "last").step == 4
    assert checkpoint.find(tmp_path, "better").step == 4  # of which nobody knows that it is worse
    _save(tmp_path, 5, 2.0)
    assert checkpoint.find(tmp_path, "better").step == 2
    _save(tmp_path, 6, 0.5)
    assert checkpoint.find(tmp_path, "better").step == 6


def test_best_without_validation_is_the_newest(tmp_path: Path) -> None:
    _save(tmp_path, 1)
    _save(tmp_path, 2)
    assert checkpoint.find(tmp_path, "best").step == 2


def test_prune_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    for step in range(1, 7):
        _save(tmp_path, step)
    checkpoint.prune(tmp_path, 3, best=2)
    assert [folder.name[-1] for folder in checkpoint.listed(tmp_path)] == ["6", "5", "4", "2"]
    assert not list((tmp_path / "ckpt").glob(".tmp*"))


@pytest.mark.parametrize("name", ["model.safetensors", "training.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "missing"])
def test_damaged_checkpoint_is_named_and_passed_over(
    name: str, damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _save(tmp_path, 1)
    _save(tmp_path, 2)
    path = tmp_path / "ckpt" / "step-00000002" / name
    data = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    else:
        data[len(data) // 2] ^= 0x10
        path.write_bytes({"flip": data, "cut": data[:-1], "empty": b""}[damage])
    found = checkpoint.newest(tmp_path)
    assert found is not None and found.step == 1
    assert "step-00000002" in caplog.text and name in caplog.text


def test_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    """One byte flipped in 200 places over all files of a checkpoint."""
    _save(tmp_path, 1)
    folder = tmp_path / "ckpt" / "step-00000001"
    paths = sorted(folder.iterdir())
    sizes = [path.stat().st_size for path in paths]
    for place in range(0, sum(sizes), max(1, sum(sizes) // 200)):
        index = next(i for i in range(4) if place < sum(sizes[: i + 1]))
        original = paths[index].read_bytes()
        data = bytearray(original)
        data[place - sum(sizes[:index])] ^= 0x01
        paths[index].write_bytes(data)
        with pytest.raises(AudiogenError):
            checkpoint.read(folder).model_tensors()
        paths[index].write_bytes(original)
    assert checkpoint.read(folder).step == 1


def test_newer_format_is_refused(tmp_path: Path) -> None:
    _save(tmp_path, 1)
    manifest = tmp_path / "ckpt" / "step-00000001" / "manifest.json"
    tree = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**tree, "format_version": 2}))
    with pytest.raises(ModelError, match=r"format version 2.*update audiogen-minigpt"):
        checkpoint.read(manifest.parent)


def test_paths_that_are_no_run(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="neither a run nor a checkpoint"):
        checkpoint.find(tmp_path)
    (tmp_path / "ckpt").mkdir()
    with pytest.raises(ModelError, match="no valid checkpoint"):
        checkpoint.find(tmp_path)
    with pytest.raises(OptionError, match="did you mean best"):
        checkpoint.find(tmp_path, "bset")


def test_another_models_weights_are_refused(tmp_path: Path) -> None:
    model = _save(tmp_path, 1)
    other = GPT(ModelConfig(layers=3, heads=2, width=32, context=64, codebooks=4, codebook_size=16))
    with pytest.raises(WeightsError, match=r"missing: h\.2\.attn"):
        checkpoint.load_into(other, dict(model.named_parameters()), tmp_path)


def test_too_little_room_is_noticed_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _save(tmp_path, 1)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 9, 1000))
    with pytest.raises(DiskFull, match="needs 1 MB, but 0 MB are free"):
        _save(tmp_path, 2)
    assert [folder.name for folder in (tmp_path / "ckpt").iterdir()] == ["step-00000001"]


def test_disk_that_fills_up_while_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _save(tmp_path, 1)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFull, match="no room for this checkpoint"):
        _save(tmp_path, 2)
    assert [folder.name for folder in (tmp_path / "ckpt").iterdir()] == ["step-00000001"]


def test_leftovers_are_cleaned_and_never_listed(tmp_path: Path) -> None:
    _save(tmp_path, 1)
    shutil.copytree(tmp_path / "ckpt" / "step-00000001", tmp_path / "ckpt" / ".tmp-step-00000002-ab")
    assert [folder.name for folder in checkpoint.listed(tmp_path)] == ["step-00000001"]
    checkpoint.clean(tmp_path)
    assert [folder.name for folder in (tmp_path / "ckpt").iterdir()] == ["step-00000001"]


def test_a_step_can_be_written_again(tmp_path: Path) -> None:
    _save(tmp_path, 1)
    path = tmp_path / "ckpt" / "step-00000001" / "model.safetensors"
    path.write_bytes(b"damaged")
    _save(tmp_path, 1)
    assert checkpoint.read(path.parent).step == 1


def test_data_that_does_not_fit_is_shown_fact_by_fact() -> None:
    check_data("run1", FACTS, "tokens", {**FACTS, "codebooks": 8})
    with pytest.raises(OptionError) as caught:
        check_data("run1", FACTS, "tokens", {**FACTS, "codec": "encodec-24khz", "codebooks": 2})
    text = str(caught.value)
    assert "codec: demo in run1, encodec-24khz in tokens" in text
    assert "codebooks: 4 in run1, 2 in tokens" in text
    assert "frame_rate" not in text


def test_tensor_files_are_ordinary_safetensors(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    tensors = {"a": torch.randn(3, 5), "b": torch.arange(4), "c": torch.tensor(2.5), "d": torch.zeros(0, 3)}
    checkpoint.save(tmp_path, 1, tensors, {}, {"model": {}, "data": {}})
    loaded = load_file(tmp_path / "ckpt" / "step-00000001" / "model.safetensors")
    for name, tensor in tensors.items():
        assert torch.equal(loaded[name], tensor)
