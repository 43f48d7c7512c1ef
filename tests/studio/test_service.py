"""The service beside a job of tones: what is asked and answered, what is refused, what goes wrong."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.testclient import TestClient

from audiogen_core import jobs
from audiogen_core.audio import Audio
from audiogen_core.recipe import Recipe
from audiogen_core.studio.service import application
from audiogen_core.studio.studio import Studio
from support import tones


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        tones.install(tmp_path_factory.mktemp("installed"), patch)
        yield tmp_path_factory.mktemp("library")


@pytest.fixture(scope="module")
def studio(folder: Path) -> Iterator[Studio]:
    studio = Studio(folder, patience=15.0, most_waiting=5, offline=True)
    studio.start()
    yield studio
    studio.close()


@pytest.fixture(scope="module")
def client(studio: Studio) -> TestClient:
    _, served = application(studio, most_bytes=2_000_000)
    return TestClient(served, base_url="http://127.0.0.1:7860")


def generate(client: TestClient, **values: Any) -> httpx.Response:
    return client.post("/v1/audio/generate", json={"job": "tones", **values})


def ended(client: TestClient, name: str, seconds: float = 60.0) -> dict[str, Any]:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        work = client.get(f"/v1/jobs/{name}").json()
        if work["state"] in ("done", "failed", "cancelled"):
            return work
        time.sleep(0.02)
    raise AssertionError(f"{name} does not end: {work}")


def sentence(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["code"] == status and error["message"].count("\n") == 0
    return str(error["message"])


def test_sound_comes_back_with_its_recipe(client: TestClient, tmp_path: Path):
    answer = generate(client, input="a low tone", pitch=220, audio_length=0.5, seed=3)
    assert answer.status_code == 200 and answer.headers["content-type"] == "audio/wav"
    sound = Audio.load(_stored(tmp_path, answer))
    assert (sound.sample_rate, sound.samples.shape) == (tones.RATE, (1, tones.RATE // 2))
    recipe = Recipe.from_json(answer.headers["x-audiogen-recipe"])
    assert recipe == Recipe.read(tmp_path / "a.wav")
    assert recipe.settings["prompt"] == "a low tone" and recipe.settings["pitch"] == 220 and recipe.seed == 3
    again = generate(client, input="a low tone", pitch=220, seconds=0.5, seed=3)
    assert again.content == answer.content
    other = generate(client, input="a low tone", pitch=220, seconds=0.5)
    assert other.content != answer.content  # a seed was drawn


def _stored(folder: Path, answer: httpx.Response) -> Path:
    path = folder / "a.wav"
    path.write_bytes(answer.content)
    return path


@pytest.mark.parametrize("format", ["flac", "ogg", "mp3", "pcm"])
def test_other_formats(client: TestClient, format: str):
    answer = generate(client, seconds=0.5, seed=1, response_format=format)
    assert answer.status_code == 200
    start = {"flac": b"fLaC", "ogg": b"OggS", "mp3": b"ID3"}.get(format, b"")
    assert answer.content.startswith(start)
    if format == "pcm":
        assert len(answer.content) == tones.RATE


def test_sound_streams_while_it_is_made(client: TestClient):
    with client.stream(
        "POST",
        "/v1/audio/generate",
        json={"job": "tones", "seconds": 2, "wait": 0.15, "seed": 1, "stream": True},
    ) as answer:
        arrived = [(time.monotonic(), len(block)) for block in answer.iter_raw()]
    whole = generate(client, seconds=2, seed=1, response_format="pcm").content
    assert sum(size for _, size in arrived) == 44 + len(whole)
    assert arrived[-1][0] - arrived[0][0] > 0.5  # the first part came long before the last


def test_a_clip_comes_with_the_request(client: TestClient, tmp_path: Path):
    Audio(np.full((1, 400), 0.25, np.float32), tones.RATE).save(tmp_path / "in.wav")
    sent = (tmp_path / "in.wav").read_bytes()
    answer = client.post(
        "/v1/audio/generate",
        data={"job": "tones", "seconds": "0.25", "input": "12"},
        files={"clip": ("../../etc/in.wav", sent, "audio/wav")},
    )
    assert answer.status_code == 200, answer.text
    sound = Audio.load(_stored(tmp_path, answer))
    assert sound.samples.shape == (1, 400 + tones.RATE // 4)
    name = client.post("/v1/clips", files={"file": ("x.wav", sent)}).json()["name"]
    assert "/" not in name and client.get(f"/v1/clips/{name}").content == sent
    by_name = generate(client, seconds=0.25, clip=name)
    assert by_name.status_code == 200
    assert len(by_name.content) > len(sent)
    (newest, *_) = client.get("/v1/jobs").json()["data"]
    assert newest["options"]["clip"] == f"uploads/{name}"  # not where the library is


def test_a_file_that_is_no_sound_comes_with_the_request(client: TestClient, tmp_path: Path):
    def asked(name: str, part: str = "tune") -> httpx.Response:
        parts = {part: (name, b"440 660\n")}
        values = {"job": "tones", "seconds": "0.5", "seed": "1"}
        return client.post("/v1/audio/generate", data=values, files=parts)

    answer = asked("tune.txt")
    assert answer.status_code == 200, answer.text
    recipe = Recipe.from_json(answer.headers["x-audiogen-recipe"])
    assert recipe.inputs == {"tune": hashlib.sha256(b"440 660\n").hexdigest()}
    assert answer.content != generate(client, seconds=0.5, seed=1).content
    assert ".txt" in sentence(asked("tune.exe"), 400)
    assert "sound file" in sentence(asked("tune.txt", "clip"), 400)
    assert "sound file" in sentence(client.post("/v1/clips", files={"file": ("tune.txt", b"440")}), 400)


def test_work_is_followed_to_its_end(client: TestClient):
    work = client.post("/v1/jobs", json={"job": "tones", "seconds": 1, "wait": 0.05, "n": 3, "seed": 5})
    assert work.status_code == 202
    name = work.json()["id"]
    states = []
    with client.stream("GET", f"/v1/jobs/{name}/events") as events:
        for line in events.iter_lines():
            if line.startswith("data: "):
                states.append(json.loads(line[6:]))
    assert states[-1]["state"] == "done" and any(each["total"] == 1 for each in states)
    assert [clip["seed"] for clip in states[-1]["clips"]] == [5, 6, 7]
    listed = [clip["name"] for clip in client.get("/v1/clips").json()["data"]]
    assert set(states[-1]["files"]) <= set(listed)
    assert client.delete(f"/v1/clips/{states[-1]['files'][0]}").status_code == 204
    sentence(client.get(f"/v1/clips/{states[-1]['files'][0]}"), 404)


def test_cancelling_stops_within_a_step_and_keeps_nothing(client: TestClient, studio: Studio):
    running = client.post("/v1/jobs", json={"job": "tones", "seconds": 60, "wait": 0.05}).json()
    waiting = client.post("/v1/jobs", json={"job": "tones", "seconds": 60, "wait": 0.05}).json()
    until = time.monotonic() + 30
    while not client.get(f"/v1/jobs/{running['id']}").json()["clips"] and time.monotonic() < until:
        time.sleep(0.02)
    assert client.delete(f"/v1/jobs/{waiting['id']}").json()["state"] == "cancelled"
    process = studio._processes["audiogen-tones"].pid
    client.delete(f"/v1/jobs/{running['id']}")
    assert ended(client, running["id"])["state"] == "cancelled"
    assert generate(client, seconds=0.25).status_code == 200
    assert studio._processes["audiogen-tones"].pid == process  # it was asked, not killed
    made = {path.name for path in (studio.library.folder / "clips").iterdir()}
    assert not made & {*running["files"], *waiting["files"]}


@pytest.mark.parametrize(
    ("fault", "status", "words"),
    [
        ("crash", 500, "SIGABRT"),
        ("killed", 500, "out of memory"),
        pytest.param("hang", 500, "no sign of life", marks=pytest.mark.slow),
        ("bug", 500, "ZeroDivisionError"),
        ("refuse", 400, "this tone cannot be made"),
    ],
)
def test_what_goes_wrong_is_one_failed_job(client: TestClient, fault: str, status: int, words: str):
    assert words in sentence(generate(client, seconds=0.5, fault=fault), status)
    assert generate(client, seconds=0.25).status_code == 200


def test_a_confidence_that_is_no_number_is_none(client: TestClient):
    answer = generate(client, seconds=0.25, fault="unlikely")
    assert answer.status_code == 200
    work = client.get(f"/v1/jobs/{answer.headers['x-audiogen-job']}").json()
    assert work["clips"][0]["confidence"] is None


def test_wrong_options_are_told_before_any_work(client: TestClient):
    for values, status, words in (
        ({"pitch": 5000}, 400, "pitch"),
        ({"pitch": "high"}, 400, "pitch"),
        ({"picth": 1}, 400, "did you mean pitch"),
        ({"noise": 1}, 400, "Python alone"),
        ({"n": 0}, 400, "variations"),
        ({"stream": 1}, 400, "stream"),
        ({"response_format": "exe"}, 400, ".exe"),
        ({"model": "other"}, 404, "other"),
        ({"model": "/etc/passwd"}, 404, "/etc/passwd"),
        ({"clip": "/etc/passwd"}, 400, "no clip"),
        ({"clip": "../queue"}, 400, "no clip"),
        ({"clip": 3}, 400, "clip"),
        ({"job": "singing"}, 409, "singing"),
        ({"seed": 1e300}, 400, "seed"),
    ):
        assert words in sentence(generate(client, **values), status), values
    for body, words in ((b"[1]", "object"), (b"{", "JSON"), (b"\xff", "UTF-8"), (b"[" * 100_000, "JSON")):
        assert words in sentence(client.post("/v1/jobs", content=body), 400)
    assert "several jobs" in sentence(client.post("/v1/jobs", json={"model": "demo"}), 400)
    sentence(client.get("/v1/jobs/none"), 404)
    sentence(client.get("/v1/nothing"), 404)
    sentence(client.get("/v1/audio/generate"), 405)  # the page, mounted beside, knows nothing of it
    sentence(client.put("/v1/jobs"), 405)


def test_files_of_this_machine_are_named_where_that_is_allowed_alone(folder: Path, tmp_path: Path):
    Audio(np.full((1, 400), 0.25, np.float32), tones.RATE).save(tmp_path / "in.wav")
    studio = Studio(tmp_path / "library", allowed=[tmp_path])
    client = TestClient(application(studio)[1], base_url="http://localhost")
    ask = {"job": "tones", "clip": str(tmp_path / "in.wav")}
    assert client.post("/v1/jobs", json=ask).status_code == 202
    (tmp_path / "link").symlink_to("/etc")
    for path in ("/etc/passwd", str(tmp_path / ".." / "x.wav"), str(tmp_path / "link" / "passwd")):
        sentence(client.post("/v1/jobs", json={"job": "tones", "clip": path}), 400)


def test_the_queue_has_an_end(client: TestClient):
    names = []
    while (
        answer := client.post("/v1/jobs", json={"job": "tones", "seconds": 60, "wait": 1})
    ).status_code == 202:
        names.append(answer.json()["id"])
        assert len(names) < 10
    assert "wait already" in sentence(answer, 429)
    for name in reversed(names):
        client.delete(f"/v1/jobs/{name}")
    assert {ended(client, name)["state"] for name in names} == {"cancelled"}


def test_who_may_ask(client: TestClient, studio: Studio):
    def status(headers: dict[str, str], path: str = "/v1/models") -> int:
        return client.get(path, headers=headers).status_code

    assert status({}) == 200
    assert status({"Host": "evil.example:7860"}) == 403  # its name was made to mean this machine
    assert status({"Origin": "http://evil.example"}) == 403
    assert status({"Origin": "null"}) == 403
    assert status({"Origin": "http://127.0.0.1:7860"}) == 200
    assert status({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}) == 403
    guarded = TestClient(
        application(studio, token="abc")[1], base_url="http://music.example", follow_redirects=False
    )
    assert guarded.get("/healthz").status_code == 401
    assert guarded.get("/healthz", headers={"Authorization": "Bearer abd"}).status_code == 401
    assert guarded.get("/healthz", headers={"Authorization": "Bearer abc"}).status_code == 200
    entered = guarded.get("/healthz?token=abc")
    assert entered.status_code == 303 and "HttpOnly" in entered.headers["set-cookie"]
    assert guarded.get("/healthz").status_code == 200  # by the cookie
    assert guarded.get("/healthz", headers={"Origin": "http://evil.example"}).status_code == 403


def test_bodies_are_bounded(client: TestClient):
    headers = {"Content-Length": str(10_000_000_000)}
    assert "bytes" in sentence(client.post("/v1/clips", content=b"x", headers=headers), 413)

    def endless() -> Iterator[bytes]:
        for _ in range(100):
            yield bytes(100_000)

    assert client.post("/v1/jobs", content=endless()).status_code == 413
    sentence(client.post("/v1/clips", files={"file": ("a.wav", b"RIFF" + bytes(100))}), 400)
    sentence(client.post("/v1/clips", files={"file": ("a.zip", b"PK")}), 400)
    sentence(client.post("/v1/clips", data={"file": "text"}), 400)


def test_control_characters_do_not_reach_headers(client: TestClient):
    answer = generate(client, input="a\r\nSet-Cookie: x=1", seconds=0.25)
    assert answer.status_code == 200 and "set-cookie" not in answer.headers
    assert "\\r\\n" in answer.headers["x-audiogen-recipe"]


def test_the_api_describes_itself(client: TestClient):
    described = client.get("/openapi.json").json()
    assert "/v1/audio/generate" in described["paths"]
    schemas = client.get("/v1/jobs/schema").json()
    assert schemas["tones"]["properties"]["pitch"]["exclusiveMaximum"] == 4000
    assert "noise" not in schemas["tones"]["properties"]
    assert {job.name for job in jobs.installed()} == set(schemas)
    models = client.get("/v1/models").json()["data"]
    assert {"id": "tones/plain", "here": True, "license": "MIT"}.items() <= next(
        each.items() for each in models if each["job"] == "tones"
    )


def test_what_was_accepted_is_done_by_the_next_server(folder: Path, tmp_path: Path):
    first = Studio(tmp_path)
    first.start()
    client = TestClient(application(first)[1], base_url="http://localhost")
    names = [
        client.post("/v1/jobs", json={"job": "tones", "seconds": 1, "wait": 0.05}).json()["id"]
        for _ in range(3)
    ]
    while not first.queue.get(names[0]).clips:
        time.sleep(0.01)
    process = first._processes["audiogen-tones"].pid
    os.kill(process, signal.SIGSTOP)  # as if it were lost in the middle of a clip
    first.close()
    second = Studio(tmp_path)
    assert [second.queue.get(name).state for name in names] == ["waiting"] * 3
    second.start()
    client = TestClient(application(second)[1], base_url="http://localhost")
    works = [ended(client, name) for name in names]
    second.close()
    assert {work["state"] for work in works} == {"done"}
    made = sorted(path.name for path in (tmp_path / "clips").iterdir())
    assert made == sorted(name for work in works for name in work["files"])


def test_clips_are_found_by_what_made_them(client: TestClient, studio: Studio):
    generate(client, input="a very rare word", seconds=0.25)
    found = client.get("/v1/clips", params={"search": "RARE word"}).json()["data"]
    assert [clip["recipe"]["settings"]["prompt"] for clip in found] == ["a very rare word"]
    (studio.library.folder / "clips" / "note.txt").write_text("no sound")
    assert "note.txt" not in json.dumps(client.get("/v1/clips").json())
    assert io.BytesIO(client.get(f"/v1/clips/{found[0]['name']}").content).read(4) == b"RIFF"
