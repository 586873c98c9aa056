"""``build_app``: the application as Ray Serve deploys it. Nothing happens at import."""

# No `from __future__ import annotations` here: Serve reads the annotation of build_app's argument to make an AppArgs of
# a config file's args, and a string it passes over in silence.

from ray import serve
from ray.serve import Application

from serve.deployments import Api, Encoder, IndexShard
from serve.settings import AppArgs, check_args

API_REQUESTS = 1_000
"""Requests that the Api holds at a time; each costs little but its body."""


def build_app(args: AppArgs) -> Application:
    """The application: Api → ProteinEncoder, TextEncoder, IndexShard.

    Raises:
        ConfigError: for a relative path.
        CheckpointError, DataError: if the checkpoint or the index is unfinished or damaged.
        IndexMismatchError: if another model made the index.
    """
    index = check_args(args)
    fingerprint = index.model_fingerprint
    deploy = serve.deployment(
        ray_actor_options={"num_cpus": args.replica_cpus},
        max_queued_requests=args.max_queued_requests,
        # Requests inside a replica: enough for a full batch to form while one is computed.
        max_ongoing_requests=2 * args.max_batch_size,
    )
    # The limit is that of the parts behind it, which the Api answers for in our own form; what waits here is cheap.
    api = deploy(serve.ingress()(Api)).options(max_queued_requests=-1, max_ongoing_requests=API_REQUESTS)
    return api.bind(
        args,
        fingerprint,
        deploy(Encoder).options(name="ProteinEncoder").bind(args, fingerprint, index.dtype),
        deploy(Encoder).options(name="TextEncoder").bind(args, fingerprint, index.dtype),
        deploy(IndexShard).bind(args, fingerprint),
    )
