"""Codecs at full size, melodies and onsets on real recordings, beside the original implementations."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import librosa
import numpy as np
import pytest
import torch

from audiogen_core import codecs
from audiogen_core.audio import Audio
from audiogen_core.codec import Codec
from audiogen_core.codecs.frame import load_demo
from audiogen_core.codes import Codes
from audiogen_core.musicgen.melody import chroma
from audiogen_core.ops import Ops, resolve
from audiogen_mlx.ops import MlxOps
from audiogen_onnx.vampnet import onsets
from support import originals
from support.exact import ExactOps, coded, strays
from support.recordings import BARK, archive, excerpt, recordings, use_originals

pytestmark = [pytest.mark.slow, pytest.mark.network, pytest.mark.timeout(3600)]

MARGIN = 1e-5
SECONDS = 20.0
ADAPTERS: dict[str, Any] = {
    "numpy": lambda: resolve("numpy"),
    "torch": lambda: resolve("torch"),
    "mlx-cpu": lambda: MlxOps(on_cpu=True),
    "mlx-gpu": lambda: MlxOps(on_cpu=False),
}


class Original(NamedTuple):
    """A model as its authors wrote it, its file, a clip of music, and what is right for that."""

    model: Any
    path: Path
    audio: Audio
    codes: np.ndarray  # in float64
    margins: np.ndarray

    @property
    def samples(self) -> torch.Tensor:
        return torch.tensor(self.audio.samples[None])

    def encode(self) -> np.ndarray:
        """The original's codes (K, F) in its own float32."""
        with torch.inference_mode():
            if hasattr(self.model, "segment"):
                frames = self.model.encode(self.samples)
                return np.concatenate([codes[0].numpy() for codes, _ in frames], axis=1)
            return self.model.encode(self.model.preprocess(self.samples, None))[1][0].numpy()

    def decode(self, codes: Codes) -> np.ndarray:
        """The original's sound (C, T) of some codes."""
        values = torch.tensor(codes.values[None], dtype=torch.long)
        with torch.inference_mode():
            if not hasattr(self.model, "segment"):
                return self.model.decode(self.model.quantizer.from_codes(values)[0])[0].numpy()
            if codes.scales is None:
                return self.model.decode([(values, None)])[0].numpy()
            parts = values.split(150, dim=2)
            scales = torch.tensor(codes.scales)[:, None, None]
            return self.model.decode(list(zip(parts, scales, strict=True)))[0].numpy()


@pytest.fixture(scope="module", params=["encodec-24k", "encodec-48k", "dac-24k", "dac-44k"])
def original(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Original]:
    kind, size = request.param.split("-")
    rate = {"24k": 24_000, "48k": 48_000, "44k": 44_100}[size]
    path = tmp_path_factory.mktemp("original") / "model.pth"
    song = next(path for path in recordings() if path.name == "Awakening.ogg")
    channels = 2 if size == "48k" else 1
    level, audio = (excerpt(song, at, SECONDS).mix(channels).resample(rate) for at in (30, 60))
    make = originals.encodec if kind == "encodec" else originals.dac
    model = make(size, torch.tensor(level.samples[None]), path)
    yield Original(model, path, audio, *coded(codecs.load_codec(path, ExactOps()), audio))


def test_codes_of_the_original_are_those_of_float64_where_the_choice_is_clear(original: Original) -> None:
    made = original.encode()
    off = strays(made, original.codes, original.margins)
    clear = (original.margins > MARGIN).mean()
    print(
        f"original: {len(off)} of {made.shape[1]} frames stray, {off.max(initial=0):.1e}; {clear:.4%} clear"
    )
    assert len(np.unique(original.codes[0])) > 100, "a codec that hears nothing shows nothing"
    assert off.max(initial=0) <= MARGIN


