"""The service over HTTP. Errors are JSON with one sentence: {"error": {"message", "type", "code"}}.

POST /v1/audio/generate asks for sound and waits for it; POST /v1/jobs for work that is followed by its id.
What can be asked of a job is its schema (GET /v1/jobs/schema); options go by the names they have there.
"""

from __future__ import annotations

import asyncio
import json
import os
import struct
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.background import BackgroundTask
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.routing import Match

from audiogen_core import jobs
from audiogen_core.errors import (
    AudiogenError,
    CannotStart,
    DownloadError,
    MissingDependency,
    OptionError,
    UnknownModel,
)
from audiogen_core.options import described
from audiogen_core.present import plain
from audiogen_core.settings import parse_json
from audiogen_core.studio.guard import Guard, Refused
from audiogen_core.studio.picture import png
from audiogen_core.studio.queue import ENDED, Missing, QueueFull, Work
from audiogen_core.studio.studio import Asked, NotInstalled, Studio
from audiogen_core.studio.workers import WorkerDied
from audiogen_core.version import version

STATUS: tuple[tuple[type[AudiogenError], int], ...] = (
    (Missing, 404),
    (UnknownModel, 404),
    (QueueFull, 429),
    (NotInstalled, 409),
    (MissingDependency, 409),
    (CannotStart, 409),
    (DownloadError, 409),
    (WorkerDied, 500),
    (AudiogenError, 400),
)
"""The first that fits."""

TYPES = {
    "wav": "audio/wav",
    "flac": "audio/flac",
    "ogg": "audio/ogg",
    "opus": "audio/ogg",
    "mp3": "audio/mpeg",
    "aiff": "audio/aiff",
}

OFTEN = 0.02
"""Seconds between two looks at how work goes on."""

_OWN = ("input", "job", "package", "response_format", "stream", "n", "channel", "fetch")
"""What a request has beside the options of its job."""

_BODY = {
    "type": "object",
    "properties": {
        "input": {"type": "string", "description": "What to hear: the prompt of the job."},
        "model": {"type": "string", "description": "Name of a model, or JOB/NAME; see /v1/models."},
        "job": {"type": "string", "description": "Name of a job, for its usual model; see /v1/jobs/schema."},
        "package": {
            "type": "string",
            "description": "Whose job, where several have one of that name; the first when absent.",
        },
        "response_format": {"type": "string", "enum": [*TYPES, "pcm"], "default": "wav"},
        "stream": {"type": "boolean", "default": False, "description": "Send sound while it is made."},
        "n": {
            "type": "integer",
            "minimum": 1,
            "default": 1,
            "description": "Clips, with seeds that count up.",
        },
        "fetch": {"type": "boolean", "default": False, "description": "Allow the model to be fetched."},
        "channel": {"type": "string", "enum": ["left", "right", "mid", "side"]},
    },
    "additionalProperties": True,
}
_ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "code": {"type": "integer"},
            },
            "required": ["message", "type", "code"],
        }
    },
    "required": ["error"],
}
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {"application/json": {"schema": _ERROR}}}
    for status, text in {
        400: "What is asked for is not right.",
        401: "A token is needed.",
        403: "Asked from another place.",
        404: "No such model, job or clip.",
        405: "Not asked in this way.",
        409: "Not installed, or not here yet.",
        413: "Too large.",
        422: "Not of the form described.",
        429: "The queue is full.",
        500: "The work ended by itself.",
    }.items()
}


