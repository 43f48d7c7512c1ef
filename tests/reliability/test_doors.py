"""Values of wrong type and range at every public call: each ends in a result or in our error, and soon."""

from __future__ import annotations

import collections
import itertools
import math
import random
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import audiogen_minigpt as minigpt
from audiogen_core import codecs, compose, jobs, patterns, plot, recipe, weights
from audiogen_core.audio import Audio, AudioWriter, probe, stream
from audiogen_core.codec import AutoencoderInfo, CodecInfo
from audiogen_core.codes import Codes, Latents
from audiogen_core.describe import describe
from audiogen_core.errors import AudiogenError
from audiogen_core.noise import RecordedNoise, SeededNoise
from audiogen_core.options import described
from audiogen_core.sampling import Sampling
from audiogen_core.values import shown
from audiogen_mlx import MusicGen, StableAudio
from audiogen_mlx.stable_audio_3 import StableAudio3
from audiogen_onnx.manifest import Manifest
from audiogen_onnx.session import Session
from audiogen_onnx.vampnet import mask as masks
from audiogen_onnx.vampnet.beats import Beats, beat_mask
from audiogen_onnx.vampnet.generate import Vampnet
from audiogen_onnx.vampnet.sampling import fill
from support.figures import tell
from support.magnet import model as magnet_model
from support.measured import peak_memory
from support.sounds import tone

FIXTURES = Path(__file__).parents[1] / "fixtures"
MEMORY = 1 << 30
"""Bytes above what the process had, that all calls together may take."""

HANG = 120
"""Seconds after which a call is taken for one that does not end; all are over in a moment."""


class Enough(AudiogenError):
    """Work has begun: what was asked for was taken, and it ends here."""


class Odd:
    """An object of no kind, with a name that is no name."""

    def __repr__(self) -> str:
        return "odd\x1b[31m"


def began(*_: object) -> None:
    raise Enough


