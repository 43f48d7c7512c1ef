"""What is imported where: nothing of the extra without it, no framework in the server."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from importlib import resources
from pathlib import Path

import pytest

from audiogen_core import jobs
from audiogen_core.jobs import Run
from audiogen_core.options import described
from audiogen_core.recipe import Recipe
from audiogen_core.studio.library import Clip
from audiogen_core.studio.show import title
from support.service import serving

EXTRA = ("fastapi", "starlette", "uvicorn", "gradio", "pandas", "filelock", "multipart")


def said(program: str) -> str:
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    return ended.stdout + ended.stderr


def test_core_imports_nothing_of_the_extra():
    program = f"""
import sys
import audiogen_core, audiogen_core.main, audiogen_core.jobs, audiogen_core.commands
audiogen_core.jobs.installed()
print(sorted(set(sys.modules) & set({EXTRA})))
"""
    assert said(program).strip() == "[]"


@pytest.mark.parametrize("missing", ["gradio", "fastapi"])
def test_without_the_extra_a_sentence_says_what_to_install(missing: str, tmp_path: Path):
    program = f"""
import sys
sys.modules[{missing!r}] = None
sys.argv = ["audiogen-core", "studio", "--library", {str(tmp_path)!r}]
from audiogen_core.main import main
main()
"""
    answer = said(program)
    assert 'pip install "audiogen-core[studio]"' in answer and "Traceback" not in answer


def test_the_pages_files_are_in_the_package():
    for name in ("page.css", "page.js"):
        text = (resources.files("audiogen_core.studio") / name).read_text(encoding="utf-8")
        assert text and "http://" not in text and "https://" not in text


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_the_server_loads_no_framework(tmp_path: Path):
    with serving(tmp_path / "library", "--no-open", verb="studio") as server:
        assert server.ask("GET", "/").status_code == 200
        assert server.ask("GET", "/v1/models").status_code == 200
        answer = server.ask("POST", "/v1/jobs", json={"model": "vamp/demo", "audio": "none.wav"})
        assert answer.status_code == 400
        loaded = Path(f"/proc/{server.process.pid}/maps").read_text()
        assert not [each for each in ("libtorch", "libmlx", "onnxruntime") if each in loaded]


@pytest.mark.slow
def test_signals_end_it_and_what_it_started(tmp_path: Path):
    for verb in ("serve", "studio"):
        more = ("--no-open",) if verb == "studio" else ()
        with serving(tmp_path / verb, *more, verb=verb) as server:
            asked = server.ask(
                "POST", "/v1/jobs", json={"model": "musicgen/demo", "input": "x", "seconds": 60}
            )
            assert asked.status_code == 202
            until = time.monotonic() + 60
            while not server.workers() and time.monotonic() < until:
                time.sleep(0.05)
            server.process.terminate()
            assert server.process.wait(30) in (0, 143, -15)


def test_no_option_is_named_in_the_studio_but_what_every_job_has():
    family = [job for job in jobs.every() if job.package in jobs.FAMILY]
    assert len(family) > 4
    names = {each.name for job in family for cls in (job.options, job.load) for each in described(cls)}
    common = {"prompt", "seed", "model", "revision", "on_step", "fetch"}
    common |= {each.name for each in described(Run)}
    facts_of_clips = {"audio", "channels", "sample_rate", "seconds"}
    for path in (Path(jobs.__file__).parent / "studio").glob("*.py"):
        tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        texts = {
            each.value for each in tree if isinstance(each, ast.Constant) and isinstance(each.value, str)
        }
        assert texts & names - common - facts_of_clips == set(), path


@pytest.mark.parametrize(
    ("source", "called"),
    [("hum.wav", "vamp of hum"), ("uploads/c7fa1ff711918b62fb99d1dc.wav", "vamp"), (None, "vamp")],
)
def test_a_clip_without_a_prompt_is_called_by_what_it_was_made_of(source: str | None, called: str):
    settings = {"command": "vamp"} | ({"audio": source} if source else {})
    made = Recipe("audiogen-onnx", "0", "demo", settings=settings, inputs={"audio": "0"} if source else {})
    assert title(Clip("a.wav", 1.0, 24_000, 1, 0.0, 0, made)) == called
