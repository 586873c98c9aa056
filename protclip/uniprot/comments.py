"""The comments of an entry put together as the flat file writes them, from formats that have them in parts.

FUNCTION: [Isoform 2]: First sentence. {ECO:0000269|PubMed:1}. Second sentence.
SUBCELLULAR LOCATION: Cell membrane {ECO:0000305}; Single-pass membrane protein. Nucleus. Note=By phosphorylation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from protclip.uniprot.entry import LABELS

TOPICS = {label.removesuffix(": "): field for field, label in LABELS.items()}
"""The topics that an Entry has, and their fields."""


def evidence_tag(evidence: Iterable[str]) -> str:
    """`` {ECO:…|PubMed:1, ECO:…}``, each once; empty where there is none."""
    distinct = dict.fromkeys(evidence)
    return f" {{{', '.join(distinct)}}}" if distinct else ""


def sentence(text: str, tag: str) -> str:
    """A text with its full stop, and behind it the evidence tag with its own."""
    text = text.removesuffix(".") + "."
    return f"{text}{tag}." if tag else text


class Comments:
    """The blocks of the used topics, in the entry's order."""

    def __init__(self) -> None:
        self._blocks: dict[str, list[str]] = {}

    def add(self, topic: str, molecule: str, places: Sequence[str], notes: Sequence[str]) -> None:
        """Add a block, unless nothing stands in it.

        Args:
            topic: one of TOPICS.
            molecule: the isoform or chain that it is of; empty for all.
            places: subcellular locations, with their evidence tags.
            notes: the sentences; of a subcellular location, its note.
        """
        text = " ".join(note for note in notes if note)
        if topic == "SUBCELLULAR LOCATION":
            text = " ".join([*(f"{place}." for place in places if place), *([f"Note={text}"] if text else [])])
        if text:
            whose = f"[{molecule}]: " if molecule else ""
            self._blocks.setdefault(topic, []).append(f"{topic}: {whose}{text}")

    def fields(self) -> dict[str, Any]:
        """The fields of an Entry; several blocks are joined as UniProt's exports join them."""
        return {TOPICS[topic]: "; ".join(blocks) for topic, blocks in self._blocks.items()}
