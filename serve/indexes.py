"""The named indexes of a replica: new ones are loaded aside and put in place at once, while the old ones answer.

A request keeps the index with which it began; an index whose place was taken goes with its last request.
"""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import psutil

from cluster.folders import locked, private_root
from protclip import files
from protclip.errors import ConfigError, IndexMismatchError, NotFoundError
from protclip.index.index import Index, memory_bytes
from protclip.index.manifest import IndexManifest, read_index_manifest
from protclip.index.recall import probe
from protclip.inputs import Dtype
from protclip.manifest import FILE_NAME
from protclip.retrieval import Retriever
from protclip.trained_model import ProtCLIP
from serve.answers import NamedIndex, describe_index
from serve.settings import DEFAULT_INDEX, read_user_config

THRESHOLD, RAYS_SHARE = "RAY_memory_usage_threshold", 0.95
"""Above this share of a machine's memory Ray ends workers."""
LOADING = "loading"
"""The file that a replica holds while it loads an index beside others."""

logger = logging.getLogger("ray.serve")


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """An index that answers."""

    path: str
    retriever: Retriever
    created: datetime | None

    @property
    def index(self) -> Index:
        """The index itself."""
        (index,) = self.retriever.indexes.values()
        return index


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """What a replica says of its indexes to whoever changes them."""

    model: str
    """Fingerprint."""
    paths: Mapping[str, str]
    """Of the indexes that answer, by name."""
    fingerprints: Mapping[str, str]
    refused: str | None
    """Why the last change was refused; None where it was not."""
    told: object
    """The ``user_config`` that it was told last."""
    changing: bool
    """Whether it has not done yet as it was told."""


class Indexes:
    """The indexes of one model, by name."""

    def __init__(self, model: ProtCLIP, *, dtype: Dtype | None) -> None:
        """Without any; ``change`` brings them.

        Args:
            model: that made them.
            dtype: of the model that made each of them; None for any.
        """
        self.model = model
        self.refused: Exception | None = None
        """Why the last change was refused."""
        self._dtype = dtype
        self._served: Mapping[str, Served] = {}  # replaced as a whole, so that readers need no lock

    def retriever(self, name: str) -> Retriever:
        """Model and index for a request, which keeps them to its end.

        Raises:
            NotFoundError: naming those that there are.
        """
        served = self._served.get(name)
        if served is None:
            there = ", ".join(map(repr, self._served))
            raise NotFoundError(f"index {name!r:.80}: is not served; there are {there}.")
        return served.retriever

    def dimension(self, name: str) -> int:
        """Width of an index's vectors; raises NotFoundError as ``retriever``."""
        self.retriever(name)
        return self._served[name].index.manifest.dimension

    def load(self, given: object) -> None:
        """Load the indexes that ``given`` names and that are not served, then put all that it names in place at once.

        Args:
            given: as ``user_config`` has it (``serve.settings.UserConfig``).

        Raises:
            ProtclipError: if it names none, or one is damaged or another model's; nothing is changed then.
        """
        named = read_user_config(given).indexes
        loaded = {name: self._load(name, path) for name, path in self._new(named).items()}
        self._served = {name: loaded.get(name) or self._served[name] for name in named}
        gc.collect()
        gc.freeze()  # what was loaded stays, and need not be looked through

    def check(self, given: object) -> None:
        """Refuse what ``load`` would refuse, as far as manifests say, and what there is no memory for.

        Raises:
            ProtclipError: as ``load``.
            ConfigError: where the new indexes do not fit beside all that is loaded.
        """
        new = self._new(read_user_config(given).indexes)
        needed, free = sum(memory_bytes(self._manifest(name, path)) for name, path in new.items()), free_bytes()
        if needed > free:
            raise ConfigError(
                f"{' and '.join(new.values())}: {needed / 1e9:.2f} GB are needed beside what is loaded, and "
                f"{free / 1e9:.2f} GB are free for it on this machine; an old index goes only when the new one "
                "answers. Make room, or start another server with it elsewhere."
            )

    def change(self, given: object) -> None:
        """``check`` and ``load``; where one fails the old indexes go on answering, and ``refused`` says why.

        The replicas of a machine take turns, so that there is one index more at a time.
        """
        try:
            with locked(private_root() / LOADING):
                self.check(given)
                self.load(given)
            self.refused = None
        except Exception as error:  # whatever it is, this replica answers as before
            self.refused = error
            logger.error("the change of the indexes was refused: %s: %s", type(error).__name__, error)

    def describe(self) -> list[NamedIndex]:
        """The indexes, ``default`` first, where there is one."""
        names = sorted(self._served, key=lambda name: name != DEFAULT_INDEX)
        return [describe_index(name, self._served[name].index.manifest, self._served[name].created) for name in names]

    def state(self, *, told: object, changing: bool) -> State:
        """What whoever changes them wants to know."""
        served = self._served
        return State(
            model=self.model.fingerprint,
            paths={name: one.path for name, one in served.items()},
            fingerprints={name: one.index.fingerprint for name, one in served.items()},
            refused=None if self.refused is None else f"{type(self.refused).__name__}: {self.refused}",
            told=told,
            changing=changing,
        )

    def _new(self, named: Mapping[str, str]) -> dict[str, str]:
        served = self._served
        return {name: path for name, path in named.items() if name not in served or served[name].path != path}

    def _manifest(self, name: str, path: str) -> IndexManifest:
        manifest = read_index_manifest(path)
        manifest.check_model(self.model.fingerprint, path)
        if self._dtype not in (None, manifest.dtype):
            raise IndexMismatchError(
                f"index {name!r}: {path} was made in {manifest.dtype}, and the model computes in {self._dtype} here; "
                "embed and index again in that, or start a server for it alone."
            )
        return manifest

    def _load(self, name: str, path: str) -> Served:
        self._manifest(name, path)  # cheaper than to find out afterwards
        index = Index.load(path, expect_fingerprint=self.model.fingerprint)
        probe(index)
        created = files.modified(files.join(path, FILE_NAME))
        return Served(path=path, retriever=Retriever(self.model, index), created=created)


def free_bytes() -> int:
    """Memory that an index may take on this machine, or in this container, before Ray ends workers for want of it."""
    from ray._common.utils import get_system_memory
    from ray._private.utils import get_used_memory

    share = float(os.environ.get(THRESHOLD, RAYS_SHARE))
    used: int = get_used_memory()  # type: ignore[no-untyped-call]
    return max(0, min(int(share * get_system_memory()) - used, int(psutil.virtual_memory().available)))
