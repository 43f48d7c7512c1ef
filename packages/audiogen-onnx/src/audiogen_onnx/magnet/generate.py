"""MAGNeT in onnxruntime: from a prompt to music or sound."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from audiogen_core.audio import Audio
from audiogen_core.codec import Codec
from audiogen_core.codes import Codes
from audiogen_core.errors import OptionError
from audiogen_core.jobs import Model, Take, imported
from audiogen_core.musicgen.conditioning import Floats, Tokens, read
from audiogen_core.musicgen.generate import check_prompts
from audiogen_core.musicgen.windows import STRIDE_SHARE, Window, plan
from audiogen_core.noise import Noise, SeededNoise
from audiogen_core.options import verb
from audiogen_core.progress import counted
from audiogen_core.store import cut
from audiogen_core.threads import use as use_threads
from audiogen_core.tokenizer import Tokenizer
from audiogen_core.values import closed
from audiogen_onnx.magnet.manifest import GRAPHS, MagnetManifest
from audiogen_onnx.magnet.network import Network
from audiogen_onnx.magnet.options import Batch, Load, Options, Settings, resolve
from audiogen_onnx.magnet.staged import Bools, Ints, fill
from audiogen_onnx.manifest import NAME, sha256
from audiogen_onnx.musicgen.load import codec_of
from audiogen_onnx.musicgen.manifest import TOKENIZER
from audiogen_onnx.session import Session, providers_of
from audiogen_onnx.vampnet.clip import FADE, MARGIN
from audiogen_onnx.vampnet.sound import Circle, glide

JOINT = 1.0
"""Seconds on either side of the joint of a loop that are made once more, with both sides known."""


class Magnet(Model):
    """A model, ready to generate. Make one with `load`."""

    def __init__(
        self,
        manifest: MagnetManifest,
        folder: Path,
        threads: int,
        opening: Load | None = None,
        name: str = "",
    ) -> None:
        opening = opening or Load(str(folder))
        providers = providers_of(opening.device, opening.providers)
        self.config, self.folder, self.threads, self.opening = manifest.config, folder, threads, opening
        self.name = name or str(folder)
        network, self._text, cross = (
            Session(manifest.graph_path(folder, each), providers, threads) for each in GRAPHS
        )
        self._text.expect(["ids", "mask"], ["vectors"])
        self.network = Network(manifest.config, network, cross)
        self.codec: Codec = codec_of(manifest, folder, opening.fetch)
        self.tokenizer = Tokenizer.load(folder / TOKENIZER)

    @classmethod
    @verb(Load)
    def load(cls, opening: Load) -> Magnet:
        """An exported folder, or a model of the catalogue by its name, which is fetched and exported the
        first time; that needs the extra `export`.

        Raises UnknownModel, DownloadError, MissingDependency; ManifestError when the folder is none, or its
        files are not those it describes; OptionError for a provider that is not installed or an impossible
        number of threads.
        """
        exported = imported("audiogen_onnx.exporter.magnet:exported")  # to run takes no exporter
        folder = exported(opening.model, notify=warnings.warn, fetch=opening.fetch, unlisted=opening.unlisted)
        threads = use_threads(opening.threads)
        with MagnetManifest.opened(folder, verify=opening.verify) as manifest:
            return cls(manifest, folder, threads, opening, str(opening.model))

    @property
    def sample_rate(self) -> int:
        """Hz of what it makes."""
        return self.codec.info.sample_rate

    @property
    def channels(self) -> int:
        """Of what it makes."""
        return self.codec.info.channels

    @cached_property
    def revision(self) -> str:
        """Hash of what was loaded, for recipes."""
        return sha256(self.folder / NAME)[:16]

    @verb(Options)
    def generate(self, options: Options) -> Audio:
        """A clip of exactly round(seconds * sample rate) samples. `prompt` None: without a description.

        Raises OptionError for options out of range or that do not fit the model, AudioError for clips that
        cannot be used.
        """
        return self.clip(options)

    @verb(Options)
    def stream(self, options: Options) -> Iterator[Audio]:
        """As `generate`, in pieces, decoded as they are taken."""
        return self.pieces(options)

    @verb(Batch)
    def generate_codes_batch(self, prompts: Sequence[str | None], options: Batch) -> list[Codes]:
        """The codes of one clip per prompt, in one run; clip i is what its prompt gives with seed + i."""
        check_prompts(prompts)
        settings, info = self._resolved(options), self.codec.info
        known, keep, seconds = self._known(options, settings)
        known = np.repeat(known, len(prompts), axis=0)
        made = self._made(prompts, options, settings, known, keep, settings.seed)
        samples, size = round(seconds * info.sample_rate), info.codebook_size
        return [Codes(one.astype(np.int32), size, info.frame_rate, info.name, samples) for one in made]

    @verb(Batch)
    def settings(self, options: Batch) -> Settings:
        """Options with nothing left open, as they would be carried out. Raises OptionError."""
        return self._resolved(options)

    @closed()
    def decode(self, codes: Codes) -> Audio:
        """The sound of codes. Raises CodesError when another codec made them."""
        return self.codec.decode(codes)

    def takes(self, options: Options, count: int = 1, *, folder: Path | None = None) -> Iterator[Take]:
        """So many clips, as a command writes them, with seeds that count up.

        Raises OptionError, AudioError.
        """
        settings, info = self._resolved(options), self.codec.info
        known, keep, seconds = self._known(options, settings)
        begun = 0 if options.prompt_audio is None else int(keep.sum()) * info.hop_length
        for index in range(count):
            seed = settings.seed + index
            made = self._made([options.prompt], options, settings, known, keep, seed)
            pieces = self._pieces(made[0], round(seconds * info.sample_rate), loop=options.loop)
            yield Take(
                pieces,
                info.sample_rate,
                info.channels,
                settings.asked,
                seed,
                None,
                begun,
                seconds if begun else None,
                closed=options.loop or options.inpaint is not None,
            )

    # What a run consists of

    def _resolved(self, options: Batch) -> Settings:
        return resolve(self.config, self.codec.info.frame_rate, options)

    def _pieces(self, codes: Ints, length: int, *, loop: bool) -> Iterator[Audio]:
        sound = self._ring(codes, length) if loop else self._sound(codes, 0, length)
        return (Audio(block, self.sample_rate) for block in sound)

    def _sound(self, codes: Ints, start: int, length: int) -> Iterator[Floats]:
        """So many samples of what codes (K, F) sound like, in blocks (channels, n)."""
        return cut(self.codec.decode_blocks([codes]), start, length, self.channels)

    def _ring(self, codes: Ints, length: int) -> Iterator[Floats]:
        """The same of codes whose last frame is followed by the first."""
        info = self.codec.info
        circle = Circle(length, info.hop_length, min(math.ceil(MARGIN * info.frame_rate), codes.shape[1]))
        around, start = circle.codes(codes), circle.margin * circle.hop
        fade = min(round(FADE * info.sample_rate), start, length)
        lead = np.concatenate(list(self._sound(around, start - fade, fade)), axis=1)
        return glide(self._sound(around, start, length), length, lead)

    def _known(self, options: Batch, settings: Settings) -> tuple[Ints, Bools, float]:
        """The codes (1, K, T) of the clip, which frames of them are kept (T,), and its seconds."""
        info, books = self.codec.info, self.config.network.codebooks
        clip = options.prompt_audio if options.init_audio is None else options.init_audio
        if clip is None:
            return (
                np.zeros((1, books, settings.frames), np.int64),
                np.zeros(settings.frames, np.bool_),
                settings.seconds,
            )
        heard = clip if isinstance(clip, Audio) else Audio.load(clip)
        heard = heard.mix(info.channels).resample(info.sample_rate)
        codes = self.codec.encode(heard, codebooks=books).values.astype(np.int64)
        if options.inpaint is not None:
            return (
                codes[None],
                self._kept(options.inpaint, codes.shape[1], heard.duration, settings),
                heard.duration,
            )
        if codes.shape[1] >= settings.frames:
            raise OptionError(
                f"the clip to continue has {codes.shape[1]} frames and {settings.frames} are asked for in "
                "all; ask for more seconds"
            )
        known = np.pad(codes, ((0, 0), (0, settings.frames - codes.shape[1])))
        return known[None], np.arange(settings.frames) < codes.shape[1], settings.seconds

    def _kept(
        self, spans: tuple[tuple[float, float], ...], frames: int, seconds: float, settings: Settings
    ) -> Bools:
        """Frames (T,) that lie in none of the spans."""
        if frames > settings.window:
            raise OptionError(
                f"{seconds:g} s are too long to inpaint; this model takes {self.config.seconds:g} s"
            )
        keep, rate = np.ones(frames, np.bool_), self.codec.info.frame_rate
        for start, end in spans:
            if not 0 <= start < end <= seconds + 1 / rate:
                raise OptionError(f"inpaint: {start:g}:{end:g} does not lie within the clip of {seconds:g} s")
            keep[math.floor(start * rate) : math.ceil(end * rate)] = False
        return keep

    def _made(
        self,
        prompts: Sequence[str | None],
        options: Batch,
        settings: Settings,
        known: Ints,
        keep: Bools,
        seed: int,
    ) -> Ints:
        """Codes (B, K, T), window by window."""
        staging, noise = settings.staging, SeededNoise(seed)
        frames = known.shape[2]
        windows = [Window(0, 0, frames)]
        if options.inpaint is None and frames > settings.window:
            stride = max(1, math.floor(STRIDE_SHARE * settings.window))
            windows = plan(frames, int(keep.sum()), settings.window, stride)
        text, mask = self._conditions(prompts, options)
        add = counted(options.on_step, sum(staging.steps) * (len(windows) + options.loop))

        def filled(codes: Ints, kept: Bools) -> Ints:
            return self._filled(text, mask, len(prompts), codes, kept, settings, noise, add)

        made = known.copy()
        for window in windows:
            part = slice(window.start, window.start + window.frames)
            begun = np.arange(window.frames) < window.prompt
            made[:, :, part] = filled(made[:, :, part], keep[part] | begun)
        return self._joined(made, settings, filled) if options.loop else made

    def _joined(self, codes: Ints, settings: Settings, filled: Callable[[Ints, Bools], Ints]) -> Ints:
        """Codes (B, K, T) whose end leads into the beginning: the frames around that place are made once
        more, in a window that has it in its middle.
        """
        middle = codes.shape[2] // 2
        turned = np.roll(codes, middle, axis=2)
        size = min(codes.shape[2], settings.window)
        start = middle - size // 2
        near = turned[:, :, start : start + size]
        reach = min(round(JOINT * self.codec.info.frame_rate), max(1, size // 4))
        keep = np.abs(np.arange(size) + 0.5 - size // 2) > reach
        turned[:, :, start : start + size] = filled(near, keep)
        return np.roll(turned, -middle, axis=2)

    def _filled(
        self,
        text: Floats,
        mask: Bools | None,
        count: int,
        known: Ints,
        keep: Bools,
        settings: Settings,
        noise: Noise,
        add: Any,
    ) -> Ints:
        """One window; what separate spans do not fill at its end is made too, and cut off."""
        staging, frames = settings.staging, known.shape[2]
        spare = -frames % staging.span_length if staging.by_span else 0
        known = np.pad(known, ((0, 0), (0, 0), (0, spare)))
        guided = staging.guidance != (1.0, 1.0) and bool(text.any())
        run = self.network.run(text, mask, 2 * count if guided else count)

        def logits(codes: Ints, stage: int) -> tuple[Floats, Floats | None]:
            if not guided:
                return run(codes, stage, stage), None
            both = run(np.concatenate([codes, codes]), stage, stage)
            return both[:count], both[count:]

        special = self.config.network.special
        made = fill(known, np.pad(keep, (0, spare)), special, logits, staging, noise, lambda *_: add(1))
        return made[:, :, :frames]

    def text(self, ids: Tokens, mask: Bools) -> Floats:
        """Token ids and mask (1, L) -> the vectors (L, width) of a text."""
        vectors: Floats = self._text.run({"ids": ids.astype(np.int64), "mask": mask})["vectors"][0]
        return vectors

    def _conditions(self, prompts: Sequence[str | None], options: Batch) -> tuple[Floats, Bools | None]:
        """Texts (B, L, width), each encoded by itself, and what of them is real; None is zeros."""
        width = self.config.network.width
        texts = []
        for prompt in prompts:
            if prompt is None:
                texts.append(np.zeros((1, width), np.float32))
                continue
            self.tokenizer.tell_unknown(prompt)
            texts.append(self.text(*read(self.tokenizer, prompt)))
        lengths = np.array([len(text) for text in texts])
        longest = int(lengths.max())
        rows = np.stack([np.pad(text, ((0, longest - len(text)), (0, 0))) for text in texts])
        mask = np.arange(longest) < lengths[:, None]
        return rows, None if options.compat == "upstream" or mask.all() else mask