def values(draw: random.Random) -> Iterator[Any]:
    """Values that no option expects, and some at the ends of ranges: first one of each, then drawn ones."""
    fixed: list[Callable[[], Any]] = [
        lambda: None, lambda: True, lambda: False, lambda: 0, lambda: -1, lambda: 1, lambda: 2**31,
        lambda: 2**63, lambda: -(2**63), lambda: 2**64, lambda: 10**400, lambda: -(10**5000),
        lambda: 0.5, lambda: -0.0, lambda: 1e-320, lambda: 1e9, lambda: -1e30, lambda: 1.7e308,
        lambda: math.nan, lambda: math.inf, lambda: -math.inf, lambda: 1j, lambda: Fraction(1, 3),
        lambda: Fraction(10**400), lambda: "", lambda: "x", lambda: "1", lambda: "nan", lambda: "a\0b",
        lambda: "\ud800", lambda: "x" * 100_000, lambda: "../" * 3000, lambda: "/dev/zero", lambda: b"x",
        lambda: bytearray(8), lambda: memoryview(b"abcd"), lambda: [], lambda: [[]], lambda: [None],
        lambda: [1, "a"], lambda: [[1.0], [1.0, 2.0]], lambda: [0.5] * 4, lambda: ["x"] * 1000,
        lambda: (), lambda: (1, 2), lambda: (math.nan, math.nan), lambda: (1, 2, 3), lambda: {},
        lambda: {1: 2}, lambda: set(), lambda: {"x"}, lambda: frozenset(), lambda: range(10**12),
        lambda: itertools.count(), lambda: iter(()), lambda: (x for x in "ab"), lambda: Odd(), lambda: Odd,
        lambda: object(), lambda: len,
        lambda: Path(), lambda: Path("/"), lambda: Path("/proc/no/such/place"), lambda: Ellipsis,
        lambda: NotImplemented, lambda: slice(1, 2), lambda: np.float64(0.5), lambda: np.float32("nan"),
        lambda: np.int8(-3), lambda: np.uint64(2**64 - 1), lambda: np.bool_(True), lambda: np.str_("x"),
        lambda: np.array(1.0), lambda: np.array([]), lambda: np.zeros((0, 4)), lambda: np.zeros((2, 0)),
        lambda: np.zeros((1, 1, 1, 1)), lambda: np.full((2, 3), np.nan), lambda: np.zeros((2, 3), complex),
        lambda: np.array(["a", "b"]), lambda: np.array([{}], object), lambda: np.zeros(3, "datetime64[s]"),
        lambda: np.ones((2, 3), bool), lambda: np.arange(6).reshape(2, 3), lambda: -np.ones((4, 8), np.int64),
        lambda: np.full((4, 8), 10**9), lambda: np.ma.masked_array([1, 2], [0, 1]), lambda: (10**12,),
        lambda: (1, 10**12), lambda: (2**62, 2**62), lambda: (1, -5), lambda: Exception("x"),
        lambda: collections.OrderedDict(a=1), lambda: Sampling(), lambda: tone(0.05), lambda: type(None),
    ]  # fmt: skip
    for make in fixed:
        yield make()
    while True:
        yield draw.choice(
            [
                lambda: draw.choice([-1, 1]) * 10 ** draw.randrange(0, 40),
                lambda: draw.choice([-1, 1]) * 10.0 ** draw.uniform(-320, 308),
                lambda: draw.getrandbits(draw.randrange(1, 3000)),
                lambda: "".join(map(chr, draw.choices(range(1, 0xD7FF), k=draw.randrange(50)))),
                lambda: draw.randbytes(draw.randrange(50)),
                lambda: [draw.choice(fixed)() for _ in range(draw.randrange(4))],
                lambda: tuple(draw.choice(fixed)() for _ in range(draw.randrange(4))),
                lambda: {str(draw.random()): draw.choice(fixed)()},
                lambda: np.zeros(
                    draw.choices(range(4), k=draw.randrange(5)), draw.choice("?bBhHiIqQefdFDSUOMm")
                ),
                lambda: np.array(draw.choice([draw.uniform(-1e9, 1e9), draw.getrandbits(60)])),
                draw.choice(fixed),
            ]
        )()


@dataclass(frozen=True)
class Door:
    """A call with one place to put something in."""

    name: str
    call: Callable[[Any], Any]


def drained(made: Any) -> Any:
    """What an iterator gives first; anything else as it is."""
    return next(made, None) if isinstance(made, Iterator) else made


