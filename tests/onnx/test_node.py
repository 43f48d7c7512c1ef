"""An exported folder in onnxruntime-node: the same codes, logits, sound and draws as in Python."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from audiogen_onnx.exporter.export import quantize
from audiogen_onnx.manifest import Manifest
from audiogen_onnx.session import Session
from audiogen_onnx.vampnet.verify import random_codes
from support.exported import exported

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("node") is None or shutil.which("npm") is None, reason="needs node and npm"
    ),
]

PACKAGE = "onnxruntime-node@1.30.0"
SCRIPT = Path(__file__).with_name("run_graph.cjs")


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """Runs a script beside an installed onnxruntime-node."""
    place = tmp_path_factory.mktemp("node")
    (place / "package.json").write_text("{}")
    subprocess.run(
        ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", PACKAGE],
        cwd=place,
        check=True,
        capture_output=True,
        timeout=240,
    )
    shutil.copyfile(SCRIPT, place / SCRIPT.name)

    def run(jobs: list[dict]) -> None:
        (place / "jobs.json").write_text(json.dumps(jobs))
        done = subprocess.run(
            ["node", SCRIPT.name, "jobs.json"],
            cwd=place,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    return run


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
def test_node_gives_what_python_gives(node, tmp_path, dtype):
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
    node(jobs)
    for file, values in expected.items():
        made = np.frombuffer(Path(file).read_bytes(), values.dtype).reshape(values.shape)
        if values.dtype == np.int64:
            np.testing.assert_array_equal(made, values, err_msg=file)
        else:
            np.testing.assert_allclose(made, values, rtol=0, atol=1e-4, err_msg=file)
