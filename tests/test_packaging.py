"""What is installed, and what it is pinned to."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import yaml

from protclip.version import __version__

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[1]


def _pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(pair) == 2 for pair in pairs), "a constraint that is no pin"
    return {_normal(name): version for name, version in pairs}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _name(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None
    return _normal(found[0])


def test_the_wheel_holds_the_packages_and_their_data(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", reason="the wheel is built with the setuptools of this environment")
    source = tmp_path / "source"
    source.mkdir()
    for name in ("cluster", "protclip", "ray_jobs", "serve"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, source]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("protclip-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        str(path.relative_to(ROOT))
        for package in ("cluster", "protclip", "ray_jobs", "serve")
        for pattern in ("**/*.py", "**/*.yaml", "**/py.typed", "web/**/*")
        for path in (ROOT / package).glob(pattern)
        if path.is_file() and (package != "cluster" or path.suffix == ".py")  # beside the manifests of a cluster
    }
    assert expected - names == set()
    assert not [name for name in names if name.split("/")[0] in ("tests", "benchmarks", "docs")]


def test_everything_installed_for_development_is_pinned_as_installed() -> None:
    pins = _pins()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    direct = [*project["dependencies"], *extras["ray"], *extras["dev"]]
    assert {_name(requirement) for requirement in direct} - set(pins) == set()
    assert pins["torch"] == "2.13.0"
    # The first on the path counts: setuptools appends copies of its own.
    found = reversed(list(metadata.distributions()))
    installed = {_normal(dist.name): dist.version.partition("+")[0] for dist in found}
    assert {name: installed[_name(name)] for name in map(_name, direct)} == {
        _name(name): pins[_name(name)] for name in direct
    }


def test_the_versions_agree() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == __version__
    assert metadata.version("protclip") == __version__
