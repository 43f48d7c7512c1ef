"""The service, until it is stopped."""

from __future__ import annotations

import ipaddress
import secrets
import socket
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from audiogen_core import cli
from audiogen_core.errors import MissingDependency, OptionError
from audiogen_core.studio.library import default_folder
from audiogen_core.studio.studio import Studio

NEEDS = 'pip install "audiogen-core[studio]"'


def serve(
    *,
    host: str,
    port: int,
    folder: Path | None = None,
    token: str | None = None,
    allowed: Sequence[Path] = (),
    most_waiting: int = 100,
    patience: float = 900.0,
    offline: bool = False,
    page: bool = False,
    opened: bool = False,
) -> None:
    """Serve until interrupted.

    page    with the page at the root
    opened  in a browser, as soon as it is there

    Raises MissingDependency without the extra, OptionError for an address that others reach and no token, for
    one that is taken, and for a library that cannot be used or is used by another service.
    """
    try:
        import uvicorn

        from audiogen_core.studio.service import application

        if page:
            from audiogen_core.studio.page import mount
    except ImportError as error:
        raise MissingDependency(f"what the service needs ({error.name})", NEEDS) from error
    token = secrets.token_urlsafe(24) if token == "new" else token
    if token is None and not _is_loopback(host):
        raise OptionError(f"--host {host} can be reached from other machines: protect it with --token new")
    library = folder or default_folder()
    with _alone(library), _listening(host, port) as listening:
        studio = Studio(
            library, offline=offline, allowed=allowed, most_waiting=most_waiting, patience=patience
        )
        app, served = application(studio, token=token)
        if page:
            mount(app, studio)
        address = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}/"
        address = address if token is None else f"{address}?token={token}"
        cli.say(address)
        cli.note(f"clips are kept in {library / 'clips'}; Ctrl-C ends the service")
        studio.start()
        if opened:
            webbrowser.open(address)
        try:
            config = uvicorn.Config(
                served,
                log_level="warning",
                server_header=False,
                lifespan="on",  # the page begins its queue then
                timeout_graceful_shutdown=2,
                h11_max_incomplete_event_size=1 << 16,
            )
            uvicorn.Server(config).run(sockets=[listening])
        finally:
            studio.close()


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises OptionError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(128)  # who comes before the service has started waits for it
    except OSError as error:
        raise OptionError(
            f"{host}:{port} cannot be listened at ({error.strerror}); choose another --port"
        ) from error
    return listening


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Be the only studio of a library. Raises OptionError."""
    from filelock import FileLock, Timeout

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout:
        raise OptionError(f"{folder}: another service works on this library") from None
    except OSError as error:
        raise OptionError(f"{folder}: cannot be used as a library ({error.strerror})") from error
