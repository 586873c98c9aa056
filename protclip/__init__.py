"""ProtCLIP: function-informed protein–text pretraining and retrieval."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from protclip.errors import ProtclipError
from protclip.version import __version__

if TYPE_CHECKING:
    from protclip.embedding import ProtCLIP
    from protclip.index.embeddings import Embeddings, read_embeddings
    from protclip.retrieval import Retriever
    from protclip.uniprot.fasta import read_proteins

__all__ = ["Embeddings", "ProtCLIP", "ProtclipError", "Retriever", "__version__", "read_embeddings", "read_proteins"]


_MODULES = {
    "ProtCLIP": "protclip.embedding",
    "Embeddings": "protclip.index.embeddings",
    "Retriever": "protclip.retrieval",
    "read_embeddings": "protclip.index.embeddings",
    "read_proteins": "protclip.uniprot.fasta",
}


def __getattr__(name: str) -> Any:
    """Load what is heavy when it is asked for: commands and data tasks start without torch."""
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'protclip' has no attribute {name!r}")
