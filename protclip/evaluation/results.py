"""What an evaluation found, as it is kept in ``report.json``."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from protclip import files
from protclip.checked import checked

RESULTS = "report.json"
Role = Literal["checkpoint", "not pretrained", "untrained"]
"""not pretrained: the encoders as the pretraining of the checkpoint began with them. untrained: random weights of its
shape, where that is something else."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelResult:
    """A model that was evaluated."""

    name: str
    """In tables, unlike all others."""
    role: Role
    checkpoint: str
    """Path or name of the checkpoint that was asked for, of which the others are references."""
    fingerprint: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskResult:
    """A task that was run."""

    name: str
    title: str
    kind: str
    metric: str
    note: str
    """How its rows differ from the published ones; empty if they do not."""
    rows: dict[str, int]
    """Of each split."""
    files: dict[str, str]
    """SHA-256 of each file by its path below the data folder."""
    baseline: float | None
    """What the trivial prediction reaches; None where there is none."""
    baseline_name: str
    """Which prediction that is."""
    paper: dict[str, float]
    """Figures that the ProtCLIP paper gives, by metric."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """One model on one task by one protocol: means over the seeds."""

    task: str
    model: str
    protocol: str
    """Such as ``linear`` or ``prompts``."""
    value: float
    """Of the task's metric."""
    low: float
    """Ends of the 95 % interval over the rows of the test split."""
    high: float
    metrics: dict[str, float]
    """All of them."""
    num_seeds: int
    seconds: float
    """Of all seeds together, without the features."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What was chosen on the validation split, with the first seed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LeakResult:
    """Proteins of a task's test split that were trained on."""

    task: str
    trained_on: str
    """The task's own training split, or the pairs of a checkpoint."""
    proteins: int
    identical: int | None
    """None where it is not known what the model was trained on."""
    similar: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class MissingTask:
    """A task that could not be run."""

    name: str
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Results:
    """A whole evaluation."""

    software: str
    hardware: dict[str, str]
    seconds: float
    settings: dict[str, Any]
    models: tuple[ModelResult, ...]
    tasks: tuple[TaskResult, ...]
    missing: tuple[MissingTask, ...]
    scores: tuple[Score, ...]
    leaks: tuple[LeakResult, ...]

    def best(self, task: str, model: str) -> Score | None:
        """The score of a model on a task; of several protocols the first that is given."""
        return next((score for score in self.scores if (score.task, score.model) == (task, model)), None)

    def of_role(self, role: Role) -> list[ModelResult]:
        """The models of one role, in order."""
        return [model for model in self.models if model.role == role]

    def write(self, folder: str) -> None:
        """Keep them in a folder."""
        files.write_json(files.join(folder, RESULTS), asdict(self))


def read_results(folder: str) -> Results:
    """The results in the folder of an evaluation.

    Raises:
        DataError: if there are none, or they are damaged.
    """
    path = files.join(folder, RESULTS)
    return checked(Results, files.read_json(path), path)
