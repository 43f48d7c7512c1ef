"""A small stand-in for the Hugging Face hub on 127.0.0.1, with faults that can be switched on.

It serves folders as repositories under HF_ENDPOINT: the model's listing, HEAD and GET of files with
ETag, X-Repo-Commit, X-Linked-Etag, X-Linked-Size and Range, as the hub does. Large files are known
by their sha256, small ones by git's blob sha1. Faults change what is served, never what is stated.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from audiogen_core.hub import Policy

LARGE = 1024
"""Bytes from which a file counts as one of large file storage."""

ALLOWED = Policy(offline=False, listed=False, notify=lambda line: None)
OFFLINE = replace(ALLOWED, offline=True)
"""What tests allow, to whom a download is no news."""

_PATHS = (
    re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)(/revision/(?P<revision>[^/]+))?"),
    re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)"),
)


@dataclass
class Faults:
    """What goes wrong with files. Counters go down as faults are served; -1 means always."""

    cut_after: int | None = None
    cuts: int = 0
    corrupt_at: int | None = None
    corruptions: int = 0
    status: int | None = None
    statuses: int = 0
    gated: bool = False
    etag: str | None = None
    commit: str | None = None
    """What is stated in the place of the honest ones; from the second question on with `later`."""
    later: bool = False
    endless: str = ""
    """ "chunked" or "stated": bodies of files without an end, with no length or a false one."""
    listing: bytes | None = None
    """What the listing is. An empty one never ends."""
    redirect: str = ""
    """Where files are said to lie."""
    retry_after: str | None = None
    """Header of refusals."""
    xet: bool = False
    stall_at: int | None = None
    """Byte of a large file after which nothing more is sent until `LoopbackHub.released` is set."""


@dataclass
class LoopbackHub:
    """repo id -> files. Start it as a context manager; `endpoint` is its address."""

    repos: dict[str, dict[str, bytes]]
    revision: str = "0123456789abcdef0123456789abcdef01234567"
    tags: tuple[str, ...] = ("main", "v1")
    faults: Faults = field(default_factory=Faults)
    token: str = "hf_opensesame"
    log: list[tuple[str, str, str | None]] = field(default_factory=list)
    """(method, path, Range) of every request for a model, oldest first."""
    sent: int = 0
    """Bytes of bodies without an end."""
    stalled: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> LoopbackHub:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.hub = self
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def gets(self, name: str) -> list[str | None]:
        """The Range header of each GET of a file so far."""
        return [ranged for method, path, ranged in self.log if method == "GET" and path.endswith(f"/{name}")]

    @staticmethod
    def etag(content: bytes) -> str:
        if len(content) >= LARGE:
            return hashlib.sha256(content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    hub: LoopbackHub

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is a part of these tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *arguments: Any) -> None:
        return None

    def _answer(self) -> None:
        hub, faults = self.server.hub, self.server.hub.faults
        match = next(
            (found for pattern in _PATHS if (found := pattern.fullmatch(self.path.split("?")[0]))), None
        )
        if match is not None:
            hub.log.append((self.command, self.path, self.headers.get("Range")))
        if match is not None and faults.status is not None and faults.statuses:
            faults.statuses -= 1
            self._refuse(faults.status, "")
        elif match is None or match["repo"] not in hub.repos:
            self._refuse(404, "RepoNotFound")
        elif faults.gated and self.headers.get("Authorization") != f"Bearer {hub.token}":
            self._refuse(401, "GatedRepo")
        elif match["revision"] not in (None, hub.revision, *hub.tags):
            self._refuse(404, "RevisionNotFound")
        elif "file" not in match.groupdict():
            self._list(match["repo"])
        elif match["file"] not in hub.repos[match["repo"]]:
            self._refuse(404, "EntryNotFound")
        else:
            self._file(hub.repos[match["repo"]][match["file"]])

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", f"{code} says the stand-in")
        if self.server.hub.faults.retry_after is not None:
            self.send_header("Retry-After", self.server.hub.faults.retry_after)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _without_end(self) -> None:
        self.end_headers()
        piece = b"x" * (1 << 16)
        for _ in range(4096):  # 256 MiB: a client that reads so much has failed
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.server.hub.sent += len(piece)

    def _list(self, repo: str) -> None:
        hub = self.server.hub
        body = {
            "id": repo,
            "sha": hub.revision,
            "siblings": [{"rfilename": name} for name in hub.repos[repo]],
        }
        content = json.dumps(body).encode()
        if hub.faults.listing is not None:
            content = hub.faults.listing
        if not content:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self._without_end()
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _file(self, content: bytes) -> None:
        hub, faults = self.server.hub, self.server.hub.faults
        if faults.redirect:
            self.send_response(302)
            self.send_header("Location", faults.redirect)
        if faults.endless == "chunked" and self.command == "GET":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self._without_end()
            return
        lies = not faults.later or sum(method == "HEAD" for method, _, _ in hub.log) > 1
        start = 0
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if found:
            start = int(found[1])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        elif not faults.redirect:
            self.send_response(200)
        if faults.endless == "stated" and self.command == "GET":
            content = content + bytes(1 << 26)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("X-Repo-Commit", (faults.commit if lies else None) or hub.revision)
        if faults.xet:
            self.send_header("X-Xet-Hash", "0" * 64)
            self.send_header("X-Xet-Refresh-Route", "/xet")
        self.send_header("Accept-Ranges", "bytes")
        if faults.etag is not None and lies:
            self.send_header("ETag", f'"{faults.etag}"')
        elif len(content) >= LARGE:
            self.send_header("X-Linked-Etag", f'"{hub.etag(content)}"')
            self.send_header("X-Linked-Size", str(len(content)))
            self.send_header("ETag", '"cdn-of-the-stand-in"')
        else:
            self.send_header("ETag", f'"{hub.etag(content)}"')
        self.end_headers()
        if self.command == "GET":
            self._send(content, start)

    def _send(self, content: bytes, start: int) -> None:
        faults = self.server.hub.faults
        if faults.corrupt_at is not None and faults.corruptions and faults.corrupt_at < len(content):
            faults.corruptions -= 1
            damaged = bytearray(content)
            damaged[faults.corrupt_at] ^= 0x40
            content = bytes(damaged)
        end = len(content)
        if faults.cut_after is not None and faults.cuts and start + faults.cut_after < end:
            faults.cuts -= 1
            end = start + faults.cut_after
            self.close_connection = True
        if faults.stall_at is not None and start <= faults.stall_at < end and end >= LARGE:
            self.wfile.write(content[start : faults.stall_at])
            self.wfile.flush()
            start = faults.stall_at
            self.server.hub.stalled.set()
            self.server.hub.released.wait(60)
        self.wfile.write(content[start:end])
        if end < len(content):
            self.wfile.flush()
            self.connection.close()


def point_at(endpoint: str, cache: Path, patch: Any) -> None:
    """Make huggingface_hub in this process use a stand-in and a cache of its own (`patch`: MonkeyPatch)."""
    import huggingface_hub.constants as constants
    from huggingface_hub import close_session

    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        patch.delenv(name, raising=False)
    for name in ("NO_PROXY", "no_proxy"):
        patch.setenv(name, "127.0.0.1")
    close_session()  # a client made before would still use the proxies of the environment
    patch.setattr(constants, "HF_HUB_CACHE", str(cache))
    patch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(constants, "ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
