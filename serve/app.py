"""``build_app``: the application as Ray Serve deploys it. Nothing happens at import."""

# No `from __future__ import annotations` here: Serve reads the annotation of build_app's argument to make an AppArgs of
# a config file's args, and a string it passes over in silence.

from ray import serve
from ray.serve import Application

from serve.deployments import Replica
from serve.settings import AppArgs, check_args

REPLICA_REQUESTS = 10_000
"""Requests that a replica holds at a time: more than there are connections, since half-sent ones count too and must not
keep whole ones waiting. Bodies and tokens have limits of their own."""


def build_app(args: AppArgs) -> Application:
    """The application: replicas that each hold the model and the index.

    Raises:
        ConfigError: for a relative path.
        CheckpointError, DataError: if the checkpoint or the index is unfinished or damaged.
        IndexMismatchError: if another model made the index.
    """
    index = check_args(args)
    deploy = serve.deployment(
        num_replicas=args.num_replicas,
        ray_actor_options={"num_cpus": args.replica_cpus},
        # Requests wait in the replica, which knows what they cost.
        max_ongoing_requests=REPLICA_REQUESTS,
        max_queued_requests=-1,
    )
    return deploy(serve.ingress()(Replica)).bind(args, index.model_fingerprint, index.dtype)
