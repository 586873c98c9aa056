"""``build_app``: the application as Ray Serve deploys it. Nothing happens at import."""

# No `from __future__ import annotations` here: Serve reads the annotation of build_app's argument to make an AppArgs of
# a config file's args, and a string it passes over in silence.

from typing import Any

from ray import serve
from ray.serve import Application

from protclip.index.shards import split_segments
from serve.deployments import Replica
from serve.encoder import EncoderReplica
from serve.gateway import Gateway
from serve.settings import AppArgs, Autoscaling, check_args
from serve.shard import Shard

REPLICA_REQUESTS = 100_000
"""Requests that a replica holds at a time: what it takes on is decided by what they cost (``serve.batching``), and one
that is still being sent costs nothing."""
ENDING_S = 5.0
"""Beyond a request's own time: how long a replica that is stopped may take to answer what it holds."""


def build_app(args: AppArgs) -> Application:
    """The application: replicas that each hold the model and the index, or gateways over encoders and shards.

    Raises:
        ConfigError: for a relative path, or more shards than the index has segments.
        CheckpointError, DataError: if the checkpoint or the index is unfinished or damaged.
        IndexMismatchError: if another model made the index.
    """
    index = check_args(args)
    model = {"num_cpus": args.num_cpus, "num_gpus": args.num_gpus}
    if args.sharding is None:
        deploy = _deployment(args, args.num_replicas, model)
        fused: Application = deploy(serve.ingress()(Replica)).bind(args, index.model_fingerprint, index.dtype)
        return fused
    sharding = args.sharding
    encoder = _deployment(args, args.num_replicas, model)(EncoderReplica)
    part = {"num_cpus": sharding.num_cpus, "memory": sharding.memory_bytes}
    segments = split_segments(index, sharding.num_shards)
    shards = [
        _deployment(
            args,
            sharding.num_replicas,
            part,
            name=f"Shard-{number}",
            max_replicas_per_node=sharding.max_replicas_per_node,
        )(Shard).bind(args.index, index.fingerprint, its)
        for number, its in enumerate(segments)
    ]
    gateway = _deployment(args, sharding.num_gateways, {"num_cpus": args.num_cpus})(serve.ingress()(Gateway))
    sharded: Application = gateway.bind(
        args, index, segments, encoder.bind(args, index.model_fingerprint, index.dtype), *shards
    )
    return sharded


def _deployment(args: AppArgs, num_replicas: int | Autoscaling, resources: dict[str, float], **settings: Any) -> Any:
    replicas: dict[str, Any] = (
        {"num_replicas": num_replicas}
        if isinstance(num_replicas, int)
        else {"autoscaling_config": num_replicas.model_dump()}
    )
    return serve.deployment(
        ray_actor_options=resources,
        max_ongoing_requests=REPLICA_REQUESTS,
        max_queued_requests=-1,
        graceful_shutdown_timeout_s=args.limits.request_timeout_s + ENDING_S,
        **replicas,
        **settings,
    )
