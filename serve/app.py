"""``build_app``: the application as Ray Serve deploys it. Nothing happens at import."""

# No `from __future__ import annotations` here: Serve reads the annotation of build_app's argument to make an AppArgs of
# a config file's args, and a string it passes over in silence.

from collections.abc import Mapping
from typing import Any

from ray import serve
from ray.serve import Application

from serve.deployments import Replica
from serve.settings import AppArgs, check_args

DEPLOYMENT = Replica.__name__
"""The only one of the application."""
REPLICA_REQUESTS = 100_000
"""Requests that a replica holds at a time: what it takes on is decided by what they cost (``serve.batching``), and one
that is still being sent costs nothing."""
ENDING_S = 5.0
"""Beyond a request's own time: how long a replica that is stopped may take to answer what it holds."""


def build_app(args: AppArgs) -> Application:
    """The application: replicas that each hold the model, and the indexes that ``user_config`` of the deployment names.

    Raises:
        ConfigError: for a relative path.
        CheckpointError: if the checkpoint is unfinished or damaged.
    """
    return application(args, {})


def application(args: AppArgs, indexes: Mapping[str, str]) -> Application:
    """The application with its indexes, by name.

    Raises:
        ConfigError, CheckpointError: as ``build_app``.
    """
    replicas: dict[str, Any] = (
        {"num_replicas": args.num_replicas}
        if isinstance(args.num_replicas, int)
        else {"autoscaling_config": args.num_replicas.model_dump()}
    )
    deploy = serve.deployment(
        ray_actor_options={"num_cpus": args.num_cpus, "num_gpus": args.num_gpus},
        max_ongoing_requests=REPLICA_REQUESTS,
        max_queued_requests=-1,
        graceful_shutdown_timeout_s=args.limits.request_timeout_s + ENDING_S,
        user_config={"indexes": dict(indexes)},  # without any, a replica would not be told that it has none
        **replicas,
    )
    return deploy(serve.ingress()(Replica)).bind(args, check_args(args))
