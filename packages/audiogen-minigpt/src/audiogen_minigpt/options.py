"""The options of the commands, each once, and how those of training become settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from audiogen_core.cli import option
from audiogen_core.sampling import Sampling
from audiogen_minigpt.config import LAYOUTS, SAMPLING, SIZES
from audiogen_minigpt.schedule import parse_time
from audiogen_minigpt.settings import Settings

SIZE_NAMES = (*SIZES, "seed")

Text = str | None
Count = int | None
Place = Path | None


def _argument(name: str, help: str) -> Any:
    return typer.Argument(metavar=name, help=help)


AudioFolder = Annotated[Path, _argument("FOLDER", "Audio files, at any depth.")]
DataFolder = Annotated[Path, _argument("DATA", "Folder of codes.")]
MaybeData = Annotated[Place, _argument("[DATA]", "Folder of codes; the run's own when absent.")]
ModelFolder = Annotated[Path, _argument("RUN", "Folder of a run or of one of its checkpoints, or: demo.")]
SoundFile = Annotated[Path, _argument("FILE", "Sound that `generate` made.")]
AnyPath = Annotated[Path, _argument("PATH", "Codes, a run, a checkpoint or a sound.")]

# encode
Codec = Annotated[str, option("codec", "The codec.", metavar="NAME|PATH")]
Ops = Annotated[str, option("ops", "What the codec runs on: numpy, torch, torch:cuda.")]
Stored = Annotated[Count, option("codebooks", "How many codebooks to store; 8 or all when absent.", min=1)]
Stereo = Annotated[str, option("stereo", "mix, or split: each channel is a track.")]
Level = Annotated[str, option("level", "Loudness: none, peak or rms.")]
Silence = Annotated[float, option("silence", "Seconds after which silence is cut; 0 keeps all.")]
Permille = Annotated[int, option("val-permille", "How much is held out, in thousandths of the files.")]
SplitBy = Annotated[str, option("split-by", "What is held out as a whole: file or parent.")]
Workers = Annotated[Count, option("workers", "Processes; one per core when absent.", min=1)]
Engine = Annotated[str, option("engine", "local, or ray.")]
Verify = Annotated[bool, option("verify", "Check every shard to the last byte afterwards.")]

# train and run
Resume = Annotated[bool, option("resume", "Go on with the run in the folder.")]
Config = Annotated[Place, option("config", "Settings as TOML; options win over them.", metavar="TOML")]
Time = Annotated[Text, option("time", "How long to train: 45s, 10m, 1h30m; 10m when nothing is said.")]
Steps = Annotated[Count, option("steps", "How many updates to train, instead of a time.", min=1)]
Size = Annotated[Text, option("size", f"Size of the model: {', '.join(SIZE_NAMES)}.")]
Preset = Annotated[Text, option("preset", "Kind of blocks, modern or gpt2; or a size.")]
Layout = Annotated[Text, option("layout", f"How codes become tokens: {', '.join(LAYOUTS)}.")]
Codebooks = Annotated[Count, option("codebooks", "How many codebooks the model has.", min=1)]
Batch = Annotated[Count, option("batch", "Windows in one update, over all processes.", min=1)]
Rate = Annotated[float | None, option("lr", "Full learning rate; when absent it follows the width.")]
Optimizer = Annotated[Text, option("optimizer", "adamw or muon.")]
TrainSeed = Annotated[Count, option("seed", "Seed of weights, order and samples; 0 when absent.", min=0)]
Dtype = Annotated[Text, option("dtype", "auto, float32 or bfloat16.")]
Compile = Annotated[Text, option("compile", "auto (on CUDA only), on or off.")]
Shard = Annotated[bool, option("shard", "Share weights out over torchrun's processes (FSDP2).")]
MaybeDevice = Annotated[Text, option("device", "auto, cpu, cuda or mps.")]
MaybeCodec = Annotated[
    Text,
    option(
        "codec", "The codec's name or path, if the data's name for it is not enough.", metavar="NAME|PATH"
    ),
]

# generate, replay, eval, export
Seconds = Annotated[float, option("seconds", "How much to make.")]
Prompt = Annotated[Place, option("prompt-audio", "Sound to go on with.", "--prompt")]
OnlyNew = Annotated[bool, option("only-new", "Leave the prompt out of the result.")]
Number = Annotated[int, option("n", "How many clips, with seeds that count up.", "-n", min=1)]
Temperature = Annotated[
    list[float] | None,
    option(
        "temperature",
        "0 is greedy; give it once, or for each codebook. When absent as the model's folder says, "
        f"else {SAMPLING.temperature}: small models like it cold.",
    ),
]
TopK = Annotated[
    Count,
    option(
        "top-k",
        f"Draw from the k likeliest codes; 0: all. When absent as the model says, or {SAMPLING.top_k}.",
    ),
]
TopP = Annotated[
    float | None, option("top-p", "Draw from the likeliest codes with this much probability; 0: all.")
]
MinP = Annotated[float | None, option("min-p", "Least probability relative to the likeliest code; 0: any.")]
Best = Annotated[bool, option("best", "Take the checkpoint with the lowest validation loss.")]
Device = Annotated[str, option("device", "auto, cpu, cuda or mps.")]
MovedRun = Annotated[Place, option("model", "Where the run is now.", "-m")]
Windows = Annotated[int, option("windows", "Windows to measure on, at most.", min=1)]
Clips = Annotated[int, option("clips", "How many tracks to continue; 0 needs no codec.", min=0)]
ClipSeconds = Annotated[float, option("seconds", "Length of a track and its continuation.")]
EvalSeed = Annotated[int, option("seed", "Seed of the continuations.", min=0)]
Format = Annotated[str, option("format", "auto, hf, safetensors or light (float16, for generating alone).")]


def sampling(
    own: Sampling,
    temperature: list[float] | None,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None,
    seed: int,
) -> Sampling:
    """How codes are drawn: the model's own way, but for what was said. Raises OptionError."""
    heat = temperature[0] if temperature and len(temperature) == 1 else temperature or own.temperature
    given = {"top_k": top_k, "top_p": top_p, "min_p": min_p}
    said = {key: value for key, value in given.items() if value is not None}
    return Sampling(**{**own.to_dict(), **said, "temperature": heat, "seed": seed})


def settings(config: Path | None, shape: dict[str, Any], size: str | None, **train: Any) -> Settings:
    """Settings from a TOML file and from options; None stands for an option that was not given.

    shape  "preset", "layout" and "codebooks"; the name of a size is taken as preset too
    train  fields of `TrainConfig`, and "time" as a text

    Raises OptionError.
    """
    shape = {key: value for key, value in shape.items() if value is not None}
    if shape.get("preset") in SIZE_NAMES:
        size = shape.pop("preset")
    time = train.pop("time", None)
    if time is not None:
        train["seconds"] = parse_time(time)
    given = Settings({key: value for key, value in train.items() if value is not None}, shape, size)
    return given.over(Settings.read(config)) if config else given
