"""MAGNeT against audiocraft: masks, logits, and all recorded generations, fed with the recorded noise."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from audiogen_core.audio import Audio
from audiogen_core.noise import RecordedNoise, SeededNoise
from audiogen_onnx.magnet.network import seen
from audiogen_onnx.magnet.staged import Staging, fill, mask_shares
from support.magnet import FOLDER, NAMES, files, model
from support.magnet_torch import TorchMagnet


@cache
def stored(name: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / name / "io.npz") as file:
        return {key: file[key] for key in file.files}


RUNS = [(name, key[:-3]) for name in NAMES for key in stored(name) if key.endswith("_kw")]


def close(made: object, expected: np.ndarray) -> None:
    np.testing.assert_allclose(np.array(made), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_what_each_stage_sees(name: str) -> None:
    for stage in range(4):
        np.testing.assert_array_equal(
            seen(50, stage, model(name).config), stored(name)[f"attn_allowed_stage{stage}"]
        )


@pytest.mark.parametrize("name", NAMES)
def test_logits(name: str) -> None:
    arrays = stored(name)
    run = model(name).network.run(arrays["tf_cond"], None, 2)
    for stage in range(4):
        close(run(arrays["tf_sequence"], stage, stage), arrays[f"tf_logits_stage{stage}"])
        close(run(arrays["tf_sequence"], 1, stage), arrays["tf_logits_all_stage1"][:, stage])


@pytest.mark.parametrize("name", NAMES)
def test_the_twin_in_torch_that_benchmarks_run_beside(name: str) -> None:
    arrays = stored(name)
    twin = TorchMagnet(model(name).config, files(name).table.take)
    codes, text = (torch.from_numpy(arrays[key]) for key in ("tf_sequence", "tf_cond"))
    for stage in range(4):
        close(twin(codes, text, stage)[:, stage].numpy(), arrays[f"tf_logits_stage{stage}"])


@pytest.mark.parametrize("name", NAMES)
def test_texts(name: str) -> None:
    arrays, magnet = stored(name), model(name)
    for ids, expected in zip(arrays["tf_input_ids"], arrays["tf_cond"], strict=True):
        real = ids != 0
        made = magnet.text(ids[None, real].astype(np.int32), np.ones((1, real.sum()), np.bool_))
        close(made, expected[: len(made)])
        assert not expected[len(made) :].any()


def test_how_many_are_masked() -> None:
    checked = 0
    for key, expected in stored("magnet").items():
        if key.startswith("num_masked_"):
            steps, units = map(int, key.split("_")[2:])
            made = [max(int(np.float32(share * np.float32(units))), 1) for share in mask_shares(steps)]
            assert made == expected.tolist()
            checked += 1
    assert checked == 9


@pytest.mark.parametrize(("name", "run"), RUNS)
def test_recorded_generations(name: str, run: str) -> None:
    arrays, magnet = stored(name), model(name)
    asked: dict[str, Any] = json.loads(str(arrays[f"{run}_kw"]))
    count, frames = len(asked["texts"]), asked["max_gen_len"]
    conditions = "none" if asked["texts"] == [None] else ("", "one", "two")[count]
    network = magnet.network.run(arrays[f"{conditions}_cond"], None, 2 * count)
    masked, tokens = [], magnet.config.network.special

    def logits(codes: np.ndarray, stage: int) -> tuple[np.ndarray, np.ndarray]:
        masked.append(codes[:, stage] == tokens)
        both = network(np.concatenate([codes, codes]), stage, stage)
        return both[:count], both[count:]

    staging = Staging(
        steps=tuple(asked["decoding_steps"]),
        temperature=asked["temp"],
        top_k=asked["top_k"],
        top_p=asked["top_p"],
        guidance=(asked["max_cfg_coef"], asked["min_cfg_coef"]),
        spans="overlapping" if asked["span_arrangement"] == "stride1" else "separate",
        span_length=asked["span_len"],
        scoring=asked["span_scoring"],
        annealed=asked["anneal_temp"],
        sampled=asked["use_sampling"],
    )
    known = np.zeros((count, 4, frames), np.int64)
    prompt = arrays.get(f"{run}_prompt", known[:, :, :0])
    known[:, :, : prompt.shape[2]] = prompt
    keep = np.arange(frames) < prompt.shape[2]
    noise = RecordedNoise(list(arrays[f"{run}_exp"])) if asked["use_sampling"] else SeededNoise(0)
    made = fill(known, keep, tokens, logits, staging, noise)
    np.testing.assert_array_equal(made, arrays[f"{run}_codes"])
    np.testing.assert_array_equal(np.stack(masked), arrays[f"{run}_masked"])


@pytest.mark.parametrize("name", NAMES)
def test_the_codec(name: str) -> None:
    arrays, codec = stored(name), model(name).codec
    for codes, sound in zip(arrays["codec_codes"], arrays["codec_audio"], strict=True):
        close(np.concatenate(list(codec.decode_blocks([codes])), axis=1), sound)


def test_a_clip_continued_is_encoded_alike() -> None:
    arrays, magnet = stored("magnet"), model("magnet")
    clip = Audio(arrays["cont_wav_int16"][None].astype(np.float32) / 32768, 32_000)
    codes = magnet.codec.encode(clip)
    np.testing.assert_array_equal(codes.values, arrays["cont_prompt_codes"][0])
