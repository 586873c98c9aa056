"""``build_app``: the application as Ray Serve deploys it. Nothing happens at import."""

# No `from __future__ import annotations` here: Serve reads the annotation of build_app's argument to make an AppArgs of
# a config file's args, and a string it passes over in silence.

from collections.abc import Mapping
from typing import Any

from ray import serve
from ray.serve import Application

from protclip.index.manifest import read_index_manifest
from protclip.index.shards import split_subindexes
from serve.deployments import Replica
from serve.encoder import EncoderReplica
from serve.gateway import Gateway
from serve.settings import AppArgs, Autoscaling, Sharding, check_args
from serve.shard import Shard

DEPLOYMENT = Replica.__name__
"""The only one of the application without shards."""
REPLICA_REQUESTS = 100_000
"""Requests that a replica holds at a time: what it takes on is decided by what they cost (``serve.batching``), and one
that is still being sent costs nothing."""
ENDING_S = 5.0
"""Beyond a request's own time: how long a replica that is stopped may take to answer what it holds."""


def build_app(args: AppArgs) -> Application:
    """The application: replicas that each hold the model, and the indexes that ``user_config`` of the deployment names;
    with ``sharding``, gateways over encoders and shards of one index.

    Raises:
        ConfigError: for a relative path, or more shards than the index has subindexes.
        CheckpointError, DataError: if the checkpoint, or the index in shards, is unfinished or damaged.
        IndexMismatchError: if another model made the index in shards.
    """
    return application(args, {}) if args.sharding is None else _sharded(args, args.sharding)


def application(args: AppArgs, indexes: Mapping[str, str]) -> Application:
    """The application with its indexes, by name.

    Raises:
        ConfigError, CheckpointError: as ``build_app``.
    """
    deploy = _deployment(
        args,
        args.num_replicas,
        {"num_cpus": args.num_cpus, "num_gpus": args.num_gpus},
        user_config={"indexes": dict(indexes)},  # without any, a replica would not be told that it has none
    )
    return deploy(serve.ingress()(Replica)).bind(args, check_args(args))  # type: ignore[no-any-return]


def _sharded(args: AppArgs, sharding: Sharding) -> Application:
    fingerprint = check_args(args)
    manifest = read_index_manifest(sharding.index)
    manifest.check_model(fingerprint, sharding.index)
    subindexes = split_subindexes(manifest, sharding.num_shards)
    model = {"num_cpus": args.num_cpus, "num_gpus": args.num_gpus}
    encoder = _deployment(args, args.num_replicas, model)(EncoderReplica).bind(args, fingerprint, manifest.dtype)
    resources = {"num_cpus": sharding.num_cpus, "memory": sharding.memory_bytes}
    shards = [
        _deployment(
            args,
            sharding.num_replicas,
            resources,
            name=f"Shard-{number}",
            max_replicas_per_node=sharding.max_replicas_per_node,
        )(Shard).bind(sharding.index, manifest.fingerprint, its)
        for number, its in enumerate(subindexes)
    ]
    gateway = _deployment(args, sharding.num_gateways, {"num_cpus": args.num_cpus})(serve.ingress()(Gateway))
    return gateway.bind(args, sharding.index, manifest, subindexes, encoder, *shards)  # type: ignore[no-any-return]


def _deployment(args: AppArgs, num_replicas: int | Autoscaling, resources: dict[str, float], **settings: Any) -> Any:
    """Makes a deployment of a class."""
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
