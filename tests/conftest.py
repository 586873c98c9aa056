"""Fixtures of all rings: real data where it is, and one Ray for the session."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from cluster.environment import prepare_environment


def pytest_configure() -> None:
    """Ray reads its token mode when it is first imported, which collecting the tests does."""
    prepare_environment()
    # As serve.front.use_front does: Serve's processes inherit it from the session's Ray.
    os.environ["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"] = "serve.front:middlewares"
    # Serve's controller would give up a proxy that a busy machine does not start within 15 s.
    os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")


def pytest_collection_finish() -> None:
    """Only in processes that run tests, and xdist's first does not: it need not import torch."""
    import torch

    torch.set_num_threads(1)  # for tiny tensors a second thread only waits, at the cost of a core
    gc.freeze()  # what was imported stays, so the collector need not look through it again and again


LONGEST = (
    "serve/test_life.py",
    "ray_jobs/test_whole_way.py",
    "serve/test_page.py",
    "serve/test_serve_command.py",
    "ray_jobs/test_local_head.py",
    "serve/test_swap.py",
    "cluster/test_local.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Some long files come first: one that began last would leave the other processes idle."""
    place = {Path(__file__).parent / name: i for i, name in enumerate(LONGEST)}
    assert all(path.is_file() for path in place)
    items.sort(key=lambda item: place.get(item.path, len(LONGEST)))


# The same examples each time, few; make prove looks for new ones.
hypothesis.settings.register_profile("test", derandomize=True, max_examples=40, deadline=None)
hypothesis.settings.register_profile("prove", max_examples=2000, deadline=None)
hypothesis.settings.load_profile("test")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of public data, PROTCLIP_TEST_DATA; a test that needs it is skipped where it is absent."""
    folder = Path(os.environ.get("PROTCLIP_TEST_DATA") or Path(__file__).parents[1] / "../shared/data").resolve()
    if not folder.is_dir():
        pytest.skip(f"real data: no folder {folder}; set PROTCLIP_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A Ray of this session with 4 logical CPUs, which commands called in this process find initialised."""
    from cluster.connection import leave, start_or_join

    start_or_join(num_cpus=4)
    yield
    leave()
