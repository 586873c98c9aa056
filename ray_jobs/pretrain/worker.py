"""What Ray Train runs in each of its processes: it gives ``protclip.pretraining`` its rows, device and group."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pyarrow as pa
import ray.train
import ray.train.torch
import torch.distributed as dist

from protclip import distributed
from protclip.data.tokenize import ProteinTokenizer, TextTokenizer
from protclip.pretraining.run import Pretraining, pretrain
from ray_jobs.cluster import tame_ray_data
from ray_jobs.pretrain.lanes import LanePlan, stream


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainJob:
    """All that a train worker is told."""

    pretraining: Pretraining
    plan: LanePlan
    """Of the first epoch; the others differ in ``epoch`` alone."""


def train_worker(arguments: dict[str, TrainJob]) -> str | None:
    """Train in this process, one of the group that Ray Train has set up.

    Returns:
        Why the run has to end, where starting the workers again would change nothing; None when it is finished. An
        exception has them started again.
    """
    tame_ray_data()
    for name in ("aiobotocore", "botocore"):  # Ray Train's workers show INFO: where an object store's client looks
        logging.getLogger(name).setLevel(logging.WARNING)
    job, group = arguments["job"], dist.group.WORLD
    config = job.pretraining.config

    def rows(protein: ProteinTokenizer, text: TextTokenizer, epoch: int, first_batch: int) -> Iterator[pa.Table]:
        return stream(
            replace(job.plan, epoch=epoch),
            protein,
            text,
            rank=distributed.rank(group),
            num_workers=distributed.world_size(group),
            first_batch=first_batch,
            properties=config.objectives.pda > 0,
            sample_texts=config.data.text_sampling == "properties",
        )

    return pretrain(
        job.pretraining,
        stream=rows,
        device=ray.train.torch.get_device(),
        preemption=ray.train.get_preemption_info,
        group=group,
    )