class Rooms:
    """What doors lead to, made once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clip = tone(0.2, sample_rate=24_000)
        self.sound = self.clip.save(folder / "a.wav")
        self.codec = codecs.load("demo")
        self.codes = self.codec.encode(self.clip)
        self.latents = codecs.load_autoencoder("demo")
        self.musicgen = MusicGen.load(FIXTURES / "musicgen" / "musicgen-mono")
        self.stable_audio = StableAudio.load(FIXTURES / "stable-audio" / "tiny-small", low_memory=False)
        three = FIXTURES / "stable-audio-3" / "tiny-small"
        self.stable_audio_3 = StableAudio3.load(three, t5=str(three / "t5gemma-b-b-ul2"), low_memory=False)
        self.vampnet = Vampnet.load("demo", threads=1)
        self.magnet = magnet_model()
        self.generator = minigpt.Generator.load("demo", device="cpu")

    def doors(self) -> list[Door]:
        return [*self.options(), *self.values(), *self.tools(), *self.models()]

    def options(self) -> Iterator[Door]:
        """Every option of every job, and of opening its model; what is taken is asked of the model."""
        needed = {
            "vamp": {"audio": self.clip},
            "musicgen": {"prompt": "x"},
            "stable-audio": {"prompt": "x"},
            "stable-audio-3": {"prompt": "x"},
            "magnet": {"prompt": "x"},
        }
        models = {
            "vamp": self.vampnet, "musicgen": self.musicgen, "stable-audio": self.stable_audio,
            "stable-audio-3": self.stable_audio_3, "magnet": self.magnet, "generate": self.generator,
        }  # fmt: skip
        for job in jobs.installed():
            base = {**needed.get(job.name, {}), "on_step": began}
            if job.name in ("vamp", "stable-audio", "stable-audio-3", "magnet"):
                base |= {"steps": 1}
            for each in described(job.options):

                def ask(value: Any, job: Any = job, name: str = each.name, base: Any = base):
                    model = models[job.name]
                    asked = job.options.of({**base, name: value, "on_step": began})
                    take = next(model.takes(asked, 1, folder=self.folder))
                    return next(take.pieces)

                yield Door(f"{job.name}({each.name})", ask)
            for each in described(job.load):
                if each.name == "model":
                    continue

                def load(value: Any, job: Any = job, name: str = each.name):
                    return job.load.of({"model": "demo", name: value})

                yield Door(f"{job.name}.load({each.name})", load)
            yield Door(f"{job.name}.open(model)", lambda value, job=job: job.open(model=value, fetch=began))

    def values(self) -> Iterator[Door]:
        """The values that cross borders, field by field."""
        ints = np.zeros((4, 8), np.int32)
        made: list[tuple[str, Callable[..., Any], dict[str, Any]]] = [
            ("Audio", Audio, {"samples": np.zeros((1, 9), np.float32), "sample_rate": 8000, "speakers": 0,
                              "recipe": None}),
            ("Codes", Codes, {"values": ints, "codebook_size": 10, "frame_rate": 50.0, "codec": "x",
                              "length": 9, "scales": None}),
            ("Latents", Latents, {"values": ints, "frame_rate": 50.0, "autoencoder": "x", "length": 9}),
            ("Sampling", Sampling, {"temperature": 1.0, "top_k": 1, "top_p": 0.5, "min_p": 0.1, "seed": 1}),
            ("Beats", Beats, {"times": [0.5, 1.0], "downbeats": [True, False]}),
            ("Recipe", recipe.Recipe, {"package": "p", "version": "1", "model": "m", "revision": "",
                                       "seed": 1, "settings": {}, "inputs": {}}),
            ("CodecInfo", CodecInfo, {"name": "x", "sample_rate": 8000, "channels": 1, "hop_length": 9,
                                      "codebooks": 2, "codebook_size": 8}),
            ("AutoencoderInfo", AutoencoderInfo, {"name": "x", "sample_rate": 8000, "channels": 1,
                                                  "hop_length": 9, "latent_channels": 2}),
            ("TrainConfig", minigpt.TrainConfig, {"data": "d", "run": "r", "steps": 1, "lr": 0.1,
                                                           "batch": 2, "device": "cpu", "warmup": 0.1}),
            ("ModelConfig", minigpt.ModelConfig, {"layers": 1, "heads": 2, "width": 8, "context": 16,
                                                  "codebooks": 2, "codebook_size": 8, "dropout": 0.1}),
        ]  # fmt: skip
        for name, kind, fields in made:
            for field in fields:
                yield Door(
                    f"{name}({field})",
                    lambda value, kind=kind, fields=fields, field=field: kind(**{**fields, field: value}),
                )

    def tools(self) -> Iterator[Door]:
        """Functions of core and of the masks: each parameter in turn."""
        noise, shape = SeededNoise(1), (1, 4, 32)
        ints, mask = np.zeros((4, 8), np.int32), np.ones(shape, bool)
        told: list[tuple[str, Callable[..., Any], dict[str, Any]]] = [
            ("Audio.load", Audio.load, {"path": self.sound, "sample_rate": 8000, "channels": 1,
                                        "channel": "left", "max_seconds": 9.0}),
            ("Audio.save", self.clip.save, {"path": self.folder / "o.wav", "recipe": None,
                                           "subtype": "PCM_16"}),
            ("Audio.from_array", Audio.from_array, {"array": np.zeros(9), "sample_rate": 8000,
                                                    "channels_last": False}),
            ("AudioWriter", AudioWriter, {"path": self.folder / "w.wav", "sample_rate": 8000, "channels": 1,
                                          "recipe": None, "subtype": None}),
            ("fade", self.clip.fade, {"start": 0.01, "end": 0.01}),
            ("normalize", self.clip.normalize, {"peak": -1.0}),
            ("loop", self.clip.loop, {"times": 2}),
            ("plot", self.clip.plot, {"path": self.folder / "p.png"}),
            ("plot.overview", plot.overview, {"audio": self.clip, "path": self.folder / "p.png",
                                              "kinds": ("waveform",), "title": "x"}),
            ("plot.codes", plot.codes, {"codes": self.codes, "path": self.folder / "p.png", "title": "x"}),
            ("describe", describe, {"name_or_path": self.sound}),
            ("load_autoencoder", codecs.load_autoencoder, {"name_or_path": "demo", "ops": "numpy"}),
            ("resample", self.clip.resample, {"rate": 8000}),
            ("mix", self.clip.mix, {"channels": 1, "channel": "left"}),
            ("trim", self.clip.trim, {"seconds": 0.1}),
            ("slice", self.clip.slice, {"start": 0.0, "end": 0.1}),
            ("probe", probe, {"path": self.sound}),
            ("stream", stream, {"path": self.sound, "sample_rate": 8000, "channels": 1, "channel": None,
                                "block_seconds": 1.0, "max_seconds": 9.0}),
            ("Codes.load", Codes.load, {"path": "x"}),
            ("Codes.save", self.codes.save, {"path": self.folder / "o.codes"}),
            ("Recipe.read", recipe.Recipe.read, {"path": self.sound}),
            ("Recipe.from_json", recipe.Recipe.from_json, {"text": "{}"}),
            ("weights.read", weights.read, {"path": "x"}),
            ("codecs.load", codecs.load, {"name_or_path": "demo", "ops": "numpy"}),
            ("load_codec", codecs.load_codec, {"name_or_path": "demo", "ops": "numpy"}),
            ("codec.encode", self.codec.encode, {"audio": self.clip, "codebooks": 2}),
            ("codec.decode", self.codec.decode, {"codes": self.codes}),
            ("autoencoder.encode", self.latents.encode, {"audio": self.clip, "noise": noise}),
            ("autoencoder.decode", self.latents.decode, {"latents": None}),
            ("delay", patterns.delay, {"codes": ints, "delays": (0, 1, 2, 3), "special": 9}),
            ("undelay", patterns.undelay, {"tokens": ints, "delays": (0, 1, 2, 3)}),
            ("template", patterns.template, {"frames": 8, "delays": (0, 1), "special": 9, "prompt": None}),
            ("flatten", patterns.flatten, {"codes": ints, "codebook_size": 10}),
            ("unflatten", patterns.unflatten, {"tokens": ints[0], "codebooks": 2, "codebook_size": 10}),
            ("SeededNoise", SeededNoise, {"seed": 1}),
            ("normal", noise.normal, {"shape": (1, 2)}),
            ("RecordedNoise", RecordedNoise, {"arrays": [np.zeros(2)]}),
            ("compose", compose.write_folder, {"folder": self.folder / "music", "minutes": 1e-3, "seed": 1,
                                               "styles": None, "piece_seconds": 60.0, "force": True}),
            ("seconds_to_frames", masks.seconds_to_frames, {"seconds": 1.0, "sample_rate": 8000,
                                                            "hop_length": 9}),
            ("full_mask", masks.full_mask, {"like": shape}),
            ("inpaint", masks.inpaint, {"like": shape, "prefix": 1, "suffix": 1}),
            ("infill", masks.infill, {"like": shape, "start": 0.0, "end": 0.1, "sample_rate": 8000,
                                      "hop_length": 90}),
            ("periodic", masks.periodic_mask, {"like": shape, "period": 7, "width": 1, "roll": 0,
                                               "noise": noise}),
            ("stretch", masks.time_stretch_mask, {"like": shape, "factor": 2}),
            ("onsets", masks.onset_mask, {"like": shape, "onsets": [1], "width": 1}),
            ("random", masks.random, {"like": shape, "progress": 0.5, "noise": noise}),
            ("linear_random", masks.linear_random, {"like": shape, "probability": 0.5, "noise": noise}),
            ("codebook_unmask", masks.codebook_unmask, {"mask": mask, "codebooks": 1}),
            ("codebook_mask", masks.codebook_mask, {"mask": mask, "keep": 1}),
            ("keep_codebooks", masks.keep_codebooks, {"mask": mask, "codebooks": [1]}),
            ("roll_mask", masks.roll_mask, {"mask": mask, "frames": 1}),
            ("mask_and", masks.mask_and, {"first": mask, "second": mask}),
            ("apply_mask", masks.apply_mask, {"codes": np.zeros(shape, int), "mask": mask, "mask_id": 9}),
            ("drop_ones", masks.drop_ones, {"mask": mask, "share": 0.5, "noise": noise}),
            ("dropout", masks.dropout, {"mask": mask, "share": 0.5, "noise": noise}),
            ("build", masks.build, {"like": shape, "random_intensity": 0.5, "prefix": 1, "suffix": 1,
                                    "period": 7, "period_width": 1, "roll": 0, "onsets": (), "onset_width": 1,
                                    "dropout_share": 0.1, "keep": 3, "conditioning_codebooks": 0,
                                    "noise": noise}),
            ("Beats.at", Beats.at, {"times": [1.0], "downbeats": []}),
            ("Beats.grid", Beats.grid, {"bpm": 120.0, "seconds": 1.0, "offset": 0.0, "beats_per_bar": 4}),
            ("Beats.parse", Beats.parse, {"text": "1, 2"}),
            ("Beats.read", Beats.read, {"path": "x"}),
            ("beat_mask", beat_mask, {"like": shape, "beats": Beats.at([0.1]), "sample_rate": 8000,
                                      "hop_length": 90, "before": 0.0, "after": 0.1, "dropout": 0.0}),
            ("fill", fill, {"codes": ints, "mask": ints > 0, "logits": lambda codes: np.zeros((4, 8, 10)),
                            "steps": 1, "temperature": 1.0, "mask_temperature": 1.0, "top_p": None,
                            "typical_mass": None, "typical_min_tokens": 1, "sample_cutoff": 1.0,
                            "conditioning_codebooks": 0, "noise": noise, "codebook_size": 10,
                            "on_step": began}),
        ]  # fmt: skip
        for name, function, given in told:
            for parameter in given:
                yield Door(
                    f"{name}({parameter})",
                    lambda value, function=function, given=given, parameter=parameter: drained(
                        function(**{**given, parameter: value})
                    ),
                )

    def models(self) -> Iterator[Door]:
        """The verbs of the models, beside their options."""
        yield Door("clip[...]", lambda it: self.clip[it])
        yield Door("clip[...:]", lambda it: self.clip[it:])
        quick: dict[str, Any] = {"on_step": began}
        sa = {"seconds": 0.05, "steps": 1, "on_step": began}
        yield Door("MusicGen.load", lambda it: MusicGen.load(it, fetch=began))
        yield Door("StableAudio.load", lambda it: StableAudio.load(it, fetch=began))
        yield Door("Vampnet.load", lambda it: Vampnet.load(it, fetch=began))
        yield Door("Generator.load", lambda it: minigpt.Generator.load(it, fetch=began))
        yield Door("Generator.load(which)", lambda it: minigpt.Generator.load("demo", which=it))
        yield Door("MusicGen.generate", lambda it: self.musicgen.generate(it, **quick))
        yield Door("MusicGen.generate_batch", lambda it: self.musicgen.generate_batch(it, **quick))
        yield Door("MusicGen.stream", lambda it: drained(self.musicgen.stream(it, **quick)))
        yield Door("MusicGen.decode", lambda it: self.musicgen.decode(it))
        yield Door("StableAudio.generate", lambda it: self.stable_audio.generate(it, **sa))
        yield Door("StableAudio.generate_batch", lambda it: self.stable_audio.generate_batch(it, **sa))
        yield Door("StableAudio.variations", lambda it: self.stable_audio.variations("x", it, **sa))
        yield Door("StableAudio.decode", lambda it: self.stable_audio.decode(it))
        yield Door("StableAudio.noise", lambda it: self.stable_audio.generate("x", noise=it, **sa))
        yield Door("Vampnet.vamp", lambda it: self.vampnet.vamp(it, steps=1, **quick))
        yield Door("Vampnet.vamp(mask)", lambda it: self.vampnet.vamp(self.clip, mask=it, steps=1, **quick))
        yield Door("Vampnet.vamp(noise)", lambda it: self.vampnet.vamp(self.clip, noise=it, **quick))
        yield Door(
            "vamp_variations", lambda it: drained(self.vampnet.vamp_variations(self.clip, it, **quick))
        )
        yield Door("vamp_codes", lambda it: self.vampnet.vamp_codes(it, np.ones((8, 4), bool), **quick))
        yield Door("vamp_codes(mask)", lambda it: self.vampnet.vamp_codes(self.codes, it, **quick))
        yield Door("Generator.generate", lambda it: self.generator.generate(it, **quick))
        yield Door("Generator.generate_batch", lambda it: self.generator.generate_batch(it, 0.1, **quick))
        yield Door("Generator.stream", lambda it: drained(self.generator.stream(it, **quick)))
        yield Door("stream(chunk)", lambda it: drained(self.generator.stream(0.1, chunk_seconds=it, **quick)))
        yield Door("encode(folder)", lambda it: minigpt.encode(it, self.folder / "d"))
        for name in ("codec", "ops", "engine", "workers", "val_permille", "split_by"):
            yield Door(
                f"encode({name})",
                lambda it, name=name: minigpt.encode(self.folder / "none", self.folder / "d", **{name: it}),
            )
        yield Door("Session", lambda it: Session(it))
        yield Door("Manifest.load", lambda it: Manifest.load(it))
        yield Door("Dataset.open", lambda it: minigpt.Dataset.open(it))
        yield Door("verify", lambda it: minigpt.verify(it))
        yield Door("evaluate", lambda it: minigpt.evaluate(it))
        yield Door("export", lambda it: minigpt.export("demo", self.folder / "out", it))
        yield Door("info", lambda it: minigpt.info(it))


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Rooms:
    return Rooms(tmp_path_factory.mktemp("doors"))


def outcome(door: Door, value: Any) -> str:
    """How a call ended: "" with a result or our error, else what came instead."""
    try:
        with awake():
            door.call(value)
    except Hanging:
        return "no end"
    except AudiogenError as error:
        return "" if str(error).strip() or isinstance(error, Enough) else "an error that says nothing"
    except Exception as error:  # noqa: BLE001 - this is what is looked for
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {str(error)[:100]} ({Path(place.filename).name}:{place.lineno})"
    return ""


def attacked(rooms: Rooms, tries: int, seed: int) -> list[str]:
    """What ended otherwise than it should, of so many values spread over all doors."""
    doors, draw = rooms.doors(), random.Random(seed)
    draw.shuffle(doors)
    faults = []
    for door, value in zip(itertools.islice(itertools.cycle(doors), tries), values(draw), strict=False):
        end = outcome(door, value)
        if end:
            faults.append(f"{door.name} of {type(value).__name__} {shown(value)[:60]}: {end}")
    return faults


class Hanging(BaseException):
    """Not to be caught by what is tried."""


@contextmanager
def awake() -> Iterator[None]:
    """Ends a call that does not end."""

    def ring(*_: object) -> None:
        raise Hanging

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(HANG)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def check(rooms: Rooms, tries: int, seed: int) -> None:
    before = peak_memory(reset=True)
    assert attacked(rooms, tries, seed) == []
    grown = peak_memory() - before
    assert grown < MEMORY
    tell(
        "Python's calls",
        "values of wrong type and range at every option of every job and at the calls that are listed",
        tries,
        f"each ended in a result or one error of ours; memory +{grown / 2**20:.0f} MiB",
        promised="a result or one error of ours, below 1 GiB",
    )


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="alarms of POSIX")
@pytest.mark.filterwarnings("ignore")
def test_some_values_at_every_door(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(rooms.folder)
    check(rooms, 400, 1)


@pytest.mark.soak
@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="alarms of POSIX")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(3600)
def test_three_thousand_values(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(rooms.folder)
    check(rooms, 3000, 2)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("vamp(period_width)", 1e9, ""),  # took 25 seconds
        ("vamp(period)", 2**63, "whole number"),
        ("vamp(outpaint_left)", 1e30, "3600"),
        ("vamp(window_seconds)", 1.7e308, "86400"),  # OverflowError
        ("vamp(time_stretch_factor)", 2**31, "100"),  # 240 GiB
        ("vamp(mask_array)", ([], np.ones((4, 8))), "array of numbers"),  # ValueError
        ("vamp.load(threads)", 99999999999999, "1024"),
        ("musicgen(prompt)", "\udcff", "text in UTF-8"),  # what a shell makes of a byte: TypeError
        ("musicgen(sampling)", 0.5, "Sampling"),
        ("musicgen(prompt_codes)", 1, "Codes"),
        ("stable-audio(noise)", b"x", "source of noise"),
        ("stable-audio(inpaint)", range(10**12), "at most"),  # did not end
        ("StableAudio.variations", 10**9, "9999"),
        ("ModelConfig(layers)", "x", "whole number"),
        ("compose(piece_seconds)", 1e-12, "pieces"),
        ("Codes(codebook_size)", math.inf, "whole number"),
        ("Codes(frame_rate)", 0.0, "above 0"),
        ("codec.encode(audio)", "a.wav", "Audio"),
        ("full_mask(like)", (1, 10**12), "1 or more"),  # 1 TB
        ("normal(shape)", (10**12,), "9999 items"),  # did not end
        ("normal(shape)", (), "shape"),
        ("template(frames)", 2**31, "codes"),  # 16 GiB
        ("delay(delays)", [0, 0, 0, 10**12], "longer"),
        ("compose(minutes)", 1.7e308, "pieces"),  # OverflowError
        ("infill(end)", 1.7e308, ""),
        ("clip[...:]", 1.7e308, "cannot cut"),
        ("clip[...:]", "x", "a number"),
        ("Beats.grid(seconds)", 2**31, "86400"),  # 32 GiB
        ("stream(chunk)", math.inf, "3600"),
        ("Audio.save(recipe)", np.zeros(3), "Recipe"),  # ValueError
        ("Audio.from_array(array)", range(10**12), "array"),  # MemoryError
        ("fade(start)", None, "a number"),
        ("loop(times)", math.nan, "whole number"),
        ("plot.overview(audio)", 1, "Clip"),
        ("vamp_codes", [[1], [1, 2]], "array"),  # ValueError: rows of several lengths
        ("vamp_codes(mask)", [[1], [1, 2]], "array"),
        ("plot.overview(title)", np.zeros(3), ""),  # ValueError: has no truth
        ("stable-audio-3(times)", np.array(3), "list"),  # TypeError: no list
        ("plot.overview(path)", Path(), "name a file"),
        ("Codes.save(path)", Path("/proc/no/such/place"), "cannot be written"),
        ("Session", Odd(), "a path"),
    ],
)
def test_what_went_through(rooms: Rooms, name: str, value: object, says: str) -> None:
    (door,) = (each for each in rooms.doors() if each.name == name)
    if not says:
        with suppress(Enough):
            door.call(value)
        return
    with pytest.raises(AudiogenError, match=says):
        door.call(value)
