"""What is installed, and what it is pinned to."""

from __future__ import annotations

import re
import tarfile
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from installed import PACKAGES, ROOT, SOURCE_FILES, build

from protclip.version import __version__

pytestmark = pytest.mark.unit


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


@pytest.mark.slow
def test_sdist_and_wheel_hold_what_they_should(tmp_path: Path) -> None:
    sdist, wheel = build(tmp_path)
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for pattern in ("**/*.py", "**/*.yaml", "**/py.typed", "web/**/*")
        for path in (ROOT / package).glob(pattern)
        if path.is_file() and (package != "cluster" or path.suffix == ".py")  # beside the manifests of a cluster
    }
    assert expected - names == set()
    assert {name.split("/")[0] for name in names} == {*PACKAGES, f"protclip-{__version__}.dist-info"}
    with tarfile.open(sdist) as archive:
        tops = {name.split("/")[1] for name in archive.getnames() if "/" in name}
    made = {"PKG-INFO", "setup.cfg", "protclip.egg-info"}
    assert tops - made == {*PACKAGES, "examples", *SOURCE_FILES}


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
    found = re.search(r"^## \[([^]]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert found is not None and found[1] == __version__
    for name in ("cluster/Dockerfile", "cluster/README.md", "docs/serving.md"):
        shown = re.findall(r'registry\.example\.com/protclip:([\w.]+)|"version":"([\w.]+)"', (ROOT / name).read_text())
        assert {"".join(groups) for groups in shown} == {__version__}, name
