"""What a release is made of: versions in lockstep, pins, workflows that name every package, a changelog."""

from __future__ import annotations

import re
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.wheels import PACKAGES, ROOT, metadata, sdist, version, wheel

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
WHEEL_LIMIT = 15e6  # bytes

pytestmark = pytest.mark.timeout(900)


def described(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def workflow(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text(encoding="utf-8"))


def test_the_packages_of_the_workspace_are_these():
    assert {path.parent.name for path in ROOT.glob("packages/*/pyproject.toml")} == set(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_versions_are_in_lockstep(package):
    project = described(ROOT / "packages" / package)
    assert (project["name"], project["version"]) == (package, version())
    assert project["requires-python"] == described(ROOT)["requires-python"]


def test_the_changelog_has_this_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(version())}\b", text, re.MULTILINE)
    entry = text.split(f"## {version()}")[1].split("\n## ")[0]
    for package in PACKAGES:
        assert f"`{package}`" in entry


@pytest.mark.parametrize("package", PACKAGES)
def test_a_wheel_says_what_it_needs(package):
    said = metadata(wheel(package))
    major, minor, _ = version().split(".")
    assert (said["Name"], said["Version"]) == (package, version())
    assert said["License-Expression"] == "Apache-2.0"
    assert said["Requires-Python"] == ">=3.11"
    assert len(said.get_payload()) > 500, "the README is missing"
    siblings = [need for need in said.get_all("Requires-Dist") or [] if need.startswith("audiogen-")]
    assert bool(siblings) == (package != "audiogen-core")
    for need in siblings:
        if "extra ==" not in need:
            assert f">={major}.{minor}" in need and f"<{major}.{int(minor) + 1}" in need, need
        assert "file:" not in need and need.startswith("audiogen-core"), "only core, never from a path"


@pytest.mark.parametrize("package", PACKAGES)
def test_what_a_wheel_holds(package):
    with zipfile.ZipFile(wheel(package)) as archive:
        names = archive.namelist()
    assert f"{package.replace('-', '_')}/py.typed" in names
    assert not [name for name in names if re.search(r"(^|/)(recipes|tests|docs|hooks)/", name)]
    assert wheel(package).stat().st_size < WHEEL_LIMIT


@pytest.mark.parametrize("package", PACKAGES)
def test_a_source_archive_holds_the_models_too(package):
    """What is built from the archive is what is built from the repository."""
    with zipfile.ZipFile(wheel(package)) as archive:
        wanted = {name for name in archive.namelist() if ".dist-info/" not in name and not name.endswith("/")}
    with tarfile.open(sdist(package)) as archive:
        there = {name.partition("/src/")[2] for name in archive.getnames()}
    assert wanted <= there


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_are_valid(path):
    loaded = workflow(path.name)
    assert {"name", True, "jobs"} <= set(loaded)  # YAML reads the key "on" as true
    assert loaded["permissions"] == {"contents": "read"}, "rights are given to single jobs"
    for name, job in loaded["jobs"].items():
        assert "runs-on" in job, name
        assert job.get("timeout-minutes"), name
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step), f"{name}: {step}"
            assert "uses" not in step or re.search(r"@(v\d|[0-9a-f]{40})", step["uses"]), step
        for needed in [job.get("needs", [])] if isinstance(job.get("needs"), str) else job.get("needs", []):
            assert needed in loaded["jobs"]


def steps(name: str, job: str) -> str:
    return "\n".join(step.get("run", "") for step in workflow(name)["jobs"][job]["steps"])


def test_the_release_builds_and_tries_every_package():
    building = steps("release.yml", "build")
    for package in PACKAGES:
        assert package in building
    assert "--no-sources" in building
    assert "tests/packaging" in steps("release.yml", "build")
    publishing = workflow("release.yml")["jobs"]["publish"]
    assert publishing["permissions"]["id-token"] == "write"
    assert "uv publish --trusted-publishing always" in steps("release.yml", "publish")
    assert "mkdocs build --strict" in steps("release.yml", "docs")


def test_the_lowest_versions_are_tried_with_every_package():
    trying = steps("ci.yml", "lowest")
    assert "--resolution lowest-direct" in trying
    for folder in ("core", "mlx", "onnx", "minigpt", "parity"):
        assert f"tests/{folder}" in trying


def test_what_ci_runs_is_in_one_script():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for tool in ("ruff check", "ruff format --check", "mypy", "lint-imports", "pytest"):
        assert tool in script
    assert ".ci/run" in steps("ci.yml", "test")
