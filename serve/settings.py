"""The application's settings, and the check that they fit together."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from protclip import files
from protclip.errors import ConfigError
from protclip.index.manifest import IndexManifest, read_checkpoint_fingerprint, read_index_manifest


class Limits(BaseModel):
    """The largest requests that are answered; above them 413 (bytes) or 422 (the rest)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_body_bytes: int = Field(default=4 * 2**20, ge=1)
    """Bytes of a request's body."""
    max_items: int = Field(default=64, ge=1)
    """Proteins or texts in one request."""
    max_sequence_length: int = Field(default=50_000, ge=1)
    """Residues; titin has 34,350. The model sees as many as its checkpoint says."""
    max_text_length: int = Field(default=20_000, ge=1)
    """Characters of a text."""
    max_filter_length: int = Field(default=2_000, ge=1)
    """Characters of a filter: each of its conditions is a pass over all rows."""
    max_k: int = Field(default=1_000, ge=1)
    """Answers to a request: to all of its questions, those that ``offset`` leaves out among them."""


class AppArgs(BaseModel):
    """The settings of the application, as ``args`` of a Serve config file gives them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    index: str = Field(min_length=1)
    """Absolute path or URL of the index; every machine with a replica must reach it."""
    checkpoint: str = Field(min_length=1)
    """Absolute path or URL of the checkpoint that made the index."""
    limits: Limits = Limits()
    replica_cpus: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    """Logical CPUs that each replica reserves. A share of one is for scheduling alone: it holds nothing back."""
    tokens_per_batch: int = Field(default=4096, ge=1)
    """Residues and tokens of all waiting requests that are embedded together."""
    max_waiting_tokens: int = Field(default=200_000, ge=1)
    """Of requests that wait in a replica; further ones are answered 503 at once."""
    stuck_after_s: float = Field(default=60.0, gt=0, allow_inf_nan=False)
    """Seconds that a batch may take; beyond them /health/ready answers 503."""


def check_args(args: AppArgs, *, verify: bool = False) -> IndexManifest:
    """The index's manifest, with model and dtype, after all was checked that can be without loading model or index.

    Args:
        args: the settings.
        verify: compare the checksums of all files too.

    Raises:
        ConfigError: for a relative path.
        CheckpointError, DataError: if the checkpoint or the index is unfinished or damaged.
        IndexMismatchError: if another model made the index.
    """
    for name, path in (("index", args.index), ("checkpoint", args.checkpoint)):
        if not files.is_absolute(path):
            raise ConfigError(f"{name} {path!r} is relative, and replicas run in other folders; give an absolute path.")
    fingerprint = read_checkpoint_fingerprint(args.checkpoint, verify=verify)
    manifest = read_index_manifest(args.index, verify=verify)
    manifest.check_model(fingerprint, args.index)
    return manifest
