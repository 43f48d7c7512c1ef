"""What strangers may try: on the service, on the page's own paths, over real connections."""

from __future__ import annotations

import io
import json
import socket
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from starlette.testclient import TestClient

from audiogen_core import jobs
from audiogen_core.audio import Audio
from audiogen_core.errors import AudioError, AudiogenError, OptionError
from audiogen_core.recipe import Recipe
from audiogen_core.studio import guard
from audiogen_core.studio.memory import resident
from audiogen_core.studio.queue import Queue, QueueFull, Work, new_id
from audiogen_core.studio.service import application
from audiogen_core.studio.studio import Studio
from support import tones
from support.service import serving

ELSEWHERE = [
    "/etc/passwd",
    "../../../../etc/passwd",
    "..%2f..%2f..%2fetc%2fpasswd",
    "....//....//etc/passwd",
    "//server/share/a.wav",
    "\\\\server\\share\\a.wav",
    "C:\\Windows\\win.ini",
    "file:///etc/passwd",
    "a.wav\0.png",
    "~/.ssh/id_rsa",
    "queue",
    ".",
    "..",
]


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    with pytest.MonkeyPatch.context() as patch:
        tones.install(tmp_path_factory.mktemp("installed"), patch)
        tones.beside_vamp_alone(patch)
        studio = Studio(tmp_path_factory.mktemp("library"), offline=True)
        studio.start()
        yield studio
        studio.close()


@pytest.fixture(scope="module")
def client(studio: Studio) -> TestClient:
    from audiogen_core.studio.page import mount  # gradio takes seconds to import

    app, served = application(studio)
    mount(app, studio)
    return TestClient(served, base_url="http://127.0.0.1:7860", follow_redirects=False)


def wave(value: float = 0.25) -> bytes:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        path = Audio(np.full((1, 800), value, np.float32), tones.RATE).save(Path(folder, "a.wav"))
        return path.read_bytes()


def refused(answer: Any, *statuses: int) -> None:
    assert answer.status_code in statuses, answer.text
    assert "root:" not in answer.text
    assert answer.json()["error"]["message"]


def test_no_name_becomes_a_path(client: TestClient, studio: Studio):
    secret = studio.library.folder / "secret.wav"
    secret.write_bytes(wave())
    for name in [*ELSEWHERE, str(secret), "../secret.wav", "clips/../../secret.wav"]:
        for values in ({"clip": name}, {"tune": name}, {"model": name}, {"model": f"tones/{name}"}):
            refused(client.post("/v1/jobs", json={"job": "tones", **values}), 400, 404)
        sent = quote(name, safe="/.%")
        for path in (
            f"/v1/clips/{sent}",
            f"/v1/clips/{quote(name, safe='')}",
            f"/v1/clips/{sent}/picture",
            f"/v1/jobs/{sent}",
            f"/v1/trainings/{sent}/samples/{sent}",
            f"/v1/trainings/{sent}/report",
        ):
            answer = client.get(path)
            assert answer.status_code in (200, 307, 400, 404) and "root:" not in answer.text
            if answer.status_code == 200:  # the address is another one: the page itself, or a list
                assert not answer.content.startswith(b"RIFF")


def test_uploads_are_named_by_their_content_alone(client: TestClient, studio: Studio, tmp_path: Path):
    before = {path for path in tmp_path.parent.rglob("*") if studio.library.folder not in path.parents}
    for name in (
        "../../../evil.wav",
        str(tmp_path / "evil.wav"),
        "\\\\server\\evil.wav",
        "a\r\nX-Evil: 1.wav",
        "CON.wav",
    ):
        answer = client.post("/v1/clips", files={"file": (name, wave(), "audio/wav")})
        assert answer.status_code == 201 and "x-evil" not in answer.headers
        assert set(answer.json()["name"]) <= set("0123456789abcdef.wav")
    after = {path for path in tmp_path.parent.rglob("*") if studio.library.folder not in path.parents}
    assert after == before and not (tmp_path / "evil.wav").exists()
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.wav", wave())
    for name in ("a.wav", "a.zip", "a.wav.zip", "a"):
        refused(client.post("/v1/clips", files={"file": (name, zipped.getvalue())}), 400)
    left = [path.name for path in (studio.library.folder / "uploads").iterdir() if ".tmp" in path.name]
    assert left == []


