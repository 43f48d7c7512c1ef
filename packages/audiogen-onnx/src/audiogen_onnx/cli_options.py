"""Options of the `audiogen-onnx` command: types only, so that help is quick."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audiogen_core.errors import OptionError

if TYPE_CHECKING:
    from audiogen_onnx.vampnet.beats import Beats as BeatTimes

_PROMPTS = "What is kept of the clip"
_SAMPLING = "How the rest is made"
_RUNNING = "Running"


def _option(name: str, about: str, panel: str, **more: Any) -> Any:
    return typer.Option(name, help=about, rich_help_panel=panel, **more)


def _prompt(name: str, about: str, **more: Any) -> Any:
    return _option(name, about, _PROMPTS, **more)


def _sampling(name: str, about: str, **more: Any) -> Any:
    return _option(name, about, _SAMPLING, **more)


SoundIn = Annotated[Path, typer.Argument(metavar="IN", help="Audio file.")]
SoundFile = Annotated[Path, typer.Argument(metavar="FILE", help="Audio file that this program made.")]
Exported = Annotated[str, typer.Argument(metavar="DIR", help="Exported folder.")]
Checkpoints = Annotated[
    str, typer.Argument(metavar="CHECKPOINTS", help="Folder with codec.pth, coarse.pth, c2f.pth; or a name.")
]
Dtype = Annotated[
    str, typer.Option("--dtype", metavar="TYPE", help="Of the weights: float32, float16, int8 or int4.")
]
SmallDtype = Annotated[
    str, typer.Option("--dtype", metavar="TYPE", help="Of the weights: float16, int8 or int4.")
]
Against = Annotated[
    Path | None, typer.Option("--against", metavar="DIR", help="The float32 folder it was quantised from.")
]
CoarseLora = Annotated[
    Path | None, typer.Option("--coarse-lora", metavar="PATH", help="A lora.pth for the coarse network.")
]
FineLora = Annotated[
    Path | None, typer.Option("--fine-lora", metavar="PATH", help="A lora.pth for the fine network.")
]
WithBeats = Annotated[
    bool, typer.Option("--beats/--no-beats", help="The beat tracker too, where there is a wavebeat.pth.")
]
Check = Annotated[bool, typer.Option("--check/--no-check", help="Compare every graph with torch.")]
BenchCheckpoints = Annotated[
    Path | None,
    typer.Option("--checkpoints", metavar="PATH", help="What DIR was exported from: to time torch as well."),
]
BenchSeconds = Annotated[float, typer.Option("--seconds", min=0.01, help="Of the clip.")]
Repeats = Annotated[int, typer.Option("--repeats", min=1, help="Runs of which the median is taken.")]
Threads = Annotated[
    int | None, _option("--threads", "Of one operator; all cores when absent.", _RUNNING, min=1)
]
Provider = Annotated[
    list[str] | None,
    _option("--provider", "onnxruntime's execution provider; more than once for a choice.", _RUNNING),
]
MaybeModel = Annotated[
    str | None, typer.Option("--model", "-m", metavar="NAME|PATH", help="Where the model is now.")
]
Moved = Annotated[Path | None, typer.Option("--audio", metavar="PATH", help="Where the clip is now.")]

Period = Annotated[int | None, _prompt("--period", "A frame is kept every so many; 0: none. [7]", min=0)]
PeriodWidth = Annotated[int | None, _prompt("--period-width", "Frames kept around each. [1]", min=0)]
Roll = Annotated[str | None, _prompt("--roll", "Frames by which these move, or random. [random]")]
Prefix = Annotated[float | None, _prompt("--prefix", "Seconds kept at the beginning.", min=0)]
Suffix = Annotated[float | None, _prompt("--suffix", "Seconds kept at the end.", min=0)]
Keep = Annotated[int | None, _prompt("--keep", "Codebooks in which there are prompts. [3]", min=0)]
OnsetWidth = Annotated[int | None, _prompt("--onset-width", "Frames kept around each onset.", min=0)]
Bpm = Annotated[float | None, _prompt("--bpm", "Keep around each beat of this tempo.")]
BeatOffset = Annotated[float | None, _prompt("--beat-offset", "Seconds of the first beat. [0]")]
Beats = Annotated[
    str | None, _prompt("--beats", "Or beats: times in seconds, or a text file of them.", metavar="LIST|PATH")
]
TrackBeats = Annotated[bool, _prompt("--track-beats", "Or beats: found by WaveBeat, if the model has it.")]
BeforeBeat = Annotated[float | None, _prompt("--before-beat", "Seconds kept before each. [0]", min=0)]
AfterBeat = Annotated[float | None, _prompt("--after-beat", "Seconds kept after each. [0.05]", min=0)]
Downbeats = Annotated[bool, _prompt("--downbeats-only", "Only the first beat of each bar counts.")]
Dropout = Annotated[float | None, _prompt("--dropout", "Share of frames whose prompt is dropped.")]
Intensity = Annotated[
    float | None, _prompt("--random-intensity", "Share of codes that may be made at all. [1]")
]
Infill = Annotated[
    str | None, _prompt("--infill", "Make only what lies between, in seconds.", metavar="START:END")
]
OutpaintLeft = Annotated[
    float | None, _prompt("--outpaint-left", "Seconds made before the beginning.", min=0)
]
OutpaintRight = Annotated[float | None, _prompt("--outpaint-right", "Seconds made after the end.", min=0)]
Loop = Annotated[bool, _prompt("--loop", "Let the end lead into the beginning.")]
Mask = Annotated[
    Path | None,
    _prompt("--mask", "NPY, PNG, or a sound file whose silence is what to make.", metavar="PATH"),
]
BeatsOut = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="PATH", help="Text file; printed when absent.")
]
SaveMask = Annotated[Path | None, _prompt("--save-mask", "Write the mask as .npy or .png.", metavar="PATH")]
Preview = Annotated[
    Path | None, _prompt("--preview", "Draw the mask over the codes, and make nothing.", metavar="PNG")
]
Steps = Annotated[int | None, _sampling("--steps", "Of the coarse network. [12]")]
FineSteps = Annotated[int | None, _sampling("--fine-steps", "Of the fine network. [2]")]
Temperature = Annotated[float | None, _sampling("--temperature", "Of each token; 0: the likeliest. [1]")]
FineTemperature = Annotated[
    float | None, _sampling("--fine-temperature", "Of the fine network. [--temperature]")
]
MaskTemperature = Annotated[
    float | None, _sampling("--mask-temperature", "Of the choice of what to make anew. [10.5]")
]
TopP = Annotated[float | None, _sampling("--top-p", "Keep the likeliest tokens up to this share.")]
TypicalMass = Annotated[
    float | None, _sampling("--typical-mass", "Keep the most typical tokens up to this share.")
]
TypicalMin = Annotated[int | None, _sampling("--typical-min-tokens", "But at least so many. [64]", min=0)]
Cutoff = Annotated[float | None, _sampling("--sample-cutoff", "Part of the steps that draws at random. [1]")]
Feedback = Annotated[int | None, _sampling("--feedback-steps", "How often to go over it. [1]")]
Stretch = Annotated[int | None, _sampling("--time-stretch", "Make it so many times as long. [1]")]
Context = Annotated[
    float | None, _sampling("--context", "Seconds of what was made that a window sees. [2.5]")
]
Compat = Annotated[
    str | None, _sampling("--compat", "audiogen, or upstream: the original's way, quirks and all.")
]
Variations = Annotated[int, _sampling("--variations", "How many, the surest first: OUT-1, OUT-2, ...", min=1)]
Rate = Annotated[int | None, _sampling("--sample-rate", "Of the result, Hz; the input's when absent.")]


def span(text: str) -> tuple[float, float]:
    """START:END in seconds. Raises OptionError."""
    try:
        start, end = (float(part) for part in text.split(":"))
    except ValueError as error:
        raise OptionError(f"--infill takes START:END in seconds, such as 2.5:4; got {text!r}") from error
    return start, end


def roll(text: str) -> int | str:
    """A number of frames, or "random". Raises OptionError."""
    if text == "random" or re.fullmatch(r"-?\d+", text):
        return text if text == "random" else int(text)
    raise OptionError(f"--roll takes a number of frames, or random; got {text!r}")


def beats(text: str) -> BeatTimes:
    """Beats from a list of seconds, or from a file of that name. Raises OptionError."""
    from audiogen_onnx.vampnet.beats import Beats as Parsed

    return Parsed.read(text) if Path(text).is_file() else Parsed.parse(text, "--beats")


def as_options(beats: BeatTimes) -> dict[str, Any]:
    """Beats as a vamp's options name them."""
    return {
        "beats": tuple(beats.times.tolist()),
        "downbeat_times": tuple(beats.times[beats.downbeats].tolist()),
    }


def gathered(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a vamp that were asked for on the command line; other names are left out.

    Raises OptionError when one is out of range, or two contradict each other.
    """
    from audiogen_onnx.vampnet.options import VampOptions

    parsers: dict[str, Callable[[str], Any]] = {"infill": span, "roll": roll}
    names = {field.name for field in fields(VampOptions)}
    chosen: dict[str, Any] = {
        name: parsers[name](value) if name in parsers else value
        for name, value in asked.items()
        if name in names and value is not None
    }
    if asked.get("beats") is not None:
        chosen |= as_options(beats(asked["beats"]))
    if asked.get("downbeats_only"):
        chosen["upbeats"] = False
    VampOptions(**chosen)
    return chosen
