"""VampNet as a whole: from sound, or codes, to new sound, or codes."""

from __future__ import annotations

import secrets
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from audiogen_core import lora
from audiogen_core.audio import SILENCE, Audio, check_rate
from audiogen_core.codec import Codec
from audiogen_core.codes import Codes
from audiogen_core.errors import AudioError, ManifestError, OptionError
from audiogen_core.hub import asking
from audiogen_core.jobs import MOST, Model, Take, imported
from audiogen_core.noise import Noise
from audiogen_core.options import described, verb
from audiogen_core.threads import use as use_threads
from audiogen_core.values import closed
from audiogen_onnx.manifest import LOUDNESS, NAME, Manifest, sha256
from audiogen_onnx.session import Session, providers_of
from audiogen_onnx.vampnet.clip import Clip, Made
from audiogen_onnx.vampnet.mask import Mask
from audiogen_onnx.vampnet.mask_file import load_mask
from audiogen_onnx.vampnet.network import Network
from audiogen_onnx.vampnet.options import (
    Asked,
    Batch,
    CodeOptions,
    Drawn,
    Load,
    Options,
    VampOptions,
)
from audiogen_onnx.vampnet.pair import Pair
from audiogen_onnx.vampnet.sampling import check_codes, check_mask
from audiogen_onnx.vampnet.sound import ClipSource, FileSource, Source, as_original
from audiogen_onnx.vampnet.wavebeat import BeatTracker

Kind = TypeVar("Kind", Codes, NDArray[Any])


@dataclass(frozen=True, eq=False)
class Variation:
    """One result: its sound, the seed that gives it alone (None where the noise was given), the mean log
    probability of what was drawn, and the mask (codebooks, frames).
    """

    audio: Audio
    seed: int | None
    confidence: float
    mask: Mask


