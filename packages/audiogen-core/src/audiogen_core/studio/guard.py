"""What comes before every request: who asks, from where, and how much.

A page of another site that is open in the same browser may send requests to this machine, and have its own
name resolved to it. So without a token only the names of this machine are answered (`Host`), and nothing
that comes from a page of another place (`Origin`). From elsewhere a token is needed.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

COOKIE = "audiogen_token"

SLOW = 30.0
"""Seconds between two parts of a body, at most; and what a body has beside those that its length takes."""

SLOWEST = 4096
"""Bytes that come in a second, at least."""

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self' blob:; worker-src 'self' blob:; frame-ancestors 'self'; form-action 'self'; "
    "base-uri 'self'"
)
"""What a browser may load for the page: nothing from another machine. A blob is what the page itself made:
what was recorded, say.
"""


class Refused(Exception):
    """A request that is answered with a sentence and a status."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Guard:
    """An ASGI application around another.

    token       that must be shown, or None where only this machine can ask
    most_bytes  of a body
    """

    def __init__(self, app: Any, *, token: str | None, most_bytes: int) -> None:
        self._app, self._token, self._most = app, token, most_bytes

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
        }

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"content-security-policy", POLICY.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"no-referrer"),
                ]
            await send(message)

        try:
            self._check_place(headers)
            if self._enters(scope):
                await _let_in(scope, str(self._token), send)
                return
            self._check_token(headers)
            length = headers.get("content-length", "0")
            if not length.isdigit() or int(length) > self._most:
                raise Refused(413, f"the body has {length} bytes, and {self._most} are taken at most")
            await self._app(scope, self._measured(receive), sent)
        except Refused as refused:
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            else:
                await answer(send, refused.status, str(refused))

    def _check_place(self, headers: dict[str, str]) -> None:
        host = headers.get("host", "")
        name = urlsplit(f"//{host}").hostname
        if self._token is None and name not in ("127.0.0.1", "localhost", "::1"):
            raise Refused(403, f"this server is asked for by the name of another, {host!r}")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            raise Refused(403, f"a page of {origin} may not ask this server")
        if headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate":
            raise Refused(403, "a page of another site may not ask this server")

    def _enters(self, scope: Message) -> bool:
        """Whether somebody comes to the page with the token in the address."""
        if self._token is None or scope["type"] != "http" or scope["method"] != "GET":
            return False
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])
        return self._is_token(given[0])

    def _check_token(self, headers: dict[str, str]) -> None:
        if self._token is None:
            return
        kind, _, given = headers.get("authorization", "").partition(" ")
        cookies: SimpleCookie = SimpleCookie()
        cookies.load(headers.get("cookie", ""))
        if not (
            (kind.lower() == "bearer" and self._is_token(given.strip()))
            or (COOKIE in cookies and self._is_token(cookies[COOKIE].value))
        ):
            raise Refused(401, "a token is needed: send it as `Authorization: Bearer TOKEN`")

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), str(self._token).encode())

    def _measured(self, receive: Receive) -> Receive:
        """Receives a body, of bounded length, that keeps coming."""
        taken, more, began = 0, True, time.monotonic()

        async def measured() -> Message:
            nonlocal taken, more
            if not more:
                return await receive()
            left = began + SLOW + taken / SLOWEST - time.monotonic()
            try:
                message = await asyncio.wait_for(receive(), min(SLOW, left))
            except TimeoutError:
                raise Refused(408, "the body comes too slowly") from None
            if message["type"] == "http.request":
                taken += len(message.get("body", b""))
                more = message.get("more_body", False)
                if taken > self._most:
                    raise Refused(413, f"the body has more than {self._most} bytes, which are taken at most")
            return message

        return measured


async def answer(send: Send, status: int, sentence: str) -> None:
    """A sentence as JSON."""
    body = json.dumps({"error": {"message": sentence, "type": "Refused", "code": status}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send(
        {"type": "http.response.start", "status": status, "headers": [*headers, (b"connection", b"close")]}
    )
    await send({"type": "http.response.body", "body": body})


async def _let_in(scope: Message, token: str, send: Send) -> None:
    """Keep the token in a cookie, and out of the address."""
    cookie = f"{COOKIE}={token}; HttpOnly; SameSite=Strict; Path=/"
    headers = [
        (b"location", scope["path"].encode()),
        (b"set-cookie", cookie.encode()),
        (b"content-length", b"0"),
    ]
    await send({"type": "http.response.start", "status": 303, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
