"""ProtCLIP: function-informed protein–text pretraining and retrieval."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from protclip.errors import ProtclipError
from protclip.version import __version__

if TYPE_CHECKING:
    from protclip.embedding import ProtCLIP
    from protclip.embeddings.reading import Embeddings, read_embeddings

__all__ = ["Embeddings", "ProtCLIP", "ProtclipError", "__version__", "read_embeddings"]


_MODULES = {
    "ProtCLIP": "protclip.embedding",
    "Embeddings": "protclip.embeddings.reading",
    "read_embeddings": "protclip.embeddings.reading",
}


def __getattr__(name: str) -> Any:
    """Load what is heavy when it is asked for: commands and data tasks start without torch."""
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'protclip' has no attribute {name!r}")
