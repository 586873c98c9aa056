"""The biotext of a protein: its properties in the paper's order, absent ones left out (Zhou et al. 2025, ProtAnno)."""

from __future__ import annotations

import re

_TAG = r"\s*\{(?:ECO:|EI\d)[^{}]*\}"
_REFERENCE = r"(?:PubMed:|Ref\.)\d+"
# After a full stop a tag has one of its own.
_EVIDENCE = re.compile(rf"(?<=\.){_TAG}\.|{_TAG}|\s*\({_REFERENCE}(?:, {_REFERENCE})*\)|\s*\(By similarity\)")


def property_texts(
    name: str | None, function: str | None, subcellular_location: str | None, similarity: str | None
) -> tuple[str | None, ...]:
    """The text of each property, None or empty where absent, in the order of ``shards.PROPERTIES``.

    The comments carry their labels (``FUNCTION: …``) from UniProt; the name gets its own and a full stop.
    """
    return (f"PROTEIN NAME: {name}." if name else None, function, subcellular_location, similarity)


def biotext(name: str | None, function: str | None, subcellular_location: str | None, similarity: str | None) -> str:
    """Compose the biotext from the property columns, which stand in the order of ``shards.PROPERTIES``.

    An entry without any property has an empty biotext.
    """
    return " ".join(text for text in property_texts(name, function, subcellular_location, similarity) if text)


def without_evidence(text: str) -> str:
    """A text without UniProt's marks of where a statement comes from: ``{ECO:…}``, ``(PubMed:1, PubMed:2)``."""
    return _EVIDENCE.sub("", text)