@pytest.mark.parametrize("name", ADAPTERS)
def test_codes_are_those_of_float64_where_the_choice_is_clear(original: Original, name: str) -> None:
    made = codecs.load_codec(original.path, ADAPTERS[name]()).encode(original.audio).values
    off = strays(made, original.codes, original.margins)
    print(f"{name}: {len(off)} of {made.shape[1]} frames stray, at {off.max(initial=0):.1e}")
    assert off.max(initial=0) <= MARGIN


@pytest.mark.parametrize("name", ADAPTERS)
def test_sound_of_the_original(original: Original, name: str) -> None:
    """Three seconds: of a few samples more or less at the end, those that both have."""
    codec: Codec = codecs.load_codec(original.path, ADAPTERS[name]())
    codes = codec.encode(original.audio.trim(3.0))
    expected = original.decode(codes)
    made = codec.decode(codes).samples
    assert 0 <= made.shape[1] - expected[:, : made.shape[1]].shape[1] <= 8
    expected = expected[:, : made.shape[1]]
    worst = np.abs(made[:, : expected.shape[1]] - expected).max() / np.abs(expected).max()
    print(f"{name}: {worst:.1e} of the loudest sample")
    assert worst < 1e-4


@pytest.mark.parametrize("original", ["encodec-24k"], indirect=True)
@pytest.mark.parametrize("name", ADAPTERS)
def test_real_codes_of_speech_sound_as_in_the_original(original: Original, name: str, tmp_path: Path) -> None:
    """Half an hour of them survives a file; one prompt of some seconds is decoded."""
    codec: Codec = codecs.load_codec(original.path, ADAPTERS[name]())
    frames = 0
    for path in sorted((archive(BARK) / "bark/assets/prompts").rglob("*.npz")):
        with np.load(path) as stored:
            codes = Codes(stored["fine_prompt"], 1024, codec.info.frame_rate, codec.info.name)
        frames += codes.frames
        np.testing.assert_array_equal(Codes.load(codes.save(tmp_path / "codes")).values, codes.values)
    print(f"{frames / codec.info.frame_rate / 60:.1f} minutes of codes")
    assert frames > 30 * 60 * codec.info.frame_rate
    expected, made = original.decode(codes), codec.decode(codes).samples
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.fixture(scope="module")
def extractor() -> Any:
    """transformers' melody features, which agree with audiocraft's; it resamples with torchaudio."""
    use_originals()
    from transformers import MusicgenMelodyFeatureExtractor

    return MusicgenMelodyFeatureExtractor()


@pytest.mark.parametrize("index", range(27))
def test_chroma_of_a_recording(extractor: Any, index: int) -> None:
    audio = excerpt(recordings()[index], 5.0, 30.0).mix(1)
    expected = extractor(
        torch.tensor(audio.samples[0]), sampling_rate=audio.sample_rate, return_tensors="np"
    ).input_features[0]
    np.testing.assert_array_equal(chroma(audio), expected)


@pytest.mark.parametrize("index", range(27))
def test_onsets_of_a_recording(index: int) -> None:
    audio = excerpt(recordings()[index], 5.0, 30.0).mix(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = librosa.onset.onset_detect(
            y=audio.samples[0], sr=audio.sample_rate, hop_length=768, backtrack=True
        )
    made = onsets.detect(audio, 768)
    assert len(made) > 3
    np.testing.assert_array_equal(made, expected)


@pytest.mark.parametrize("name", ["numpy", "torch", "mlx-cpu", "mlx-gpu"])
def test_demo_codec_on_five_minutes_of_recordings(name: str) -> None:
    ops: Ops = ADAPTERS[name]()
    made, truth = load_demo(ops), load_demo(ExactOps())
    count = strayed = differ = 0
    for path in recordings()[::3]:
        audio = excerpt(path, 5.0, 40.0).mix(1).resample(24_000)
        codes, margins = coded(truth, audio)
        values = made.encode(audio).values
        off = strays(values, codes, margins)
        assert off.max(initial=0) <= MARGIN
        count, strayed, differ = count + codes.size, strayed + len(off), differ + int((values != codes).sum())
    print(f"{name}: {differ} of {count} codes differ, in {strayed} frames")
    assert count > 180_000
