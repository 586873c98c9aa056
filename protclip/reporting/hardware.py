"""What something was measured on, for people who compare figures."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def processor() -> str:
    """The processor's name where the system tells it, else its architecture."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def hardware() -> dict[str, str]:
    """Processor, cores, GPU and torch."""
    import torch

    gpu = {"GPU": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return {"processor": processor(), "cores": str(os.cpu_count() or 1), "torch": torch.__version__, **gpu}
