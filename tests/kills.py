"""Commands that are killed with SIGKILL at some moments, and given again until they are done."""

from __future__ import annotations

import contextlib
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import psutil

from protclip import files

ROOT = Path(__file__).parents[1]
COMMAND = (sys.executable, "-m", "protclip")
_ON_RAY = "from ray_jobs import pipelines; pipelines.SMALL_BYTES = -1; from protclip.__main__ import main; main()"
COMMAND_ON_RAY = (sys.executable, "-P", "-c", _ON_RAY)
"""The command where no job is small."""
NAMES = {"run": "", "node": "raylet/raylet", "worker": "ray::", "train worker": "ray::RayTrainWorker"}
"""What a victim's first argument holds: Ray's workers call themselves by what they do."""
LIKE_TROUBLE = re.compile(r"Traceback|Error|warning|\.cc:\d+|ray-project|pid=\d+", re.IGNORECASE)
"""What a good run does not write to its standard error."""
NUM_TRIES = 3
"""On a loaded machine Ray itself may not come up, which is one more interruption."""


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The driver, its Ray's node and its workers, as far as they live."""
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(process.pid)
        return [root, *root.children(recursive=True)]
    return []


def names_below(folder: str) -> set[str]:
    """The files below a folder or URL, by their paths in it."""
    if files.is_url(folder):
        fs, inner = files.filesystem(folder)
        return {str(path).removeprefix(inner).strip("/") for path in fs.find(inner)}
    # os.walk passes over folders that go while it looks.
    return {os.path.relpath(os.path.join(at, name), folder) for at, _, names in os.walk(folder) for name in names}


def is_finished(folder: str) -> bool:
    """Whether a run has written its manifest, and removed what it left on the way."""
    names = names_below(folder)
    return "manifest.json" in names and not any(name.startswith(".work/") for name in names)


def kill(victims: Sequence[psutil.Process]) -> None:
    """SIGKILL to those that live."""
    for process in victims:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def rehearse_kills(
    command: Sequence[str],
    folder: str,
    undisturbed: Callable[[str], object],
    *,
    calm: Path,
    counted: str,
    moments: Sequence[int],
    victims: Sequence[str],
    seed: int,
) -> None:
    """Kill a job of units again and again; it ends with the bytes of an undisturbed one, and leaves nothing else.

    Args:
        command: of the job, without its output.
        folder: the output, a path or URL.
        undisturbed: does the same job into the folder that it is given, in this process.
        calm: that folder.
        counted: pattern of files below the output, of which there are more while the command works.
        moments: numbers of them, one for each victim.
        victims: as of ``finish_despite_kills``.
        seed: likewise.
    """
    log = finish_despite_kills(
        [*command, "--output", folder],
        progress=lambda: sum(fnmatchcase(name, counted) for name in names_below(folder)),
        moments=moments,
        victims=victims,
        seed=seed,
        is_done=lambda: is_finished(folder),
    )
    undisturbed(str(calm))
    one, two = ({name: files.sha256(files.join(at, name)) for name in names_below(at)} for at in (folder, str(calm)))
    assert one == two
    assert set(one) == {*files.read_json(str(calm / "manifest.json"))["files"], "manifest.json"}
    print(f"{len(log)} kills, seed {seed}: {'; '.join(log)}")
    assert len(log) == len(victims)


def run_until(command: Sequence[str], is_time: Callable[[], bool]) -> tuple[subprocess.Popen[str], bool]:
    """Start the command; return when it is time (True), or when it has ended."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while process.poll() is None:
        if is_time():
            return process, True
        time.sleep(0.002)
    return process, False


def finish_despite_kills(
    command: Sequence[str],
    *,
    progress: Callable[[], int],
    moments: Sequence[int],
    victims: Sequence[str],
    seed: int,
    is_done: Callable[[], bool],
    patience_s: float = 2.0,
) -> list[str]:
    """Give the command again and again, killed as often as there are victims; says what was killed when.

    Args:
        command: what is killed.
        progress: a number that grows while the command works, over all its lives.
        moments: values of it, one for each victim; the kill comes up to 50 ms later.
        victims: ``run`` is the driver with its node and workers, ``driver`` it alone; others are in NAMES. Where there
            is no such process at the moment, the whole run is killed.
        seed: of the milliseconds.
        is_done: whether the command has nothing left to do.
        patience_s: how long a command may go on whose worker was killed: Ray does its work again.
    """
    rng = random.Random(seed)
    log = []
    for victim, moment in zip(victims, sorted(moments), strict=True):
        process, reached = run_until(command, lambda moment=moment: progress() >= moment)  # type: ignore[misc]
        if not reached:
            assert is_done(), process.communicate()[1]
            break
        time.sleep(rng.random() * 0.05)
        everything = family(process)
        chosen = everything[:1] if victim == "driver" else [one for one in everything if _is(one, victim)]
        what = victim if chosen else "run"
        if what == "run":
            chosen = everything
        kill(chosen[:1] if "worker" in what else chosen)
        log.append(f"{what} at {moment}")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0 if what == "run" else patience_s)
        kill([*everything, *family(process)])
        process.communicate()
    errors = ""
    for _ in range(NUM_TRIES):
        if not is_done():
            process, _ = run_until(command, lambda: False)
            errors = process.communicate()[1]
    assert is_done(), errors
    assert not LIKE_TROUBLE.search(errors), errors  # the last run was a good one
    return log


def _is(process: psutil.Process, victim: str) -> bool:
    with contextlib.suppress(psutil.Error):
        return NAMES[victim] in " ".join(process.cmdline()[:1])
    return False
