"""MAGNeT in onnxruntime: exported, run, continued, inpainted, replayed; and refused where it must be."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audiogen_core.audio import Audio
from audiogen_core.errors import ManifestError, ModelError, OptionError
from audiogen_core.musicgen.files import Files
from audiogen_core.musicgen.weights import ignored, pieces
from audiogen_core.noise import SeededNoise
from audiogen_onnx.cli import cli
from audiogen_onnx.exporter.magnet import export_magnet
from audiogen_onnx.magnet.config import MagnetConfig, from_audiocraft
from audiogen_onnx.magnet.generate import Magnet
from audiogen_onnx.magnet.options import Options
from audiogen_onnx.magnet.staged import Staging, fill, overlapping
from audiogen_onnx.magnet.verify import verify
from audiogen_onnx.manifest import Graph
from audiogen_onnx.musicgen.generate import MusicGen
from support.commands import call
from support.magnet import FOLDER, TOKENIZER, exported, files, model

FAST: dict[str, Any] = {"steps": 3, "fine_steps": 2, "seed": 4}


def tone(seconds: float, rate: int = 32_000) -> Audio:
    wave = 0.3 * np.sin(2 * np.pi * 330 * np.arange(round(seconds * rate)) / rate)
    return Audio(wave[None].astype(np.float32), rate)


# Runs


@pytest.mark.parametrize("spans", ["overlapping", "separate"])
@pytest.mark.parametrize("seconds", [None, 0.31, 0.333, 1.0])
def test_a_clip_has_exactly_the_seconds_asked_for(spans: str, seconds: float | None) -> None:
    made = model().generate("rock", seconds=seconds, spans=spans, **FAST)
    assert made.samples.shape == (1, round((seconds or 1.0) * 32_000))
    pieces = [piece.samples for piece in model().stream("rock", seconds=seconds, spans=spans, **FAST)]
    np.testing.assert_array_equal(np.concatenate(pieces, axis=1), made.samples)


def test_clips_longer_than_the_model_makes_at_once() -> None:
    told: list[tuple[float, float]] = []
    (codes,) = model().generate_codes_batch(
        ["rock"], seconds=2.5, on_step=lambda *step: told.append(step), **FAST
    )
    assert codes.frames == 125 and codes.values.max() < 64
    assert told[-1] == (9 * 4, 9 * 4) and len(told) == 36  # windows of 50 frames, 30 apart


def test_an_item_of_a_batch_is_what_it_is_alone() -> None:
    prompts = ["rock", None, "slow ambient track with flute and strings, for a road trip"]
    batch = model().generate_codes_batch(prompts, seconds=0.4, **FAST)
    for index, prompt in enumerate(prompts):
        (alone,) = model().generate_codes_batch([prompt], seconds=0.4, **{**FAST, "seed": 4 + index})
        np.testing.assert_array_equal(batch[index].values, alone.values)


def test_what_is_continued_and_what_is_kept_stay() -> None:
    magnet, clip = model(), tone(0.5)
    begun = magnet.codec.encode(clip).values
    (made,) = magnet.generate_codes_batch(["rock"], prompt_audio=clip, seconds=1.0, **FAST)
    np.testing.assert_array_equal(made.values[:, :25], begun)
    whole = magnet.codec.encode(tone(0.8)).values
    (made,) = magnet.generate_codes_batch(["rock"], init_audio=tone(0.8), inpaint=(0.2, 0.5), **FAST)
    kept = np.ones(40, bool)
    kept[10:25] = False
    np.testing.assert_array_equal(made.values[:, kept], whole[:, kept])
    assert (made.values[:, ~kept] != whole[:, ~kept]).any()
    sound = magnet.generate("rock", init_audio=tone(0.8), inpaint=[(0.2, 0.5), (0.6, 0.7)], **FAST)
    assert sound.samples.shape == (1, 25_600)


def test_kept_at_the_beginning_is_the_continuation() -> None:
    """Whatever is kept goes one way, so what the original has is a case of what it has not."""
    rng = np.random.default_rng(0)
    known, calls = rng.integers(0, 64, (1, 4, 30)), []

    def logits(codes: np.ndarray, stage: int) -> tuple[np.ndarray, None]:
        calls.append(codes.copy())
        return np.random.default_rng(codes.sum()).normal(size=(1, 30, 64)).astype(np.float32), None

    for spans in ("overlapping", "separate"):
        for keep in (np.arange(30) < 8, (np.arange(30) > 20) | (np.arange(30) == 3), np.zeros(30, bool)):
            staging = Staging((4, 2, 2, 1), spans=spans)  # type: ignore[arg-type]
            made = fill(known, keep, 64, logits, staging, SeededNoise(1))
            np.testing.assert_array_equal(made[..., keep], known[..., keep])
            assert made.max() < 64
            assert all((call[..., keep] == known[..., keep]).all() for call in calls)
            calls.clear()


def test_a_search_for_spans_ends_near_what_is_wanted() -> None:
    scores = np.random.default_rng(0).exponential(size=200).astype(np.float32)
    for wanted in (1, 3, 10, 77, 150, 199):
        mask = overlapping(scores, wanted, 3)
        assert abs(int(mask.sum()) - max(wanted, 3)) <= 3
        runs = np.diff(np.flatnonzero(np.diff(np.pad(mask.astype(int), 1)))[::1])[::2]
        assert (runs >= 3).all()


@pytest.mark.parametrize("spans", ["overlapping", "separate"])
@pytest.mark.parametrize("seconds", [0.333, 1.0, 1.7])
def test_a_loop_has_exactly_its_seconds_and_no_seam(spans: str, seconds: float) -> None:
    """What is heard across its joint is what the codec makes of the frames there, in that order."""
    asked: dict[str, Any] = {"seconds": seconds, "loop": True, "spans": spans, **FAST}
    magnet, told = model(), []
    loop = magnet.generate("rock", on_step=lambda *step: told.append(step), **asked)
    windows = 1 if seconds <= 1 else 3
    assert told[-1] == (9 * (windows + 1), 9 * (windows + 1))
    length = round(seconds * 32_000)
    assert loop.samples.shape == (1, length)
    pieces = [piece.samples for piece in magnet.stream("rock", **asked)]
    np.testing.assert_array_equal(np.concatenate(pieces, axis=1), loop.samples)
    (codes,) = magnet.generate_codes_batch(["rock"], **asked)
    (plain,) = magnet.generate_codes_batch(["rock"], **{**asked, "loop": False})
    frames, reach = codes.frames, min(50, min(codes.frames, 50) // 4)
    near = np.minimum(np.arange(frames), frames - 1 - np.arange(frames)) < reach
    np.testing.assert_array_equal(codes.values[:, ~near], plain.values[:, ~near])
    assert (codes.values[:, near] != plain.values[:, near]).any()
    twice = np.concatenate([codes.values, codes.values, codes.values], axis=1)
    heard = np.concatenate(list(magnet.codec.decode_blocks([twice])), axis=1)
    hop, middle = 640, frames * 640
    ours = np.concatenate([loop.samples[:, -hop // 2 :], loop.samples[:, : 2 * hop]], axis=1)
    np.testing.assert_allclose(ours[:, -2 * hop :], heard[:, middle : middle + 2 * hop], rtol=0, atol=2e-4)
    np.testing.assert_allclose(ours[0, hop // 2 - 1], heard[0, middle - 1], rtol=0, atol=2e-4)


def test_guidance_of_nothing_is_none() -> None:
    asked: dict[str, Any] = {"seconds": 0.3, **FAST}
    (plain,) = model().generate_codes_batch([None], **asked)
    (off,) = model().generate_codes_batch([None], guidance_scale=1.0, **asked)
    np.testing.assert_array_equal(plain.values, off.values)


def test_defaults_are_those_of_music_and_of_sound() -> None:
    music, sound = (model(name).settings().staging for name in ("magnet", "audio-magnet"))
    assert (music.temperature, music.top_p, music.guidance) == (3.0, 0.9, (10.0, 1.0))
    assert music.steps == sound.steps == (2, 10, 10, 10)  # of one second
    assert (sound.temperature, sound.top_p, sound.guidance) == (3.5, 0.8, (20.0, 1.0))


# Commands


def test_export_make_and_replay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    t5 = FOLDER / "audio-magnet" / "t5"
    done = call(
        cli, "export", FOLDER / "audio-magnet", "-o", "made", "--t5", t5, "--tokenizer", TOKENIZER,
        "--dtype", "int8", "-q",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    asked = ("--steps", 2, "--fine-steps", 1, "--seed", 3, "--threads", 1, "-q")
    done = call(cli, "magnet", "rain on a roof", "-m", "made", "-o", "a.wav", *asked)
    assert done.exit_code == 0, done.stderr
    assert Audio.load("a.wav").samples.shape == (1, 16_000)
    done = call(cli, "replay", "a.wav", "-o", "b.wav", "-q")
    assert done.exit_code == 0, done.stderr
    assert Path("a.wav").read_bytes() == Path("b.wav").read_bytes()
    tone(0.5).save("c.wav")
    inpaint = ("--init", "c.wav", "--inpaint", "0.1:0.2")
    done = call(cli, "magnet", "rain", "-m", "made", *inpaint, "-o", "d.wav", *asked)
    assert done.exit_code == 0, done.stderr
    assert Audio.load("d.wav").samples.shape == (1, 8_000)
    done = call(cli, "magnet", "rain", "-m", "made", "--dry-run", "--json", "-o", "e.wav", *asked)
    assert json.loads(done.stdout)["passes"] == 5


def test_verify(tmp_path: Path) -> None:
    small = tmp_path / "int8"
    export_magnet(files("magnet"), small, dtype="int8")
    done = call(cli, "verify", small, "--against", exported("magnet"), "--json")
    assert done.exit_code == 0, done.stderr
    rows = {row["graph"]: row for row in json.loads(done.stdout)}
    assert rows.keys() == {"network", "text", "cross"}
    assert 0 < rows["network"]["relative_error"] < 0.05 and 0.8 < rows["network"]["top1"] <= 1
    assert 0 < rows["text"]["relative_error"] < 0.05 and rows["text"]["top1"] is None
    same = {row.graph: row for row in verify(exported("magnet"), exported("magnet"))}
    assert (same["network"].relative_error, same["network"].top1) == (0, 1)
    with pytest.raises(ManifestError, match="is not the model of"):
        verify(small, exported("audio-magnet"))
    data = bytearray((small / "cross.onnx.data").read_bytes())
    data[99] ^= 1
    (small / "cross.onnx.data").write_bytes(data)
    with pytest.raises(ManifestError, match=r"cross.onnx.data: its content is not the one"):
        verify(small)


# What cannot be


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": 0}, "seconds must be more than 0"),
        ({"prompt_audio": tone(1.0), "seconds": 0.5}, "ask for more seconds"),
        ({"inpaint": (0.1, 0.2)}, "go together"),
        ({"init_audio": tone(0.5)}, "go together"),
        ({"init_audio": tone(0.5), "inpaint": (0.4, 0.9)}, "does not lie within the clip of 0.5 s"),
        ({"init_audio": tone(0.5), "inpaint": (0.3, 0.2)}, "does not lie within"),
        ({"init_audio": tone(2), "inpaint": (0.1, 0.2)}, "this model takes 1 s"),
        ({"loop": True, "prompt_audio": tone(0.5)}, "what runs in a ring is made as a whole"),
        ({"loop": True, "init_audio": tone(0.5), "inpaint": (0.1, 0.2)}, "what runs in a ring"),
        ({"spans": "some"}, "spans"),
        ({"compat": "other"}, "compat must be"),
        ({"steps": 0}, "steps must be a whole number from 1"),
    ],
)
def test_impossible_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        model().generate("rock", **{**FAST, **options})


def test_prompts_that_are_none() -> None:
    with pytest.raises(OptionError, match="say what to hear"):
        Options()
    with pytest.raises(OptionError, match="the prompt is empty"):
        Options(" ")
    with pytest.raises(OptionError, match="a list of one prompt or more"):
        model().generate_codes_batch("rock")


def test_settings_that_are_not_known() -> None:
    settings = files("magnet").settings
    with pytest.raises(ModelError, match="no MAGNeT; expected 'transformer_lm_magnet'"):
        from_audiocraft({**settings, "lm_model": "transformer_lm"}, 32)
    with pytest.raises(ModelError, match="causal"):
        from_audiocraft({**settings, "transformer_lm": {**settings["transformer_lm"], "causal": True}}, 32)
    with pytest.raises(ModelError, match="the pattern 'delay' is not known"):
        from_audiocraft({**settings, "codebooks_pattern": {"modeling": "delay"}}, 32)
    with pytest.raises(ModelError, match="no MAGNeT"):
        export_magnet(Files(FOLDER.parent / "musicgen" / "musicgen-mono"), "nowhere")
    facts = model().config.to_dict()
    assert MagnetConfig.from_dict(facts) == model().config
    for more in ({"span": 0}, {"seconds": 0.0}, {"context": -2}):
        with pytest.raises(ModelError, match="does not describe a MAGNeT"):
            MagnetConfig.from_dict(facts | more)


def test_damaged_folders_are_refused_by_name(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported("magnet"), tmp_path / "copy"))
    data = bytearray((folder / "network.onnx.data").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "network.onnx.data").write_bytes(data)
    with pytest.raises(ManifestError, match=r"network.onnx.data: its content is not the one"):
        Magnet.load(folder)
    with pytest.raises(ManifestError, match="is of a model of the family 'magnet', not 'musicgen'"):
        MusicGen.load(exported("magnet"))
    path = folder / "manifest.json"
    facts = json.loads(path.read_text())
    path.write_text(json.dumps(facts | {"model": {**facts["model"], "span": -1}}))
    with pytest.raises(ManifestError, match="spans of -1 frames"):
        Magnet.load(folder)


@pytest.mark.parametrize(("name", "other"), [("network", "text"), ("text", "cross"), ("cross", "network")])
def test_a_graph_in_the_place_of_another_is_refused(name: str, other: str, tmp_path: Path) -> None:
    """The description fits the files; what is in them does not."""
    folder = Path(shutil.copytree(exported("magnet"), tmp_path / "copy"))
    path = folder / "manifest.json"
    facts = json.loads(path.read_text())
    facts["graphs"][name] = asdict(Graph.of(folder / f"{other}.onnx"))
    path.write_text(json.dumps(facts))
    with pytest.raises(ManifestError, match=rf"{other}.onnx: is not the graph that"):
        Magnet.load(folder)


@pytest.mark.parametrize(
    "name", ["facebook/magnet-small-10secs", "facebook/magnet-medium-30secs", "facebook/audio-magnet-small"]
)
def test_names_and_shapes_at_full_size(name: str) -> None:
    """Of what audiocraft makes of the settings of the published models."""
    entry = json.loads((FOLDER / "published_keys.json").read_text())[name]
    own = files("magnet").settings
    given = entry["xp.cfg"]
    settings = {
        **own,
        **{key: given[key] for key in ("masking", "codebooks_pattern")},
        "transformer_lm": {**own["transformer_lm"], **given["transformer_lm"]},
        "dataset": {**own["dataset"], "segment_duration": given["segment_duration"]},
        "conditioners": {"description": {"model": "t5", "t5": {"name": given["t5"]}}},
    }
    shapes = entry["state_dict.bin"]
    width = shapes["condition_provider.conditioners.description.output_proj.weight"][1]
    config = from_audiocraft(settings, width)
    names = {piece for each in pieces(config.network, "audiocraft").values() for piece in each}
    assert set(shapes) <= names | {name for name in shapes if "melody" in name}
    unused = {name for name in names - set(shapes) if "self_wav" not in name}
    assert unused == set() and ignored(config.network)
    assert (config.seconds, config.span, config.context) == (given["segment_duration"], 3, 5)
