"""The calls to huggingface_hub, with its faults told as one sentence. `hub.py` decides what to call."""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Callable
from typing import Any, TypeVar

from audiogen_core import hub_guard
from audiogen_core.errors import DownloadError
from audiogen_core.hub_guard import Guard
from audiogen_core.models import FileSpec, ModelSpec

T = TypeVar("T")

OnStep = Callable[[int, int], None]

RETRY_DELAYS = (1.0, 4.0)
"""Seconds before the second and the third try after a network fault."""

MAX_LISTED = 10_000
"""Files that a repository may list."""

_LOGIN = "log in with `hf auth login` or set HF_TOKEN"

_SETTINGS = (".json", ".model", ".txt", ".yaml")
_WEIGHTS = ((".safetensors",), (".bin", ".pth", ".th", ".ckpt"))


def download(spec: ModelSpec, name: str, force: bool, steps: Steps, size: int | None) -> None:
    """Bring one file into the hub's cache; `force` replaces the one that is there.

    size  bytes it has, if that is known: no more is read
    """
    from huggingface_hub import constants, hf_hub_download

    steps.limit = hub_guard.MAX_UNSTATED if size is None else size
    retried(
        spec,
        lambda: hf_hub_download(
            spec.repo,
            name,
            revision=spec.revision,
            cache_dir=constants.HF_HUB_CACHE,
            endpoint=constants.ENDPOINT,
            force_download=force,
            library_name="audiogen-core",
            tqdm_class=steps.bar,
        ),
        Guard(steps.limit),
    )


def metadata(spec: ModelSpec, name: str) -> Any:
    """What the hub says of a file: commit_hash, etag, size (huggingface_hub.HfFileMetadata)."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(spec.repo, name, revision=spec.revision, endpoint=constants.ENDPOINT)
    return retried(spec, lambda: get_hf_file_metadata(url, endpoint=constants.ENDPOINT))


def listing(spec: ModelSpec) -> tuple[list[str], str]:
    """The settings and weights of a repository, and the commit they belong to."""
    from huggingface_hub import HfApi, constants

    api = HfApi(endpoint=constants.ENDPOINT, library_name="audiogen-core")
    try:
        info = retried(spec, lambda: api.model_info(spec.repo, revision=spec.revision))
        names = sorted(FileSpec(entry.rfilename).name for entry in info.siblings or [])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DownloadError(
            f"{constants.ENDPOINT} did not answer as a hub does for {spec.repo}; check HF_ENDPOINT"
        ) from error
    if len(names) > MAX_LISTED or not re.fullmatch(r"[0-9a-f]{40}", info.sha or "0" * 40):
        raise DownloadError(f"{spec.repo}: the hub lists {len(names)} files, or a commit that is none")
    kinds = [[name for name in names if name.endswith(kind)] for kind in _WEIGHTS]
    weights = next((kind for kind in kinds if kind), [])
    if not weights or info.sha is None:
        raise DownloadError(f"{spec.repo}: no weights in this repository; see {spec.page}")
    return [name for name in names if name.endswith(_SETTINGS)] + weights, info.sha


def retried(spec: ModelSpec, action: Callable[[], T], guard: Guard | None = None) -> T:
    """Run an action of huggingface_hub, up to three times after faults that may pass; what the hub answers is
    checked by the guard.
    """
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # httpx's, whichever it uses

    guard = guard or Guard()
    for delay in (*RETRY_DELAYS, None):
        try:
            with guard.on_duty():
                return action()
        except (HTTPError, OSError, RuntimeError) as error:
            if delay is None or not _may_pass(error):
                raise DownloadError(_explain(spec, error)) from error
        time.sleep(max(delay, guard.wait or 0))
    raise AssertionError("unreachable")


def _may_pass(error: BaseException) -> bool:
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled):
        return False
    if isinstance(error, LocalEntryNotFoundError):
        return error.__cause__ is None or _may_pass(error.__cause__)
    if isinstance(error, HfHubHTTPError):
        status = _status(error)
        return status is None or status in (408, 429) or status >= 500
    return _disk_fault(error) is None


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _disk_fault(error: BaseException) -> str | None:
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "the disk is full; make room, or set HF_HOME to a folder on another disk"
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "the cache cannot be written; set HF_HOME to a folder you may write to"
    return None


def _explain(spec: ModelSpec, error: BaseException) -> str:
    """One sentence: what failed, where, what to do."""
    from huggingface_hub import constants, errors

    if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
        return _explain(spec, error.__cause__)
    disk = _disk_fault(error)
    if disk is not None:
        return f"{spec.name}: {disk}"
    if isinstance(error, errors.GatedRepoError) or _status(error) == 403:
        return f"{spec.repo} is gated: accept its terms at {spec.page}, then {_LOGIN}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{spec.repo} has no revision {spec.revision}; see {spec.page}"
    if isinstance(error, errors.EntryNotFoundError):
        return f"{spec.repo} lacks a file that {spec.name} needs at revision {spec.revision}; see {spec.page}"
    if isinstance(error, errors.RepositoryNotFoundError) or _status(error) == 401:
        return f"{spec.repo} does not exist on the hub, or is private: then {_LOGIN}"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return f"{spec.name}: downloads are off (HF_HUB_OFFLINE is set); unset it once to fetch the model"
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return (
        f"{spec.name}: cannot be fetched from {constants.ENDPOINT} ({reason}); "
        "check the connection and try again: files that are complete are kept"
    )


class Steps:
    """Adds up the bytes of all files; `bar` is what huggingface_hub takes for a progress bar."""

    def __init__(self, on_step: OnStep | None, total: int) -> None:
        self.on_step, self.total = on_step, total
        self.done = self.before = 0  # bytes so far; those of the files that are complete
        self.limit = 0  # bytes of the file that comes in
        steps = self

        class Bar:
            """Shows nothing; passes the bytes on."""

            def __init__(self, *args: object, **options: object) -> None:
                self.total, self.n = options.get("total"), 0.0

            def __enter__(self) -> Bar:
                return self

            def __exit__(self, *error: object) -> None:
                return None

            def update(self, count: float | None = 1) -> None:
                self.n += count or 0
                if self.n > 2 * steps.limit + (1 << 20):  # in all its tries, unpacked
                    raise DownloadError(f"the hub sends more than the {steps.limit} bytes of a file")
                steps.add(int(count or 0))

            def close(self) -> None:
                return None

            def update_transfer(self, count: float | None = 1) -> None:
                return None

            def set_postfix_str(self, *args: object, **options: object) -> None:
                return None

            def set_transfer_postfix_str(self, *args: object, **options: object) -> None:
                return None

        self.bar = Bar

    def add(self, count: int) -> None:
        """Bytes that came in, or fewer than none where a download begins again."""
        self.done = max(self.before, self.done + count)
        self._tell()

    def complete(self, size: int) -> None:
        """One file is whole and checked."""
        self.before += size
        if self.done != self.before:
            self.done = self.before
            self._tell()

    def _tell(self) -> None:
        if self.on_step is not None:
            self.on_step(min(self.done, self.total), self.total)
