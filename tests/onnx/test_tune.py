"""Tuning a VampNet: what it learns from, that it learns, that runs go on to the same bits, and what comes."""

from __future__ import annotations

import itertools
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import loralib
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from audiogen_core.audio import Audio
from audiogen_core.errors import AudioError, ModelError, OptionError
from audiogen_core.training import checkpoints, metrics
from audiogen_core.training.tuning import Tuned
from audiogen_onnx import Vampnet, export
from audiogen_onnx.catalog import CATALOG, located
from audiogen_onnx.cli import cli
from audiogen_onnx.exporter import adapted, model, stored
from audiogen_onnx.exporter import tune as tuning
from audiogen_onnx.exporter.base import Base
from audiogen_onnx.exporter.config import LORA_RANK
from audiogen_onnx.exporter.export import quantize
from audiogen_onnx.exporter.tune import Learner, tune
from audiogen_onnx.exporter.weights import load, load_codec
from audiogen_onnx.manifest import NAME, Manifest
from audiogen_onnx.session import Session
from audiogen_onnx.vampnet.tune_options import Tuning
from support.exported import exported, exported_copy
from support.tiny_vampnet import write_tiny_vampnet
from support.vampnet_numpy import FIXTURES

SMALL = FIXTURES / "small"
STEPS = 8
RATE = 24_000


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three files of tones, a long one and two short, one of silence, and one that is no sound."""
    folder = tmp_path_factory.mktemp("clips")
    for index, (pitch, seconds) in enumerate(((220, 2.5), (330, 1.2), (440, 1.6))):
        times = np.arange(int(seconds * RATE)) / RATE
        Audio(np.float32([0.3 * np.sin(2 * np.pi * pitch * times)]), RATE).save(folder / f"tone {index}.wav")
    Audio(np.zeros((1, RATE), np.float32), RATE).save(folder / "nothing.wav")
    (folder / "broken.wav").write_bytes(b"RIFF....WAVE")
    return folder


def asked(folder: Path, **more: Any) -> Tuning:
    told: dict[str, Any] = {
        "model": SMALL, "seconds": 1.0, "batch": 2, "steps": STEPS, "lr": 0.02, "threads": 1, "samples": 0,
        "cooldown": 0.0,
    }  # fmt: skip
    return Tuning.of({"folder": folder, **told, **more})


@pytest.fixture(scope="module", autouse=True)
def short_windows() -> Iterator[None]:
    """The small codec has 5,500 frames in a second: what is learned from is cut short."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "WIDEST", 48)
        yield


