"""Trackers: where a run's numbers can be watched while it trains, beside its own files.

A run that goes on after a failure repeats the steps since its last checkpoint, with the same numbers. Each tracker
sees to it that none of them stands there twice.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import yaml

from protclip import files
from protclip.errors import ConfigError
from protclip.extras import how_to_install
from protclip.train.selection import flat

TENSORBOARD_FOLDER = "tensorboard"
IDS = "trackers.json"
"""In the run's folder: what the run is called by mlflow and wandb, so that it goes on there too."""
PUBLISH_EVERY_S = 300.0
"""Seconds between two uploads of TensorBoard's file where the run's folder is a URL."""
STEP_GROUPS = {
    **dict.fromkeys(("learning_rate", "grad_norm", "skipped"), "optimizer"),
    **dict.fromkeys(("tokens_per_s", "padding_share", "wait_share", "memory_gb"), "speed"),
}
"""Of what a logged step tells beside the loss and its terms."""

_log = logging.getLogger(__name__)


class Tracker(Protocol):
    """Takes numbers, of one process of the run."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Take ``group/name`` → value after that many optimizer steps."""

    def close(self) -> None:
        """Bring everything to where it belongs."""


def open_trackers(names: Sequence[str], run_dir: str, config: Mapping[str, Any]) -> list[Tracker]:
    """The trackers of a run, new or going on; to be opened by one process only.

    Args:
        names: of ``tensorboard``, ``mlflow``, ``wandb``. The first writes into ``run_dir/tensorboard``. The other two
            find server, project and credentials where they always do, such as MLFLOW_TRACKING_URI,
            MLFLOW_EXPERIMENT_NAME, WANDB_PROJECT and WANDB_API_KEY.
        run_dir: path or fsspec URL.
        config: the run's settings as plain values, which the trackers show.

    Raises:
        ConfigError: for another name, if a tracker's package is not installed, or its server refuses the run.
    """
    if unknown := sorted(set(names) - set(_OPEN)):
        raise ConfigError(f"trackers {', '.join(unknown)}: unknown; allowed are {', '.join(_OPEN)}.")
    return [_OPEN[name](run_dir, config) for name in dict.fromkeys(names)]


def require_trackers(names: Sequence[str]) -> None:
    """See that the trackers' packages are there, before workers need them.

    Raises:
        ConfigError: naming one that is not, and how it is installed.
    """
    for name in names:
        try:
            importlib.import_module(_PACKAGES[name])
        except ImportError as error:
            raise _not_installed(name) from error


def step_scalars(row: Mapping[str, float]) -> dict[str, float]:
    """A logged step, as in ``steps.jsonl``, as ``loss/…``, ``speed/…`` and ``optimizer/…``."""
    return {
        f"{STEP_GROUPS.get(key, 'loss')}/{key}": value
        for key, value in row.items()
        if key not in ("step", "epoch") and value is not None
    }


def epoch_scalars(entry: Mapping[str, Any]) -> dict[str, float]:
    """An entry of the history in ``metrics.json`` as ``valid/…`` and ``train/…``, the latter means over the epoch.

    recall@10 is ``recall_at_10`` there: neither TensorBoard nor MLflow takes a name with @.
    """
    return dict(flat({"valid": entry["valid"], "train": entry["train"] or {}}, separator="/"))


class TensorBoardTracker:
    """Event files in ``run_dir/tensorboard``, for ``tensorboard --logdir``.

    A URL gets the whole file from time to time: few object stores can append. Where a run goes on, a new file begins
    with a mark that all steps from its first one on count no more in the files before.
    """

    def __init__(self, run_dir: str, config: Mapping[str, Any], *, publish_every_s: float = PUBLISH_EVERY_S) -> None:
        self._target = files.join(run_dir, TENSORBOARD_FOLDER)
        self._config = config
        self._publish_every_s = publish_every_s
        self._published = time.monotonic()
        self._cleanup = contextlib.ExitStack()
        self._folder = self._target
        if files.is_url(run_dir):
            self._folder = self._cleanup.enter_context(tempfile.TemporaryDirectory())
        self._writer: Any = None

    def log(self, values: Mapping[str, float], step: int) -> None:
        """See Tracker."""
        if self._writer is None:
            self._writer = self._open(first_step=step)
        for name, value in values.items():
            self._writer.add_scalar(name, value, global_step=step)
        if self._folder != self._target and time.monotonic() - self._published >= self._publish_every_s:
            self._publish()

    def close(self) -> None:
        """See Tracker."""
        with self._cleanup:
            if self._writer is not None:
                self._writer.close()
                if self._folder != self._target:
                    self._publish()

    def _open(self, *, first_step: int) -> Any:
        from tensorboardX import SummaryWriter

        # Seconds and host are in the name already; two files of one second would be one.
        suffix = f".{time.time_ns()}"
        writer = SummaryWriter(self._folder, purge_step=first_step, filename_suffix=suffix, flush_secs=30)
        text = yaml.safe_dump(dict(self._config), sort_keys=False)
        writer.add_text("settings", "\n".join(f"    {line}" for line in text.splitlines()), global_step=first_step)
        return writer

    def _publish(self) -> None:
        self._writer.flush()
        for path in Path(self._folder).iterdir():
            files.copy(path, files.join(self._target, path.name))
        self._published = time.monotonic()


