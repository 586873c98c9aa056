"""Workers of Ray Train that tune an encoder together, for a unit of an evaluation."""

from __future__ import annotations

import ray.train
import ray.train.torch
import torch.distributed as dist

from protclip.config import WorkersConfig
from protclip.errors import ProtclipError
from protclip.evaluation.predicting import Tuning
from ray_jobs.workers import train_together

MAX_FAILURES = 3
"""So often the workers of one tuning are started again."""


def tune_together(tuning: Tuning, *, workers: WorkersConfig) -> None:
    """Start the workers of a tuning, and wait for them; ``make_room`` has looked for their room.

    Raises:
        ProtclipError: why the tuning had to end.
    """
    train_together(tune_worker, tuning, workers, run_dir=tuning.run_dir, max_failures=MAX_FAILURES)


def tune_worker(arguments: dict[str, Tuning]) -> str | None:
    """Tune in this process, one of the group that Ray Train has set up.

    Returns:
        Why the tuning has to end, where starting the workers again would change nothing. An exception has them started
        again.
    """
    try:
        arguments["job"](
            device=ray.train.torch.get_device(), group=dist.group.WORLD, preemption=ray.train.get_preemption_info
        )
    except ProtclipError as error:
        return str(error)
    return None
