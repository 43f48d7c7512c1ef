"""The wheel of audiogen-mlx in a bare environment: with core, and nothing of torch."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from support.wheels import ROOT, bare, run, uv, version, wheel

FIXTURES = ROOT / "tests" / "fixtures"

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(sys.platform not in ("linux", "darwin"), reason="mlx has no wheels for this system"),
]

JOB = """
import json, sys
import audiogen_mlx
from audiogen_mlx import blas
from audiogen_mlx.ops import MlxOps
from audiogen_core.tokenizer import Tokenizer
from audiogen_core import codecs
import numpy as np

musicgen, encodec = sys.argv[1:]
ids, mask = Tokenizer.load(musicgen).encode(["80s pop track with bassy drums and synth"])
stored = np.load(encodec + "/io.npz")
codec = codecs.load(encodec, MlxOps())
codes = stored["codes_bw1.2"][0, 0]
sound = np.concatenate(list(codec.decode_blocks([codes])), axis=1)
gap = float(np.abs(sound - stored["audio_bw1.2"][0]).max())
loaded = [m for m in ("torch", "transformers", "onnxruntime", "matplotlib") if m in sys.modules]
print(json.dumps([len(ids[0]), gap, loaded, blas.describe()["source"]]))
"""

MUSIC = """
import json, sys
import numpy as np
from audiogen_core.sampling import Sampling
from audiogen_mlx import MusicGen

folder, tokenizer, prompt = sys.argv[1:]
model = MusicGen.load(folder, tokenizer=tokenizer)
codes = model.generate_codes(prompt, seconds=17 / 50, sampling=Sampling(temperature=0)).values
stored = np.load(folder + "/io.npz")["gen_single_codes"][0]
loaded = [m for m in ("torch", "transformers", "onnxruntime", "matplotlib") if m in sys.modules]
print(json.dumps([bool((codes == stored).all()), loaded]))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """The Python of a new environment with the wheels of core and of mlx."""
    return bare(tmp_path_factory.mktemp("bare") / "venv", "audiogen-core", "audiogen-mlx")


def test_it_works_without_torch(python, tmp_path):
    found = json.loads(
        run(
            python, "-c", JOB, FIXTURES / "musicgen" / "tokenizer", FIXTURES / "encodec" / "32k", cwd=tmp_path
        )
    )
    tokens, gap, loaded, _ = found
    assert tokens == 19
    assert gap < 1e-4
    assert loaded == []


def test_it_makes_music_as_transformers_does(python, tmp_path):
    folder, tokenizer = FIXTURES / "musicgen" / "musicgen-mono", FIXTURES / "musicgen" / "tokenizer"
    entries = json.loads((tokenizer / "expected.json").read_text(encoding="utf-8"))["single"]
    with np.load(folder / "io.npz") as stored:
        ids = stored["input_ids_single"][0].tolist()
    prompt = next(entry["text"] for entry in entries if entry["ids"] == ids)
    assert json.loads(run(python, "-c", MUSIC, folder, tokenizer, prompt, cwd=tmp_path)) == [True, []]


def test_the_command_makes_a_file_and_makes_it_again(python, tmp_path):
    command = python.with_name("audiogen-mlx")
    fixtures = FIXTURES / "musicgen"
    places = ("-m", fixtures / "musicgen-mono", "--tokenizer", fixtures / "tokenizer")
    made = run(command, "musicgen", "slow piano", *places, "-o", "a.wav", "-s", "0.3", cwd=tmp_path)
    assert made.strip() == "a.wav"
    run(command, "replay", "a.wav", "-o", "b.wav", cwd=tmp_path)
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()


def test_neither_torch_nor_transformers_is_installed(python):
    installed = run(uv(), "pip", "list", "--format", "json", "--python", python)
    names = {entry["name"] for entry in json.loads(installed)}
    assert {"audiogen-mlx", "audiogen-core", "mlx"} <= names
    assert not names & {"torch", "transformers", "onnxruntime"}


def test_the_command_answers(python, tmp_path):
    command = python.with_name("audiogen-mlx")
    assert version() in run(command, "--version", cwd=tmp_path)
    assert "MusicGen" in run(command, "--help", cwd=tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="only mlx on Linux CPUs needs another BLAS")
def test_the_fast_blas_comes_along_and_is_missed_when_it_is_taken_away(python, tmp_path):
    code = "from audiogen_mlx import blas; print(blas.use().source, blas.use().hint)"
    assert run(python, "-c", code, cwd=tmp_path).strip() in ("system", "package")
    run(uv(), "pip", "uninstall", "--python", python, "scipy-openblas32")
    without = run(python, "-c", code, cwd=tmp_path).strip()
    assert without == "system" or without.endswith("pip install scipy-openblas32")
    run(uv(), "pip", "install", "--python", python, f"{wheel('audiogen-mlx')}[blas]")  # the extra of 0.1.0
    assert run(python, "-c", code, cwd=tmp_path).strip() in ("system", "package")