@dataclass(frozen=True, eq=False, repr=False)
class Vampnet(Model):
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
    opening   how it was loaded; without it its clips carry no recipe
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
    opening: Load | None = None

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
    @verb(Load)
    def load(cls, opening: Load) -> Vampnet:
        """An exported folder, or a model of the catalogue by its name: `demo` comes with the package, what is
        fetched is exported the first time, which needs the extra `export`.

        Raises UnknownModel, DownloadError, MissingDependency; ManifestError when the folder is none, or its
        files are not those it describes; WeightsError when a lora does not fit; OptionError for a provider
        that is not installed or an impossible number of threads.
        """
        from audiogen_onnx.codec import codec_of
        from audiogen_onnx.vampnet.lora import Adapters

        exported = imported("audiogen_onnx.exporter.export:exported")  # by name: to run takes no exporter
        fetch, providers = opening.fetch, providers_of(opening.device, opening.providers)
        folder = exported(opening.model, notify=warnings.warn, fetch=fetch, unlisted=opening.unlisted)
        threads = use_threads(opening.threads)
        wanted = lora.local(opening.lora or (), fetch or asking(unlisted=opening.unlisted))
        with Manifest.opened(folder, verify=opening.verify) as manifest:
            adapters = Adapters.read(wanted, manifest, folder)

            def session(name: str) -> Session:
                return Session(manifest.graph_path(folder, name), providers, threads, adapters.change(name))

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
            str(opening.model),
            revision,
            geometry.loudness,
            manifest.defaults,
            tracker,
            threads,
            opening,
        )

    @property
    def sample_rate(self) -> int:
        """Hz of its codec, and of what `vamp` makes."""
        return self.codec.info.sample_rate

    @property
    def channels(self) -> int:
        """Of its codec; a clip is made with as many as it has."""
        return self.codec.info.channels

    def options(self, asked: Mapping[str, Any]) -> VampOptions:
        """What was asked for, with this model's defaults for the rest. Raises OptionError."""
        return VampOptions.of({**self.defaults, **asked})

    # ---- codes

    @verb(CodeOptions)
    def vamp_codes(self, codes: Kind, mask: ArrayLike, options: CodeOptions) -> Kind:
        """Codes with the masked places made by both networks, of any length.

        codes    Codes, or an array (K, F) or (B, K, F); the same kind comes back
        mask     bool of the shape of the codes, True = generate; (F,) and (K, F) hold for all

        Of the options those count that concern sampling, and `loop`; compat="upstream" goes the original's
        way. Item i of a batch draws from seed + i. Raises CodesError when codes and mask do not fit.
        """
        chosen = self.options(options.chosen())
        if isinstance(codes, Codes):
            self.codec.check(codes)
        values = check_codes(codes.values if isinstance(codes, Codes) else codes)
        masked = check_mask(mask, values)
        batch, chosen_mask = values.reshape(-1, *values.shape[-2:]), masked.reshape(-1, *masked.shape[-2:])
        made = self.pair.make(batch, chosen_mask, chosen, source_of(options), options.on_step)
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

    @verb(Options)
    def generate(self, options: Options) -> Audio:
        """New sound from a clip: of its length, its loudness, its channels and its rate.

        Channels are made one by one, with the same mask and the same random numbers. Raises AudioError for a
        clip that cannot be encoded, CodesError for a mask that does not fit, OptionError for options.
        """
        return self.clip(options)

    @verb(Options)
    def stream(self, options: Options) -> Iterator[Audio]:
        """As `generate`, in pieces, decoded as they are taken; the codes are all made before the first."""
        return self.pieces(options)

    @verb(Options)
    def vamp(self, options: Options) -> Audio:
        """As `generate`, at the rate of the codec unless a `sample_rate` is given."""
        return self.clip(self._at_own_rate(options))

    @verb(Batch)
    @closed()
    def vamp_variations(self, audio: Audio | str | Path, count: int, options: Batch) -> Iterator[Variation]:
        """As `vamp`: all variations, the one the networks were surest of first.

        Each is decoded when it is asked for.
        """
        if not 1 <= count <= MOST:
            raise OptionError(f"variations must be from 1 to {MOST}, got {count}")
        said = {each.name: getattr(options, each.name) for each in described(type(options))}
        asked = self._at_own_rate(Options.of({**said, "audio": audio}))
        clip, results = self._results(asked, count)
        return (
            Variation(
                self.whole(self._take(clip, asked, result), asked),
                result.seed,
                result.confidence,
                result.mask,
            )
            for result in results
        )

    def takes(self, options: Options, count: int = 1, *, folder: Path | None = None) -> Iterator[Take]:
        """So many variations, as a command writes them, the one the networks were surest of first.

        All are made before the first is given, and decoded in blocks as they are taken. folder is for a
        temporary file, where one does not fit into memory. Raises OptionError, AudioError, CodesError.
        """
        clip, results = self._results(options, max(count, options.variations))
        for result in results:
            yield self._take(clip, options, result, folder)

    def _results(self, options: Options, count: int) -> tuple[Clip, list[Made]]:
        """The clip of a job, and what was made of it."""
        clip, mask = self.prepared(options)
        return clip, clip.make(mask, source_of(options), count, options.on_step)

    def _take(self, clip: Clip, options: Options, result: Made, folder: Path | None = None) -> Take:
        rate = options.sample_rate or clip.source.sample_rate
        settings: dict[str, Any] = {"sample_rate": rate, "options": clip.options.asked()}
        if isinstance(options.audio, str | Path):
            settings["audio"] = str(options.audio)
        if options.mask is not None:
            settings["mask"] = str(options.mask)
        pieces = (Audio(block, rate) for block in clip.sound(result, rate, folder) if block.shape[1])
        own, channels = clip.options, clip.source.channels
        closed = own.loop or own.outpaints or own.infill is not None
        return Take(pieces, rate, channels, settings, result.seed, result.confidence, closed=closed)

    def _at_own_rate(self, options: Options) -> Options:
        return options if options.sample_rate else replace(options, sample_rate=self.sample_rate)

    def prepared(self, asked: Asked) -> tuple[Clip, ArrayLike | None]:
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
        if clip.levels.peak < SILENCE:
            name = f"the clip {asked.audio}" if isinstance(asked.audio, str | Path) else "the clip"
            raise AudioError(f"{name} is silent: nothing in it reaches -80 dB, so there is nothing to keep")
        if asked.mask is None:
            return clip, asked.mask_array
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


def source_of(options: Drawn) -> Noise | int:
    """The noise, or the seed, or a seed that is drawn."""
    if options.noise is not None:
        return options.noise
    return secrets.randbits(32) if options.seed is None else options.seed
