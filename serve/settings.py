"""The application's settings, and the check that they fit together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from protclip import files
from protclip.checkpoint_names import is_name
from protclip.checkpoints import checkpoint_folder
from protclip.errors import ConfigError
from protclip.inputs import Dtype
from protclip.model.record import read_checkpoint_fingerprint
from serve.keys import NO_FILES, read_keys
from serve.sequences import check_sequences

DEFAULT_INDEX = "default"
"""The index that is asked where a request names none."""
MAX_INDEX_NAME_LENGTH = 64
IndexName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=MAX_INDEX_NAME_LENGTH)]


class Limits(BaseModel):
    """The largest requests that are answered; docs/serving.md says what comes above each limit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_body_bytes: int = Field(default=4 * 2**20, ge=1)
    """Bytes of a request's body."""
    max_body_values: int = Field(default=65_536, ge=1)
    """Values in a body's JSON, by its commas: 64 vectors of 1,024. They are counted before anything is parsed."""
    max_body_fields: int = Field(default=8_192, ge=1)
    """Fields in a body's JSON, by its colons, those of texts among them; to parse one costs as much as ten values."""
    max_held_bytes: int = Field(default=256 * 2**20, ge=1)
    """Bytes of all bodies that the guards of a replica hold at a time, whole or half sent; above it 503. What has come
    of half-sent bodies, as far as 64 KiB of each, waits before the guard and is not counted."""
    body_timeout_s: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    """Seconds within which a whole body has come."""
    request_timeout_s: float = Field(default=30.0, gt=0, allow_inf_nan=False)
    """Seconds to a request's answer, after them 503: from its head, or, with a body, from when this or 64 KiB of it has
    come, for which there are 10 s more."""
    max_items: int = Field(default=64, ge=1)
    """Proteins or texts in one request."""
    max_sequence_length: int = Field(default=50_000, ge=1)
    """Residues; titin has 34,350. The model sees as many as its checkpoint says."""
    max_text_length: int = Field(default=20_000, ge=1)
    """Characters of a text."""
    max_filter_length: int = Field(default=2_000, ge=1)
    """Characters of a filter: each of its conditions is a pass over all rows."""
    explain_s: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    """Seconds in which an explanation is computed, alone: its stride grows until it is."""
    max_k: int = Field(default=1_000, ge=1)
    """Answers to a request: to all of its questions, those that ``offset`` leaves out among them."""


class Autoscaling(BaseModel):
    """Replicas as there is work for them, between two numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_replicas: int = Field(default=1, ge=1)
    max_replicas: int = Field(ge=1)
    target_ongoing_requests: float = Field(default=16, gt=0, allow_inf_nan=False)
    """Requests that a replica answers at a time; with more, on average, another is started."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas={self.min_replicas} is above max_replicas={self.max_replicas}")
        return self


