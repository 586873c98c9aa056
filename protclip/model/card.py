"""The model card: README.md of a checkpoint folder, in HuggingFace's form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import yaml

from protclip.model.quality import NOT_MEASURED, quality_of
from protclip.version import __version__

if TYPE_CHECKING:
    from protclip.model.dual_encoder import DualEncoder

_PAPER = "https://arxiv.org/abs/2412.20014"

_USE = """\
```python
from protclip import ProtCLIP

model = ProtCLIP.from_pretrained("path/of/this/folder")
proteins = model.embed_proteins(["MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ", "MVLSPADKTNVKAAWGKVGAHAGEYGAEALERMFLSF"])
text = model.embed_texts("FUNCTION: Hydrolyses ATP.")
scores = model.similarity(proteins, text)  # (2, 1), the logits of the contrast
```
"""

_LICENCE = """\
The software is under Apache-2.0. Weights carry the terms of what they were made from: UniProtKB is under CC BY 4.0, and
published encoders have licences of their own. The field `license` above is that of the software.
"""


def model_card(model: DualEncoder, fingerprint: str, record: Mapping[str, Any]) -> str:
    """The card's text: front matter, then use, model, data, recipe, metrics, licence.

    Args:
        model: its shape is described.
        fingerprint: of the model.
        record: what the checkpoint's manifest records; ``data`` (numbers of the pairs, and their fingerprint),
            ``run`` (settings), ``metrics``, ``official`` (an imported checkpoint) and ``source`` (where that was had
            from) are told where they are there, and said to be unknown where they are not. Paths are of one machine,
            and left out.
    """
    metrics = dict(_flat(record.get("metrics", {})))
    sections = {
        "Use": _USE,
        "Model": _model(model, fingerprint),
        "Data": _data(record),
        "Recipe": _recipe(record),
        "Metrics": _metrics(record, metrics),
        "Licence": _licence(record),
    }
    body = "\n".join(f"## {title}\n\n{text}" for title, text in sections.items())
    front = yaml.safe_dump(_front_matter(metrics), sort_keys=False, allow_unicode=True)
    title = f"# ProtCLIP\n\nProteins and descriptions of them in one space ([paper]({_PAPER}))."
    return f"---\n{front}---\n\n{title}\n\n{body}"


def _front_matter(metrics: Mapping[str, float]) -> dict[str, Any]:
    front: dict[str, Any] = {
        "library_name": "protclip",
        "license": "apache-2.0",
        "pipeline_tag": "feature-extraction",
        "tags": ["protein", "biology", "contrastive-learning", "retrieval"],
    }
    valid = {name.removeprefix("valid."): value for name, value in metrics.items() if name.startswith("valid.")}
    if valid:
        result = {
            "task": {"type": "feature-extraction", "name": "protein–text retrieval"},
            "dataset": {"type": "protanno", "name": "validation pairs of the training data"},
            "metrics": [{"type": name.rpartition(".")[2], "name": name, "value": valid[name]} for name in valid],
        }
        front["model-index"] = [{"name": "ProtCLIP", "results": [result]}]
    return front


def _model(model: DualEncoder, fingerprint: str) -> str:
    architecture = model.architecture
    rows = [
        f"| {side} | {config.model_type} | {config.num_hidden_layers} | {config.hidden_size} | "
        f"{sum(parameter.numel() for parameter in encoder.parameters()):,} | {max_tokens:,} |"
        for side, config, encoder, max_tokens in [
            ("protein", architecture.protein, model.protein_encoder, architecture.max_protein_tokens),
            ("text", architecture.text, model.text_encoder, architecture.max_text_tokens),
        ]
    ]
    table = "\n".join(
        ["| encoder | kind | layers | width | parameters | longest input, tokens |", "|---" * 6 + "|", *rows]
    )
    prefixes = ", ".join(map(str, architecture.objectives.gc_prefixes[:-1]))
    shorter = f"They were trained to be cut to {prefixes} dimensions too. " if prefixes else ""
    return (
        f"{table}\n\nEmbeddings have {architecture.projection_dim} dimensions and unit length. {shorter}"
        f"Fingerprint `{fingerprint}`, written by protclip {__version__}.\n"
    )


def _data(record: Mapping[str, Any]) -> str:
    if "official" in record:
        return "As published by the authors: ProtAnno, protein–text pairs from UniProtKB. Imported, not trained here.\n"
    if "data" not in record:
        return "Protein–text pairs curated from UniProtKB.\n" if "run" in record else "Not recorded.\n"
    about = yaml.safe_dump(_without_paths({"data": record["data"]}), sort_keys=False, allow_unicode=True)
    return f"Protein–text pairs curated from UniProtKB.\n\n```yaml\n{about}```\n"


def _recipe(record: Mapping[str, Any]) -> str:
    if "official" in record:
        return (
            f"That of the [paper]({_PAPER}). `manifest.json` lists what of the published file is not used, and why.\n"
        )
    if "run" not in record:
        return "Not recorded.\n"
    return f"```yaml\n{yaml.safe_dump(_without_paths(record['run']), sort_keys=False, allow_unicode=True)}```\n"


def _licence(record: Mapping[str, Any]) -> str:
    if "source" not in record:
        return _LICENCE
    source = record["source"]
    return (
        f"{_LICENCE}\nThe weights are those of *{source['title']}* (https://doi.org/{source['doi']}); its record "
        f"states {licence_of(source['license'])}.\n"
    )


def licence_of(stated: str | None) -> str:
    """What a record states as the licence of its files, in words."""
    return "no licence: ask its authors" if stated is None else f"the licence {stated}"


def _without_paths(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without places of one machine; a folder of published weights by its last name alone."""
    kept: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            kept[name] = _without_paths(value)
        elif isinstance(value, str) and (value.startswith(("/", "~", ".")) or "://" in value):
            if name == "pretrained":
                kept[name] = value.rstrip("/").rpartition("/")[2]
        elif name not in ("pairs", "run_dir"):
            kept[name] = value
    return kept


def _metrics(record: Mapping[str, Any], metrics: Mapping[str, float]) -> str:
    if not metrics:
        return "Not recorded.\n"
    quality = str(quality_of(record["metrics"], record.get("data")) or NOT_MEASURED)
    rows = ["| metric | value |", "|---|---|", *(f"| {key} | {value:.4g} |" for key, value in metrics.items())]
    return "\n".join([f"{quality[0].upper()}{quality[1:]}.\n", *rows]) + "\n"


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, int | float):
            yield f"{prefix}{name}", value
