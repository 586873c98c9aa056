"""The biotext of a protein: its properties in the paper's order, absent ones left out (Zhou et al. 2025, ProtAnno)."""

from __future__ import annotations


def biotext(name: str | None, function: str | None, subcellular_location: str | None, similarity: str | None) -> str:
    """Compose the biotext from the property columns, which stand in the order of ``shards.PROPERTIES``.

    The comments carry their labels (``FUNCTION: …``) from UniProt; the name gets its own and a full stop. An entry
    without any property has an empty biotext.
    """
    properties = (f"PROTEIN NAME: {name}." if name else None, function, subcellular_location, similarity)
    return " ".join(text for text in properties if text)
