"""Generating: from a checkpoint alone to codes and audio, whole, in batches, or as a stream.

Torch is imported when a model is loaded: a wrong name is told before that.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from audiogen_core.audio import Audio, seconds_of
from audiogen_core.codec import fingerprint
from audiogen_core.codes import Codes
from audiogen_core.describe import FACTS
from audiogen_core.errors import AudioError, ModelError, OptionError
from audiogen_core.finish import live
from audiogen_core.jobs import MOST, Model, Sound, Take
from audiogen_core.options import verb
from audiogen_core.progress import counted
from audiogen_core.sampling import Sampling
from audiogen_core.threads import use as use_threads
from audiogen_core.values import closed
from audiogen_minigpt import checkpoint
from audiogen_minigpt.config import SAMPLING, ModelConfig
from audiogen_minigpt.options import ClipSettings, Following, Load, Options, Streamed, resolve

if TYPE_CHECKING:
    from audiogen_core.codec import Codec
    from audiogen_minigpt.model import GPT

BLOCK_SECONDS = 0.5
"""How often codes are handed on, in seconds of audio."""

Ints = NDArray[np.int64]


class Generator(Model):
    """A trained model with the codec it was trained on.

    model   its device is where generating happens
    codec   must be the one the model's codes came from
    facts   of the training data, as a checkpoint keeps them: "codec", "codec_hash", "codebook_size" and more
    name    of the model, for recipes
    sampling  how its codes are drawn unless somebody says otherwise
    threads   that compute, for recipes; None: torch's
    opening   how it was loaded; without it its clips carry no recipe

    The same options, seed and threads make the same
    clip on the same kind of device. The codes of a longer clip begin with those of a shorter one; its
    sound does so as far as the codec decodes frames without later ones. Raises OptionError for impossible
    options, AudioError when the prompt is shorter than one frame.

    Raises ModelError when the codec is not the one of the facts.
    """

    def __init__(
        self,
        model: GPT,
        config: ModelConfig,
        codec: Codec,
        facts: Mapping[str, Any],
        *,
        name: str = "",
        sampling: Sampling = SAMPLING,
        threads: int | None = None,
        opening: Load | None = None,
    ) -> None:
        import torch

        self.model = model
        self.config = config
        self.codec = codec
        self.facts = dict(facts)
        self.name = name
        self.sampling = sampling
        self.threads = threads or torch.get_num_threads()
        self.opening = opening
        check_codec(codec, config, self.facts)

    @classmethod
    @verb(Load)
    def load(cls, opening: Load) -> Generator:
        """The model of a run or a checkpoint, with its codec; "demo" comes with the package.

        The device "auto" is CUDA where there is one. Raises ModelError, UnknownModel, OptionError.
        """
        path = opening.model
        source = checkpoint.place(path) if opening.revision is None else checkpoint.at(path, opening.revision)

        import torch

        from audiogen_core import codecs
        from audiogen_minigpt.device import choose_device

        if opening.threads is not None:
            torch.set_num_threads(opening.threads)
        threads = use_threads(torch.get_num_threads())
        device = choose_device(opening.device)
        model, config, facts = checkpoint.load_model(source, which=opening.chosen, device=str(device))
        name = opening.codec or str(facts.get("codec"))
        ops = opening.ops or ("torch:cuda" if device.type == "cuda" else "torch")
        codec = codecs.load_codec(name, ops, opening.fetch)
        sampling = checkpoint.sampling_of(source)
        return cls(
            model,
            config,
            codec,
            facts,
            name=str(path),
            sampling=sampling,
            threads=threads,
            opening=opening,
        )

    @property
    def sample_rate(self) -> int:
        """Hz of what it makes."""
        return self.codec.info.sample_rate

    @property
    def channels(self) -> int:
        """Of what it makes."""
        return self.codec.info.channels

    @property
    def revision(self) -> str:
        """What recipes call the checkpoint."""
        return str(self.facts.get("checkpoint", ""))

    @verb(Following)
    def generate(self, options: Following) -> Audio:
        """A clip of `seconds`, or, with a prompt, the prompt and `seconds` that follow it."""
        return self.clip(options)

    @verb(Following)
    def generate_codes(self, options: Following) -> Codes:
        """As `generate`, but the codes of the clip, the prompt's included."""
        return self._codes(self._resolved(options), 1)[0]

    @verb(Following)
    @closed()
    def generate_batch(self, count: int, options: Following) -> list[Audio]:
        """Several clips; number i is what `generate` makes with the seed + i.

        On a CPU they are made one after the other, elsewhere all at once.
        """
        return [self.whole(take, options) for take in self.takes(options, count)]

    @verb(Streamed)
    def stream(self, options: Streamed) -> Iterator[Audio]:
        """As `generate`, in chunks of about `chunk_seconds`, each as soon as it is made.

        Joined, the chunks are the clip of the same codes, but for rounding where the codec decodes a chunk
        otherwise than the whole, below a millionth of full scale. What is kept in memory is the codes alone.
        """
        settings, chunk_seconds = self._resolved(options), options.chunk_seconds
        prompt = self._prompt(settings)
        report = counted(settings.on_step, settings.frames)
        new = self._new(prompt, settings, [settings.seed], chunk_seconds, report)
        opening = [prompt[None]] if len(prompt) else []
        codec = copy.copy(self.codec)
        codec.chunk_seconds = chunk_seconds
        known = len(prompt) * codec.info.hop_length
        chunks = codec.decode_blocks(block[0].T.astype(np.int32) for block in chain(opening, new))
        return live(self._take(self._cut(chunks, known + settings.samples), settings, known), options)

    def takes(self, options: Options, count: int = 1, *, folder: Path | None = None) -> Iterator[Take]:
        """So many clips, as a command writes them: all are made before the first is handed on."""
        settings = self._resolved(options)
        for row, codes in enumerate(self._codes(settings, count)):
            known = (codes.length or 0) - settings.samples
            told = replace(settings, seed=settings.seed + row)
            yield self._take(iter([self.codec.decode(codes)]), told, known)

    @verb(Following)
    def settings(self, options: Following) -> ClipSettings:
        """Options with nothing left open, as they would be carried out. Raises OptionError."""
        return self._resolved(options)

    def _resolved(self, options: Options) -> ClipSettings:
        return resolve(options, self.sampling, self.codec.info.sample_rate, self.codec.info.hop_length)

    def _codes(self, settings: ClipSettings, count: int) -> list[Codes]:
        """The codes of each clip, the prompt's included."""
        if not 1 <= count <= MOST:
            raise OptionError(f"from 1 to {MOST} clips can be asked for, got {count}")
        info, prompt = self.codec.info, self._prompt(settings)
        seeds = range(settings.seed, settings.seed + count)
        on_cpu = self.model.wte.weight.device.type == "cpu"
        report = counted(settings.on_step, count * settings.frames)
        length = len(prompt) * info.hop_length + settings.samples
        clips: list[Codes] = []
        for group in [[seed] for seed in seeds] if on_cpu else [list(seeds)]:
            blocks = list(self._new(prompt, settings, group, BLOCK_SECONDS, report))
            for row in np.concatenate(blocks, axis=1):
                values = np.concatenate([prompt, row]).T.astype(np.int32)  # (frames, K) -> (K, frames)
                clips.append(Codes(values, info.codebook_size, info.frame_rate, info.name, length))
        return clips

    def _new(
        self,
        prompt: Ints,
        settings: ClipSettings,
        seeds: Sequence[int],
        block_seconds: float,
        report: Callable[[int], None],
    ) -> Iterator[Ints]:
        """The codes that follow a prompt: (B, n, K), block by block."""
        from audiogen_minigpt.sampling import continue_codes

        size = max(1, round(block_seconds * self.codec.info.frame_rate))
        for block in continue_codes(self.model, prompt, settings.frames, seeds, settings.sampling, size):
            report(len(seeds) * block.shape[1])
            yield block

    def _take(self, pieces: Iterator[Audio], settings: ClipSettings, known: int) -> Take:
        info = self.codec.info
        seconds = settings.asked["seconds"] if settings.keep_original else None
        return Take(
            pieces, info.sample_rate, info.channels, settings.asked, settings.seed, None, known, seconds
        )

    def _prompt(self, settings: ClipSettings) -> Ints:
        """The codes (P, K) of the whole frames of a prompt; P = 0 without one."""
        info, clip = self.codec.info, settings.prompt_audio
        if clip is None:
            return np.zeros((0, self.config.codebooks), np.int64)
        audio = clip if isinstance(clip, Audio) else Audio.load(clip)
        audio = audio.resample(info.sample_rate).mix(info.channels)
        frames = audio.samples.shape[1] // info.hop_length
        if frames == 0:
            raise AudioError(
                f"the prompt has {audio.duration:.4f} s, which is less than a frame of {info.name} "
                f"({1 / info.frame_rate:.4f} s); give a longer one"
            )
        # A frame that is begun would be continued as if silence followed it.
        if settings.keep_original:  # then the last one is to end where the clip does
            audio = Audio(audio.samples[:, audio.samples.shape[1] % info.hop_length :], audio.sample_rate)
        return self.codec.encode(audio, self.config.codebooks).values[:, :frames].T.astype(np.int64)

    def _cut(self, chunks: Iterator[NDArray[np.float32]], stop: int) -> Iterator[Audio]:
        """So many samples of a clip that comes in chunks (channels, n)."""
        at = 0
        for chunk in chunks:
            part = chunk[:, : max(0, stop - at)]
            at += chunk.shape[1]
            if part.shape[1]:
                yield Audio(part, self.codec.info.sample_rate)


