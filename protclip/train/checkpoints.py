"""The checkpoints of a run: RUN/checkpoints/step-000000123, each a checkpoint folder whose manifest is written last.

One process writes them, in the background, while training goes on. A folder without a manifest is not there: a write
that was cut off at any moment costs the time since the checkpoint before it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from protclip import files
from protclip.errors import CheckpointError, ProtclipError
from protclip.manifest import read_manifest
from protclip.model.checkpoint import KIND

FOLDER = "checkpoints"
NUM_NEWEST = 2
"""Kept whatever they are worth: should the last be damaged, there is the one before it."""


def committed(run_dir: str) -> list[str]:
    """The finished checkpoints of a run, oldest first."""
    folder = files.join(run_dir, FOLDER)
    names = [name for name in files.list_folder(folder) if name.startswith("step-")]
    return [path for name in names if files.exists(files.join(path := files.join(folder, name), "manifest.json"))]


def newest(run_dir: str, *, tell: Callable[[str], None]) -> str | None:
    """The last checkpoint of a run that is whole, or None; every byte is compared with its checksum.

    Args:
        run_dir: of the run.
        tell: gets a line for each damaged one, which names the file.
    """
    for path in reversed(committed(run_dir)):
        try:
            read_manifest(path, KIND, verify=True, error=CheckpointError)
        except CheckpointError as error:
            tell(f"a damaged checkpoint is passed over: {error}")
        else:
            return path
    return None


def best(run_dir: str) -> str:
    """The checkpoint of the epoch of lowest validation loss.

    Raises:
        CheckpointError: if no epoch's checkpoint is there, or none has a finite loss.
    """
    losses = _losses(committed(run_dir))
    if not losses:
        raise CheckpointError(f"{run_dir}: holds no checkpoint of a finished epoch; run the same command again.")
    if not (scored := _by_loss(losses)):
        raise CheckpointError(
            f"{run_dir}: no epoch has a finite validation loss, so none is the best; look at the validation pairs, or "
            "lower optimizer.learning_rate and start over with --fresh."
        )
    return scored[0]


class Writer:
    """Writes checkpoints one after the other, and removes those that are not kept."""

    def __init__(self, run_dir: str, *, keep: int) -> None:
        """``keep`` is the number of epochs of lowest validation loss whose checkpoints stay."""
        self.run_dir, self.keep = run_dir, keep
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        finished = {path.rsplit("/", 1)[-1] for path in committed(run_dir)}
        for name in files.list_folder(files.join(run_dir, FOLDER)):
            if name not in finished:
                files.remove(files.join(run_dir, FOLDER, name))

    @property
    def busy(self) -> bool:
        """Whether one is being written."""
        return self._writing is not None and not self._writing.done()

    @property
    def error(self) -> ProtclipError | None:
        """Why the last one was not written."""
        if self._writing is None or not self._writing.done() or (cause := self._writing.exception()) is None:
            return None
        if isinstance(cause, ProtclipError):
            return cause
        return CheckpointError(
            f"a checkpoint in {files.join(self.run_dir, FOLDER)} could not be written ({cause}). Those before it are "
            "whole: mend the cause, then run the same command again, and it goes on from the last one."
        )

    def start(self, step: int, write: Callable[[str], Any]) -> None:
        """Write a checkpoint in the background; waits for the one before it.

        Args:
            step: of the run; it names the folder.
            write: makes the folder that it is given; its manifest last.

        Raises:
            ProtclipError: if the one before it was not written.
        """
        self.wait()
        folder = files.join(self.run_dir, FOLDER, f"step-{step:09d}")

        def work() -> None:
            write(folder)
            self._prune()

        self._writing = self._pool.submit(work)

    def wait(self) -> None:
        """Return when the last one is written.

        Raises:
            ProtclipError: if it was not.
        """
        if self._writing is not None:
            self._writing.exception()
        if self.error is not None:
            raise self.error

    def _prune(self) -> None:
        paths = committed(self.run_dir)
        for path in set(paths) - set(paths[-NUM_NEWEST:]) - set(_by_loss(_losses(paths))[: self.keep]):
            files.remove(files.join(path, "manifest.json"))  # first, so that half a folder is no checkpoint
            files.remove(path)


def _losses(paths: list[str]) -> dict[str, float]:
    """The validation losses of those that are of epochs."""
    losses = {
        path: files.read_json(files.join(path, "manifest.json")).get("metrics", {}).get("valid_loss") for path in paths
    }
    return {path: loss for path, loss in losses.items() if loss is not None}


def _by_loss(losses: Mapping[str, float]) -> list[str]:
    """The checkpoints whose loss is finite, the lowest first, then the earliest; NaN compares with nothing."""
    return sorted((path for path in losses if math.isfinite(losses[path])), key=lambda path: (losses[path], path))
