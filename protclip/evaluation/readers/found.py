"""The files of a data folder: found by any of the names that they have, and remembered by what is in them."""

from __future__ import annotations

import posixpath

from protclip import files
from protclip.errors import MissingDataError


class DataFolder:
    """A folder of benchmarks, and the files of it that one of them consists of."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.sha256: dict[str, str] = {}
        """Of each file that was given, by its path below the folder."""

    def find(self, *names: str) -> str | None:
        """The path of the first of these files that is there, plain or as ``.gz``; None where none is."""
        for name in names:
            for ending in ("", ".gz"):
                path = files.join(self.root, name + ending)
                if files.is_file(path):
                    self.sha256[posixpath.normpath(name + ending)] = files.sha256(path)
                    return path
        return None

    def need(self, *names: str) -> str:
        """As ``find``.

        Raises:
            MissingDataError: if none is there.
        """
        path = self.find(*names)
        if path is None:
            raise MissingDataError(f"{files.join(self.root, names[0])}: is not there{_others(names[1:])}.")
        return path


def _others(names: tuple[str, ...]) -> str:
    return f", nor is {' or '.join(names)}" if names else ""
