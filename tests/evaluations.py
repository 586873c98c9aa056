"""The results of an evaluation with numbers that look like one."""

from __future__ import annotations

from protclip.evaluation.results import LeakResult, MissingTask, ModelResult, Results, Score, TaskResult


def fake_results() -> Results:
    """Two tasks, one of them on a part of its data, a checkpoint and what it began with."""
    models = (
        ModelResult(name="best", role="checkpoint", checkpoint="runs/a/best", fingerprint="0" * 64),
        ModelResult(name="best, not pretrained", role="not pretrained", checkpoint="runs/a/best", fingerprint="1" * 64),
    )
    tasks = (
        TaskResult(
            name="beta_lactamase",
            title="β-lactamase",
            kind="regression",
            metric="spearman",
            note="",
            rows={"train": 400, "valid": 50, "test": 60},
            files={"beta_lactamase/P62593.fasta.gz": "2" * 64},
            baseline=0.42,
            baseline_name="amino-acid composition",
            paper={},
        ),
        TaskResult(
            name="go_mf",
            title="GO-MF",
            kind="labels",
            metric="f1_max",
            note="train: 2,286 of 15,551 proteins",
            rows={"train": 700, "valid": 80, "test": 90},
            files={"ec_go/go.csv.gz": "3" * 64},
            baseline=0.3,
            baseline_name="label frequencies",
            paper={"f1_max": 0.691, "aupr": 0.696},
        ),
    )

    def score(task: str, model: str, value: float) -> Score:
        metric = {"beta_lactamase": "spearman", "go_mf": "f1_max"}[task]
        return Score(
            task=task,
            model=model,
            protocol="ridge" if metric == "spearman" else "logistic",
            value=value,
            low=value - 0.05,
            high=value + 0.04,
            metrics={metric: value, "mae": 0.5},
            num_seeds=1,
            seconds=2.5,
            settings={"penalty": 10.0},
        )

    scores = (
        score("beta_lactamase", "best", 0.62),
        score("beta_lactamase", "best, not pretrained", 0.51),
        score("go_mf", "best", 0.31),
        score("go_mf", "best, not pretrained", 0.34),
    )
    leaks = (
        LeakResult(task="beta_lactamase", trained_on="its training split", proteins=60, identical=0, similar=60),
        LeakResult(task="beta_lactamase", trained_on="pairs of best", proteins=60, identical=1, similar=60),
        LeakResult(task="go_mf", trained_on="pairs of best", proteins=90, identical=None, similar=None),
    )
    return Results(
        software="0.3.0",
        hardware={"processor": "a processor", "cores": "2"},
        seconds=71.0,
        settings={"tasks": ["all"], "seeds": 1},
        models=models,
        tasks=tasks,
        missing=(MissingTask(name="aav", why="not there: aav/two_vs_many.csv"),),
        scores=scores,
        leaks=leaks,
    )
