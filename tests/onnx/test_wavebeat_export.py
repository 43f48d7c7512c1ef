"""WaveBeat's checkpoint as a graph: the numbers of plain torch, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from audiogen_core.errors import ModelError, WeightsError
from audiogen_onnx.exporter import beats
from audiogen_onnx.exporter.beats import WaveBeatConfig, export_beats, load
from audiogen_onnx.session import Session
from support.wavebeat import SETTINGS, SMALL, Reference, save_checkpoint


@pytest.mark.parametrize(
    "settings",
    [SETTINGS, SMALL, SMALL | {"norm_type": None}, SMALL | {"stride": 3, "target_sample_rate": 8000 / 27}],
    ids=["published", "small", "without norms", "stride 3"],
)
def test_the_graph_gives_torchs_numbers(tmp_path: Path, settings: dict[str, Any]) -> None:
    reference = Reference(settings)
    checkpoint = save_checkpoint(tmp_path / "wavebeat.pth", settings, reference.state())
    session = Session(export_beats(checkpoint, tmp_path / "beats.onnx"))
    for batch, length in ((1, 1), (2, 255), (1, 257), (2, 4_096), (1, 30_001)):
        audio = np.random.default_rng(length).uniform(-1, 1, (batch, 1, length)).astype(np.float32)
        with torch.inference_mode():
            wanted = reference(torch.from_numpy(audio)).numpy()
        made = session.run({"audio": audio})["beats"]
        assert made.shape == (batch, 2, -(-length // settings["stride"] ** settings["nblocks"]))
        np.testing.assert_allclose(made, wanted, atol=1e-5)
        assert length < 5000 or made.std() > 1e-3, "a flat curve shows nothing"


def test_the_graph_says_what_its_user_must_know(tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / "w.pth", SETTINGS, Reference(SETTINGS).state())
    facts = Session(export_beats(checkpoint, tmp_path / "beats.onnx", check=False)).metadata
    assert facts == {
        "sample_rate": "22050", "frame_rate": repr(22050 / 256), "hop_length": "256", "reach": "519936"
    }  # fmt: skip


def test_how_far_a_frame_hears(tmp_path: Path) -> None:
    """Beyond its reach, a sample changes nothing; at its reach it does."""
    config = WaveBeatConfig.of(SMALL, "here")
    reference = Reference(SMALL)
    audio = torch.zeros(1, 1, 2_000)
    with torch.inference_mode():
        before = reference(audio)
        for offset, changes in ((config.reach, True), (config.reach + 1, False)):
            audio[0, 0, 100 * config.hop_length + offset] = 1.0
            assert bool((reference(audio)[..., 100] != before[..., 100]).any()) == changes
            audio.zero_()


def test_names_shapes_and_values_are_strict(tmp_path: Path) -> None:
    state = Reference(SMALL).state()
    for changed, words in (
        ({name: values for name, values in state.items() if name != "output.bias"}, "output.bias"),
        (state | {"extra": torch.zeros(1)}, "extra"),
        (state | {"blocks.1.act1.weight": torch.zeros(4)}, "blocks.1.act1.weight"),
        (state | {"output.bias": torch.tensor([0.0, float("nan")])}, "NaN"),
    ):
        with pytest.raises(WeightsError, match=words):
            load(save_checkpoint(tmp_path / "wavebeat.pth", SMALL, changed))


def test_other_checkpoints_are_told_apart(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.zeros(1)}, "metadata": {"kwargs": {}}}, tmp_path / "codec.pth")
    with pytest.raises(ModelError, match="not a checkpoint of WaveBeat"):
        load(tmp_path / "codec.pth")


@pytest.mark.parametrize(
    "change",
    [
        {"ninputs": 2}, {"noutputs": 1}, {"act_type": "ReLU"}, {"norm_type": "LayerNorm"}, {"kernel_size": 4},
        {"nblocks": 0}, {"nblocks": 10**9}, {"stride": "2"}, {"channel_width": True},
        {"audio_sample_rate": None}, {"audio_sample_rate": 1},
        {"target_sample_rate": 0.0}, {"target_sample_rate": float("nan")},
    ],
    ids=str,
)  # fmt: skip
def test_settings_of_another_network_are_named(tmp_path: Path, change: dict[str, Any]) -> None:
    checkpoint = save_checkpoint(tmp_path / "wavebeat.pth", SMALL | change, Reference(SMALL).state())
    with pytest.raises(ModelError, match=f"wavebeat.pth: .*{next(iter(change))} is"):
        load(checkpoint)


def test_a_graph_that_differs_from_torch_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = save_checkpoint(tmp_path / "wavebeat.pth", SMALL, Reference(SMALL).state())
    monkeypatch.setattr(beats, "_EPSILON", 0.1)
    with pytest.raises(ModelError, match="differs from torch"):
        export_beats(checkpoint, tmp_path / "beats.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["wavebeat.pth"]