def test_pages_own_paths_give_nothing_else_away(client: TestClient, studio: Studio):
    secret = studio.library.folder / "queue" / "secret.json"
    for path in ("/etc/passwd", str(secret), f"{studio.library.folder}/clips/../queue/secret.json"):
        for way in (f"/gradio_api/file={path}", f"/gradio_api/file/{path}", f"/file={path}"):
            assert client.get(way).status_code in (400, 403, 404, 422), way
    assert client.get("/gradio_api/proxy=http://example.org/").status_code >= 400
    # a component that is handed a file which was not brought in
    event = {"data": [{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}], "session_hash": "x"}
    config = client.get("/config").json()
    uploads = [each for each in config["dependencies"] if any(t[1] == "upload" for t in each["targets"])]
    assert uploads
    for dependency in uploads:
        answer = client.post("/gradio_api/run/predict", json={**event, "fn_index": dependency["id"]})
        assert answer.status_code >= 400 or "root:" not in answer.text
    assert not any(
        path.suffix == ".wav" and b"root:" in path.read_bytes()
        for path in (studio.library.folder / "uploads").iterdir()
    )


def test_pages_of_others_may_not_ask(client: TestClient, studio: Studio):
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:7861"},
        {"Origin": "null"},
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": ""},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"},
    ):
        for way in ("/v1/jobs", "/gradio_api/queue/join", "/gradio_api/upload"):
            refused(client.post(way, json={"job": "tones"}, headers=headers), 403)
    guarded = TestClient(application(studio, token="right")[1], base_url="http://music.example")
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "right"},
        {"Authorization": "Basic right"},
        {"Cookie": "audiogen_token=wrong"},
        {"Cookie": "audiogen_token="},
    ):
        refused(guarded.post("/v1/jobs", json={"job": "tones"}, headers=headers), 401)
    assert guarded.get("/healthz?token=wrong").status_code == 401
    assert guarded.get("/healthz", headers={"Authorization": "Bearer right"}).status_code == 200


def test_lines_in_fields_stay_in_them(client: TestClient):
    text = "a\r\nSet-Cookie: x=1\r\n\r\n<script>alert(1)</script>\u2028"
    answer = client.post("/v1/audio/generate", json={"job": "tones", "input": text, "seconds": 0.25})
    assert answer.status_code == 200 and "set-cookie" not in answer.headers
    assert json.loads(answer.headers["x-audiogen-recipe"])["settings"]["prompt"] == text
    assert "\n" not in answer.headers["x-audiogen-clip"]
    wide = client.post("/v1/audio/generate", json={"job": "tones", "input": "日本の音楽", "seconds": 0.25})
    assert wide.status_code == 200 and wide.headers["x-audiogen-clip"].isascii()


def test_a_text_on_the_page_names_no_file(studio: Studio, tmp_path: Path):
    import gradio as gr

    from audiogen_core.studio.form import Form

    secret, clip = tmp_path / "secret.txt", tmp_path / "a.wav"
    secret.write_text("zebra 1 2 3\n")
    clip.write_bytes(wave())
    with gr.Blocks(), gr.Tab("VampNet") as tab:
        form = Form(studio, jobs.find("vamp"), "vamp", tab)
    values = dict(zip(form.components, (each.value for each in form.components.values()), strict=True))
    values |= {"audio": str(clip), "beats": str(secret)}
    with pytest.raises(OptionError, match="beats") as told:
        studio.accept(form.read(*values.values(), *(each.value for each in form.beside)))
    assert "zebra" not in str(told.value)
    values["beats"] = "0.01 0.02"
    assert studio.accept(form.read(*values.values(), *(each.value for each in form.beside))).options["beats"]


def test_recipes_of_strangers_name_no_files(studio: Studio, tmp_path: Path):
    secret = tmp_path / "secret.wav"
    secret.write_bytes(wave(0.5))
    facts = {"package": "audiogen-tones", "version": "1", "model": "plain", "revision": "1", "seed": 1}
    asked = {"command": "tones", "prompt": "x"}
    for inputs in ({}, {"clip": "00"}, {"clip": ""}, {"clip": "samples 00"}, {"part": "00"}):
        recipe = Recipe(**facts, settings={**asked, "clip": str(secret)}, inputs=inputs)
        with pytest.raises(AudiogenError):
            studio.replay(recipe)
    with pytest.raises(AudioError, match="another version"):
        studio.replay(Recipe(**facts, settings={**asked, "unlisted": True}))
    with pytest.raises(AudiogenError, match=r"no such folder|not in the catalogue|cannot be named"):
        studio.replay(Recipe(**{**facts, "model": str(tmp_path)}, settings=asked))


