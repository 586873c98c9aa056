"""protclip as a user installs it: built into an sdist and a wheel, and installed where its requirements alone are."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PACKAGES = ("cluster", "protclip", "ray_jobs", "serve")
SOURCE_FILES = (
    "pyproject.toml",
    "MANIFEST.in",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "CITATION.cff",
    "constraints.txt",
)


def build(folder: Path) -> tuple[Path, Path]:
    """The sdist, and the wheel that is built from it.

    Both are built with the setuptools of this environment, so that no network is needed.
    """
    source = folder / "source"
    for name in (*PACKAGES, "examples", "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in SOURCE_FILES:
        shutil.copy(ROOT / name, source)
    script = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
    _run([sys.executable, "-c", script, str(folder)], cwd=source)
    (sdist,) = folder.glob("protclip-*.tar.gz")
    pip = [sys.executable, "-m", "pip", "--isolated", "--disable-pip-version-check", "wheel"]
    _run([*pip, "--no-deps", "--no-index", "--no-build-isolation", "-w", str(folder), str(sdist)], cwd=folder)
    (wheel,) = folder.glob("protclip-*.whl")
    return sdist, wheel


def install(wheel: Path, folder: Path) -> Path:
    """The Python of a new virtual environment with the wheel and what it requires, no extra, and nothing else.

    The requirements are links to the distributions of this environment. pip resolves them without an index, so one
    that is missing or too old fails here.
    """
    environment = folder / "environment"
    _run([sys.executable, "-m", "venv", "--without-pip", str(environment)], cwd=folder)
    links = folder / "links"
    links.mkdir()
    for name in closure("protclip") - {"protclip"}:
        distribution = metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}:
            if not (links / top).exists():
                (links / top).symlink_to(str(distribution.locate_file(top)))
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "links.pth").write_text(f"{links}\n")
    python = environment / "bin/python"
    pip = [sys.executable, "-m", "pip", "--isolated", "--disable-pip-version-check", "--python", str(python)]
    _run([*pip, "install", "--no-index", str(wheel)], cwd=folder)
    return python


def closure(name: str) -> set[str]:
    """A distribution and all that it needs without extras but those which a requirement names."""
    found: set[str] = set()
    waiting = {(name, "")}
    seen: set[tuple[str, str]] = set()
    while waiting:
        name, extra = waiting.pop()
        seen.add((name, extra))
        found.add(name)
        for line in metadata.requires(name) or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                waiting |= {(requirement.name, extra) for extra in ("", *requirement.extras)} - seen
    return found


def outside() -> dict[str, str]:
    """The environment variables of a shell that knows nothing of the repository."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}


def _run(command: list[str], cwd: Path) -> None:
    done = subprocess.run(command, cwd=cwd, env=outside(), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