@pytest.fixture(scope="module")
def whole(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    """A run from end to end, without sounds."""
    return tune(asked(clips), tmp_path_factory.mktemp("runs") / "whole")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_vampnet(tmp_path_factory.mktemp("tiny") / "model")


def test_it_learns(whole: Tuned):
    before, after = whole.losses
    assert before is not None and after is not None and after < before
    assert (whole.step, whole.steps, whole.signal) == (STEPS, STEPS, None)
    assert whole.verdict.startswith("It learned")
    records = metrics.read(whole.run)
    trained = [record for record in records if record["kind"] == "train"]
    assert len(trained) == STEPS
    for record in trained:
        assert record["loss"] == pytest.approx((record["coarse_loss"] + record["fine_loss"]) / 2)


def test_sounds_are_made_by_the_way(clips: Path, tiny: Path, tmp_path: Path):
    """Each by the networks as they are then: the first one is what the folder makes."""
    made = tune(asked(clips, model=tiny, samples=1, lr=1.0, steps=4), tmp_path / "run")
    names = [Path(each["path"]).name for each in metrics.read(made.run) if each["kind"] == "sample"]
    assert names == ["before.wav", "step-000002.wav", "after.wav"]
    before, after = (Audio.load(made.run / "samples" / name).samples for name in names[:2])
    assert before.shape == after.shape and np.abs(after - before).max() > 0.01
    assert made.page is not None and made.page.read_text().count('class="clip"') == 3


def test_the_page_and_the_card_tell_of_it(whole: Tuned):
    assert whole.page is not None and whole.adapter is not None
    page, card = whole.page.read_text(), (whole.adapter / "README.md").read_text()
    for text in ("held-out loss", "silence from end to end", "broken.wav", whole.verdict):
        assert text in page
    assert "captions" not in page
    assert "held-out loss" in card and "coarse and fine" in card


@pytest.mark.parametrize(("name", "file"), [("coarse", "coarse"), ("fine", "c2f")])
def test_what_is_learned_is_a_lora_that_export_takes(whole: Tuned, name: str, file: str):
    """The checkpoint with it says what the network that learned says."""
    assert whole.adapter is not None
    path = whole.adapter / file / "lora.pth"
    ours, last = torch.load(path, weights_only=True), checkpoints.newest(whole.run)
    assert last is not None
    learned = last.table("factors")
    assert {f"{name}.{key}" for key in ours} == {key for key in learned if key.startswith(f"{name}.")}
    for key, value in ours.items():
        np.testing.assert_array_equal(value.numpy(), learned[f"{name}.{key}"])
    vectors = load_codec(SMALL / "codec.pth", "numpy").codebook_vectors()
    plain, changed = (load(SMALL / f"{file}.pth", vectors, lora) for lora in (None, path))
    moved = (
        changed.tensors["layers.0.attention.query.weight"] - plain.tensors["layers.0.attention.query.weight"]
    )
    assert np.abs(moved).max() > 1e-3


def test_loralib_loads_it(whole: Tuned):
    """Put over a checkpoint as the original does, its layers have the weights that an export has."""
    assert whole.adapter is not None
    path = whole.adapter / "coarse" / "lora.pth"
    base = torch.load(SMALL / "coarse.pth", weights_only=True)["state_dict"]
    layers = nn.ModuleDict()
    for name, down in base.items():
        if name.endswith(".lora_A"):
            module = name.removesuffix(".lora_A").replace(".", "/")  # no name of a module has dots
            rows = base[name.replace("lora_A", "lora_B")].shape[0]
            layers[module] = loralib.Linear(down.shape[1], rows, r=LORA_RANK, bias=False)
    layers.load_state_dict(_by_module(base), strict=False)
    ours = _by_module(torch.load(path, weights_only=True))
    left = layers.load_state_dict(ours, strict=False)
    assert not left.unexpected_keys and set(ours) == {name for name in layers.state_dict() if "lora_" in name}
    layers.eval()  # which adds the updates to the weights
    vectors = load_codec(SMALL / "codec.pth", "numpy").codebook_vectors()
    exported_with = load(SMALL / "coarse.pth", vectors, path).tensors
    for layer, (name, upstream) in itertools.product(range(2), adapted.UPSTREAM.items()):
        theirs = layers[f"transformer/layers/{layer}/{upstream.replace('.', '/')}"].weight.detach().numpy()
        np.testing.assert_allclose(exported_with[f"layers.{layer}.{name}.weight"], theirs, rtol=0, atol=1e-5)


def _by_module(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Names of tensors with slashes in those of their modules."""
    parts = ((*name.rpartition("."), value) for name, value in tensors.items())
    return {f"{module.replace('.', '/')}.{leaf}": value for module, _, leaf, value in parts}


class Killed(BaseException):
    pass


def bits(made: Tuned) -> tuple[bytes, bytes]:
    assert made.adapter is not None
    coarse, fine = ((made.adapter / name / "lora.pth").read_bytes() for name in ("coarse", "c2f"))
    return coarse, fine


@pytest.mark.parametrize("at", [1, 5])
def test_a_run_that_was_killed_ends_in_the_same_bits(clips: Path, whole: Tuned, tmp_path: Path, at: int):
    def kill(record: dict[str, Any]) -> None:
        if record["kind"] == "train" and record["step"] == at:
            raise Killed

    with pytest.raises(Killed):
        tune(asked(clips), tmp_path / "run", on_record=kill)
    made = tune(asked(clips), tmp_path / "run")
    assert bits(made) == bits(whole)
    records = metrics.read(tmp_path / "run")
    assert [record["step"] for record in records if record["kind"] == "train"] == list(range(1, STEPS + 1))
    assert [record["step"] for record in records if record["kind"] == "eval"] == list(range(STEPS + 1))


def test_a_signal_ends_it_after_the_update(clips: Path, whole: Tuned, tmp_path: Path):
    def ask(record: dict[str, Any]) -> None:
        if record["kind"] == "train" and record["step"] == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    made = tune(asked(clips), tmp_path / "run", on_record=ask)
    assert (made.signal, made.step) == (signal.SIGTERM, 2) and made.adapter is not None
    assert bits(tune(asked(clips), tmp_path / "run")) == bits(whole)
    again = tune(asked(clips), tmp_path / "run")  # all is done
    assert again.step == STEPS and bits(again) == bits(whole)


def test_clips_of_other_lengths_and_parts_of_a_batch_change_nothing(clips: Path, tiny: Path, tmp_path: Path):
    """Without dropout the gradient is that of all clips together, however they go through the network."""
    told = {"seconds": 2.0, "dropout": 0.0}
    learners = [
        Learner(
            asked(clips, model=tiny, batch=batch, accumulate=6 // batch, **told),
            tmp_path,
            _no_fetch,
            _quiet,
        )
        for batch in (6, 1)
    ]
    assert len({clip.codes.shape[1] for clip in learners[0].data.train}) > 1
    for one, other in zip(*(learner.pupils for learner in learners), strict=True):
        losses = [learner._gradients(pupil, 3) for learner, pupil in zip(learners, (one, other), strict=True)]
        np.testing.assert_allclose(*losses, rtol=1e-5)
        for name, value in one.learned.items():
            assert value.grad is not None
            np.testing.assert_allclose(
                value.grad.numpy(),
                other.learned[name].grad.numpy(),
                rtol=1e-3,
                atol=1e-6,  # type: ignore[union-attr]
            )


def test_the_rate_is_the_originals_unless_one_is_given(clips: Path, tmp_path: Path):
    tune(asked(clips, lr=None, steps=2), tmp_path / "noam")
    width = Base.open(SMALL).coarse.checkpoint.config.width
    rates = [each["learning_rate"] for each in metrics.read(tmp_path / "noam") if each["kind"] == "train"]
    assert rates == pytest.approx([adapted.noam(step, width) for step in (1, 2)])


def test_one_network_alone(clips: Path, tmp_path: Path):
    made = tune(asked(clips, networks="coarse", steps=2), tmp_path / "run")
    assert made.adapter is not None
    assert sorted(path.name for path in made.adapter.iterdir()) == ["README.md", "coarse"]
    trained = [record for record in metrics.read(made.run) if record["kind"] == "train"]
    assert len(trained) == 2 and not any("fine_loss" in record for record in trained)


def test_a_clip_alone_has_nothing_held_out(tmp_path: Path):
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    Audio(rng.normal(0, 0.1, (1, RATE)).astype(np.float32), RATE).save(tmp_path / "in" / "noise.wav")
    made = tune(asked(tmp_path / "in", steps=2), tmp_path / "run")
    assert made.losses == (None, None) and "Nothing was held out" in made.verdict


def test_nothing_to_learn_from(tmp_path: Path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.wav").write_bytes(b"RIFF")
    with pytest.raises(AudioError, match=r"nothing to learn from: a\.wav"):
        tune(asked(tmp_path / "in"), tmp_path / "run")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"seconds": 59.0}, "seconds must be at most 10"),
        ({"networks": "all"}, "networks"),
        ({"dropout": 1.0}, "dropout"),
        ({"device": "cuda:9"}, "device"),
        ({"steps": 3, "time": 3.0}, "not both"),
    ],
)
def test_settings_that_do_not_fit(clips: Path, tmp_path: Path, more: dict[str, Any], message: str):
    with pytest.raises(OptionError, match=message):
        tune(asked(clips, **more), tmp_path / "run")


# Exported folders


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "int4"])
def test_networks_come_out_of_an_exported_folder(dtype: str, tmp_path: Path):
    """What is read says what the graph says: but for what 8-bit activations cost."""
    folder = exported()
    if dtype != "float32":
        quantize(folder, tmp_path / dtype, dtype)
        folder = tmp_path / dtype
    manifest = Manifest.load(folder)
    for name, facts in (("coarse", manifest.coarse), ("fine", manifest.fine)):
        path = manifest.graph_path(folder, name)
        net = model.build(stored.read(path, facts, manifest.codec))
        rng = np.random.default_rng(0)
        codes = rng.integers(0, manifest.codec.codebook_size + 1, (2, facts.codebooks, 300))
        expected = Session(path).run({"codes": codes})["logits"]
        found = model.runner(net)(codes)
        within = {"float32": 1e-4, "float16": 1e-4, "int8": 0.1, "int4": 0.1}[dtype] * np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=0, atol=within)


def test_the_demo_learns_and_is_exported_with_it(tmp_path: Path, clips: Path):
    """In a second or two: the folder that comes of it is a vampnet, changed, in the same numbers."""
    run = tmp_path / "run"
    told = ["tune", clips, "-m", "demo", "-o", run, "--steps", 2, "--seconds", 1, "--batch", 2]
    made = CliRunner().invoke(cli, [str(each) for each in (*told, "--samples", 0, "--threads", 1, "--json")])
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout)["path"] == str(run / "adapter")
    told = ["export", "-m", "demo", "--lora", f"{run / 'adapter'}:10", "--dtype", "int8", "--json"]
    made = CliRunner().invoke(cli, [*told, "-o", str(tmp_path / "demo")])
    assert made.exit_code == 0, made.output
    before, after = Manifest.load(located("demo")), Manifest.load(tmp_path / "demo", verify=True)
    assert after.dtype == before.dtype == "int8" and after.defaults == before.defaults
    assert after.codec == before.codec and set(after.created_from) == {
        *before.created_from, "coarse lora at 10", "fine lora at 10"
    }  # fmt: skip
    codes = np.random.default_rng(0).integers(0, 1024, (4, 40))
    logits = [Vampnet.load(place).coarse.logits(codes) for place in ("demo", tmp_path / "demo")]
    assert 1e-3 < np.abs(logits[1] - logits[0]).max() < np.abs(logits[0]).max()
    merged = Vampnet.load("demo", lora=[f"{run / 'adapter'}:10"])
    np.testing.assert_array_equal(merged.coarse.logits(codes), logits[1])
    (tone,) = clips.glob("*1.wav")
    told = ["vamp", tone, "--seed", 1, "--steps", 2, "--fine-steps", 1, "--threads", 1]
    for name, how in (("a", ["demo", "--lora", f"{run / 'adapter'}:10"]), ("b", [tmp_path / "demo"])):
        made = CliRunner().invoke(
            cli, [str(each) for each in (*told, "-o", tmp_path / f"{name}.wav", "-m", *how)]
        )
        assert made.exit_code == 0, made.output
    a, b = (Audio.load(tmp_path / f"{name}.wav").samples for name in "ab")
    np.testing.assert_array_equal(a, b)


def test_an_exported_folder_of_the_authors_learns_as_their_checkpoints(
    tmp_path: Path, clips: Path, whole: Tuned
):
    """Their updates lie beside it, so that learning goes on from these, and what is learned fits either."""
    made = tune(asked(clips, model=exported()), tmp_path / "run")
    for one, other in zip(metrics.read(made.run), metrics.read(whole.run), strict=True):
        if one["kind"] in ("train", "eval"):
            assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
    assert made.adapter is not None and whole.adapter is not None
    for file in ("coarse/lora.pth", "c2f/lora.pth"):
        one, other = (torch.load(each.adapter / file, weights_only=True) for each in (made, whole))
        assert one.keys() == other.keys()
        for name, value in one.items():
            torch.testing.assert_close(value, other[name], rtol=0, atol=1e-3)


def test_an_exported_folder_of_the_authors_is_exported_again_with_a_lora(tmp_path: Path, whole: Tuned):
    """As their checkpoints with it; and with another one after that, as these with both."""
    plain = Vampnet.load(exported())
    shape = (plain.coarse.codebooks, 40)
    codes = np.random.default_rng(0).integers(0, plain.codec.info.codebook_size + 1, shape)
    folders = {}
    for name, source, strength in (
        ("checkpoints", SMALL, 1),
        ("once", exported(), 1),
        ("half", exported(), 0.5),
        ("twice", tmp_path / "half", 0.5),
    ):
        folders[name] = tmp_path / name
        export(source, folders[name], lora=f"{whole.adapter}:{strength}", check=False)
    expected = Vampnet.load(folders["checkpoints"]).coarse.logits(codes)
    for name in ("once", "twice"):
        assert Manifest.load(folders[name], verify=True).updates
        found = Vampnet.load(folders[name]).coarse.logits(codes)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    assert np.abs(plain.coarse.logits(codes) - expected).max() > 1e-2
    with pytest.raises(OptionError, match="is exported already; name a lora"):
        export(exported(), tmp_path / "again")


def test_a_folder_whose_updates_cannot_be_told_from_its_weights_is_refused(tmp_path: Path, clips: Path):
    folder = exported_copy(tmp_path)
    facts = json.loads((folder / NAME).read_text())
    del facts["updates"]  # as folders were written before
    (folder / NAME).write_text(json.dumps(facts))
    with pytest.raises(ModelError, match="did not keep the low-rank updates apart"):
        tune(asked(clips, model=folder), tmp_path / "run")
    with pytest.raises(ModelError, match="did not keep the low-rank updates apart"):
        export(folder, tmp_path / "again", coarse_lora=SMALL / "coarse.pth")


def test_export_says_what_a_lora_is(tmp_path: Path):
    with pytest.raises(OptionError, match="give lora, or coarse_lora"):
        export(SMALL, tmp_path / "out", lora=tmp_path, coarse_lora=tmp_path)
    with pytest.raises(OptionError, match=r"expected a folder with coarse/lora\.pth or c2f/lora\.pth"):
        export(SMALL, tmp_path / "out", lora=tmp_path)


def _no_fetch(spec: Any) -> Path:
    raise AssertionError(f"{spec} is not to be fetched; there are {sorted(CATALOG)}")


def _quiet(done: float, total: float) -> None:
    pass
