"""What a hub may answer. Every response to huggingface_hub passes here before it reads a byte of the body.

A hub names the files of the cache (by ETag and commit), says how much is to be written and when to come back.
One that is broken, or not what it says it is, must not write elsewhere, fill the disk or hold the program.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from importlib import import_module
from threading import get_ident
from typing import Any
from urllib.parse import urljoin, urlsplit

from audiogen_core.errors import DownloadError

MAX_ANSWER = 4 << 20
"""Bytes of an answer that is no file: a repository of thousands of files has one megabyte of listing."""

MAX_UNSTATED = 64 << 20
"""Bytes of a file whose size the hub does not state."""

MAX_WAIT = 120.0
"""Seconds that a hub may ask to wait before the next try."""

MAX_RESPONSES = 1000
"""To one call, redirects and resumed downloads among them."""

SLOWEST = 1000
"""Bytes a second, over a minute, below which a body is given up."""

_ETAG = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_OFFICIAL = ("huggingface.co", "hf.co")


class Guard:
    """Checks the responses to one call.

    limit  bytes that one body may have
    wait   seconds that the last refusal asked to wait, or None
    """

    def __init__(self, limit: int = MAX_ANSWER) -> None:
        self.limit = limit
        self.wait: float | None = None
        self._responses = 0

    @contextmanager
    def on_duty(self) -> Iterator[None]:
        """Check the responses to this thread while the body runs; those to others are not touched."""
        from huggingface_hub import get_session

        thread = get_ident()
        hooks = get_session().event_hooks["response"]

        def check(response: Any) -> None:
            if get_ident() == thread:
                self.check(response)

        hooks.append(check)
        try:
            yield
        finally:
            hooks.remove(check)

    def check(self, response: Any) -> None:
        """Raise DownloadError for a response that is not to be followed, and bound its body."""
        self._responses += 1
        if self._responses > MAX_RESPONSES:
            raise _refused(response, f"answered {MAX_RESPONSES} times and never fully")
        self._check_names(response)
        self._check_redirect(response)
        self._check_wait(response)
        whole_file = response.request.method == "GET" and response.status_code < 300
        limit = self.limit if whole_file else MAX_ANSWER
        stated = response.headers.get("Content-Length", "")
        if response.request.method != "HEAD":
            if stated.isdecimal() and int(stated) > limit:
                raise _refused(response, f"offers {stated} bytes where at most {limit} are expected")
            if limit <= MAX_ANSWER and response.headers.get("Content-Encoding", "identity") != "identity":
                limit //= 16  # unpacked, it may be much more
            response.stream = _bounded(response, limit)
        if not (response.url.host or "").endswith(_OFFICIAL):  # Xet's own client is not checked here
            for name in ("X-Xet-Hash", "X-Xet-Refresh-Route"):
                response.headers.pop(name, None)

    def _check_names(self, response: Any) -> None:
        """The ETag and the commit become names in the cache."""
        commit = response.headers.get("X-Repo-Commit")
        if commit is not None and not _COMMIT.fullmatch(commit):
            raise _refused(response, f"names the commit {commit[:80]!r}, which is none")
        if response.request.method == "HEAD" and commit is not None and response.status_code < 400:
            etag = response.headers.get("X-Linked-Etag") or response.headers.get("ETag") or ""
            if not _ETAG.fullmatch(etag.removeprefix("W/").strip('"')):
                raise _refused(response, f"states the ETag {etag[:80]!r}, which is no hash")

    def _check_redirect(self, response: Any) -> None:
        """Over https to anywhere, since files are checked by their hash; otherwise to the same host only."""
        if not response.has_redirect_location:
            return
        here, there = str(response.url), urljoin(str(response.url), response.headers["Location"])
        old, new = urlsplit(here), urlsplit(there)
        same = old.scheme == new.scheme == "http" and old.hostname == new.hostname
        if new.scheme != "https" and not same:
            raise _refused(
                response, f"redirects to {there[:200]!r}, which is neither https nor the same host"
            )

    def _check_wait(self, response: Any) -> None:
        self.wait = None
        if response.status_code not in (429, 503):
            return
        limited = re.search(r"\bt\s*=\s*(\d{1,12})", response.headers.get("RateLimit", ""))
        waits = [_seconds(response.headers.get("Retry-After", "")), float(limited[1]) if limited else None]
        self.wait = max((wait for wait in waits if wait is not None), default=None)
        if self.wait is not None and self.wait > MAX_WAIT:
            raise _refused(response, f"asks to come back in {self.wait:.0f} seconds; try again then")


def _seconds(text: str) -> float | None:
    """What Retry-After says: seconds, or a date."""
    if re.fullmatch(r"[0-9]{1,12}", text):
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def _bounded(response: Any, limit: int) -> Any:
    """The stream of a response's body, ended by DownloadError when it is too long or too slow."""
    inner = response.stream
    httpx: Any = import_module(type(response).__module__.partition(".")[0])  # httpx or httpx2, as the hub has

    class Bounded(httpx.SyncByteStream):  # type: ignore[misc]
        def __iter__(self) -> Iterator[bytes]:
            received, before, minute = 0, 0, time.monotonic()
            for chunk in inner:
                received += len(chunk)
                if received > limit:
                    raise _refused(response, f"sends more than the {limit} bytes that are expected")
                now = time.monotonic()
                if now - minute > 60:
                    if received - before < 60 * SLOWEST:
                        raise _refused(response, f"sends less than {SLOWEST} bytes a second")
                    before, minute = received, now
                yield chunk

        def close(self) -> None:
            inner.close()

    return Bounded()


def _refused(response: Any, reason: str) -> DownloadError:
    url = urlsplit(str(response.url))
    return DownloadError(
        f"{url.scheme}://{url.netloc.rpartition('@')[2]}: the hub {reason}; check HF_ENDPOINT"
    )
