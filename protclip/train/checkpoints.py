"""The checkpoints of a run: RUN/checkpoints/step-000000123, each a checkpoint folder whose manifest is written last.

One process writes them, in the background, while training goes on. A folder without a manifest is not there: a write
that was cut off at any moment costs the time since the checkpoint before it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from protclip import files
from protclip.config import Selection
from protclip.errors import CheckpointError, DataError, ProtclipError
from protclip.manifest import read_manifest
from protclip.model.record import KIND
from protclip.train.selection import best_first, cost, describe

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


def best(run_dir: str, selection: Selection) -> str:
    """The checkpoint of the best epoch, of equal ones the earliest.

    Raises:
        CheckpointError: if no epoch's checkpoint is there, or none has a finite measure.
    """
    costs = _costs(committed(run_dir), selection)
    if not costs:
        raise CheckpointError(f"{run_dir}: holds no checkpoint of a finished epoch; run the same command again.")
    if not (ordered := best_first(costs)):
        raise CheckpointError(
            f"{run_dir}: no epoch has a finite validation measure, so none has the {describe(selection)}; look at the "
            "validation pairs, or lower optimizer.learning_rate and start over with --fresh."
        )
    return ordered[0]


class Writer:
    """Writes checkpoints one after the other, and removes those that are not kept."""

    def __init__(self, run_dir: str, *, keep: int, selection: Selection) -> None:
        """``keep`` is the number of epochs, the best ones by ``selection``, whose checkpoints stay."""
        self.run_dir, self.keep, self.selection = run_dir, keep, selection
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
            files.remove(files.join(folder, "manifest.json"))  # an epoch's end writes the step of a moment before again
            write(folder)
            self._prune(folder)

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

    def _prune(self, written: str) -> None:
        # Later ones are damaged, and were passed over: counted among the newest, they would push out what was written.
        paths = [path for path in committed(self.run_dir) if path <= written]
        costs: dict[str, float] = {}
        for path in paths:
            with contextlib.suppress(DataError):  # of a manifest that is damaged itself
                costs |= _costs([path], self.selection)
        kept = {*paths[-NUM_NEWEST:], *best_first(costs)[: self.keep]}
        for path in set(paths) - kept:
            files.remove(files.join(path, "manifest.json"))  # first, so that half a folder is no checkpoint
            files.remove(path)


def _costs(paths: list[str], selection: Selection) -> dict[str, float]:
    """Of those that are of epochs, oldest first."""
    metrics = {path: files.read_json(files.join(path, "manifest.json")).get("metrics", {}) for path in paths}
    return {path: cost(selection, of["valid"]) for path, of in metrics.items() if "valid" in of}
