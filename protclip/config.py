"""All settings of a pretraining: frozen dataclasses, which ``protclip.config_file`` fills.

The field's docstring says its unit and what follows from it.
"""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

from protclip import files
from protclip.errors import ConfigError
from protclip.fields import check_number, check_types


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """Where the pairs are and how they are dealt."""

    pairs: str
    """A folder of pairs (``protclip curate``), as an absolute path or URL that every worker can read."""
    lanes: int = 64
    """Virtual lanes of the stream. The number of workers must divide it, and it must divide the global batch; the
    global batches depend on it, but not on the number of workers."""
    text_sampling: Literal["none", "properties"] = "none"
    """What of a pair's biotext an epoch trains on. none: all of it, as in the paper. properties: some of its properties
    in any order and without evidence tags, others each time, so that the model learns to answer short questions too."""

    def __post_init__(self) -> None:
        check_types("data.", self)
        check_number("data.lanes", self.lanes, at_least=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderConfig:
    """One encoder: published weights, or random ones of a given shape."""

    pretrained: str | None = None
    """Folder or hub name of an ESM-2 or BERT model in HuggingFace's format, whole, with its tokenizer; a text encoder
    with one is frozen."""
    config: dict[str, Any] | None = None
    """Fields of HuggingFace's EsmConfig or BertConfig, for random weights."""
    max_tokens: int
    """Longer inputs are cut at the end; special tokens included."""

    def __post_init__(self) -> None:
        check_types("an encoder's ", self)
        if (self.pretrained is None) == (self.config is None):
            raise ConfigError(
                "an encoder needs either pretrained (a folder or hub name) or config (its shape): give one of them."
            )
        hint = "less leaves nothing beside the special tokens"
        check_number("an encoder's max_tokens", self.max_tokens, at_least=3, hint=hint)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """The dual encoder."""

    protein: EncoderConfig
    """The ESM-2 side; always trained."""
    text: EncoderConfig
    """The BERT side; trained where it has random weights, frozen where pretrained."""
    projection_dim: int = 512
    """Width of the embeddings."""
    attention: Literal["packed", "padded"] = "packed"
    """packed: the encoders run without padding. padded: HuggingFace's own forward, slower, with the same numbers; for
    encoders that the packed one does not know, such as those trained with dropout."""
    activation_checkpointing: bool = False
    """Compute the inside of each trained layer again in backward instead of keeping it: a third more work, and the
    memory of a layer's input in place of its inside."""

    def __post_init__(self) -> None:
        check_types("model.", self)
        check_number("model.projection_dim", self.projection_dim, at_least=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectivesConfig:
    """The training objectives: L = GC + bsr · BSR + pda · PDA + mlm · MLM.

    One of weight 0 is not computed, and its parameters do not exist. The defaults are the paper's. See
    docs/objectives.md.
    """

    gc_prefixes: tuple[int, ...] = ()
    """Widths at which the contrast compares embeddings, such as [64, 128, 256, 512]: their first so many numbers, of
    unit length anew; GC is the mean over them, and embeddings can be cut to any of them afterwards. The last is
    model.projection_dim. None are given: whole embeddings alone, as in the paper."""
    mlm: float = 0.3
    """Weight of masked residues (λ2): one more pass of the protein encoder."""
    bsr: float = 0.7
    """Weight of the segments reconstructed with the biotext's help (λ1): one more pass of the protein encoder."""
    pda: float = 1.0
    """Weight of the alignment of properties with the residues that they speak of: one more pass of the text encoder."""
    masked_passes: Literal["separate", "shared"] = "separate"
    """separate: MLM and BSR mask a copy of the sequence each, as in the paper. shared: disjoint places of one copy,
    which saves a pass of the protein encoder, and twice as much of the copy is masked."""
    mask_fraction: float = 0.15
    """Share of a protein's own residues that MLM masks, and that BSR covers."""
    min_segment: int = 5
    """Residues of BSR's shortest segment."""
    max_segment: int = 10
    """Residues of its longest."""
    pda_negatives: Literal["properties", "proteins"] = "properties"
    """properties: a property is contrasted with the others of its protein, as in the paper. proteins: with the same
    property of the batch's other proteins, each text choosing its segment in each of them; only so do the weights find
    the residues that the text speaks of (docs/decisions/013-pda-that-localises.md), at more memory."""
    num_prototypes: int = 512
    """Prototypes of PDA's memory bank."""
    gumbel_temperature: float = 0.9
    """τ of the softmax over prototypes; less is nearer to picking one."""
    threshold: float = 0.3
    """γ: residues whose similarity, scaled to [0, 1] within the protein, is below it are not in PDA's segment."""
    segment_window: int = 1
    """Residues round each one that its similarity is the mean of, an odd number; 1 as in the paper. More makes PDA's
    segments contiguous."""

    def __post_init__(self) -> None:
        check_types("objectives.", self)
        if any(low >= high for low, high in itertools.pairwise((0, *self.gc_prefixes))):
            raise ConfigError(
                f"objectives.gc_prefixes={list(self.gc_prefixes)} must be numbers of dimensions from 1 on, each more "
                "than the one before it."
            )
        for name in ("mlm", "bsr", "pda"):
            hint = "0 switches the objective off"
            check_number(f"objectives.{name}", getattr(self, name), at_least=0, hint=hint)
        check_number("objectives.mask_fraction", self.mask_fraction, above=0, at_most=0.5)
        if not 1 <= self.min_segment <= self.max_segment:
            raise ConfigError(
                f"objectives.min_segment={self.min_segment} and max_segment={self.max_segment} must be at least 1, and "
                "the first at most the second."
            )
        check_number("objectives.threshold", self.threshold, at_least=0, at_most=1)
        if self.segment_window < 1 or self.segment_window % 2 == 0:
            raise ConfigError(f"objectives.segment_window={self.segment_window} must be an odd number of residues.")
        check_number("objectives.gumbel_temperature", self.gumbel_temperature, above=0)
        check_number("objectives.num_prototypes", self.num_prototypes, at_least=1)


GC_ALONE = ObjectivesConfig(mlm=0.0, bsr=0.0, pda=0.0)
"""The global contrast and nothing beside it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchConfig:
    """The batch of an optimizer step."""

    global_batch_size: int = 512
    """Pairs per optimizer step over all workers; also the number of candidates in the contrast."""
    micro_batches: int = 1
    """Parts in which a worker takes its pairs of a step, so that the memory is that of one part. The step is the same,
    the contrast over the whole global batch too; each part is encoded twice where there are several."""

    def __post_init__(self) -> None:
        check_types("batch.", self)
        check_number(
            "batch.global_batch_size", self.global_batch_size, at_least=2, hint="a contrast needs as many pairs"
        )
        check_number("batch.micro_batches", self.micro_batches, at_least=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig:
    """AdamW with linear warm-up and a decay to 0."""

    learning_rate: float = 1e-5
    """Highest rate, reached after warm-up."""
    protein_encoder_ratio: float = 1.0
    """The rate of the protein encoder and of the contrast's temperature, as a part of learning_rate: 0.1 is what the
    paper means for a pretrained encoder."""
    weight_decay: float = 0.0
    """Decoupled decay per step, times the learning rate."""
    warmup_fraction: float = 0.03
    """Part of all steps in which the rate rises from 0."""
    decay: Literal["linear", "cosine"] = "linear"
    """How the rate falls from then on."""
    decay_by: Literal["step", "epoch"] = "step"
    """epoch: it falls between epochs alone."""
    max_grad_norm: float = 1.0
    """Longer gradients, over all parameters, are scaled down to it; .inf switches that off."""

    def __post_init__(self) -> None:
        check_types("optimizer.", self)
        check_number("optimizer.learning_rate", self.learning_rate, above=0)
        check_number("optimizer.protein_encoder_ratio", self.protein_encoder_ratio, above=0, at_most=1)
        check_number("optimizer.weight_decay", self.weight_decay, at_least=0)
        check_number("optimizer.warmup_fraction", self.warmup_fraction, at_least=0, below=1)
        check_number("optimizer.max_grad_norm", self.max_grad_norm, above=0, infinite=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """Which epoch of a training is the best one."""

    metric: str
    """A measure of each epoch, by its name."""
    mode: Literal["min", "max"]
    """Whether less of it is better, or more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectionConfig(Selection):
    """Which epoch is the best one. ``best`` is made of it, and ``keep_checkpoints`` and ``early_stop_epochs`` go by it.

    The defaults are the paper's. See docs/training.md.
    """

    metric: Literal[
        "loss",
        "text_to_protein_recall_at_1",
        "text_to_protein_recall_at_10",
        "text_to_protein_mrr",
        "protein_to_text_recall_at_1",
        "protein_to_text_recall_at_10",
        "protein_to_text_mrr",
    ] = "loss"
    """A measure of the validation pairs. loss: the weighted sum of the objectives. The others: retrieval among all
    validation pairs, which may still rise when the loss of a small set of pairs no longer falls."""
    mode: Literal["min", "max"] = "min"
    """Whether less of the metric is better, or more."""

    def __post_init__(self) -> None:
        check_types("selection.", self)
        better = "min" if self.metric == "loss" else "max"
        if self.mode != better:
            raise ConfigError(
                f"selection.mode={self.mode} would keep the worst epochs by selection.metric={self.metric}; give "
                f"selection.mode={better}."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkersConfig:
    """The processes that train."""

    num: int = 1
    """Train workers; one GPU each where GPUs are used."""
    min: int | None = None
    """Fewer workers, at least so many, do while the cluster lacks room for ``num``, and more join when it has; None:
    never fewer. Ray wants whole CPUs then."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """How the model lies on the workers. ddp: whole on each of them. fsdp: weights, gradients and optimizer states are
    divided over them (FSDP2) and gathered layer by layer: less memory, more communication, the same steps."""
    use_gpu: bool = False
    """True: CUDA and NCCL. False: CPU and gloo."""
    resources: dict[str, float] = field(default_factory=lambda: {"CPU": 1.0})
    """Ray resources that each worker reserves. What a node has beside them is left to the input pipeline."""

    def __post_init__(self) -> None:
        check_types("workers.", self)
        check_number("workers.num", self.num, at_least=1)
        check_number("workers.min", self.min, at_least=1, at_most=self.num, hint="the latter is workers.num")
        for name, amount in self.resources.items():
            check_number(f"workers.resources.{name}", amount, at_least=0)
        if self.min is not None and (part := [name for name, amount in self.resources.items() if amount % 1]):
            raise ConfigError(
                f"workers.min={self.min} lets the number of workers change, for which Ray wants whole numbers of "
                f"resources; workers.resources.{part[0]} is {self.resources[part[0]]}."
            )

    @property
    def numbers(self) -> range:
        """How many there may be."""
        return range(self.num if self.min is None else self.min, self.num + 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """What any training with a folder of its own is told."""

    run_dir: str
    """Where the run's checkpoints and metrics go: an absolute path or URL that every node can reach."""
    epochs: int = 1
    """Passes over the training pairs. Each leaves out fewer than one global batch of rows, others each time."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    selection: Selection
    early_stop_epochs: int | None = None
    """Epochs in a row without a better one, by ``selection``, after which a run ends; None: it never ends before its
    time."""
    max_skipped_steps: int = 20
    """Steps whose gradient is not finite are left out; more of them end the run."""
    checkpoint_every_s: float = 60.0
    """Seconds between two checkpoints within an epoch, at least; what a failure costs, at most."""
    keep_checkpoints: int = 2
    """Checkpoints of epochs that are kept, the best ones by ``selection``; ``best`` is made of them. The last two are
    kept beside them."""

    def __post_init__(self) -> None:
        check_types("", self)
        check_number("epochs", self.epochs, at_least=1, at_most=100_000)
        check_number("early_stop_epochs", self.early_stop_epochs, at_least=1, hint="null never ends a run early")
        check_number("max_skipped_steps", self.max_skipped_steps, at_least=0)
        check_number("checkpoint_every_s", self.checkpoint_every_s, at_least=0)
        check_number("keep_checkpoints", self.keep_checkpoints, at_least=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainConfig(TrainingConfig):
    """A whole run."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}  # reaches the nested dataclasses too

    seed: int = 0
    """Of the weights, the order of rows and all else that is random."""
    data: DataConfig
    model: ModelConfig
    objectives: ObjectivesConfig = field(default_factory=ObjectivesConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    workers: WorkersConfig = field(default_factory=WorkersConfig)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """In which numbers matrix products and attention are computed, in training and validation. bfloat16: the faster on
    GPUs and on processors with instructions for it; weights, optimizer, logits and losses stay float32. auto: that of
    the run that is resumed; else bfloat16 on these, by the processor of the machine that starts the run, and float32 on
    others. The run's config.yaml and its checkpoints say which."""
    valid_pairs: int = 2000
    """Held-out pairs, at most, on which each epoch is measured."""
    max_failures: int = 3
    """Times that the workers are started again from the last checkpoint after a failure."""
    log_every_s: float = 10.0
    """Seconds between two lines of progress."""
    trackers: tuple[Literal["tensorboard", "mlflow", "wandb"], ...] = ("tensorboard",)
    """Where the numbers can be watched, beside the run's report; the last two are the extras of their names."""
    log_rows: bool = False
    """Write the accessions of each batch to rows/ in the run's folder, a path on this machine or a shared disk."""

    def __post_init__(self) -> None:
        TrainingConfig.__post_init__(self)
        check_number("seed", self.seed, at_least=0, below=2**63)
        check_number("valid_pairs", self.valid_pairs, at_least=2)
        check_number("max_failures", self.max_failures, at_least=0)
        check_number("log_every_s", self.log_every_s, at_least=0)
        if self.log_rows and files.is_url(self.run_dir):
            raise ConfigError(
                f"log_rows=True writes on this machine or a shared disk, and run_dir={self.run_dir} is a URL; leave "
                "one of them out."
            )
        prefixes, width = self.objectives.gc_prefixes, self.model.projection_dim
        if prefixes and prefixes[-1] != width:
            raise ConfigError(
                f"objectives.gc_prefixes={list(prefixes)} ends with {prefixes[-1]} and model.projection_dim={width}; "
                "the last prefix is the whole embedding, or its other numbers would learn nothing."
            )
        batch, lanes = self.batch.global_batch_size, self.data.lanes
        if batch % lanes:
            nearest = sorted({max(lanes, batch // lanes * lanes), (batch // lanes + 1) * lanes})
            raise ConfigError(
                f"data.lanes={lanes} does not divide batch.global_batch_size={batch}; "
                f"nearest batches: {' or '.join(map(str, nearest))}."
            )
        for num in self.workers.numbers:
            if lanes % num:
                name = "workers.num" if num == self.workers.num else "between workers.min and workers.num,"
                allowed = [n for n in range(1, lanes + 1) if lanes % n == 0]
                raise ConfigError(f"{name}={num} does not divide data.lanes={lanes}; allowed: {allowed}.")
            if batch // num % self.batch.micro_batches:
                raise ConfigError(
                    f"batch.micro_batches={self.batch.micro_batches} does not divide the {batch // num} pairs of each "
                    f"of {num} workers."
                )

    @property
    def worker_batch_size(self) -> int:
        """Pairs per step of one worker, where there are all."""
        return self.batch.global_batch_size // self.workers.num


def config_dict(config: PretrainConfig) -> dict[str, Any]:
    """Settings as plain values."""
    return asdict(config)
