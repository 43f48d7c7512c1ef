"""Specs and how a name becomes one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from audiogen_core.codecs.catalog import CATALOG
from audiogen_core.errors import ModelError, UnknownModel
from audiogen_core.models import FileSpec, ModelSpec, Shipped, find, read_catalog

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def spec(**changes: object) -> ModelSpec:
    fields = {
        "name": "tiny", "family": "encodec", "repo": "someone/tiny", "revision": COMMIT,
        "files": (FileSpec("config.json", size=10), FileSpec("sub/model.safetensors", size=32)),
        "license": "MIT",
    } | changes  # fmt: skip
    return ModelSpec(**fields)  # type: ignore[arg-type]


def test_sizes_add_up_only_when_all_are_known() -> None:
    assert spec().size == 42
    assert spec(files=(FileSpec("a", size=1), FileSpec("b"))).size is None
    assert spec(files=()).size is None


def test_pinned_means_a_commit_hash() -> None:
    assert spec().pinned
    assert not spec(revision="v1.0").pinned
    assert not spec(revision=COMMIT[:-1]).pinned


@pytest.mark.parametrize("repo", ["tiny", "a/b/c", "../b", "a/..", "a b/c", "/a/b", "a/b\n"])
def test_a_repo_is_owner_and_name(repo: str) -> None:
    with pytest.raises(ModelError, match="not a hub id"):
        spec(repo=repo)


@pytest.mark.parametrize("revision", ["", "../x", "a..b", "a b", "-x", "v1\n"])
def test_a_revision_is_a_plain_name(revision: str) -> None:
    with pytest.raises(ModelError, match="not a commit hash, tag or branch"):
        spec(revision=revision)


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../x", "a/../b", "a\\b", "a//b", "./a"])
def test_a_file_lies_inside_the_repository(name: str) -> None:
    with pytest.raises(ModelError, match="inside a repository"):
        FileSpec(name)


def test_a_hash_has_64_digits() -> None:
    with pytest.raises(ModelError, match="not a sha256"):
        FileSpec("a", sha256="abc")


def test_find_by_name_by_hub_id_and_by_path(tmp_path: Path) -> None:
    catalog = {"tiny": spec()}
    assert find(catalog, "tiny") is catalog["tiny"]
    assert find(catalog, "someone/tiny") is catalog["tiny"]
    assert find(catalog, f"someone/tiny@{COMMIT}") is catalog["tiny"]
    assert find(catalog, str(tmp_path)) == tmp_path
    assert find(catalog, tmp_path) == tmp_path


def test_a_path_comes_before_the_catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    catalog = {"tiny": spec()}
    assert find(catalog, "tiny") is catalog["tiny"]
    (tmp_path / "tiny").mkdir()
    assert find(catalog, "tiny") == Path("tiny")


def test_a_path_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "models").mkdir()
    assert find({}, "~/models") == tmp_path / "models"


def test_an_unknown_name_gets_the_closest_ones() -> None:
    with pytest.raises(UnknownModel, match="did you mean encodec-24khz"):
        find(CATALOG, "encodec-24kz")


def test_a_path_that_is_not_there_is_unknown(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match="no such folder or file"):
        find(CATALOG, tmp_path / "absent")


def test_a_hub_id_outside_the_catalogue_must_be_allowed() -> None:
    with pytest.raises(UnknownModel, match="--unlisted"):
        find(CATALOG, "someone/else")
    found = find(CATALOG, "someone/else", unlisted=True)
    assert isinstance(found, ModelSpec)
    assert (found.repo, found.revision, found.files) == ("someone/else", "main", ())
    tagged = find(CATALOG, "someone/else@v2", unlisted=True)
    assert isinstance(tagged, ModelSpec)
    assert tagged.revision == "v2"


def test_another_revision_of_a_listed_repo_is_not_the_listed_model() -> None:
    with pytest.raises(UnknownModel):
        find(CATALOG, "facebook/encodec_24khz@main")


@pytest.mark.parametrize("name", sorted(CATALOG))
def test_the_catalogue_pins_commits_and_hashes(name: str) -> None:
    listed = CATALOG[name]
    assert listed.name == name
    assert listed.pinned or "Neither a commit nor a sha256 is known" in listed.note
    assert listed.license
    weights = [file for file in listed.files if file.name.endswith((".safetensors", ".pth"))]
    assert weights
    assert all(file.sha256 for file in weights) != ("sha256 is known here" in listed.note)


def test_a_shipped_model_is_the_folder_in_its_package() -> None:
    shipped = Shipped("toy", "family", "audiogen_core", "data", "Apache-2.0")
    catalog = {"toy": shipped, "tiny": spec()}
    assert find(catalog, "toy") == shipped.path
    assert (shipped.path / "demo.safetensors").is_file()
    assert shipped.size is not None
    assert shipped.size > 1_000_000
    assert find(catalog, "someone/tiny") == spec()
    with pytest.raises(UnknownModel, match="toy"):
        find(catalog, "toi")


def test_a_shipped_model_that_is_not_there_is_named() -> None:
    missing = Shipped("toy", "family", "audiogen_core", "data/none", "Apache-2.0")
    assert missing.size is None
    with pytest.raises(ModelError, match="'toy' is not there; install audiogen_core anew"):
        find({"toy": missing}, "toy")


def package(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (folder / "catalogued").mkdir()
    (folder / "catalogued" / "__init__.py").touch()
    (folder / "catalogued" / "models.toml").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "catalogued", raising=False)


def test_a_catalogue_is_read_from_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"""
        [tiny]
        family = "encodec"
        repo = "someone/tiny"
        revision = "{COMMIT}"
        license = "MIT"
        files = ["config.json", {{ name = "model.bin", size = 3, sha256 = "{"a" * 64}" }}]

        [demo]
        family = "encodec"
        folder = "data/demo"
        license = "Apache-2.0"
        note = "A toy."
    """
    package(tmp_path, monkeypatch, text)
    assert read_catalog("catalogued") == {
        "tiny": spec(files=(FileSpec("config.json"), FileSpec("model.bin", 3, "a" * 64))),
        "demo": Shipped("demo", "encodec", "catalogued", "data/demo", "Apache-2.0", "A toy."),
    }
    assert list(read_catalog("catalogued")) == ["tiny", "demo"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tiny = 3", "tiny: expected a table"),
        ("[tiny]\nfamly = 'x'\n", "tiny: unknown setting 'famly'; did you mean family"),
        ("[tiny]\nfamily = 'x'\n", "tiny: settings are missing: repo, revision, license"),
        ("[demo]\nfolder = 'x'\n", "demo: settings are missing: family, license"),
        ("[tiny]\nfiles = [{ nam = 'x' }]\n", r"tiny: files\[0\]: unknown setting 'nam'"),
        ("[tiny]\nfiles = 'abc'\n", "tiny: files must be"),
        ("[tiny", "not readable as TOML"),
    ],
)
def test_a_catalogue_is_read_strictly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str
) -> None:
    package(tmp_path, monkeypatch, text)
    with pytest.raises(ModelError, match=rf"models\.toml: .*{words}"):
        read_catalog("catalogued")
