"""Models by name: found, fetched, exported once; and what is said where that cannot be."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from audiogen_core.errors import DownloadError, MissingDependency, ModelError, UnknownModel
from audiogen_onnx.catalog import CATALOG, cache
from audiogen_onnx.exporter import export as exporting
from audiogen_onnx.exporter.export import exported
from support.exported import exported as exported_folder
from support.vampnet_numpy import FIXTURES


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """No model in the current folder nor in any cache, and no network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUDIOGEN_ONNX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def test_a_path_is_itself():
    folder = exported_folder()
    assert exported(str(folder)) == folder


def test_a_folder_of_checkpoints_names_the_command():
    with pytest.raises(ModelError, match="audiogen-onnx export"):
        exported(str(FIXTURES / "small"))


def test_an_unknown_name_names_the_closest():
    with pytest.raises(UnknownModel, match="did you mean vampnet"):
        exported("vampnett")


def test_offline_nothing_can_be_fetched_and_nothing_is_left():
    with pytest.raises(DownloadError, match="--model"):
        exported("vampnet", offline=True)
    assert not cache().exists()


def test_a_fetched_model_is_exported_once(monkeypatch):
    told, exports = [], []

    def fake_export(source: Path, target: Path) -> None:
        exports.append(source)
        shutil.copytree(exported_folder(), target)

    monkeypatch.setattr(exporting, "export", fake_export)
    monkeypatch.setattr(exporting, "checkpoints", lambda *_, **__: Path("snapshots/0123456789abcdef"))
    first = exported("vampnet", notify=told.append)
    assert first == cache() / "vampnet-0123456789ab" and (first / "manifest.json").exists()
    assert "not here yet" in told[0] and "exporting" in told[1]
    assert exported("vampnet", offline=True) == first
    assert len(exports) == 1


def test_without_the_extra_nothing_is_fetched(monkeypatch):
    monkeypatch.setattr(exporting, "find_spec", lambda name: None)
    monkeypatch.setattr(exporting, "checkpoints", lambda *_, **__: pytest.fail("fetched in vain"))
    with pytest.raises(MissingDependency, match=r"audiogen-onnx\[export\]"):
        exported("vampnet")


def test_the_cache_is_where_the_user_wants_it(monkeypatch, tmp_path):
    assert cache() == tmp_path / "cache"
    monkeypatch.delenv("AUDIOGEN_ONNX_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache() == tmp_path / "xdg" / "audiogen-onnx"


def test_what_the_catalogue_says():
    spec = CATALOG["vampnet"]
    assert [file.name for file in spec.files] == ["codec.pth", "coarse.pth", "c2f.pth"]
    assert spec.license == "CC-BY-NC-SA-4.0"