def estimate(load: Load, options: Options, *, offline: bool) -> dict[str, Any]:
    """What a run would do, found out without loading the model. Raises ModelError, DownloadError."""
    from audiogen_core import hub
    from audiogen_core.codecs.catalog import CATALOG as CODECS

    policy = hub.Policy(offline=offline, listed=True, notify=warnings.warn)
    saved = checkpoint.find(load.model, load.chosen)
    facts = saved.facts
    settings = resolve(options, saved.sampling, facts["sample_rate"], facts["hop_length"])
    codec = load.codec or str(facts["codec"])
    fetched = codec in CODECS and not Path(codec).exists()
    return {
        "model": load.model,
        "revision": saved.revision,
        "codec": codec,
        "download_bytes": hub.plan(CODECS[codec], policy).bytes if fetched else 0,
        "weight_bytes": (saved.path / "model.safetensors").stat().st_size,
        "frames": settings.frames,
        **settings.asked,
    }


def sound(load: Load, options: Options) -> Sound:
    """What a run makes, as the checkpoint says. Raises ModelError."""
    path = load.model if load.revision is None else checkpoint.at(load.model, load.revision)
    facts = checkpoint.find(path, load.chosen).facts
    codec = FACTS.get(str(facts.get("codec")))
    seconds, clip = options.seconds, options.prompt_audio
    if clip is not None and options.after != options.only_new:
        seconds += seconds_of(clip) if options.after else -seconds_of(clip)
    return Sound(facts["sample_rate"], None if codec is None else codec.channels, seconds)


def check_codec(codec: Codec, config: ModelConfig, facts: Mapping[str, Any]) -> None:
    """Raise ModelError unless a model's codes, of data of these facts, are those of the codec."""
    info = codec.info
    trained_on = facts.get("codec")
    known = facts.get("codec_hash")
    if trained_on is not None and not info.accepts(str(trained_on)):
        raise ModelError(f"the model was trained on codes of {trained_on}, the codec given is {info.name}")
    if known and fingerprint(codec.codebook_vectors()) != known:
        raise ModelError(f"the model was trained on codes of another {info.name}: its codebooks differ")
    if config.codebook_size != info.codebook_size or config.codebooks > info.codebooks:
        raise ModelError(
            f"the model draws {config.codebooks} codebooks of {config.codebook_size}, but {info.name} has "
            f"{info.codebooks} of {info.codebook_size}"
        )
