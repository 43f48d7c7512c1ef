"""Makes one file per command and way of using it, as the release that is installed here makes them.

    cd tests/fixtures && OMP_NUM_THREADS=1 python ../../scripts/record_replays.py

The files and their index lie in tests/fixtures/replay; tests/test_replay_of_010.py has every later version
make them again. All paths are relative to tests/fixtures, so recipes name no place of this machine.

The models are small and their weights are stored: MusicGen and Stable Audio Open are those of the fixtures;
replay/vampnet is the fixtures' VampNet exported (and its graphs' debugging texts removed), replay/minigpt a
GPT trained for 60 steps on codes of the fixtures' EnCodec and exported as light.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.stored import INDEX, Stored, digest, made_on

RELEASE = "0.1.0"
CLIP = "replay/in.flac"

MONO = {"model": "musicgen/musicgen-mono", "tokenizer": "musicgen/tokenizer"}
STEREO = {**MONO, "model": "musicgen/musicgen-stereo"}
MELODY = {**MONO, "model": "musicgen/musicgen-melody"}
AUDIOCRAFT = {"t5": "musicgen/t5", "tokenizer": "musicgen/tokenizer", "codec": "encodec/32k"}
TEXT = {**AUDIOCRAFT, "model": "musicgen/audiocraft-text"}
SMALL = {"model": "stable-audio/tiny-small", "t5": "stable-audio/t5"}
LARGE = {"model": "stable-audio/tiny-1.0", "t5": "stable-audio/t5"}
VAMPNET = {"model": "replay/vampnet", "audio": CLIP}
GPT = {"model": "replay/minigpt", "codec": "encodec/24k"}

ALL_SAMPLING = "--temperature 0.9 --top-k 0 --top-p 0.9 --min-p 0.01 --guidance-scale 2"
HEATS = "--temperature 0.4 --temperature 0.6 --temperature 0.8 --temperature 1.0"

# name -> (program, command, options that are no places, places by role)
COMMANDS: dict[str, tuple[str, str, str, dict[str, str]]] = {
    "musicgen": ("audiogen-mlx", "musicgen", "'slow piano' -s 0.5", MONO),
    "musicgen-unconditional": ("audiogen-mlx", "musicgen", "--unconditional -s 0.5 --temperature 0", MONO),
    "musicgen-continued": (
        "audiogen-mlx",
        "musicgen",
        "'slow piano' -s 0.7 --negative-prompt noise --top-k 20",
        {**MONO, "continued": CLIP},
    ),
    "musicgen-windows": (
        "audiogen-mlx",
        "musicgen",
        f"'slow piano' -s 0.8 --window 0.4 --stride 0.2 {ALL_SAMPLING}",
        STEREO,
    ),
    "musicgen-melody": ("audiogen-mlx", "musicgen", "'slow piano' -s 0.5", {**MELODY, "melody": CLIP}),
    "musicgen-audiocraft": ("audiogen-mlx", "musicgen", "'slow piano' -s 0.5 --dtype bfloat16", TEXT),
    "stable-audio": ("audiogen-mlx", "stable-audio", "'a bell' -s 0.3", SMALL),
    "stable-audio-init": (
        "audiogen-mlx",
        "stable-audio",
        "'a bell' -s 0.3 --init-noise-level 0.5 --steps 3 --sampler dpmpp --guidance-scale 3 "
        "--negative-prompt noise --guidance-rescale 0.5 --guidance-interval 0.2:0.9",
        {**SMALL, "init": CLIP},
    ),
    "stable-audio-inpaint": (
        "audiogen-mlx",
        "stable-audio",
        "'a bell' -s 0.3 --steps 3 --inpaint 0.05:0.1 --inpaint 0.15:0.2",
        {**SMALL, "init": CLIP},
    ),
    "stable-audio-continued": (
        "audiogen-mlx",
        "stable-audio",
        "'a bell' -s 0.45 --steps 3",
        {**SMALL, "continued": CLIP},
    ),
    "stable-audio-loop": (
        "audiogen-mlx",
        "stable-audio",
        "drums --bpm 300 --bars 2 --beats 1 --steps 2",
        LARGE,
    ),
    "stable-audio-long": (
        "audiogen-mlx",
        "stable-audio",
        "'a bell' -s 0.6 --long --overlap 0.2 --steps 2",
        SMALL,
    ),
    "stable-audio-start": (
        "audiogen-mlx",
        "stable-audio",
        "drums -s 0.3 --seconds-start 1 --seconds-total 4 --steps 3 --sigma-min 0.4 --sigma-max 200",
        LARGE,
    ),
    "vamp": ("audiogen-onnx", "vamp", "", VAMPNET),
    "vamp-options": (
        "audiogen-onnx",
        "vamp",
        "--period 5 --period-width 2 --roll 1 --keep 1 --prefix 0.05 --dropout 0.1 --steps 4 --fine-steps 1 "
        "--temperature 0.8 --fine-temperature 0.9 --mask-temperature 8 --top-p 0.9 --sample-cutoff 0.8 "
        "--feedback-steps 2 --sample-rate 24000",
        VAMPNET,
    ),
    "vamp-beats": (
        "audiogen-onnx",
        "vamp",
        "--beats 0.05,0.12,0.21 --before-beat 0.01 --after-beat 0.03 --typical-mass 0.9 "
        "--typical-min-tokens 8 --steps 4",
        VAMPNET,
    ),
    "vamp-mask": ("audiogen-onnx", "vamp", "--steps 4", {**VAMPNET, "mask": "replay/mask.npy"}),
    "vamp-infill": ("audiogen-onnx", "vamp", "--infill 0.1:0.2 --steps 4", VAMPNET),
    "vamp-outpaint": (
        "audiogen-onnx",
        "vamp",
        "--outpaint-left 0.1 --outpaint-right 0.1 --steps 4",
        VAMPNET,
    ),
    "vamp-loop": ("audiogen-onnx", "vamp", "--loop --bpm 300 --beat-offset 0.02 --steps 4", VAMPNET),
    "vamp-upstream": ("audiogen-onnx", "vamp", "--compat upstream --time-stretch 2 --steps 4", VAMPNET),
    "vamp-second": ("audiogen-onnx", "vamp", "--steps 4 --variations 2", VAMPNET),
    "generate": ("audiogen-minigpt", "generate", "--seconds 0.5", GPT),
    "generate-prompt": (
        "audiogen-minigpt",
        "generate",
        f"--seconds 0.5 {HEATS} --top-k 20 --top-p 0.95 --min-p 0.01",
        {**GPT, "prompt_audio": CLIP},
    ),
    "generate-only-new": (
        "audiogen-minigpt",
        "generate",
        "--seconds 0.5 --only-new -n 2",
        {**GPT, "prompt_audio": CLIP},
    ),
}

# where a place is no option of the role's name
ARGUMENTS = {("generate", "model"), ("vamp", "audio")}
OPTIONS = {"continued": "--continue", "prompt_audio": "--prompt-audio"}


def words(command: str, options: str, places: dict[str, str]) -> list[str]:
    """What is typed after the program's name, but for the output."""
    typed = [command]
    for role, place in places.items():
        typed += [place] if (command, role) in ARGUMENTS else [OPTIONS.get(role, f"--{role}"), place]
    return [*typed, *shlex.split(options), "--seed", "7"]


def record(name: str, program: str, typed: list[str], places: dict[str, str]) -> Stored:
    """Make one file and its entry of the index; of several variations the last is kept."""
    with tempfile.TemporaryDirectory() as place:
        output = Path(place, "made.flac")
        path = shutil.which(program, path=str(Path(sys.executable).parent))
        assert path, f"{program} is not installed beside this Python"
        subprocess.run([path, *typed, "-o", output, "-q"], check=True, stdout=subprocess.DEVNULL)
        made = sorted(Path(place).glob("*.flac"))[-1]
        kept = INDEX.parent / f"{name}.flac"
        shutil.move(made, kept)
    return Stored(f"{name}.flac", shlex.join([program, *typed]), places, digest(kept))


def main() -> None:
    files = []
    for name, (program, command, options, places) in COMMANDS.items():
        print(name)
        files.append(record(name, program, words(command, options, places), places))
    index = {"release": RELEASE, "made_on": made_on(), "files": [vars(file) for file in files]}
    INDEX.write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
