"""The collectives: what several workers exchange, and that one alone exchanges nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.distributed import ProcessGroup
from workers import run_workers

from protclip import distributed


def exchange(rank: int, group: ProcessGroup | None, folder: Path) -> None:
    size = distributed.world_size(group)
    rows = torch.full((2, 1), float(rank), requires_grad=True)
    gathered = distributed.gather_rows(rows, group)
    (gathered.flatten() * torch.arange(1.0, len(gathered) + 1)).sum().backward()  # type: ignore[no-untyped-call]
    assert rows.grad is not None
    found = {
        "place": [distributed.rank(group), size],
        "rows": gathered.flatten().tolist(),
        "gradient": rows.grad.flatten().tolist(),
        "uneven": distributed.gather_uneven_rows(torch.full((rank, 1), rank), group).flatten().tolist(),
        "mean": distributed.mean_over_workers(torch.tensor(float(rank)), group).item(),
        "values": distributed.gather_values([f"{rank}{i}" for i in range(rank)], group),
        "first": distributed.from_first_worker(f"of {rank}", group),
    }
    (folder / f"{rank}.json").write_text(json.dumps(found))


@pytest.mark.unit
def test_one_process_exchanges_nothing(tmp_path: Path) -> None:
    exchange(0, None, tmp_path)
    assert json.loads((tmp_path / "0.json").read_text()) == {
        "place": [0, 1],
        "rows": [0, 0],
        "gradient": [1, 2],
        "uneven": [],
        "mean": 0,
        "values": [],
        "first": "of 0",
    }


@pytest.mark.ranks
def test_three_workers_have_the_same_in_the_order_of_their_ranks(tmp_path: Path) -> None:
    run_workers(exchange, 3, tmp_path)
    for rank in range(3):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == {
            "place": [rank, 3],
            "rows": [0, 0, 1, 1, 2, 2],
            "gradient": [3 * (2 * rank + 1), 3 * (2 * rank + 2)],  # summed over the three that used the row
            "uneven": [1, 2, 2],
            "mean": 1,
            "values": ["10", "20", "21"],
            "first": "of 0",
        }