class Sharding(BaseModel):
    """An index shared out: shards that hold a part each, encoders that hold the model, and gateways that ask them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    index: str = Field(min_length=1)
    """Absolute path or URL; every machine with a shard must reach it. The only index, under the name ``default``."""
    num_shards: int = Field(ge=1)
    """Parts of the index, of whole subindexes, with about as many rows each."""
    num_replicas: Annotated[int, Field(ge=1)] | Autoscaling = 2
    """Of each shard. With two, one may die."""
    num_cpus: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    """Logical CPUs that each replica of a shard reserves."""
    memory_bytes: int = Field(default=0, ge=0)
    """That each replica of a shard reserves, so that Ray places no more on a node than its memory holds."""
    max_replicas_per_node: int | None = Field(default=None, ge=1, le=100)
    """Of one shard; with 1, a node that dies takes one of each at most."""
    num_gateways: Annotated[int, Field(ge=1)] | Autoscaling = 1
    """Replicas that speak HTTP; they hold neither model nor index."""


class AppArgs(BaseModel):
    """The settings of the application, as ``args`` of a Serve config file gives them.

    They hold for as long as a replica lives; what it serves can change, and is in ``UserConfig``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    checkpoint: str = Field(min_length=1)
    """Absolute path, name or URL of the checkpoint that made the indexes; every machine with a replica must reach it. A
    name is looked up on each, and must be the same model there."""
    keys: str = Field(min_length=1)
    """Who may ask: the absolute path or URL of a file of keys, ``environment`` for the variable PROTCLIP_KEYS of each
    replica, or ``none`` for everybody who reaches the server."""
    sequences: str | None = Field(default=None, min_length=1)
    """Where the sequences of the index's proteins are, to explain them by accession: absolute path, glob or URL of
    FASTA or files of UniProtKB, plain or .gz, or a folder of pairs. None: they are explained by sequence alone."""
    limits: Limits = Limits()
    allowed_hosts: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Names, beside those of the loopback, that a Host header may have where the server listens on the loopback."""
    cors_origins: tuple[Annotated[str, Field(pattern=r"^(\*|https?://[^/\s]+)$")], ...] = ()
    """Origins, such as ``https://lab.example.org``, whose pages may ask from a browser."""
    request_log: str | None = Field(default=None, min_length=1)
    """Absolute path of a file on each machine with a replica; a line of JSON is appended for each request."""
    log_queries: bool = False
    """Write what was asked, sequences and texts too, into the request log."""
    num_replicas: Annotated[int, Field(ge=1)] | Autoscaling = 1
    """Copies of model and indexes that answer side by side, as many as are said or as there is work for; of the model
    alone with ``sharding``, as for the settings below."""
    sharding: Sharding | None = None
    """None: each replica holds the indexes that ``user_config`` names, whole."""
    num_cpus: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    """Logical CPUs that each replica reserves. A share of one is for scheduling alone: it holds nothing back."""
    num_gpus: float = Field(default=0, ge=0, allow_inf_nan=False)
    """GPUs that each replica reserves; a share of one is shared with others."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: the GPU where ``num_gpus`` reserves one, else the CPU."""
    dtype: Dtype | None = None
    """Number format of the model; None: that of the indexes, so that a query gets the same vector as its row."""
    threads: int | None = Field(default=None, ge=1)
    """Threads per replica; None: the machine's cores divided by the largest number of replicas."""
    tokens_per_batch: int | None = Field(default=None, ge=1)
    """Residues and tokens of all waiting requests that are embedded together; None: 4,096 on a CPU, 32,768 on a GPU."""
    max_waiting_tokens: int = Field(default=200_000, ge=1)
    """A request before which a replica would compute more is answered 503 at once."""
    stuck_after_s: float = Field(default=60.0, gt=0, allow_inf_nan=False)
    """Seconds that a batch may take, of scans through all rows too; beyond them /health/ready answers 503."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.device == "cuda") > (self.num_gpus > 0):
            raise ValueError("device=cuda needs a GPU; reserve one with num_gpus")
        if self.device == "cpu" and self.num_gpus:
            raise ValueError(f"num_gpus={self.num_gpus:g} would be reserved and idle with device=cpu")
        return self

    @property
    def torch_device(self) -> str:
        """What device comes to."""
        return self.device if self.device != "auto" else "cuda" if self.num_gpus else "cpu"

    @property
    def max_replicas(self) -> int:
        """Replicas that there may be."""
        return self.num_replicas if isinstance(self.num_replicas, int) else self.num_replicas.max_replicas


class UserConfig(BaseModel):
    """What is served, as ``user_config`` of the deployment gives it; it may change while replicas answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    indexes: dict[IndexName, Annotated[str, Field(min_length=1)]] = Field(min_length=1)
    """Name → absolute path or URL; every machine with a replica must reach it. ``default`` is asked where a request
    names none."""


def read_user_config(given: object) -> UserConfig:
    """Check what names the indexes.

    Raises:
        ConfigError: for anything else, or a relative path.
    """
    try:
        config = UserConfig.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "user_config"
        raise ConfigError(
            f"{where}: {first['msg']}; user_config holds {{indexes: {{NAME: path or URL}}}} with one index or more."
        ) from None
    _refuse_relative({f"index {name!r}": path for name, path in config.indexes.items()})
    return config


def check_args(args: AppArgs, *, verify: bool = False) -> str:
    """The model's fingerprint, after all was checked that can be without loading it.

    Args:
        args: the settings.
        verify: compare the checksums of all files too.

    Raises:
        ConfigError: for a relative path, keys that cannot be read, or a checkpoint that cannot be fetched.
        CheckpointError, DataError: if the checkpoint is unfinished or damaged, or there are no sequences.
    """
    paths = {} if is_name(args.checkpoint) else {"checkpoint": args.checkpoint}
    if args.keys not in NO_FILES:
        paths["keys"] = args.keys
    if args.request_log is not None:
        paths["request_log"] = args.request_log
    if args.sharding is not None:
        paths["index"] = args.sharding.index
    _refuse_relative(paths)
    read_keys(args.keys)
    if args.sequences is not None:
        check_sequences(args.sequences)
    return read_checkpoint_fingerprint(checkpoint_folder(args.checkpoint), verify=verify)


def _refuse_relative(paths: Mapping[str, str]) -> None:
    for name, path in paths.items():
        if not files.is_absolute(path):
            raise ConfigError(f"{name} {path!r} is relative, and replicas run in other folders; give an absolute path.")
