"""ProtCLIP: function-informed protein–text pretraining and retrieval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from protclip.errors import ProtclipError
from protclip.version import __version__

if TYPE_CHECKING:
    from protclip.embedding import ProtCLIP

__all__ = ["ProtCLIP", "ProtclipError", "__version__"]


def __getattr__(name: str) -> Any:
    """Load the model class when it is asked for: commands and data tasks start without torch."""
    if name == "ProtCLIP":
        from protclip.embedding import ProtCLIP

        return ProtCLIP
    raise AttributeError(f"module 'protclip' has no attribute {name!r}")
