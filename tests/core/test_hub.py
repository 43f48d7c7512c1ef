"""Fetching, against a stand-in for the hub on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import huggingface_hub.constants as constants
import numpy as np
import pytest

from audiogen_core import hub, hub_client, hub_guard
from audiogen_core.errors import AudiogenError, DownloadError
from audiogen_core.models import FileSpec, ModelSpec
from support.loopback_hub import ALLOWED, LARGE, OFFLINE, LoopbackHub, point_at

REPO = "someone/tiny"
WEIGHTS = np.random.default_rng(7).bytes(200_000)
CONFIG = json.dumps({"model_type": "encodec"}).encode()
COMMIT = LoopbackHub.revision


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    with LoopbackHub({REPO: {"config.json": CONFIG, "model.safetensors": WEIGHTS}}) as server:
        point_at(server.endpoint, tmp_path / "cache", monkeypatch)
        monkeypatch.setattr(hub_client, "RETRY_DELAYS", (0.0, 0.0))
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        yield server


def spec(**changes: object) -> ModelSpec:
    fields = {
        "name": "tiny", "family": "encodec", "repo": REPO, "revision": COMMIT,
        "files": (FileSpec("config.json"), FileSpec("model.safetensors")),
        "license": "MIT", "note": "Made for tests.",
    } | changes  # fmt: skip
    return ModelSpec(**fields)  # type: ignore[arg-type]


def blob(folder: Path, name: str = "model.safetensors") -> Path:
    return (folder / name).resolve()


def test_first_run_brings_every_file_and_says_so(server: LoopbackHub) -> None:
    said: list[str] = []
    steps: list[tuple[int, int]] = []
    told = replace(ALLOWED, notify=said.append)
    folder = hub.fetch(spec(), told, on_step=lambda done, total: steps.append((done, total)))
    assert (folder / "config.json").read_bytes() == CONFIG
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert len(said) == 1
    for word in ("tiny", "200.0 kB", REPO, str(folder), "MIT", "Made for tests."):
        assert word in said[0]
    total = len(CONFIG) + len(WEIGHTS)
    assert steps[-1] == (total, total)
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)


def test_second_run_asks_nothing_of_the_network(server: LoopbackHub) -> None:
    first = hub.fetch(spec(), ALLOWED)
    before = len(server.log)
    assert hub.fetch(spec(), replace(ALLOWED, notify=pytest.fail)) == first
    assert hub.fetch(spec(), OFFLINE) == first
    assert len(server.log) == before


def test_the_second_run_does_not_hash_again(server: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.fetch(spec(), ALLOWED)
    monkeypatch.setattr(hashlib, "sha256", lambda *args: pytest.fail("hashed again"))
    hub.fetch(spec(), ALLOWED)


def test_the_plan_knows_sizes_before_anything_is_fetched(server: LoopbackHub) -> None:
    todo = hub.plan(spec(), ALLOWED)
    assert todo.bytes == len(CONFIG) + len(WEIGHTS)
    assert [file.name for file in todo.wanted] == ["config.json", "model.safetensors"]
    assert not todo.folder.exists()
    assert server.gets("model.safetensors") == []
    hub.fetch(spec(), ALLOWED)
    assert hub.plan(spec(), OFFLINE).wanted == ()


def test_offline_and_never_fetched(server: LoopbackHub) -> None:
    with pytest.raises(DownloadError, match=r"config\.json is missing.*run once without --offline"):
        hub.fetch(spec(), OFFLINE)
    assert server.log == []


def test_offline_by_environment(server: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError, match=r"downloads are off.*HF_HUB_OFFLINE"):
        hub.fetch(spec(), ALLOWED)  # no policy allows what the environment forbids
    assert server.log == []


def test_a_half_empty_snapshot_is_completed(server: LoopbackHub) -> None:
    folder = hub.fetch(spec(), ALLOWED)
    (folder / "model.safetensors").unlink()
    blobs = folder.parents[1] / "blobs"
    (blobs / LoopbackHub.etag(WEIGHTS)).unlink()
    (blobs / f"{LoopbackHub.etag(WEIGHTS)}.1a2b3c4d.incomplete").write_bytes(WEIGHTS[:1000])
    with pytest.raises(DownloadError, match=r"model\.safetensors is missing"):
        hub.fetch(spec(), OFFLINE)
    assert (hub.fetch(spec(), ALLOWED) / "model.safetensors").read_bytes() == WEIGHTS
    assert len(server.gets("config.json")) == 1


def test_a_cut_connection_is_resumed_where_it_broke(
    server: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 4096)  # what arrived of a chunk is dropped
    server.faults.cut_after, server.faults.cuts = 50_000, 2
    folder = hub.fetch(spec(), ALLOWED)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert server.gets("model.safetensors") == [None, "bytes=49152-", "bytes=98304-"]


def test_a_connection_that_keeps_breaking(server: LoopbackHub) -> None:
    server.faults.cut_after, server.faults.cuts = 50_000, -1
    with pytest.raises(DownloadError, match="check the connection and try again"):
        hub.fetch(spec(), ALLOWED)
    server.faults.cuts = 0
    assert (hub.fetch(spec(), ALLOWED) / "model.safetensors").read_bytes() == WEIGHTS


def test_damage_on_the_way_is_fetched_once_more(server: LoopbackHub) -> None:
    server.faults.corrupt_at, server.faults.corruptions = 100_000, 1
    folder = hub.fetch(spec(), ALLOWED)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert len(server.gets("model.safetensors")) == 2


def test_lasting_damage_is_named_and_removed(server: LoopbackHub) -> None:
    server.faults.corrupt_at, server.faults.corruptions = 100_000, -1
    with pytest.raises(DownloadError, match=r"model\.safetensors does not have the hash.*twice in a row"):
        hub.fetch(spec(), ALLOWED)
    folder = hub.plan(spec(), ALLOWED).folder
    assert not (folder / "model.safetensors").exists()
    assert not (folder.parents[1] / "blobs" / LoopbackHub.etag(WEIGHTS)).exists()


def test_small_files_are_checked_by_gits_hash(server: LoopbackHub) -> None:
    assert len(CONFIG) < LARGE
    server.faults.corrupt_at, server.faults.corruptions = 3, 1
    assert (hub.fetch(spec(), ALLOWED) / "config.json").read_bytes() == CONFIG
    assert len(server.gets("config.json")) == 2


@pytest.mark.parametrize("at", [0, 1, 99_999, len(WEIGHTS) - 1])
def test_one_flipped_byte_in_the_cache_is_found(server: LoopbackHub, at: int) -> None:
    folder = hub.fetch(spec(), ALLOWED)
    damaged = bytearray(WEIGHTS)
    damaged[at] ^= 1
    blob(folder).write_bytes(damaged)
    with pytest.raises(DownloadError, match=r"model\.safetensors does not have the hash"):
        hub.fetch(spec(), OFFLINE)
    assert (hub.fetch(spec(), ALLOWED) / "model.safetensors").read_bytes() == WEIGHTS


def test_a_cut_file_in_the_cache_is_found_even_without_a_memory(server: LoopbackHub) -> None:
    folder = hub.fetch(spec(), ALLOWED)
    (folder.parents[1] / ".audiogen.json").unlink()
    blob(folder).write_bytes(WEIGHTS[:-1])
    with pytest.raises(DownloadError, match=r"model\.safetensors does not have the hash"):
        hub.fetch(spec(), OFFLINE)


def test_a_stated_size_is_checked(server: LoopbackHub) -> None:
    folder = hub.fetch(spec(), ALLOWED)
    blob(folder).write_bytes(WEIGHTS[:-1])
    sized = spec(files=(FileSpec("config.json"), FileSpec("model.safetensors", size=len(WEIGHTS))))
    with pytest.raises(DownloadError, match=f"has {len(WEIGHTS) - 1} bytes instead of {len(WEIGHTS)}"):
        hub.fetch(sized, OFFLINE)


def test_a_memory_that_lies_about_the_hash_is_not_believed(server: LoopbackHub) -> None:
    folder = hub.fetch(spec(), ALLOWED)
    memory = folder.parents[1] / ".audiogen.json"
    for text in ("[]", "{", json.dumps({f"{COMMIT}/model.safetensors": {"hash": "0" * 64}}), "\xff"):
        memory.write_bytes(text.encode("latin1"))
        pinned = FileSpec("model.safetensors", sha256=hashlib.sha256(WEIGHTS).hexdigest())
        assert hub.fetch(spec(files=(pinned,)), OFFLINE) == folder


def test_a_pinned_hash_that_the_hub_does_not_offer(server: LoopbackHub) -> None:
    other = spec(files=(FileSpec("model.safetensors", sha256="0" * 64),))
    with pytest.raises(DownloadError, match=r"offers another model\.safetensors"):
        hub.fetch(other, ALLOWED)
    assert server.gets("model.safetensors") == []


def test_a_gated_model_names_the_page_and_the_command(server: LoopbackHub) -> None:
    server.faults.gated = True
    with pytest.raises(DownloadError) as caught:
        hub.fetch(spec(), ALLOWED)
    assert f"https://huggingface.co/{REPO}" in str(caught.value)
    assert "hf auth login" in str(caught.value)


def test_a_token_opens_a_gated_model(server: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    server.faults.gated = True
    monkeypatch.setenv("HF_TOKEN", server.token)
    assert (hub.fetch(spec(), ALLOWED) / "config.json").read_bytes() == CONFIG


def test_a_missing_file_repo_or_revision(server: LoopbackHub) -> None:
    with pytest.raises(DownloadError, match="lacks a file that tiny needs"):
        hub.fetch(spec(files=(FileSpec("absent.json"),)), ALLOWED)
    with pytest.raises(DownloadError, match="someone/absent does not exist on the hub, or is private"):
        hub.fetch(spec(repo="someone/absent"), ALLOWED)
    with pytest.raises(DownloadError, match="has no revision v9"):
        hub.fetch(spec(revision="v9"), ALLOWED)


def test_a_fault_that_passes_is_tried_again(server: LoopbackHub) -> None:
    server.faults.status, server.faults.statuses = 503, 2
    assert (hub.fetch(spec(), ALLOWED) / "config.json").read_bytes() == CONFIG


def test_a_fault_that_stays_is_told_after_three_tries(server: LoopbackHub) -> None:
    server.faults.status, server.faults.statuses = 500, -1
    with pytest.raises(DownloadError, match=r"cannot be fetched from http://127\.0\.0\.1"):
        hub.fetch(spec(), ALLOWED)
    assert len(server.log) == 3


def test_refusals_are_not_tried_again(server: LoopbackHub) -> None:
    server.faults.status, server.faults.statuses = 403, -1
    with pytest.raises(DownloadError, match="gated"):
        hub.fetch(spec(), ALLOWED)
    assert len(server.log) == 1


def test_no_server_at_all(server: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point_at("http://127.0.0.1:9", tmp_path / "cache", monkeypatch)
    with pytest.raises(DownloadError, match=r"cannot be fetched from http://127\.0\.0\.1:9"):
        hub.fetch(spec(), ALLOWED)


def test_a_server_that_is_no_hub(server: LoopbackHub) -> None:
    server.revision = "not-a-commit"
    with pytest.raises(DownloadError, match="check HF_ENDPOINT"):
        hub.fetch(spec(revision="v1"), ALLOWED)


def test_a_short_disk_is_refused_before_the_download(
    server: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(10**9, 10**9, 10**6))  # type: ignore[attr-defined]
    with pytest.raises(DownloadError, match=r"needs 200\.0 kB .* has 1\.0 MB free; make room"):
        hub.fetch(spec(), ALLOWED)
    assert server.gets("model.safetensors") == []


def test_a_tag_is_followed_and_then_works_offline(server: LoopbackHub) -> None:
    folder = hub.fetch(spec(revision="v1"), ALLOWED)
    assert folder.name == COMMIT
    assert hub.fetch(spec(revision="v1"), OFFLINE) == folder


def test_an_unlisted_model_gets_settings_and_weights(server: LoopbackHub) -> None:
    server.repos[REPO] |= {"pytorch_model.bin": b"x" * 10, "notes.pdf": b"x", "sub/more.json": b"{}"}
    unlisted = spec(revision="main", files=())
    folder = hub.fetch(unlisted, ALLOWED)
    found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert found == ["config.json", "model.safetensors", "sub/more.json"]
    assert hub.fetch(unlisted, OFFLINE) == folder


def test_an_unlisted_model_without_weights_or_never_seen(server: LoopbackHub) -> None:
    unlisted = spec(revision="main", files=())
    with pytest.raises(DownloadError, match="never fetched"):
        hub.fetch(unlisted, OFFLINE)
    del server.repos[REPO]["model.safetensors"]
    with pytest.raises(DownloadError, match="no weights in this repository"):
        hub.fetch(unlisted, ALLOWED)


def test_files_in_folders_of_a_repository(server: LoopbackHub) -> None:
    server.repos[REPO]["vae/model.safetensors"] = WEIGHTS[::-1]
    folder = hub.fetch(spec(files=(FileSpec("vae/model.safetensors"),)), ALLOWED)
    assert (folder / "vae" / "model.safetensors").read_bytes() == WEIGHTS[::-1]


def test_nothing_is_printed(server: LoopbackHub, capfd: pytest.CaptureFixture[str]) -> None:
    hub.fetch(spec(), ALLOWED)
    assert capfd.readouterr() == ("", "")


def test_leavings_of_killed_downloads_are_swept_after_a_day(server: LoopbackHub) -> None:
    folder = hub.fetch(spec(files=(FileSpec("config.json"),)), ALLOWED)
    blobs = folder.parents[1] / "blobs"
    old, new, other = (blobs / f"{name}.incomplete" for name in ("0a.1a2b3c4d", "0b.1a2b3c4d", "0c"))
    for path in (old, new, other):
        path.write_bytes(b"part")
    for path in (old, other):
        os.utime(path, (0, 0))
    hub.fetch(spec(), ALLOWED)
    assert [path.exists() for path in (old, new, other)] == [False, True, True]


def test_a_codec_is_loaded_by_its_name(server: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    from audiogen_core import codecs
    from audiogen_core.codecs.catalog import CATALOG

    fixture = Path(__file__).parents[1] / "fixtures" / "encodec" / "24k"
    files = {name: (fixture / name).read_bytes() for name in ("config.json", "model.safetensors")}
    server.repos[CATALOG["encodec-24khz"].repo] = files
    specs = tuple(FileSpec(name, len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items())
    pinned = replace(CATALOG["encodec-24khz"], revision=COMMIT, files=specs)
    monkeypatch.setitem(CATALOG, "encodec-24khz", pinned)
    codec = codecs.load("encodec-24khz")
    assert codec.info.name == "encodec-24khz"
    assert codecs.load("encodec-24khz").info == codec.info
    assert len(server.gets("model.safetensors")) == 1


OUTSIDE = [
    "../../../../ESCAPED",
    "/tmp/ESCAPED",
    "..",
    "",
    "g" * 40,
    "0" * 39,
    "A" * 64,
    "0" * 4096,
    "a/" * 20,
]


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("etag", OUTSIDE)
def test_an_etag_that_is_no_hash_names_no_file(
    server: LoopbackHub, tmp_path: Path, etag: str, later: bool
) -> None:
    server.faults.etag, server.faults.later = etag, later
    with pytest.raises(DownloadError, match=r"ETag .* no hash"):
        hub.fetch(spec(files=(FileSpec("model.safetensors"),)), ALLOWED)
    assert server.gets("model.safetensors") == []
    assert [path.name for path in tmp_path.iterdir()] in ([], ["cache"])
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("commit", ["../" * 13 + "x", "/" * 40, "." * 40, "x" * 40, "main"])
def test_a_commit_that_is_none_names_no_folder(server: LoopbackHub, commit: str, later: bool) -> None:
    server.faults.commit, server.faults.later = commit, later
    with pytest.raises(DownloadError, match="check HF_ENDPOINT"):
        hub.fetch(spec(revision="v1"), ALLOWED)
    assert server.gets("model.safetensors") == []


@pytest.mark.parametrize("endless", ["chunked", "stated"])
@pytest.mark.parametrize("size", [None, len(WEIGHTS)])
def test_a_body_without_end_is_cut(
    server: LoopbackHub, tmp_path: Path, endless: str, size: int | None
) -> None:
    server.faults.endless = endless
    with pytest.raises(DownloadError, match=r"the hub (sends more than|offers)"):
        hub.fetch(spec(files=(FileSpec("model.safetensors", size),)), ALLOWED)
    assert server.sent < 32 << 20
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size > 1 << 20]


@pytest.mark.parametrize(
    "listing",
    [
        b"",
        b"[" * 100_000,
        b"not JSON",
        b"[]",
        b"5",
        b'{"id": 1, "sha": "../..", "siblings": [{"rfilename": "a.safetensors"}]}',
        b'{"id": "x/y", "siblings": 5, "sha": "' + b"0" * 40 + b'"}',
        b'{"id": "x/y", "siblings": [{"rfilename": 5}], "sha": "' + b"0" * 40 + b'"}',
        b'{"id": "x/y", "siblings": [{"rfilename": "../../a.safetensors"}], "sha": "' + b"0" * 40 + b'"}',
        b'{"id": "x/y", "siblings": [' + b'{"rfilename": "a.safetensors"},' * 100_000 + b"{}]}",
    ],
)
def test_a_listing_that_is_none(server: LoopbackHub, tmp_path: Path, listing: bytes) -> None:
    server.faults.listing = listing
    with pytest.raises(AudiogenError):
        hub.fetch(spec(revision="main", files=()), ALLOWED)
    assert server.sent < 32 << 20
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "target", ["http://192.0.2.1/x", "file:///etc/passwd", "ftp://127.0.0.1/x", "http://localhost.example/"]
)
def test_a_redirect_to_another_host_without_https(server: LoopbackHub, target: str) -> None:
    server.faults.redirect = target
    with pytest.raises(DownloadError, match="neither https nor the same host"):
        hub.fetch(spec(), ALLOWED)


def test_a_redirect_in_a_circle_ends(server: LoopbackHub) -> None:
    server.faults.redirect = f"/{REPO}/resolve/{COMMIT}/config.json"
    with pytest.raises(DownloadError):
        hub.fetch(spec(), ALLOWED)
    assert len(server.log) < 100


def test_the_hub_says_when_to_come_back(server: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    server.faults.status, server.faults.statuses, server.faults.retry_after = 503, 2, "7"
    assert (hub.fetch(spec(), ALLOWED) / "config.json").read_bytes() == CONFIG
    assert slept[:2] == [7, 7]
    assert all(0 <= seconds <= 121 for seconds in slept)


@pytest.mark.parametrize("wait", ["100000", "Fri, 31 Dec 2199 23:59:59 GMT"])
def test_a_hub_that_asks_to_wait_for_hours_is_told(server: LoopbackHub, wait: str) -> None:
    server.faults.status, server.faults.statuses, server.faults.retry_after = 429, -1, wait
    with pytest.raises(DownloadError, match="asks to come back in"):
        hub.fetch(spec(), ALLOWED)
    assert len(server.log) == 1


@pytest.mark.parametrize("wait", ["-5", "soon", "1e9", "9" * 400, "Fri, 99 Dec 9999"])
def test_a_wait_that_is_none_is_passed_over(server: LoopbackHub, wait: str) -> None:
    server.faults.status, server.faults.statuses, server.faults.retry_after = 503, 2, wait
    assert (hub.fetch(spec(), ALLOWED) / "config.json").read_bytes() == CONFIG


def test_a_hub_of_ones_own_is_not_followed_to_other_stores(server: LoopbackHub) -> None:
    server.faults.xet = True
    assert (hub.fetch(spec(), ALLOWED) / "model.safetensors").read_bytes() == WEIGHTS


def test_a_slow_body_is_given_up(server: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10_000_000, 100))
    monkeypatch.setattr(hub_guard, "SLOWEST", 1 << 30)
    monkeypatch.setattr(hub_guard.time, "monotonic", lambda: next(clock))
    with pytest.raises(DownloadError, match="sends less than"):
        hub.fetch(spec(files=(FileSpec("model.safetensors"),)), ALLOWED)
