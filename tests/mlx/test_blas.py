"""Which BLAS mlx gets on Linux: the choice in fresh processes, and that products stay the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from audiogen_core import threads
from audiogen_mlx import blas

pytestmark = pytest.mark.skipif(
    not blas._on_reference_blas(), reason="only mlx's CPU wheel for Linux needs another BLAS"
)

DESCRIBE = "import json; from audiogen_mlx import blas; print(json.dumps(blas.describe()))"


def python(code: str, *arguments: object, **variables: str) -> str:
    """What a fresh Python prints; OMP_NUM_THREADS and the like only as given."""
    kept = {name: value for name, value in os.environ.items() if name not in threads.VARIABLES}
    kept.pop(blas.VARIABLE, None)
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=kept | variables,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def describe(**variables: str) -> dict:
    return json.loads(python(DESCRIBE, **variables))


def package() -> Path:
    import scipy_openblas32

    return next((Path(scipy_openblas32.__file__).parent / "lib").glob("libscipy_openblas*.so"))


def test_a_fast_blas_is_used_without_being_asked_for():
    facts = describe()
    assert facts["source"] in ("environment", "system", "package")
    assert facts["threads"] == threads.cores()
    assert facts["hint"] == ""


def test_the_users_library_is_used_whatever_its_names_look_like():
    facts = describe(AUDIOGEN_MLX_BLAS=str(package()))
    assert (facts["library"], facts["source"]) == (str(package()), "user")


def test_off_leaves_mlx_as_it_is_and_gives_no_hint():
    facts = describe(AUDIOGEN_MLX_BLAS="off")
    assert (facts["source"], facts["hint"]) == ("wheel", "")


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "cannot open"), (b"", "too short"), (b"\x7fELF\x02\x01" + bytes(90), "")],
)
def test_an_unusable_library_is_a_note_and_a_hint_never_an_error(tmp_path, content, reason):
    path = tmp_path / "libblas.so"
    if content is not None:
        path.write_bytes(content)
    facts = describe(AUDIOGEN_MLX_BLAS=str(path))
    assert facts["source"] == "wheel"
    assert facts["notes"][0].startswith(f"{path} is not used: ")
    assert reason in facts["notes"][0]
    assert facts["hint"].endswith("check AUDIOGEN_MLX_BLAS")


def test_libraries_of_the_environment_come_first_and_a_broken_one_is_passed_over(tmp_path):
    (tmp_path / "lib").mkdir()
    broken = tmp_path / "lib" / "libmkl_rt.so.2"
    broken.write_bytes(b"no library")
    facts = json.loads(python(f"import sys; sys.prefix = {str(tmp_path)!r}; {DESCRIBE}"))
    assert facts["notes"][0].startswith(f"{broken} is not used: ")
    assert facts["source"] in ("system", "package")


def test_a_library_that_is_no_blas_is_refused():
    facts = describe(AUDIOGEN_MLX_BLAS=sys.modules["_ctypes"].__file__)
    assert "has no cblas_sgemm" in facts["notes"][0]


@pytest.mark.parametrize("wrong", ["nothing", "ignores the transposition", "right"])
def test_a_wrong_product_is_told_from_a_right_one(wrong):
    def product(order, plain, second, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc):
        right = np.reshape(b, (k, n)) if second == 111 or wrong != "right" else np.reshape(b, (n, k)).T
        if wrong != "nothing":
            c[:] = (np.reshape(a, (m, k)) @ right).ravel().tolist()

    assert blas._computes(SimpleNamespace(cblas_sgemm=product)) == (wrong == "right")


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"])
def test_threads_are_those_the_user_set(name):
    assert describe(AUDIOGEN_MLX_BLAS=str(package()), **{name: "1"})["threads"] == 1


def test_mlx_imported_first_is_said_to_be_the_trouble():
    facts = json.loads(python("import mlx.core; " + DESCRIBE))
    assert facts["source"] == "wheel"
    assert "import audiogen_mlx first" in facts["hint"]


def test_products_are_those_of_the_reference_to_rounding(tmp_path):
    """Plain and transposed operands, one row and many: what mlx makes with each BLAS."""
    code = """
import sys
import audiogen_mlx
import mlx.core as mx
import numpy as np
draw = np.random.default_rng(0).standard_normal
made = []
for m, k, n in ((1, 64, 96), (2, 1024, 256), (130, 70, 33)):
    a, b = mx.array(draw((m, k)).astype("f4")), mx.array(draw((k, n)).astype("f4"))
    swapped = mx.contiguous(b.T)
    made += [a @ b, a @ swapped.T, mx.contiguous(a.T).T @ b, mx.conv1d(a[None], swapped[:, None])]
np.savez(sys.argv[1], *[np.array(x) for x in made])
"""
    for setting in ("off", str(package())):
        python(code, tmp_path / f"{len(setting)}.npz", AUDIOGEN_MLX_BLAS=setting)
    slow, fast = (np.load(tmp_path / f"{len(s)}.npz") for s in ("off", str(package())))
    assert set(slow.files) == set(fast.files)
    for name in slow.files:
        np.testing.assert_allclose(fast[name], slow[name], rtol=0, atol=1e-4)


def test_speed_is_measured_on_request():
    code = "from audiogen_mlx import blas; print(blas.describe(measure=True)['gflops'] > 0)"
    assert python(code).strip() == "True"


def test_cores_are_counted_once_within_the_processes_allowance():
    assert 1 <= threads.cores() <= len(os.sched_getaffinity(0))


def test_mlx_that_does_not_start_says_how_to_get_back(tmp_path: Path):
    """A stand-in for mlx with CUDA on a machine that has no driver: what it raises there."""
    (tmp_path / "mlx").mkdir()
    raised = "libcuda.so.1: cannot open shared object file: No such file or directory"
    (tmp_path / "mlx" / "core.py").write_text(f"raise ImportError({raised!r})\n")
    about = tmp_path / "mlx_cuda_13-0.32.4.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: mlx-cuda-13\nVersion: 0.32.4\n")
    command = ["musicgen", "slow piano", "-m", "demo", "-o", str(tmp_path / "a.wav")]
    run = "import sys; from audiogen_mlx.cli import main; sys.argv[1:] = {!r}; main()"
    for code in (run.format(command), "from audiogen_mlx import MusicGen", "import audiogen_mlx.ops"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            timeout=60,
        )
        assert done.returncode == 1
        said = done.stderr.strip().splitlines()[-1]
        assert raised in said
        assert "pip uninstall mlx-cuda-13, then pip install --force-reinstall 'mlx[cpu]'" in said
        assert ("Traceback" in done.stderr) == ("main" not in code)  # Python shows where
    assert not (tmp_path / "a.wav").exists()
