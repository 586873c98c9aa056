"""The DE lines of a flat-file entry, and their text in UniProt's TSV column ``Protein names``.

RecName: Full, Short, EC; AltName: Full, …   →  Full (Short) (EC 1.2.3.4) (alternative) (its short) …
Contains: …                                  →  [Cleaved into: name (names); name]
Includes: …                                  →  [Includes: name (names); name]
Flags: Fragment                              →  (Fragment), at the end; Precursor is left out
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

_FIELD = re.compile(
    r"(?:(?:RecName|AltName|SubName): *)?(Full|Short|EC|Allergen|Biotech|CD_antigen|INN)=(.*)"
    r"|(Contains|Includes):|Flags: *(.*)"
)
_EVIDENCE = re.compile(r"\s*\{(?:ECO:|EI\d)[^{}]*\}$")
_WRAPPED_WORD = re.compile(r"(?:and|or|to)\s")

# How the kinds of names stand in parentheses.
_PARENTHESES = {
    "Full": "{}",
    "Short": "{}",
    "INN": "{}",
    "EC": "EC {}",
    "CD_antigen": "CD antigen {}",
    "Allergen": "allergen {}",
    "Biotech": "biotech {}",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ProteinNames:
    """What the DE lines say."""

    name: str | None
    """The TSV column's text."""
    display_name: str | None
    """The recommended name, or the first submitted one."""
    ec: tuple[str, ...]
    """EC numbers of the protein and its parts, each once."""


@dataclass(slots=True)
class _Names:
    """The names of the protein itself, or of one of its parts, as (kind, text)."""

    names: list[tuple[str, str]] = field(default_factory=list)

    def render(self) -> str:
        texts = [
            text if i == 0 else f"({_PARENTHESES[kind].format(text)})" for i, (kind, text) in enumerate(self.names)
        ]
        return " ".join(texts)


def parse_names(lines: Sequence[str]) -> ProteinNames:
    """Parse DE lines.

    Args:
        lines: the lines without their line code.
    """
    protein = _Names()
    parts: dict[str, list[_Names]] = {"Contains": [], "Includes": []}
    flags = ""
    current = protein
    for line in _logical_lines(lines):
        match = _FIELD.match(line)
        assert match is not None
        kind, value, section, flag_text = match.groups()
        if section is not None:
            current = _Names()
            parts[section].append(current)
        elif flag_text is not None:
            flags = flag_text
        elif text := _EVIDENCE.sub("", value.strip().removesuffix(";").rstrip()):
            current.names.append((kind, text))
    everything = [protein, *parts["Contains"], *parts["Includes"]]
    ec = dict.fromkeys(text for names in everything for kind, text in names.names if kind == "EC")
    return ProteinNames(
        name=_render(protein, parts, flags) or None,
        display_name=next((text for kind, text in protein.names if kind == "Full"), None),
        ec=tuple(ec),
    )


def unwrap(lines: Sequence[str]) -> str:
    """Undo UniProt's line wrapping: lines are joined by a space, or by nothing where a word was cut after its hyphen.

    ``alpha-`` + ``cadinene`` is one word, ``N-`` + ``and C-terminal`` two.
    """
    text: list[str] = []
    last = " "
    for raw in lines:
        line = raw.strip()
        if not line:
            continue
        cut = last.endswith("-") and last[-2:-1] not in ("", " ") and not _WRAPPED_WORD.match(line)
        if text and not cut:
            text.append(" ")
        text.append(line)
        last = line
    return "".join(text)


def _logical_lines(lines: Sequence[str]) -> list[str]:
    """One line for each field; a line that starts no field goes on with the one before, as in older releases."""
    logical: list[list[str]] = []
    for raw in lines:
        line = raw.strip()
        if _FIELD.match(line):
            logical.append([line])
        elif logical and line:
            logical[-1].append(line)
    return [unwrap(group) for group in logical]


def _render(protein: _Names, parts: dict[str, list[_Names]], flags: str) -> str:
    texts = [protein.render()]
    for section, label in (("Contains", "Cleaved into"), ("Includes", "Includes")):
        if names := [part.render() for part in parts[section] if part.names]:
            texts.append(f"[{label}: {'; '.join(names)}]")
    texts += [f"({flag})" for flag in ("Fragment", "Fragments") if re.search(rf"\b{flag}\b", flags)]
    return " ".join(filter(None, texts))
