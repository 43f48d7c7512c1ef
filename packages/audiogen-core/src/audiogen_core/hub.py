"""Fetching models from the Hugging Face hub, once for all packages.

The files live in the hub's own cache, shared with other programs: HF_HOME, HF_HUB_OFFLINE,
HF_TOKEN and HF_ENDPOINT mean what they mean elsewhere. Every file is checked by size and hash
before a path is returned, so what is loaded is never half there. A model that is complete and
checked needs no network. A dropped connection is resumed by huggingface_hub; a process that is
killed keeps the files it finished.

This is the one door to the hub: nothing else of the family uses the network, and nobody comes through
without a `Policy`, which has no defaults. What loads models takes a `Fetch` and hands it on to what it
loads in turn; where nobody says which, `asking` makes one that tells before it downloads.
"""

from __future__ import annotations

import re
import shutil
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from audiogen_core import hub_client, verify
from audiogen_core.errors import DownloadError, ModelError
from audiogen_core.hub_client import OnStep, Steps
from audiogen_core.models import Fetch, FileSpec, ModelSpec
from audiogen_core.present import size

Notify = Callable[[str], None]

DISK_MARGIN = 64 << 20
"""Bytes that must stay free on the disk beyond the download."""

_DAY = 24 * 3600


class DownloadNotice(UserWarning):
    """Something is about to be downloaded: what, how much, from where, under which licence."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What whoever comes to the hub allows. All of it is to be said.

    offline  never use the network; it is never used where HF_HUB_OFFLINE is set either
    listed   only models that stand in a catalogue
    notify   called with a line of text before a download: model, size, licence, destination
    """

    offline: bool
    listed: bool
    notify: Notify


def asking(*, offline: bool = False, unlisted: bool = False, notify: Notify | None = None) -> Fetch:
    """How models are fetched where a script does not say how: a DownloadNotice comes before each download.

    notify  called instead
    """

    def warn(line: str) -> None:
        warnings.warn(line, DownloadNotice, stacklevel=2)

    policy = Policy(offline=offline, listed=not unlisted, notify=notify or warn)
    return lambda spec: fetch(spec, policy)


def here(spec: ModelSpec) -> Path:
    """The folder of a model that is here already: a `Fetch` that never fetches. Raises DownloadError."""
    return fetch(spec, _HERE)


def planning(policy: Policy, missing: list[Plan]) -> Fetch:
    """What stands in the place of a `Fetch` in a dry run: what is not here goes into `missing`."""

    def planned(spec: ModelSpec) -> Path:
        todo = plan(spec, policy)
        if todo.wanted:
            missing.append(todo)
        return todo.folder

    return planned


@dataclass(frozen=True)
class Wanted:
    """A file still to be fetched: its size in bytes and hash as the hub states them, if it does."""

    name: str
    size: int | None
    digest: verify.Digest | None


@dataclass(frozen=True)
class Plan:
    """What a fetch would do: the files still to come, their bytes, the folder they end up in."""

    spec: ModelSpec
    wanted: tuple[Wanted, ...]
    folder: Path

    @property
    def bytes(self) -> int:
        return sum(file.size or 0 for file in self.wanted)


def fetch(spec: ModelSpec, policy: Policy, *, on_step: OnStep | None = None) -> Path:
    """The folder with the model's files, fetched when needed and allowed, every file checked.

    on_step  called with (bytes done, bytes in all) while files come in

    Raises ModelError for a model outside the catalogues that is not allowed, DownloadError when a file is
    missing offline, the hub refuses or cannot be reached (after three tries), the disk is short or
    read-only, or a file is not the one it should be.
    """
    todo = plan(spec, policy)
    if not todo.wanted:
        return todo.folder
    _check_disk(todo)
    policy.notify(_notice(todo))
    _sweep(_repo_folder(spec.repo) / "blobs")
    steps = Steps(on_step, todo.bytes)
    memory = verify.Memory(_repo_folder(spec.repo))
    for file in todo.wanted:
        _fetch_file(todo, file, memory, steps)
    return todo.folder


def plan(spec: ModelSpec, policy: Policy) -> Plan:
    """What `fetch` would do. Asks the hub only when something is missing or not pinned.

    Raises as `fetch` does, except for faults of the download itself.
    """
    from huggingface_hub import constants

    if policy.listed and not spec.family:
        raise ModelError(f"{spec.repo}: a hub id outside the catalogue must be allowed (--unlisted)")
    quiet = policy.offline or constants.HF_HUB_OFFLINE
    spec = _listed(spec, quiet)
    folder = _snapshot(spec)
    memory = verify.Memory(_repo_folder(spec.repo))
    problems = {file.name: _problem(folder, file, memory) for file in spec.files}
    wrong = {name: text for name, text in problems.items() if text is not None}
    if not wrong and folder is not None:
        return Plan(spec, (), folder)
    if quiet:
        listing = "; ".join(f"{name} {text}" for name, text in list(wrong.items())[:10])
        raise DownloadError(
            f"{spec.name}: not completely in the cache {constants.HF_HUB_CACHE} ({listing}), "
            "and downloads are off; run once without --offline and HF_HUB_OFFLINE"
        )
    stated = [_state(spec, file) for file in spec.files if file.name in wrong]
    commit = stated[0][1]
    if not spec.pinned:
        memory.keep(f"revision {spec.revision}", {"commit": commit})
    wanted = tuple(file for file, _ in stated)
    return Plan(replace(spec, revision=commit), wanted, _repo_folder(spec.repo) / "snapshots" / commit)