@pytest.mark.parametrize("most", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_ten_thousand_jobs_wait_and_no_more(most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from audiogen_core import files

    monkeypatch.setattr(files, "sync", lambda path: None)  # the disk's own time is not looked at
    queue = Queue(tmp_path, most=most)
    for _ in range(most):
        queue.add(Work(new_id(), "tones", "audiogen-tones", {}, {}, ()))
    with pytest.raises(QueueFull):
        queue.add(Work(new_id(), "tones", "audiogen-tones", {}, {}, ()))
    began = time.monotonic()
    again = Queue(tmp_path, most=most)
    assert [each.id for each in again.all()] == [each.id for each in queue.all()]
    first = again.next(0.0)
    assert first is not None and first.id == again.all()[-1].id
    assert time.monotonic() - began < 30


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("most", [100, 10_000])
def test_ten_thousand_jobs_are_asked_for(most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tones.install(tmp_path / "installed", monkeypatch)
    queue = ("--queue", str(most))

    def asked(number: int, **more: Any) -> str | None:
        body = {"job": "tones", "seconds": 0.25, "seed": number, **more}
        answer = server.ask("POST", "/v1/jobs", json=body)
        if answer.status_code == 429:
            refused(answer, 429)
            assert f"{most} jobs wait already" in answer.json()["error"]["message"]
            return None
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    with serving(tmp_path / "library", *queue) as server, ThreadPoolExecutor(8) as clients:
        first = asked(0, seconds=60, wait=10)
        while server.ask("GET", "/healthz").json()["running"] == 0:
            time.sleep(0.05)
        held = resident(server.process.pid)
        names = [name for name in clients.map(asked, range(1, 10_001)) if name is not None]
        grown = resident(server.process.pid) - held
        assert len(set(names)) == len(names) == most
        assert server.ask("GET", "/healthz").json() == {"status": "ok", "waiting": most, "running": 1}
    print(f"\n{most} of 10,000 jobs wait: the server holds {held >> 20} MiB, and {grown >> 20} MiB for them")
    assert grown < (24 << 20) + most * 16_384
    with serving(tmp_path / "library", *queue) as server, ThreadPoolExecutor(8) as clients:
        assert {first, *names} == {each["id"] for each in server.ask("GET", "/v1/jobs").json()["data"]}
        assert server.ask("DELETE", f"/v1/jobs/{first}").status_code == 200
        server.ended(set(sorted(names)[:50]))
        list(clients.map(lambda name: server.ask("DELETE", f"/v1/jobs/{name}"), reversed(names)))
        works = server.ended(set(names))
        done = [works[name] for name in sorted(names) if works[name]["state"] == "done"]
        assert {works[name]["state"] for name in names} <= {"done", "cancelled"} and len(done) >= 50
        assert [work["begun"] for work in done] == sorted(work["begun"] for work in done)
        made = sorted(path.name for path in (tmp_path / "library" / "clips").iterdir())
        assert made == sorted(name for work in done for name in work["files"])


def test_bodies_that_lie_or_crawl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(guard, "SLOW", 0.5)
    studio = Studio(tmp_path / "library")
    _, served = application(studio)
    from support.browser import listening

    with listening(served) as (host, port):

        def talk(*parts: bytes, pause: float = 0.0) -> bytes:
            with socket.create_connection((host, port), timeout=20) as connection:
                for part in parts:
                    try:
                        connection.sendall(part)
                    except OSError:
                        break
                    time.sleep(pause)
                connection.settimeout(10)
                try:
                    return connection.recv(4096)
                except TimeoutError:
                    return b"nothing"

        head = b"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        assert b" 413 " in talk(head + b"Content-Length: 10000000000\r\n\r\n{}")
        assert b" 400 " in talk(head + b"Content-Length: 999999999999999999999999\r\n\r\n{}")
        assert b" 400 " in talk(head + b"Content-Length: -1\r\n\r\n{}")
        assert b" 408 " in talk(head + b"Content-Length: 10\r\n\r\n{")
        crawling = [head + b"Content-Length: 100\r\n\r\n", *[b"a"] * 12]
        assert b" 408 " in talk(*crawling, pause=0.2)
        assert b" 400 " in talk(b"GET / HTTP/1.1\r\nX: " + b"a" * 200_000)


@pytest.mark.slow
def test_another_service_may_not_use_the_same_library(tmp_path: Path):
    with serving(tmp_path / "library") as first:
        assert first.ask("GET", "/healthz").status_code == 200
        with serving(tmp_path / "library") as second:
            assert second.process.wait(60) == 1
        assert "another service works on this library" in (tmp_path / "library.log").read_text()