class MLflowTracker:
    """A run of MLflow; numbers are sent in the background, and those that do not arrive are only warned of.

    Where a run goes on, each metric's steps that the server has already are left out.
    """

    def __init__(self, run_dir: str, config: Mapping[str, Any]) -> None:
        try:
            import mlflow
            from mlflow.entities import Param
            from mlflow.exceptions import MlflowException
        except ImportError as error:
            raise _not_installed("mlflow") from error

        self._mlflow = mlflow
        self._last_steps: dict[str, int] = {}
        try:
            self._client = mlflow.MlflowClient()

            def create() -> str:
                experiment = mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME") or "Default")
                run = self._client.create_run(experiment.experiment_id, run_name=_name(run_dir))
                params = [Param(key, str(value)) for key, value in flat(config, separator=".")]
                self._client.log_batch(run.info.run_id, params=params)
                return str(run.info.run_id)

            self._id, continues = _remembered(run_dir, "mlflow", create)
            self._client.update_run(self._id, status="RUNNING")
            if continues:
                for key in self._client.get_run(self._id).data.metrics:
                    history = self._client.get_metric_history(self._id, key)
                    self._last_steps[key] = max(metric.step for metric in history)
        except MlflowException as error:
            raise ConfigError(f"trackers: mlflow refuses the run ({error}); check MLFLOW_TRACKING_URI.") from error

    def log(self, values: Mapping[str, float], step: int) -> None:
        """See Tracker."""
        from mlflow.entities import Metric

        now_ms = time.time_ns() // 1_000_000
        metrics = [Metric(name, float(value), now_ms, step) for name, value in values.items()]
        new = [metric for metric in metrics if step > self._last_steps.get(metric.key, -1)]
        self._client.log_batch(self._id, metrics=new, synchronous=False)

    def close(self) -> None:
        """See Tracker."""
        try:
            self._mlflow.flush_async_logging()
            self._client.set_terminated(self._id)
        except self._mlflow.exceptions.MlflowException as error:
            _log.warning("mlflow: run %s could not be closed: %s", self._id, error)


class WandbTracker:
    """A run of Weights & Biases, which sends in the background.

    Where a run goes on, steps that the server has already are left out; with WANDB_MODE=offline there is no server to
    ask, and both files hold them.
    """

    def __init__(self, run_dir: str, config: Mapping[str, Any]) -> None:
        try:
            import wandb
        except ImportError as error:
            raise _not_installed("wandb") from error

        run_id, _ = _remembered(run_dir, "wandb", lambda: uuid.uuid4().hex[:16])
        self._cleanup = contextlib.ExitStack()
        folder = self._cleanup.enter_context(tempfile.TemporaryDirectory()) if files.is_url(run_dir) else run_dir
        try:
            self._run = wandb.init(id=run_id, resume="allow", name=_name(run_dir), dir=folder, config=dict(config))
        except wandb.errors.Error as error:
            raise ConfigError(f"trackers: wandb refuses the run ({error}); check WANDB_API_KEY.") from error

    def log(self, values: Mapping[str, float], step: int) -> None:
        """See Tracker."""
        if step >= self._run.step:
            self._run.log(dict(values), step=step)

    def close(self) -> None:
        """See Tracker."""
        with self._cleanup:
            self._run.finish()


_OPEN: dict[str, Callable[[str, Mapping[str, Any]], Tracker]] = {
    "tensorboard": TensorBoardTracker,
    "mlflow": MLflowTracker,
    "wandb": WandbTracker,
}


_PACKAGES = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}


def _not_installed(name: str) -> ConfigError:
    extra = "ray" if name == "tensorboard" else name
    return ConfigError(f"trackers: {name} is not installed; on every node, {how_to_install(extra)}.")


def _name(run_dir: str) -> str:
    return run_dir.rstrip("/").rsplit("/", 1)[-1]


def _remembered(run_dir: str, tracker: str, create: Callable[[], str]) -> tuple[str, bool]:
    """The run's id at a tracker, and whether it was there before."""
    path = files.join(run_dir, IDS)
    ids: dict[str, str] = files.read_json(path) if files.exists(path) else {}
    if tracker in ids:
        return ids[tracker], True
    ids[tracker] = create()
    files.write_json(path, ids)
    return ids[tracker], False
