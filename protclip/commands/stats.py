"""``protclip stats``: what a folder of pairs is made of, beside the published data sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from protclip import files
from protclip.reporting.plots import check_plot, composition_figure, save
from protclip.terminal import echo, json_text, printable

NAME_WIDTH = 60
"""Longer names of organisms are cut in the table; --json has them whole."""
DATASETS = {"before_sampling": "before sampling", "after_sampling": "after sampling"}
"""The keys of the composition, and what table and picture call them."""
MEASURES = {"residues": "residues of the sequence", "text_characters": "characters of the biotext"}


@click.command()
@click.argument("pairs")
@click.option("--plot", help="Draw shares and distributions: a .png, .svg or .pdf file to write.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object with everything instead of the tables.")
def main(*, pairs: str, plot: str | None, as_json: bool) -> None:
    """Describe the folder PAIRS that curate made, a path or fsspec URL.

    First come the shares of entries by property coverage R (how many of the four properties an entry has) and by
    confidence C (the level of protein existence), beside those published for ProtAnno-S and, before sampling,
    ProtAnno-D. Then lengths, properties, organisms, and what curation left out and why.

    \b
        protclip stats quickstart/pairs --plot pairs.png
    """
    if plot is not None:
        check_plot(plot)

    from protclip.protanno.statistics import pairs_statistics

    statistics = pairs_statistics(files.absolute(pairs))
    if plot is not None:
        save(_figure(statistics, pairs), plot)
    if as_json:
        echo(json_text(statistics, indent=2))
    else:
        echo(format_statistics(statistics, pairs))


def format_statistics(statistics: Mapping[str, Any], pairs: str) -> str:
    """The tables, at most 100 columns wide."""
    return "\n\n".join(
        [
            _headline(statistics, pairs),
            _composition(statistics),
            _distributions(statistics),
            _properties(statistics),
            _organisms(statistics),
            _curation(statistics["counts"]),
        ]
    )


def _headline(statistics: Mapping[str, Any], pairs: str) -> str:
    rows = statistics["rows"]
    of_all = f"{printable(pairs)}: {sum(rows.values()):,} pairs"
    return f"{of_all}\n  split   {_list(rows)}\n  status  {_list(statistics['reviewed'])}"


def _composition(statistics: Mapping[str, Any]) -> str:
    shares = _shares_by_dataset(statistics)
    coverage, existence = _categories(shares, "coverage"), _categories(shares, "existence")
    rows = [["", *(f"R={name}" for name in coverage), *(_confidence(name) for name in existence)]]
    for dataset, by_kind in shares.items():
        cells = [by_kind["coverage"].get(name, 0.0) for name in coverage]
        cells += [by_kind["existence"].get(name, 0.0) for name in existence]
        rows.append([dataset, *(f"{100 * share:.2f}" for share in cells)])
    return "% of entries by property coverage R and confidence C (Zhou et al. 2025, Figure 2 and Table 1)\n" + _table(
        rows
    )


def _distributions(statistics: Mapping[str, Any]) -> str:
    quantiles = list(statistics["residues"]["quantiles"])
    rows = [["lengths", "min", *(f"{100 * float(q):g} %" for q in quantiles[1:-1]), "max", "mean"]]
    for measure, label in MEASURES.items():
        values = statistics[measure]
        rows.append([label, *(f"{value:,}" for value in values["quantiles"].values()), f"{values['mean']:,.1f}"])
    return _table(rows)


def _properties(statistics: Mapping[str, Any]) -> str:
    total = sum(statistics["rows"].values())
    rows = [["property", "pairs", "%"]]
    for name, num in statistics["properties"].items():
        rows.append([name.replace("_", " "), f"{num:,}", f"{100 * num / total:.2f}"])
    return _table(rows)


def _organisms(statistics: Mapping[str, Any]) -> str:
    organisms, total = statistics["organisms"], sum(statistics["rows"].values())
    without = f", and {organisms['rows_without']:,} pairs without one" if organisms["rows_without"] else ""
    rows = [[f"{organisms['num']:,} organisms{without}; the most frequent:", "taxon", "pairs", "%"]]
    for row in organisms["top"]:
        name = row["organism"] or "-"
        name = name if len(name) <= NAME_WIDTH else f"{name[: NAME_WIDTH - 1]}…"
        rows.append([name, str(row["organism_id"]), f"{row['rows']:,}", f"{100 * row['rows'] / total:.2f}"])
    return _table(rows)


def _curation(counts: Mapping[str, Any]) -> str:
    rows = [["curation", "rows"], ["read", f"{counts['read']:,}"]]
    for title, key in (("quarantined", "quarantined_by_reason"), ("not sampled", "not_sampled_by_reason")):
        for reason, num in sorted(counts[key].items(), key=lambda item: -item[1]) or [("", 0)]:
            rows.append([f"{title}: {reason}".removesuffix(": "), f"{num:,}"])
    rows += [["repeated accession", f"{counts['repeated_accession']:,}"], ["kept", f"{counts['kept']:,}"]]
    return _table(rows)


def _figure(statistics: Mapping[str, Any], pairs: str) -> Any:
    shares = _shares_by_dataset(statistics)
    by_category = {
        label: {
            write(name): {dataset: by_kind[kind].get(name, 0.0) for dataset, by_kind in shares.items()}
            for name in _categories(shares, kind)
        }
        for label, kind, write in (
            ("property coverage R", "coverage", str),
            ("confidence C", "existence", lambda name: _confidence(name).removeprefix("C=")),
        )
    }
    histograms = {
        label: (statistics[measure]["histogram"]["edges"], statistics[measure]["histogram"]["counts"])
        for measure, label in MEASURES.items()
    }
    title = f"{pairs}: {sum(statistics['rows'].values()):,} pairs of {statistics['organisms']['num']:,} organisms"
    return composition_figure(by_category, histograms, title=title)


def _shares_by_dataset(statistics: Mapping[str, Any]) -> dict[str, Mapping[str, Mapping[str, float]]]:
    own = {label: statistics["composition"][key] for key, label in DATASETS.items()}
    return own | {f"{name}, published": shares for name, shares in statistics["published"].items()}


def _categories(shares: Mapping[str, Mapping[str, Mapping[str, float]]], kind: str) -> list[str]:
    return sorted({name for by_kind in shares.values() for name in by_kind[kind]})


def _confidence(level: str) -> str:
    return f"C={level}" if level.isdigit() else level


def _list(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {num:,}" for name, num in sorted(counts.items(), key=lambda item: -item[1]))


def _table(rows: Iterable[Sequence[str]]) -> str:
    """Aligned columns, the first to the left and the others to the right."""
    rows = [list(map(printable, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            [f"{row[0]:<{widths[0]}}", *(f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)
