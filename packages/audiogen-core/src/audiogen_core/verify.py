"""Whether a fetched file is the one it should be: size, hash, and a memory of what was checked.

Hashing gigabytes at every start would be slow, so a file that passed is remembered with its size,
modification time and inode in `.audiogen.json` beside the model in the hub's cache. While these
three stay the same the file is not hashed again. A change of content that keeps all three is not
seen. When the memory cannot be written (a read-only cache), the file is hashed at each start.
"""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from audiogen_core.errors import ModelError, OptionError
from audiogen_core.files import atomic_path
from audiogen_core.settings import read_json

_MEMORY = ".audiogen.json"


@dataclass(frozen=True)
class Digest:
    """A hash that names its kind by its length: sha256 (64 hex digits) or git's blob sha1 (40).

    Large files on the hub are known by their sha256, small ones by the sha1 that git gives them.
    """

    value: str

    @classmethod
    def of_etag(cls, etag: str | None) -> Digest | None:
        """The digest in an ETag of the hub, or None when it is something else."""
        digest = re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", etag or "")
        return cls(digest.group()) if digest else None

    def matches(self, path: Path) -> bool:
        """Whether the file has this hash. Reads all of it."""
        if len(self.value) == 64:
            check = hashlib.sha256()
        else:
            check = hashlib.sha1(usedforsecurity=False)
            check.update(f"blob {path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                check.update(piece)
        return check.hexdigest() == self.value


class Memory:
    """What is known of the files in one repository's folder of the cache."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / _MEMORY
        self.known: dict[str, object] = {}
        with suppress(ModelError):
            self.known = read_json(self.path)

    def recall(self, key: str) -> dict[str, object]:
        """What was kept under a key, or {}."""
        entry = self.known.get(key)
        return entry if isinstance(entry, dict) else {}

    def keep(self, key: str, entry: dict[str, object]) -> None:
        """Keep an entry; a cache that cannot be written is no error."""
        if self.known.get(key) == entry:
            return
        self.known[key] = entry
        with suppress(OSError, OptionError):  # OptionError: a link has its name
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(self.path) as temporary:
                temporary.write_text(json.dumps(self.known, indent=1), encoding="utf-8")


def problem(path: Path, key: str, memory: Memory, digest: Digest | None, size: int | None) -> str | None:
    """What is wrong with a file ("missing", "... bytes instead of ..."), or None.

    `digest` None falls back on the one remembered, then on the name of the blob that the hub's
    cache links to; when there is none at all only the size is checked.
    """
    try:
        now = path.stat()
        if digest is None:
            remembered = memory.recall(key).get("hash")
            digest = Digest.of_etag(remembered) if isinstance(remembered, str) else None
        if digest is None and path.is_symlink():  # the hub's cache names the blob behind a link by its ETag
            digest = Digest.of_etag(path.readlink().name)
        if size is not None and now.st_size != size:
            return f"has {now.st_size} bytes instead of {size}"
        if digest is None:
            return None
        entry: dict[str, object] = {
            "hash": digest.value, "size": now.st_size, "mtime": now.st_mtime_ns, "inode": now.st_ino
        }  # fmt: skip
        if memory.recall(key) == entry:
            return None
        if not digest.matches(path):
            return "does not have the hash it should have"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    memory.keep(key, entry)
    return None