def application(
    studio: Studio, *, token: str | None = None, most_bytes: int = 256 << 20
) -> tuple[FastAPI, Guard]:
    """The service, and what is served: the service behind its guard.

    token       that requests must show, or None where only this machine can ask
    most_bytes  of what is brought in
    """
    app = FastAPI(
        title="audiogen",
        version=version("audiogen-core"),
        description=__doc__,
        docs_url=None,
        redoc_url=None,
        responses=_ERRORS,
    )

    @app.exception_handler(AudiogenError)
    async def ours(request: Request, error: AudiogenError) -> JSONResponse:
        kind = error.kind if isinstance(error, Failed) else type(error).__name__
        return failure(status_of(error), " ".join(str(error).split()), kind)

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> JSONResponse:
        return failure(error.status, str(error), "Refused")

    @app.exception_handler(HTTPException)
    async def theirs(request: Request, error: HTTPException) -> JSONResponse:
        return failure(error.status_code, str(error.detail), "HTTPException", error.headers)

    @app.get("/healthz")
    async def healthz() -> dict[str, Any]:
        """That the server is there, and how much waits."""
        states = [work.state for work in studio.queue.all()]
        return {"status": "ok", "waiting": states.count("waiting"), "running": states.count("running")}

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        """The models of all jobs: licence, size, whether they are here, the options they understand."""
        return {"object": "list", "data": studio.models()}

    @app.get("/v1/jobs/schema")
    def schemas() -> dict[str, Any]:
        """What each job can be asked, as JSON Schema."""
        return {job.name: {**job.schema(), "x-package": job.package} for job in jobs.installed()}

    @app.get("/v1/jobs")
    async def works() -> dict[str, Any]:
        """What was asked for, from the newest on."""
        return {"object": "list", "data": [shown(studio, work) for work in studio.queue.all()]}

    @app.post("/v1/jobs", status_code=202, openapi_extra=_takes(_BODY))
    async def add(request: Request) -> dict[str, Any]:
        """Ask for work, and be told its id; it waits its turn."""
        return shown(studio, await _accepted(studio, await _values(studio, request)))

    @app.get("/v1/jobs/{name}")
    async def work(name: str) -> dict[str, Any]:
        """How a work goes on."""
        return shown(studio, studio.queue.get(name))

    @app.delete("/v1/jobs/{name}")
    async def cancel(name: str) -> dict[str, Any]:
        """End a work."""
        return shown(studio, await run_in_threadpool(studio.cancel, name))

    @app.get("/v1/jobs/{name}/events", response_class=StreamingResponse)
    async def events(name: str) -> StreamingResponse:
        """How a work goes on, told as it does (server-sent events), until it ends."""
        studio.queue.get(name)
        return StreamingResponse(_events(studio, name), media_type="text/event-stream")

    @app.get("/v1/jobs/{name}/sound", response_class=StreamingResponse)
    async def sound(name: str) -> StreamingResponse:
        """The first clip of a work while it is made, as WAV."""
        return await _streamed(studio, studio.queue.get(name), with_header=True, ours=False)

    @app.post("/v1/audio/generate", response_class=Response, openapi_extra=_takes(_BODY))
    async def generate(request: Request) -> Response:
        """Ask for sound and wait for it. The answer carries its recipe in `X-Audiogen-Recipe`.

        With several clips (`n`) the answer is JSON with their names, to be got from /v1/clips.
        """
        asked = await _values(studio, request)
        stream, format = asked.pop("stream", False), asked.get("response_format", "wav")
        if type(stream) is not bool:
            raise OptionError(f"stream must be true or false, got {stream!r}")
        if stream and format not in ("wav", "pcm"):
            raise OptionError(f"sound is streamed as wav or pcm, not as {format}")
        if format == "pcm":
            asked["response_format"] = "wav"
        work = await _accepted(studio, asked)
        if stream:
            return await _streamed(studio, work, with_header=format == "wav")
        ended = await _waited(studio, work, request)
        if len(ended.files) > 1:
            return JSONResponse(shown(studio, ended))
        path = studio.library.path(ended.files[0])
        headers = _headers(studio, ended)
        if format == "pcm":
            return Response(await run_in_threadpool(_pcm, path), media_type="audio/pcm", headers=headers)
        return FileResponse(path, media_type=TYPES[path.suffix[1:]], headers=headers)

    @app.get("/v1/trainings/{name}/samples/{file}", response_class=FileResponse)
    def sample(name: str, file: str) -> FileResponse:
        """A clip that a training made by the way."""
        return FileResponse(studio.trainings.sample(name, file))

    @app.get("/v1/trainings/{name}/report", response_class=FileResponse)
    def report(name: str) -> FileResponse:
        """The page on what a training came to; it may do nothing but be looked at and listened to."""
        path = studio.trainings.report(name)
        return FileResponse(path, media_type="text/html", headers={"Content-Security-Policy": "sandbox"})

    @app.get("/v1/clips")
    def clips(search: str = "") -> dict[str, Any]:
        """The clips of the library, from the newest on."""
        return {"object": "list", "data": [plain(clip.to_json()) for clip in studio.library.clips(search)]}

    @app.post("/v1/clips", status_code=201, openapi_extra=_FILE)
    async def bring(request: Request) -> dict[str, Any]:
        """Bring in a clip (multipart, a part `file`); it is named by what is returned."""
        values = await _form(request)
        file = values.get("file")
        if not isinstance(file, UploadFile):
            raise OptionError("send the clip as a part `file` of multipart/form-data")
        return {"name": await _received(studio, file)}

    @app.get("/v1/clips/{name}", response_class=FileResponse)
    def clip(name: str, format: str | None = None) -> Response:
        """A clip; with `format`, to be kept as a file, in that format and with its recipe."""
        path = studio.library.path(name)
        kind = TYPES.get(path.suffix[1:].lower(), "application/octet-stream")
        if format is None:
            return FileResponse(path, media_type=kind)
        if format not in TYPES:
            raise OptionError(f"format must be one of {', '.join(TYPES)}, got {format!r}")
        kept = f"{path.stem}.{format}"
        if path.suffix.lower() == f".{format}":
            return FileResponse(path, media_type=kind, filename=kept)
        converted = studio.library.converted(name, f".{format}")
        made = converted.__enter__()
        done = BackgroundTask(converted.__exit__, None, None, None)
        return FileResponse(made, media_type=TYPES[format], filename=kept, background=done)

    @app.get("/v1/clips/{name}/picture", response_class=Response)
    def picture(name: str) -> Response:
        """The waveform and the spectrogram of a clip, as PNG."""
        path = studio.library.path(name)
        return Response(_drawn(path, path.stat().st_mtime_ns), media_type="image/png")

    @app.delete("/v1/clips/{name}", status_code=204, response_class=Response)
    async def delete(name: str) -> Response:
        """Delete a clip that was made."""
        await run_in_threadpool(studio.library.delete, name)
        return Response(status_code=204)

    @app.api_route("/v1/{rest:path}", methods=["GET", "POST", "PUT", "DELETE"], include_in_schema=False)
    def nothing(request: Request) -> None:
        """What was asked of no address above: else the page would answer, in its own way."""
        asked = f"{request.method} {request.url.path}"
        if any(route.matches(request.scope)[0] is Match.PARTIAL for route in app.routes):
            raise HTTPException(405, f"{asked}: there for another method; see /openapi.json")
        raise HTTPException(404, f"{asked}: nothing is there; see /openapi.json")

    return app, Guard(app, token=token, most_bytes=most_bytes)


