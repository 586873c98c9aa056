"""Named arrays in files of the work folder."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protclip import files


def write_arrays(path: str, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write named arrays."""
    with files.atomic_write(path) as stream:
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        stream.write(buffer.getbuffer())


def read_arrays(path: str) -> dict[str, NDArray[Any]]:
    """Read what ``write_arrays`` wrote."""
    with files.open_read(path) as stream, np.load(io.BytesIO(stream.read())) as arrays:
        return dict(arrays)
