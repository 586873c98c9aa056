"""Train workers on a Ray of our own meet on the loopback alone."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest
import torch
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from sockets import open_to_others

from ray_jobs.process_group import ProcessGroupConfig


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_train_workers_of_our_own_ray_listen_on_the_loopback_alone(tmp_path: Path) -> None:
    def work(config: dict[str, str]) -> None:
        """Sum the ranks, and write down where this process listens."""
        import torch.distributed as dist

        total = torch.tensor(float(dist.get_rank() + 1))
        dist.all_reduce(total)
        sockets = [one.laddr for one in psutil.Process().net_connections("inet") if one.status == psutil.CONN_LISTEN]
        text = json.dumps({"total": total.item(), "sockets": sockets})
        Path(config["folder"], f"rank-{dist.get_rank()}").write_text(text)
        dist.barrier()

    told = tmp_path / "told"
    told.mkdir()
    TorchTrainer(
        work,
        train_loop_config={"folder": str(told)},
        torch_config=ProcessGroupConfig(backend="gloo"),
        scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 0.5}),
        run_config=RunConfig(name="run", storage_path=str(tmp_path / "ray")),
    ).fit()
    said = [json.loads((told / f"rank-{rank}").read_text()) for rank in (0, 1)]
    assert [one["total"] for one in said] == [3.0, 3.0]
    sockets = [(address.removeprefix("::ffff:"), port) for one in said for address, port in one["sockets"]]
    assert len(sockets) >= 5  # of Ray and of gloo two each, and the store
    assert open_to_others(sockets) == []
