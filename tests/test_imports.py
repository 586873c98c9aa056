"""Who may import what: the package's science knows no Ray, and starts without what it does not need."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[1]
CODE = ("cluster", "protclip", "ray_jobs", "serve", "tests", "benchmarks")
HEAVY = ("click", "fastapi", "hnswlib", "matplotlib", "pydantic", "ray")


def _imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Modules that a file imports, and whether it does so when it is itself imported."""
    tree = ast.parse(path.read_text())
    lazy = {
        id(inner)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(function)
    }
    lazy |= {
        id(inner)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for inner in ast.walk(block)
    }
    for node in ast.walk(tree):
        at_once = id(node) not in lazy
        if isinstance(node, ast.Import):
            yield from ((alias.name, at_once) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from ((f"{node.module}.{alias.name}", at_once) for alias in node.names)


def _imports_of(folder: str) -> list[tuple[str, str, str, bool]]:
    """(file, top-level package, module, at once) of each import below a folder."""
    return [
        (str(path.relative_to(ROOT)), module.partition(".")[0], module, at_once)
        for path in sorted((ROOT / folder).rglob("*.py"))
        for module, at_once in _imports(path)
    ]


def test_the_scan_sees_imports_of_each_kind(tmp_path: Path) -> None:
    path = tmp_path / "some.py"
    path.write_text("import ray.data\nfrom ray import train\ndef f():\n    import fastapi\n")
    assert list(_imports(path)) == [("ray.data", True), ("ray.train", True), ("fastapi", False)]


def test_ray_and_fastapi_stay_in_their_folders() -> None:
    bad = [(file, module) for file, top, module, _ in _imports_of("protclip") if top in ("ray", "fastapi", "starlette")]
    assert bad == []


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("protclip", ("cluster", "ray_jobs", "serve", "tests", "benchmarks")),
        ("cluster", ("ray_jobs", "serve", "tests", "benchmarks")),
        ("ray_jobs", ("serve", "tests", "benchmarks")),
        ("serve", ("ray_jobs", "tests", "benchmarks")),
    ],
)
def test_imports_go_one_way(folder: str, forbidden: tuple[str, ...]) -> None:
    assert [(file, module) for file, top, module, _ in _imports_of(folder) if top in forbidden] == []


def test_a_bare_gpu_machine_can_import_what_it_runs() -> None:
    """Training steps and embedding need torch, transformers, safetensors, numpy and pyarrow alone."""
    bad = [
        (file, module)
        for file, top, module, at_once in _imports_of("protclip")
        if at_once and top in HEAVY and not file.startswith(("protclip/commands/", "protclip/index/"))
    ]
    assert bad == []


def test_protclip_imports_where_ray_and_hnswlib_are_missing() -> None:
    script = f"import sys\nfor name in {HEAVY!r}: sys.modules[name] = None\nimport protclip; protclip.ProtCLIP"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_help_starts_without_torch_and_ray() -> None:
    script = (
        "import sys\n"
        "from protclip.__main__ import cli\n"
        "cli(['--help'], standalone_mode=False)\n"
        "heavy = {'torch', 'transformers', 'ray', 'pyarrow', 'fastapi', 'matplotlib'}\n"
        "print('LOADED', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "quickstart" in done.stdout
    assert "LOADED []" in done.stdout


def test_the_public_names_are_these() -> None:
    import protclip

    assert sorted(protclip.__all__) == [
        "Embeddings",
        "ProtCLIP",
        "ProtclipError",
        "__version__",
        "read_embeddings",
    ]
    assert all(hasattr(protclip, name) for name in protclip.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = protclip.nonsense
