"""Real entries in the shape of the REST service's JSON, made from their XML, since no real answer is at hand."""

from __future__ import annotations

from typing import Any
from xml.etree.ElementTree import Element

NAMESPACE = "{http://uniprot.org/uniprot}"
STATUS = {"Swiss-Prot": "UniProtKB reviewed (Swiss-Prot)", "TrEMBL": "UniProtKB unreviewed (TrEMBL)"}
LEVELS = ("protein level", "transcript level", "homology", "predicted", "uncertain")
TOPICS = ("function", "subcellular location", "similarity", "subunit", "tissue specificity")


def rest_entry(entry: Element) -> dict[str, Any]:
    """The JSON object of an entry, in the service's order of keys."""
    evidence = {item.get("key", ""): _evidence(item) for item in _all(entry, "evidence")}
    (sequence,) = _all(entry, "sequence")
    (organism,) = _all(entry, "organism")
    names = {name.get("type"): name.text for name in _all(organism, "name")}
    level = _all(entry, "proteinExistence")[0].get("type", "").lower()
    description = _names(_all(entry, "protein")[0], evidence)
    if sequence.get("fragment"):
        description["flag"] = "Fragment" if sequence.get("fragment") == "single" else "Fragments"
    return {
        "entryType": STATUS[entry.get("dataset", "")],
        "primaryAccession": _all(entry, "accession")[0].text,
        "uniProtkbId": _all(entry, "name")[0].text,
        "organism": {
            "scientificName": names["scientific"],
            **({"commonName": names["common"]} if "common" in names else {}),
            "synonyms": [name.text for name in _all(organism, "name") if name.get("type") == "synonym"],
            "taxonId": int(_all(organism, "dbReference")[0].get("id", "")),
        },
        "proteinExistence": next(f"{i}: {level}" for i, end in enumerate(LEVELS, 1) if level.endswith(end)),
        "proteinDescription": description,
        "genes": [_gene(gene, evidence) for gene in _all(entry, "gene")],
        "comments": [_comment(item, evidence) for item in _all(entry, "comment") if item.get("type") in TOPICS],
        "sequence": {
            "value": "".join((sequence.text or "").split()),
            "length": int(sequence.get("length", "")),
            "crc64": sequence.get("checksum"),
        },
    }


def _all(element: Element, tag: str) -> list[Element]:
    return element.findall(NAMESPACE + tag)


def _evidence(item: Element) -> dict[str, str]:
    code = {"evidenceCode": item.get("type", "")}
    for source in _all(item, "source"):
        if source.get("ref"):
            return code | {"source": "Reference", "id": f"Ref.{source.get('ref')}"}
        for reference in _all(source, "dbReference"):
            return code | {"source": reference.get("type", ""), "id": reference.get("id", "")}
    return code


def _value(element: Element, evidence: dict[str, dict[str, str]], text: str | None = None) -> dict[str, Any]:
    keys = element.get("evidence", "").split()
    found = {"value": text or " ".join((element.text or "").split())}
    return found | ({"evidences": [evidence[key] for key in keys]} if keys else {})


def _names(protein: Element, evidence: dict[str, dict[str, str]]) -> dict[str, Any]:
    def values(element: Element, tag: str) -> list[dict[str, Any]]:
        return [_value(name, evidence) for name in _all(element, tag)]

    def name(element: Element) -> dict[str, Any]:
        (full,) = values(element, "fullName")
        return {
            "fullName": full,
            "shortNames": values(element, "shortName"),
            "ecNumbers": values(element, "ecNumber"),
        }

    found: dict[str, Any] = {
        "alternativeNames": [name(element) for element in _all(protein, "alternativeName")],
        "submissionNames": [name(element) for element in _all(protein, "submittedName")],
        "cdAntigenNames": values(protein, "cdAntigenName"),
        "innNames": values(protein, "innName"),
        "contains": [_names(part, evidence) for part in _all(protein, "component")],
        "includes": [_names(part, evidence) for part in _all(protein, "domain")],
    }
    for element in _all(protein, "recommendedName"):
        found["recommendedName"] = name(element)
    for tag in ("allergenName", "biotechName"):
        for value in values(protein, tag):
            found[tag] = value
    return found


def _gene(gene: Element, evidence: dict[str, dict[str, str]]) -> dict[str, Any]:
    def values(kind: str) -> list[dict[str, Any]]:
        return [_value(name, evidence) for name in _all(gene, "name") if name.get("type") == kind]

    lists = {"synonyms": values("synonym"), "orderedLocusNames": values("ordered locus"), "orfNames": values("ORF")}
    found: dict[str, Any] = {kind: names for kind, names in lists.items() if names}
    for name in values("primary"):
        found["geneName"] = name
    return found


def _comment(comment: Element, evidence: dict[str, dict[str, str]]) -> dict[str, Any]:
    found: dict[str, Any] = {"commentType": comment.get("type", "").upper()}
    for molecule in _all(comment, "molecule"):
        found["molecule"] = molecule.text
    texts = [_value(text, evidence, (text.text or "").removesuffix(".")) for text in _all(comment, "text")]
    if comment.get("type") != "subcellular location":
        return found | {"texts": texts}
    if texts:
        found["note"] = {"texts": texts}
    found["subcellularLocations"] = [
        {
            kind: _value(parts[0], evidence, ", ".join(part.text or "" for part in parts))
            for kind in ("location", "topology", "orientation")
            if (parts := _all(place, kind))
        }
        for place in _all(comment, "subcellularLocation")
    ]
    return found
