"""The page that `audiogen-onnx web` writes: where its modules are, and its pieces of npm."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

import audiogen_onnx.web
from audiogen_onnx.web import runtime

PLACE = Path(audiogen_onnx.web.__file__).parent / "page"

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="needs node: apt-get install nodejs")


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that passes for onnxruntime-web, of files that compute nothing."""
    folder.mkdir()
    for name in list(runtime.FILES):
        content = f"// in the place of {name}\n".encode()
        (folder / name).write_bytes(content)
        monkeypatch.setitem(runtime.FILES, name, hashlib.sha256(content).hexdigest())
    return folder


def packages() -> Path:
    """A folder in which npm has installed what the slow tests run models with; made once."""
    place = Path(os.environ.get("AUDIOGEN_TEST_CACHE") or Path.home() / ".cache" / "audiogen-tests") / "npm"
    wanted = [f"onnxruntime-node@{runtime.VERSION}", f"onnxruntime-web@{runtime.VERSION}"]
    if not all((place / "node_modules" / each.partition("@")[0]).is_dir() for each in wanted):
        place.mkdir(parents=True, exist_ok=True)
        (place / "package.json").write_text("{}")
        command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", *wanted]
        subprocess.run(command, cwd=place, check=True, capture_output=True, timeout=600)
    return place


def web_package() -> Path:
    """Where onnxruntime-web is."""
    return packages() / "node_modules" / "onnxruntime-web"


@contextmanager
def page_server(site: Path) -> Iterator[str]:
    """A static server of a folder, as `python -m http.server` is one: its address."""
    handler = partial(_Quiet, directory=str(site))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass
