"""VampNet as a whole: from sound, or codes, to new sound, or codes."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from audiogen_core.audio import Audio, check_rate
from audiogen_core.codec import Codec
from audiogen_core.codes import Codes
from audiogen_core.errors import ManifestError, OptionError
from audiogen_core.jobs import MOST, Take
from audiogen_core.models import Fetch
from audiogen_core.noise import Noise
from audiogen_core.threads import use as use_threads
from audiogen_core.values import closed
from audiogen_onnx.catalog import located
from audiogen_onnx.manifest import LOUDNESS, NAME, Manifest, sha256
from audiogen_onnx.session import Session
from audiogen_onnx.vampnet.clip import Clip
from audiogen_onnx.vampnet.draw import Int
from audiogen_onnx.vampnet.mask import Mask
from audiogen_onnx.vampnet.mask_file import load_mask
from audiogen_onnx.vampnet.network import Network
from audiogen_onnx.vampnet.options import Asked, VampOptions
from audiogen_onnx.vampnet.pair import Pair
from audiogen_onnx.vampnet.sampling import OnStep, check_codes, check_mask
from audiogen_onnx.vampnet.sound import ClipSource, FileSource, Source, as_original
from audiogen_onnx.vampnet.wavebeat import BeatTracker


@dataclass(frozen=True, eq=False)
class Variation:
    """One result: its sound, the seed that gives it alone (None where the noise was given), the mean log
    probability of what was drawn, and the mask (codebooks, frames).
    """

    audio: Audio
    seed: int | None
    confidence: float
    mask: Mask


@dataclass(frozen=True, eq=False)
class Vampnet:
    """VampNet: a codec and two networks.

    codec     of one channel: LAC, or another that the networks were trained on
    coarse    makes the first rows of codes
    fine      makes the rest, given the first
    name      where it was loaded from
    revision  hash of what was loaded, for recipes
    loudness  LUFS that sound is brought to before it is encoded
    defaults  options of a vamp that suit this model, for those that are not asked for
    tracker   opens the beat tracker that belongs to it, where there is one
    threads   that compute, for recipes
    """

    codec: Codec
    coarse: Network
    fine: Network
    name: str = ""
    revision: str = ""
    loudness: float = LOUDNESS
    defaults: Mapping[str, Any] = field(default_factory=dict)
    tracker: Callable[[], BeatTracker] | None = None
    threads: int = 1

    def __post_init__(self) -> None:
        info, size = self.codec.info, self.codec.info.codebook_size
        sizes = {self.coarse.codebook_size, self.fine.codebook_size}
        if sizes != {size} or self.fine.codebooks > info.codebooks or info.channels != 1:
            raise ManifestError(
                f"the parts do not belong together: {info.name} has {info.codebooks} codebooks of {size} and "
                f"{info.channels} channel(s), the networks read {self.fine.codebooks} of {sorted(sizes)}"
            )
        if self.coarse.codebooks != self.fine.conditioning_codebooks or self.coarse.conditioning_codebooks:
            raise ManifestError(
                f"the coarse network makes {self.coarse.codebooks} codebooks and the fine one is given "
                f"{self.fine.conditioning_codebooks}: they do not belong together"
            )

    @classmethod
    @closed()
    def load(
        cls,
        path: str | Path,
        *,
        providers: Sequence[str] | None = None,
        threads: int | None = None,
        verify: bool = False,
        fetch: Fetch | None = None,
    ) -> Vampnet:
        """An exported folder, or a model that comes with the package, by its name (`demo`).

        providers  onnxruntime's execution providers in order of preference; None: the processor
        threads    that compute; None: as the environment says, or all cores
        verify     check the hash of every file first, not only names and sizes
        fetch      how the codec comes that the folder names, where it has none of its own; see
                   `audiogen_core.codecs.load`

        Raises ManifestError when the folder is none, or its files are not those it describes, OptionError for
        a provider that is not installed or an impossible number of threads.
        """
        from audiogen_onnx.codec import codec_of

        folder = located(path)
        manifest = Manifest.load(folder, verify=verify)
        threads = use_threads(threads)

        def session(name: str) -> Session:
            return Session(manifest.graph_path(folder, name), providers, threads)

        geometry = manifest.codec
        codec = codec_of(manifest, folder, providers, threads, fetch)
        coarse = Network.of("coarse", manifest.coarse, geometry, session("coarse"))
        fine = Network.of("fine", manifest.fine, geometry, session("fine"))
        revision = sha256(folder / NAME)[:16]
        tracker = partial(BeatTracker.of, folder, providers, threads)
        return cls(
            codec,
            coarse,
            fine,
            str(path),
            revision,
            geometry.loudness,
            manifest.defaults,
            tracker,
            threads,
        )

    def options(self, asked: Mapping[str, Any]) -> VampOptions:
        """What was asked for, with this model's defaults for the rest. Raises OptionError."""
        return VampOptions.of({**self.defaults, **asked})

    # ---- codes

    @overload
    def vamp_codes(
        self, codes: Codes, mask: ArrayLike, *, seed: int | None = ..., noise: Noise | None = ...,
        on_step: OnStep | None = ..., **options: Any,
    ) -> Codes: ...  # fmt: skip
    @overload
    def vamp_codes(
        self, codes: NDArray[Any], mask: ArrayLike, *, seed: int | None = ..., noise: Noise | None = ...,
        on_step: OnStep | None = ..., **options: Any,
    ) -> Int: ...  # fmt: skip

    @closed()
    def vamp_codes(
        self,
        codes: Codes | NDArray[Any],
        mask: ArrayLike,
        *,
        seed: int | None = None,
        noise: Noise | None = None,
        on_step: OnStep | None = None,
        **options: Any,
    ) -> Codes | Int:
        """Codes with the masked places made by both networks, of any length.

        codes    Codes, or an array (K, F) or (B, K, F); the same kind comes back
        mask     bool of the shape of the codes, True = generate; (F,) and (K, F) hold for all
        seed     item i of a batch draws from seed + i. None draws a seed
        noise    a source of random numbers instead of a seed
        options  the fields of VampOptions that concern sampling, and `loop`; compat="upstream" goes the
                 original's way

        Raises CodesError when codes and mask do not fit, OptionError for options out of range.
        """
        chosen = self.options(options)
        if isinstance(codes, Codes):
            self.codec.check(codes)
        values = check_codes(codes.values if isinstance(codes, Codes) else codes)
        masked = check_mask(mask, values)
        batch, chosen_mask = values.reshape(-1, *values.shape[-2:]), masked.reshape(-1, *masked.shape[-2:])
        made = self.pair.make(batch, chosen_mask, chosen, source_of(seed, noise), on_step)
        result = made.codes.reshape(*values.shape[:-2], *made.codes.shape[-2:])
        if not isinstance(codes, Codes):
            return result
        length = None if codes.length is None else codes.length * chosen.time_stretch_factor
        return replace(codes, values=result.astype(np.int32), length=length, scales=None)

    @property
    def pair(self) -> Pair:
        """Both networks."""
        info = self.codec.info
        return Pair(self.coarse, self.fine, info.sample_rate, info.hop_length)

    # ---- sound

    @closed()
    def vamp(
        self,
        audio: Audio | str | Path,
        *,
        mask: ArrayLike | None = None,
        variations: int = 1,
        sample_rate: int | None = None,
        seed: int | None = None,
        noise: Noise | None = None,
        on_step: OnStep | None = None,
        **options: Any,
    ) -> Audio:
        """New sound from a clip: of its length, its loudness and its channels.

        audio        a clip, or a sound file
        mask         (codebooks, frames) or (frames,) of the codec, True = generate: nothing else is made
        variations   of which the one the networks were surest of is returned
        sample_rate  of the result, Hz; None: the codec's
        seed         variation i is what seed + i gives alone. None draws a seed
        noise        a source of random numbers instead of a seed
        on_step      called with (steps done, steps); what it raises stops the work
        options      the fields of VampOptions

        Channels are made one by one, with the same mask and the same random numbers. Raises AudioError for a
        clip that cannot be encoded, CodesError for a mask that does not fit, OptionError for options.
        """
        results = self.vamp_variations(
            audio,
            variations,
            mask=mask,
            sample_rate=sample_rate,
            seed=seed,
            noise=noise,
            on_step=on_step,
            **options,
        )
        return next(results).audio

    @closed()
    def vamp_variations(
        self,
        audio: Audio | str | Path,
        count: int,
        *,
        mask: ArrayLike | None = None,
        sample_rate: int | None = None,
        seed: int | None = None,
        noise: Noise | None = None,
        on_step: OnStep | None = None,
        **options: Any,
    ) -> Iterator[Variation]:
        """As `vamp`: all variations, the one the networks were surest of first.

        Each is decoded when it is asked for.
        """
        if not 1 <= count <= MOST:
            raise OptionError(f"variations must be from 1 to {MOST}, got {count}")
        rate = self.codec.info.sample_rate if sample_rate is None else check_rate(sample_rate)
        clip = self.open(audio, self.options(options))
        return (
            Variation(
                Audio(np.concatenate(list(clip.sound(result, rate)), axis=1), rate),
                result.seed,
                result.confidence,
                result.mask,
            )
            for result in clip.make(mask, source_of(seed, noise), count, on_step)
        )

    def takes(self, asked: Asked, count: int = 1, *, folder: Path | None = None) -> Iterator[Take]:
        """So many variations, as a command writes them, the one the networks were surest of first.

        All are made before the first is given, and decoded in blocks as they are taken. folder is for a
        temporary file, where one does not fit into memory. Raises OptionError, AudioError, CodesError.
        """
        clip, mask = self.prepared(asked)
        rate = clip.source.sample_rate if asked.sample_rate is None else asked.sample_rate
        settings: dict[str, Any] = {"sample_rate": rate, "options": clip.options.asked()}
        if not isinstance(asked.audio, Audio):
            settings["audio"] = str(asked.audio)
        if asked.mask is not None:
            settings["mask"] = str(asked.mask)
        for result in clip.make(mask, source_of(asked.seed, None), count, asked.on_step):
            pieces = (Audio(block, rate) for block in clip.sound(result, rate, folder) if block.shape[1])
            yield Take(pieces, rate, clip.source.channels, settings, result.seed, result.confidence)

    def prepared(self, asked: Asked) -> tuple[Clip, Mask | None]:
        """The clip of a job, measured, with all its options decided; and the mask that was given for it."""
        chosen = asked.chosen()
        if asked.sample_rate is not None:
            check_rate(asked.sample_rate)
        if asked.track_beats:
            if self.tracker is None:
                raise OptionError("this model has no beat tracker: name beats by bpm or a list of times")
            audio = asked.audio if isinstance(asked.audio, Audio) else Audio.load(asked.audio)
            chosen["beats"] = self.tracker().track(audio)
        clip = self.open(asked.audio, self.options(chosen))
        if asked.mask is None:
            return clip, None
        info, layout = self.codec.info, clip.layout
        mask = load_mask(
            asked.mask,
            codebooks=layout.codebooks,
            frames=layout.frames,
            sample_rate=info.sample_rate,
            hop_length=info.hop_length,
        )
        return clip, mask

    def open(self, audio: Audio | str | Path, options: VampOptions) -> Clip:
        """A clip, or a sound file of any length, measured, to be vamped in bounded memory.

        With compat="upstream" a file is read whole: the original's resampling needs that.
        """
        source: Source
        if options.compat == "upstream":
            audio = audio if isinstance(audio, Audio) else Audio.load(audio)
            source = ClipSource(as_original(audio, self.codec.info.sample_rate))
        else:
            source = ClipSource(audio) if isinstance(audio, Audio) else FileSource.open(audio)
        return Clip.open(self.codec, self.pair, self.loudness, source, options)


def source_of(seed: int | None, noise: Noise | None) -> Noise | int:
    """The noise, or the seed, or a seed that is drawn. Raises OptionError when both are given."""
    if noise is not None and seed is not None:
        raise OptionError("give a seed or noise, not both")
    if noise is not None:
        return noise
    if seed is not None and seed < 0:
        raise OptionError(f"seed must be 0 or more, got {seed}")
    return secrets.randbits(32) if seed is None else seed
