"""All that only a GPU can tell: the tests of the ring ``gpu`` and the GPU benchmarks, within eight minutes.

    python benchmarks/gpu_all.py            on one CUDA device; results files have its name
    python benchmarks/gpu_all.py --quick    the same with less of everything, for a short look
    python benchmarks/gpu_all.py --cpu      tiny shapes on this processor, to see that all of it runs; no claims

Each part is a process of its own, on a GPU with a limit; one that fails or is cut off does not keep the others from
running. The last line says what was done, and the status is that of the worst part.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import torch

FOLDER = Path(__file__).parent
PARTS: dict[str, tuple[list[str], int]] = {
    "tests": (
        [
            "-m",
            "pytest",
            "-q",
            "-m",
            "gpu",
            *(str(FOLDER.parent / "tests" / name) for name in ("data", "model", "evaluation/test_finetune.py")),
        ],
        90,
    ),
    "gpu_train_step": ([str(FOLDER / "gpu_train_step.py")], 180),
    "gpu_embed": ([str(FOLDER / "gpu_embed.py")], 110),
    "gpu_kernels": ([str(FOLDER / "gpu_kernels.py")], 100),
}
"""What is run, by Python's arguments, and for how many seconds at most."""


def main() -> None:
    """Run each part, say how it went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="less of everything")
    parser.add_argument("--cpu", action="store_true", help="tiny shapes on this processor")
    arguments = parser.parse_args()
    if not arguments.cpu and not torch.cuda.is_available():
        sys.exit("gpu_all: torch finds no CUDA device here; nothing was measured. --cpu tries tiny shapes.")
    options = [f"--{name}" for name, given in vars(arguments).items() if given]
    ends = {}
    for name, (command, limit_s) in PARTS.items():
        print(f"== {name}", flush=True)
        before = time.monotonic()
        status = run(
            [sys.executable, *command, *(options if name != "tests" else [])], None if arguments.cpu else limit_s
        )
        ends[name] = status
        print(f"== {name}: {'done' if status == 0 else f'failed ({status})'} in {time.monotonic() - before:.0f} s")
    where = "this processor, with tiny shapes" if arguments.cpu else torch.cuda.get_device_name()
    done = [name for name, status in ends.items() if status == 0]
    print(f"gpu_all on {where}: {len(done)} of {len(ends)} parts done ({', '.join(done) or 'none'})")
    sys.exit(max(ends.values()) if len(done) < len(ends) else 0)


def run(command: list[str], limit_s: int | None) -> int:
    """Its status; 124 where it took too long."""
    try:
        return abs(subprocess.run(command, timeout=limit_s, check=False).returncode)
    except subprocess.TimeoutExpired:
        return 124


if __name__ == "__main__":
    main()
