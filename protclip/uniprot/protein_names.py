"""The names of a protein: from DE lines or XML into the text of UniProt's TSV column ``Protein names``, and that back.

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
_EVIDENCE = re.compile(r"\{(?:ECO:|EI\d)[^{}]*\}")
_EC_GROUP = re.compile(r"\(EC ([^()]+)\)")
_BRACKET = re.compile(r"[()[\]]")
_OPENING = {")": "(", "]": "["}
_SECTIONS = ("[Cleaved into: ", "[Includes: ")
_FRAGMENT = re.compile(r"\bFragments?\b")
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
    """What an entry says of its names."""

    name: str | None
    """The TSV column's text."""
    display_name: str | None
    """The recommended name, or the first submitted one."""
    ec: tuple[str, ...]
    """EC numbers of the protein and its parts, each once."""


@dataclass(slots=True)
class Names:
    """The names of the protein itself, or of one of its parts."""

    names: list[tuple[str, str]] = field(default_factory=list)
    """(kind, text) in the entry's order; the kinds are those of the DE lines: Full, Short, EC, INN …"""

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
    protein = Names()
    contains: list[Names] = []
    includes: list[Names] = []
    flags = ""
    current = protein
    for match in _fields(lines):
        kind, value, section, flag_text = match.groups()
        if section is not None:
            current = Names()
            (contains if section == "Contains" else includes).append(current)
        elif flag_text is not None:
            flags = flag_text
        else:
            text = value.strip().removesuffix(";").rstrip()
            if text.endswith("}") and _EVIDENCE.fullmatch(text, start := text.rfind("{")):
                text = text[:start].rstrip()
            if text:
                current.names.append((kind, text))
    fragment = _FRAGMENT.search(flags)
    return compose_names(protein, contains, includes, fragment[0] if fragment else None)


def compose_names(
    protein: Names, contains: Sequence[Names], includes: Sequence[Names], fragment: str | None
) -> ProteinNames:
    """The TSV column's text of a protein's names.

    Args:
        protein: the protein's own names.
        contains: those of the chains that it is cleaved into.
        includes: those of its domains.
        fragment: ``Fragment`` or ``Fragments``, where the sequence is not whole.
    """
    texts = [protein.render()]
    for label, parts in (("Cleaved into", contains), ("Includes", includes)):
        if names := [part.render() for part in parts if part.names]:
            texts.append(f"[{label}: {'; '.join(names)}]")
    if fragment:
        texts.append(f"({fragment})")
    everything = [protein, *contains, *includes]
    ec = dict.fromkeys(text for names in everything for kind, text in names.names if kind == "EC")
    return ProteinNames(
        name=" ".join(filter(None, texts)) or None,
        display_name=next((text for kind, text in protein.names if kind == "Full"), None),
        ec=tuple(ec),
    )


def parse_name_cell(cell: str) -> ProteinNames:
    """Parse the TSV column's text: the groups in parentheses at its end are peeled off, what stays is the first name.

    A group that belongs to the first name is told from an alternative only where the name goes on behind it:
    ``Glycine dehydrogenase (decarboxylating) (EC 1.4.4.2)`` gives ``Glycine dehydrogenase``.
    """
    end = _end_of_first_name(cell)
    ec = dict.fromkeys(_EC_GROUP.findall(cell))
    return ProteinNames(name=cell or None, display_name=cell[:end] or None, ec=tuple(ec))


def _end_of_first_name(cell: str) -> int:
    """Where the groups begin that stand at the cell's end, each behind a name and a space."""
    end = len(cell)
    brackets = [(match.start(), match[0]) for match in _BRACKET.finditer(cell)] if cell.endswith((")", "]")) else []
    while brackets and brackets[-1][0] == end - 1 and brackets[-1][1] in _OPENING:
        close = brackets[-1][1]
        start, depth = 0, 0
        while brackets:
            start, bracket = brackets.pop()
            depth += (bracket == close) - (bracket == _OPENING[close])
            if depth == 0:
                break
        if depth or start < 2 or cell[start - 1] != " " or (close == "]" and not cell.startswith(_SECTIONS, start)):
            break
        end = start - 1
    return end


def unwrap(lines: Sequence[str]) -> str:
    """Undo UniProt's line wrapping: lines are joined by a space, or by nothing where a word was cut after its hyphen.

    ``alpha-`` + ``cadinene`` is one word, ``N-`` + ``and C-terminal`` two.
    """
    stripped = [line for line in map(str.strip, lines) if line]
    if not any(line.endswith("-") for line in stripped[:-1]):
        return " ".join(stripped)
    text: list[str] = []
    last = " "
    for line in stripped:
        cut = last.endswith("-") and last[-2:-1] not in ("", " ") and not _WRAPPED_WORD.match(line)
        if text and not cut:
            text.append(" ")
        text.append(line)
        last = line
    return "".join(text)


def _fields(lines: Sequence[str]) -> list[re.Match[str]]:
    """Each field; a line that starts none goes on with the one before, as in older releases."""
    found: list[re.Match[str]] = []
    wrapped: dict[int, list[str]] = {}
    for raw in lines:
        line = raw.strip()
        if match := _FIELD.match(line):
            found.append(match)
        elif found and line:
            wrapped.setdefault(len(found) - 1, [found[-1].string]).append(line)
    for i, group in wrapped.items():
        match = _FIELD.match(unwrap(group))
        assert match is not None
        found[i] = match
    return found
