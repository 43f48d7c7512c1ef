"""An exported folder in onnxruntime-node: the same codes, logits, sound and draws as in Python.

By the modules of the page, too, which make whole clips of the demos there.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from audiogen_core.audio import Audio
from audiogen_core.compose import compose
from audiogen_onnx.catalog import CATALOG
from audiogen_onnx.exporter.export import quantize
from audiogen_onnx.manifest import Manifest
from audiogen_onnx.musicgen.generate import MusicGen
from audiogen_onnx.session import Session
from audiogen_onnx.vampnet.generate import Vampnet
from audiogen_onnx.vampnet.options import Options
from audiogen_onnx.vampnet.verify import random_codes
from audiogen_onnx.web.site import write_site
from support.exported import exported
from support.page import packages, web_package

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        shutil.which("node") is None or shutil.which("npm") is None, reason="needs node and npm"
    ),
]

HERE = Path(__file__).parent


def node(script: str, *arguments: object, asked: object = None) -> str:
    """What a script prints that finds onnxruntime-node in `packages`."""
    done = subprocess.run(
        ["node", str(HERE / script), *map(str, arguments), str(packages())],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def cases(manifest):
    """Graph -> inputs."""
    rng, codec = np.random.default_rng(0), manifest.codec
    audio = rng.uniform(-0.5, 0.5, (1, 1, 23 * codec.hop_length)).astype(np.float32)
    found = {
        "encoder": {"audio": audio},
        "decoder": {"codes": rng.integers(0, codec.codebook_size, (1, codec.codebooks, 23))},
    }
    for name, net in (("coarse", manifest.coarse), ("fine", manifest.fine)):
        codes = random_codes(net.codebooks, codec.codebook_size, 1, 23)
        places = 23 * net.predicted_codebooks
        found[name] = {"codes": codes}
        found[f"{name}_step"] = {
            "codes": codes,
            "exponential": rng.exponential(size=(1, places, codec.codebook_size)).astype(np.float32),
            "uniform": rng.uniform(0.01, 0.99, (1, places)).astype(np.float32),
            "masked_next": np.array([[5]]),
            "temperature": np.array(0.9, np.float32),
            "mask_temperature": np.array(2.0, np.float32),
        }
    return found


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_node_gives_what_python_gives(tmp_path, dtype):
    folder = exported() if dtype == "float32" else tmp_path / "int8"
    if dtype != "float32":
        quantize(exported(), folder, dtype)
    manifest = Manifest.load(folder)
    jobs, expected = [], {}
    for graph, inputs in cases(manifest).items():
        path, entries, outputs = manifest.graph_path(folder, graph), {}, {}
        for name, values in inputs.items():
            file = tmp_path / f"{graph}.{name}.in"
            file.write_bytes(values.tobytes())
            entries[name] = {"type": values.dtype.name, "dims": list(values.shape), "file": str(file)}
        for name, values in Session(path, threads=1).run(inputs).items():
            outputs[name] = str(tmp_path / f"{graph}.{name}.out")
            expected[outputs[name]] = values
        jobs.append({"graph": str(path), "inputs": entries, "outputs": outputs})
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    node("run_graph.cjs", tmp_path / "jobs.json")
    for file, values in expected.items():
        made = np.frombuffer(Path(file).read_bytes(), values.dtype).reshape(values.shape)
        if values.dtype == np.int64:
            np.testing.assert_array_equal(made, values, err_msg=file)
        else:
            np.testing.assert_allclose(made, values, rtol=0, atol=1e-4, err_msg=file)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    place = tmp_path_factory.mktemp("page") / "site"
    write_site(["demo"], place, runtime_dir=web_package())
    return place


@pytest.mark.parametrize("kind", ["native", "wasm"])
def test_the_pages_modules_make_the_music_of_python(site, kind):
    asked = [
        {"prompt": "slow piano in C minor", "seconds": 2, "seed": "5"},
        {"prompt": None, "seconds": 1, "seed": "6", "temperature": 1, "top_k": 0, "top_p": 0.8},
        {"prompt": "fast drums", "negative_prompt": "piano", "seconds": 1, "seed": "7", "guidance_scale": 3},
    ]
    made = json.loads(
        node("page_in_node.mjs", site, kind, asked=[{"model": 0, "asked": one} for one in asked])
    )
    model = MusicGen.load("demo", threads=1)
    for one, clip in zip(asked, made, strict=True):
        wanted = model.generate_codes(**{**one, "seed": int(one["seed"])})
        np.testing.assert_array_equal(clip["codes"][0], wanted.values)
        np.testing.assert_allclose(clip["sound"], model.decode(wanted).samples, rtol=0, atol=1e-4)


def test_music_of_several_windows(site):
    asked = {"prompt": "calm music box", "seconds": 12.5, "seed": "3"}
    (made,) = json.loads(node("page_in_node.mjs", site, "native", asked=[{"model": 0, "asked": asked}]))
    wanted = MusicGen.load("demo", threads=1).generate_codes("calm music box", seconds=12.5, seed=3)
    np.testing.assert_array_equal(made["codes"][0], wanted.values)


def test_the_pages_modules_vamp_as_python_does(site, tmp_path):
    clip = compose(5, seconds=7).audio.resample(24_000).mix(1)
    short = clip.samples[:, :36_000]
    sides = Audio(np.concatenate([short, 0.5 * short[:, ::-1]]), 24_000)
    free = {"period": 0, "prefix": 0.5, "steps": 4, "temperature": 1.1}
    asked = [(clip, {"steps": 3}), (sides, {"infill": [0.5, 1.1]}), (sides, free)]
    jobs = []
    for number, (audio, one) in enumerate(asked):
        files = [tmp_path / f"{number}-{side}.f32" for side in range(audio.channels)]
        for file, channel in zip(files, audio.samples, strict=True):
            file.write_bytes(np.ascontiguousarray(channel).tobytes())
        jobs.append({"model": 1, "asked": {**one, "seed": "7"}, "clip": [str(file) for file in files]})
    made = json.loads(node("page_in_node.mjs", site, "native", asked=jobs))
    model = Vampnet.load(CATALOG["demo"].path, threads=1)
    for (audio, one), result in zip(asked, made, strict=True):
        opened, _ = model.prepared(Options.of({**one, "audio": audio}))
        wanted = opened.make(None, 7, 1, None)[0]
        np.testing.assert_array_equal(result["codes"], wanted.codes)
        sound = np.concatenate(list(opened.sound(wanted, 24_000)), axis=1)
        np.testing.assert_allclose(result["sound"], sound, rtol=0, atol=1e-4)
