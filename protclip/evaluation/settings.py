"""What an evaluation is told."""

from __future__ import annotations

from dataclasses import dataclass

from protclip.errors import ConfigError
from protclip.evaluation.predict import Head
from protclip.fields import check_number, check_types
from protclip.inputs import Dtype


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig:
    """Checkpoints on tasks, and a report."""

    checkpoints: tuple[str, ...]
    """Folders, names (such as published) or URLs of models."""
    output: str
    """Folder of the report to write: a path or an fsspec URL."""
    data: str | None = None
    """Folder of the benchmarks' files, as docs/benchmarks.md lists them."""
    pairs: str | None = None
    """Folder of pairs: retrieval is measured on their test split."""
    tasks: tuple[str, ...] = ()
    """A task, by its name; may be given several times. Default: all whose files are there."""
    heads: tuple[Head, ...] = ("linear",)
    """What is trained for tasks with a training split; may be given several times. linear: ridge or logistic
    regression on features of the frozen encoder. two-layers: likewise with a layer between. few-shot: classes of 1, 5
    and 10 examples each. ensemble: the linear head of the classes that prompts describe, beside the prompts.
    fine-tuned: two layers with the encoder below them. bridge: of knowledge graphs, between the two spaces."""
    seeds: int = 1
    """Seeds of what is drawn: trained heads, examples of few-shot. The score is their mean."""
    dtype: Dtype = "float32"
    """Number format of the model's matrix products."""
    use_gpu: bool = False
    """Give each actor that embeds, and each worker that tunes, a GPU."""
    workers: int = 1
    """Workers that tune an encoder together, on Ray where there are several. The steps are those of one
    where their number divides the 32 rows of a step."""
    card: bool = False
    """Write the scores into the model card of each checkpoint, which has to be a folder."""
    overwrite: bool = False
    """Replace a finished report, or start an unfinished one again."""

    def __post_init__(self) -> None:
        check_types("", self)
        check_number("seeds", self.seeds, at_least=1)
        check_number("workers", self.workers, at_least=1)
        if not self.checkpoints:
            raise ConfigError("checkpoints: none is given; name a folder such as runs/tiny/best.")
        if self.data is None and self.pairs is None:
            raise ConfigError("nothing to evaluate on: give --data, --pairs or both.")
