"""ProtCLIP: function-informed protein–text pretraining and retrieval."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from protclip.errors import ProtclipError
from protclip.version import __version__

if TYPE_CHECKING:
    from protclip.embeddings.reading import Embeddings, read_embeddings
    from protclip.retrieval import Retriever
    from protclip.trained_model import ProtCLIP
    from protclip.uniprot.fasta import read_proteins

__all__ = ["Embeddings", "ProtCLIP", "ProtclipError", "Retriever", "__version__", "read_embeddings", "read_proteins"]


_MODULES = {
    "ProtCLIP": "protclip.trained_model",
    "Retriever": "protclip.retrieval",
    "read_proteins": "protclip.uniprot.fasta",
    "Embeddings": "protclip.embeddings.reading",
    "read_embeddings": "protclip.embeddings.reading",
}


def __getattr__(name: str) -> Any:
    """Load what is heavy when it is asked for: commands and data tasks start without torch."""
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'protclip' has no attribute {name!r}")
