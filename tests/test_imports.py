"""Who may import what: the package's science knows no Ray, and starts without what it does not need."""

from __future__ import annotations

import ast
import gc
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from tiny_model import random_sequences, tiny_model, write_protein_index

from protclip.config import ObjectivesConfig

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[1]
CODE = ("cluster", "protclip", "ray_jobs", "serve", "tests", "benchmarks")
HEAVY = ("click", "fastapi", "hnswlib", "matplotlib", "pydantic", "ray")


@cache
def _all_imports(path: Path) -> list[tuple[str, bool, bool]]:
    """(module, at once and not in a function, for types alone) of each import of a file."""
    found = []

    def visit(node: ast.AST, at_once: bool, for_types: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend((alias.name, at_once, for_types) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.extend((f"{node.module}.{alias.name}", at_once, for_types) for alias in node.names)
        elif isinstance(node, ast.stmt | ast.excepthandler | ast.match_case | ast.Module):
            lazy = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            for inner in ast.iter_child_nodes(node):
                visit(inner, at_once and not lazy and not types, for_types or types)

    # A finalizer that shows a traceback within this call parses too, and Python 3.11 then fails the outer one.
    gc.disable()
    try:
        tree = ast.parse(path.read_text())
    finally:
        gc.enable()
    visit(tree, at_once=True, for_types=False)
    return found


def _imports(path: Path, *, for_types: bool = True) -> Iterator[tuple[str, bool]]:
    """Modules that a file imports, with or without those for types alone, and whether at once, not in a function."""
    for module, at_once, only_for_types in _all_imports(path):
        if for_types or not only_for_types:
            yield module, at_once


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


def test_folders_import_those_above_them_in_the_table_of_the_architecture() -> None:
    table = (ROOT / "docs" / "architecture.md").read_text().split("|---|---|")[1]
    rooms = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert set(rooms) == {path.parent.name for path in (ROOT / "protclip").glob("*/__init__.py")}
    bad = [
        (file, module)
        for file, _, module, _ in _imports_of("protclip")
        for room, other in [(file.split("/")[1], module.split(".")[1] if module.startswith("protclip.") else "")]
        if room in rooms and other in rooms[rooms.index(room) + 1 :]
    ]
    assert bad == []


def _import_graph(unit: Callable[[str], str], *, lazy: bool) -> dict[str, set[str]]:
    """Unit of a module → units that it imports from, of all of our code; with or without imports in functions."""
    paths = [path for folder in CODE for path in (ROOT / folder).rglob("*.py")]
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        for name, at_once in _imports(path, for_types=False):
            imported = name if name in modules else name.rpartition(".")[0]
            if imported in modules and (at_once or lazy) and unit(imported) != unit(module):
                graph.setdefault(unit(module), set()).add(unit(imported))
    return graph


def test_no_module_imports_in_a_circle() -> None:
    graph = _import_graph(lambda module: module, lazy=True)
    assert graph["protclip.checkpoints"] >= {"protclip.checkpoint_names", "protclip.checkpoint_cache"}
    TopologicalSorter(graph).prepare()  # names the circle


def test_no_folder_of_the_package_imports_in_a_circle() -> None:
    graph = _import_graph(lambda module: ".".join(module.split(".")[:2]), lazy=False)
    assert "protclip.model" in graph["protclip.losses"]
    TopologicalSorter(graph).prepare()


def test_a_bare_gpu_machine_can_import_what_it_runs() -> None:
    """Training steps and embedding need torch, transformers, safetensors, numpy and pyarrow alone."""
    bad = [
        (file, module)
        for file, top, module, at_once in _imports_of("protclip")
        if at_once
        and top in HEAVY
        and not file.startswith(("protclip/__main__.py", "protclip/commands/", "protclip/index/"))
    ]
    assert bad == []


@pytest.mark.slow
def test_protclip_imports_where_ray_and_hnswlib_are_missing() -> None:
    script = f"import sys\nfor name in {HEAVY!r}: sys.modules[name] = None\nimport protclip; protclip.ProtCLIP"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


WITHOUT_TORCH = ("torch", "transformers", "ray", "pyarrow", "fastapi", "matplotlib", "pydantic")
WITHOUT_TRAINING = (
    *("transformers", "huggingface_hub", "ray", "fastapi", "pydantic", "matplotlib", "requests", "httpx2"),
    *("torch.distributed.fsdp", "torch.distributed.tensor", "torch._dynamo", "sympy"),
)
"""Each of them takes from a tenth of a second to several."""


@pytest.mark.parametrize(
    ("script", "unwanted"),
    [
        ("import protclip", WITHOUT_TORCH),
        ("from protclip.__main__ import cli; cli(['--help'], standalone_mode=False)", WITHOUT_TORCH),
        ("import protclip.client", ("torch", "transformers", "ray", "fastapi", "pydantic", "requests")),
        ("import protclip; protclip.ProtCLIP.from_pretrained('model').embed_texts(['binds ATP'])", WITHOUT_TRAINING),
        (
            "from protclip.__main__ import cli\n"
            "cli(['search', 'index', '--checkpoint', 'model', '--sequence', 'MKV'], standalone_mode=False)",
            WITHOUT_TRAINING,
        ),
    ],
)
@pytest.mark.slow
def test_it_starts_without_what_it_does_not_need(script: str, unwanted: tuple[str, ...], model_and_index: Path) -> None:
    report = f"\nimport sys\nprint('LOADED', [name for name in {unwanted} if name in sys.modules])"
    command = [sys.executable, "-c", script + report]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=model_and_index, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("LOADED []\n"), done.stdout


@pytest.fixture(scope="module")
def model_and_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start")
    model = tiny_model(objectives=ObjectivesConfig())
    model.save_pretrained(str(folder / "model"))
    write_protein_index(folder, model, random_sequences(30))
    return folder


def test_the_public_names_are_these() -> None:
    import protclip

    assert sorted(protclip.__all__) == [
        "Embeddings",
        "ProtCLIP",
        "ProtclipError",
        "Retriever",
        "__version__",
        "read_embeddings",
        "read_proteins",
    ]
    assert all(hasattr(protclip, name) for name in protclip.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = protclip.nonsense