@lru_cache(64)
def _drawn(path: Path, changed: int) -> bytes:
    return png(path)


def failure(status: int, sentence: str, kind: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An error as it is answered."""
    body = {"error": {"message": sentence, "type": kind, "code": status}}
    return JSONResponse(body, status_code=status, headers=dict(headers or {}))


class Failed(AudiogenError):
    """A work that failed in the process that did it."""

    def __init__(self, work: Work) -> None:
        super().__init__(work.error)
        self.kind = work.kind


def status_of(error: AudiogenError) -> int:
    """The HTTP status of an error, whatever process it was raised in."""
    if isinstance(error, Failed):
        return next((status for kind, status in STATUS if kind.__name__ == error.kind), 400)
    return next(status for kind, status in STATUS if isinstance(error, kind))


def shown(studio: Studio, work: Work) -> dict[str, Any]:
    """A work as the service tells it: without where the library is."""
    place = f"{studio.library.folder}{os.sep}"

    def bare(value: Any) -> Any:
        if isinstance(value, list):
            return [bare(each) for each in value]
        return value.replace(place, "") if isinstance(value, str) else value

    facts: dict[str, Any] = plain(work.to_json())
    for part in ("load", "options"):
        facts[part] = {name: bare(value) for name, value in facts[part].items()}
    return {"object": "job", **facts}


def _takes(body: Mapping[str, Any]) -> dict[str, Any]:
    """What FastAPI is told of a body that is read here."""
    forms = {"application/json": {"schema": body}, "multipart/form-data": {"schema": body}}
    return {"requestBody": {"required": True, "content": forms}}


_FILE = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"file": {"type": "string", "format": "binary"}},
                    "required": ["file"],
                }
            }
        },
    }
}


async def _values(studio: Studio, request: Request) -> dict[str, Any]:
    """What a request asks for, by name; clips that come with it are taken into the library."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return {name: await _part(studio, name, value) for name, value in (await _form(request)).items()}
    try:
        text = (await request.body()).decode()
    except UnicodeDecodeError:
        raise OptionError("the body is not UTF-8") from None
    values = parse_json(text, "the body is not JSON", OptionError)
    if not isinstance(values, dict):
        raise OptionError("the body must be a JSON object of options by name")
    return values


async def _form(request: Request) -> dict[str, Any]:
    """The parts of a form; of a name that comes several times, a list."""
    try:
        form = await request.form(max_files=16, max_fields=200, max_part_size=1 << 20)
    except HTTPException as error:
        raise OptionError(f"the form cannot be read: {error.detail}") from error
    values: dict[str, Any] = {}
    for name, value in form.multi_items():
        values[name] = [*_list(values[name]), value] if name in values else value
    return values


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


async def _part(studio: Studio, name: str, value: Any) -> Any:
    """The value of a part of a form: a clip's name, a number, true or false, or a text as it is."""
    if isinstance(value, list):
        return [await _part(studio, name, each) for each in value]
    fields = [field for job in jobs.installed() for field in (*described(job.options), *described(job.load))]
    named = [field for field in fields if field.name == name]
    if isinstance(value, UploadFile):
        return await _received(studio, value, [each for field in named for each in field.option.suffixes])
    if name == "input" or any(field.kind is str for field in named):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


async def _received(studio: Studio, file: UploadFile, others: Sequence[str] = ()) -> str:
    def blocks() -> Iterator[bytes]:
        while block := file.file.read(1 << 20):
            yield block

    return await run_in_threadpool(studio.library.receive, file.filename or "", blocks(), others)


async def _accepted(studio: Studio, values: dict[str, Any]) -> Work:
    """The work that values by name ask for, in the queue."""
    own = {name: values.pop(name, None) for name in _OWN}
    kinds: dict[str, type] = {
        "input": str, "job": str, "package": str,
        "response_format": str, "n": int, "channel": str, "fetch": bool
    }  # fmt: skip
    for name, kind in kinds.items():
        if own[name] is not None and type(own[name]) is not kind:
            raise OptionError(f"{name} must be {_KINDS[kind]}, got {own[name]!r}")
    model = values.get("model")
    if own["job"] is None and isinstance(model, str) and model.count("/") == 1:
        before, after = model.split("/")
        if before in {job.name for job in jobs.installed()}:
            own["job"], values["model"] = before, after
    asked = Asked(
        values=values,
        job=own["job"],
        package=own["package"],
        count=1 if own["n"] is None else own["n"],
        channel=own["channel"],
        format=own["response_format"] or "wav",
        fetch=bool(own["fetch"]),
        prompt=own["input"],
    )
    return await run_in_threadpool(studio.accept, asked)


_KINDS = {str: "a text", int: "a whole number", bool: "true or false"}


async def _waited(studio: Studio, work: Work, request: Request) -> Work:
    """The work when it is done. Raises its error; nobody who went away keeps it going."""
    while (now := studio.queue.get(work.id)).state not in ENDED:
        await asyncio.sleep(OFTEN)
        if await request.is_disconnected():
            studio.cancel(work.id)
    return _done(now)


def _done(work: Work) -> Work:
    if work.state == "cancelled":
        raise OptionError("the work was cancelled")
    if work.state == "failed":
        raise Failed(work)
    return work


async def _streamed(studio: Studio, work: Work, *, with_header: bool, ours: bool = True) -> StreamingResponse:
    """Sound while it is made; an error before any of it is an error.

    ours  it was asked for by this request, and nobody wants it any more when that is gone
    """
    while True:
        now = studio.queue.get(work.id)
        if now.clips:
            break
        if now.state in ENDED:
            _done(now)
        await asyncio.sleep(OFTEN)
    facts = now.clips[0]

    async def body() -> AsyncIterator[bytes]:
        ended = False
        try:
            if with_header:
                yield wave_header(facts["sample_rate"], facts["channels"])
            async for block in iterate_in_threadpool(studio.heard(work.id)):
                yield block
            ended = True
        finally:
            if ours and not ended:
                studio.cancel(work.id)

    kind = "audio/wav" if with_header else "audio/pcm"
    names = {
        "X-Audiogen-Job": work.id,
        "X-Sample-Rate": facts["sample_rate"],
        "X-Channels": facts["channels"],
    }
    return StreamingResponse(
        body(), media_type=kind, headers={name: str(each) for name, each in names.items()}
    )


def wave_header(sample_rate: int, channels: int) -> bytes:
    """The header of a WAV file of 16 bits whose length nobody knows yet."""
    rate = sample_rate * channels * 2
    head = struct.pack(
        "<4sI4s4sIHHIIHH",
        b"RIFF",
        0xFFFFFFFF,
        b"WAVE",
        b"fmt ",
        16,
        1,
        channels,
        sample_rate,
        rate,
        channels * 2,
        16,
    )
    return head + struct.pack("<4sI", b"data", 0xFFFFFFFF)


def _headers(studio: Studio, work: Work) -> dict[str, str]:
    recipe = studio.library.clip(work.files[0]).recipe
    facts = {"X-Audiogen-Job": work.id, "X-Audiogen-Clip": quote(work.files[0])}
    return facts if recipe is None else {**facts, "X-Audiogen-Recipe": recipe.to_json()}


def _pcm(path: Path) -> bytes:
    from audiogen_core.audio import Audio
    from audiogen_core.studio.worker import pcm

    return pcm(Audio.load(path).samples)


async def _events(studio: Studio, name: str) -> AsyncIterator[bytes]:
    """A work each time something of it changes."""
    told: Work | None = None
    while told is None or told.state not in ENDED:
        now = studio.queue.get(name)
        if now != told:
            told = now
            yield f"event: {now.state}\ndata: {json.dumps(shown(studio, now))}\n\n".encode()
        else:
            await asyncio.sleep(OFTEN)