_HERE = Policy(offline=True, listed=False, notify=lambda line: None)


def _problem(folder: Path | None, file: FileSpec, memory: verify.Memory) -> str | None:
    if folder is None:
        return "is missing"
    digest = verify.Digest(file.sha256) if file.sha256 else None
    return verify.problem(folder / file.name, f"{folder.name}/{file.name}", memory, digest, file.size)


def _fetch_file(todo: Plan, file: Wanted, memory: verify.Memory, steps: Steps) -> None:
    """Download one file and check it; a wrong one is fetched once more, then removed."""
    key = f"{todo.folder.name}/{file.name}"
    path = todo.folder / file.name
    fault: str | None = None
    for force in (False, True):
        hub_client.download(todo.spec, file.name, force, steps, file.size)
        fault = verify.problem(path, key, memory, file.digest, file.size)
        if fault is None:
            steps.complete(file.size or 0)
            return
    blob = path.resolve()
    if blob.is_relative_to(_repo_folder(todo.spec.repo).resolve()):
        blob.unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    raise DownloadError(
        f"{todo.spec.repo}: {file.name} {fault}, twice in a row; the download was removed. "
        "Try another network, or tell the model's owner"
    )


def _state(spec: ModelSpec, file: FileSpec) -> tuple[Wanted, str]:
    """What the hub says of a file, and the commit it belongs to."""
    from huggingface_hub import constants

    stated = hub_client.metadata(spec, file.name)
    commit = stated.commit_hash or ""
    digest = verify.Digest.of_etag(stated.etag)
    if not re.fullmatch("[0-9a-f]{40}", commit) or (spec.pinned and commit != spec.revision):
        raise DownloadError(
            f"{constants.ENDPOINT} did not answer as a hub does for {spec.repo}; check HF_ENDPOINT"
        )
    pinned = verify.Digest(file.sha256) if file.sha256 else None
    if (pinned and digest and len(digest.value) == 64 and digest != pinned) or (
        file.size is not None and stated.size is not None and file.size != stated.size
    ):
        raise DownloadError(f"{spec.repo}: the hub offers another {file.name} than the one that was recorded")
    return Wanted(file.name, stated.size if file.size is None else file.size, pinned or digest), commit


def _listed(spec: ModelSpec, offline: bool) -> ModelSpec:
    """A spec without files gets the weights and settings that the hub lists, and their commit."""
    if spec.files:
        return spec
    memory = verify.Memory(_repo_folder(spec.repo))
    kept = memory.recall(f"listing {spec.revision}")
    names, commit = kept.get("files"), kept.get("commit")
    if not offline:
        names, commit = hub_client.listing(spec)
        memory.keep(f"listing {spec.revision}", {"files": names, "commit": commit})
    if not isinstance(names, list) or not isinstance(commit, str):
        raise DownloadError(f"{spec.name}: never fetched, and downloads are off; run once without --offline")
    return replace(spec, revision=commit, files=tuple(FileSpec(str(name)) for name in names))


def _repo_folder(repo: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"


def _snapshot(spec: ModelSpec) -> Path | None:
    """The folder of the revision in the cache, or None when a tag was never seen."""
    folder = _repo_folder(spec.repo)
    if spec.pinned:
        return folder / "snapshots" / spec.revision
    kept = verify.Memory(folder).recall(f"revision {spec.revision}").get("commit")
    if isinstance(kept, str) and kept.isalnum():
        return folder / "snapshots" / kept
    try:
        commit = (folder / "refs" / spec.revision).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return folder / "snapshots" / commit if commit.isalnum() else None


def _sweep(blobs: Path) -> None:
    """Remove what killed downloads left a day ago or more; huggingface_hub does not take it up again.

    Only names with a part of their own per process ("<etag>.<8 hex digits>.incomplete"): the plain
    form of older versions is resumed by them.
    """
    for path in blobs.glob("*.????????.incomplete"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _DAY:
                path.unlink()


def _check_disk(todo: Plan) -> None:
    place = todo.folder
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < todo.bytes + DISK_MARGIN:
        raise DownloadError(
            f"{todo.spec.name} needs {size(todo.bytes)} and {place} has {size(free)} free; "
            "make room, or set HF_HOME to a folder on another disk"
        )


def _notice(todo: Plan) -> str:
    spec = todo.spec
    note = f" {spec.note}" if spec.note else ""
    return (
        f"Downloading {spec.name}: {size(todo.bytes)} from {spec.repo} to {todo.folder}. "
        f"Licence: {spec.license} ({spec.page}).{note}"
    )
