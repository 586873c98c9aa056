"""``protclip explain``: which residues of a protein a text speaks of."""

from __future__ import annotations

from dataclasses import asdict

import click
import numpy as np

from protclip.commands.startup import quick_start
from protclip.errors import ConfigError, DataError
from protclip.inputs import DTYPES, Dtype
from protclip.questions import Question
from protclip.reporting.plots import check_plot, residue_figure, save
from protclip.retrieval import Retriever
from protclip.terminal import echo, json_text
from protclip.uniprot.entry import BadEntry
from protclip.uniprot.fasta import Record, read_records
from protclip.uniprot.streams import open_stream

COLUMN_WIDTH = 60
"""Longer stretches are cut in the table."""
MAX_STRETCHES = 10
"""Rows of the table for each method; --json has every residue."""
MEANINGS = {"occlusion": "drop of the cosine when masked", "segments": "weight in PDA's segment"}


@click.command()
@click.option("--checkpoint", required=True, help="Folder, name (such as published) or URL of the model.")
@click.option("--sequence", help="Amino acids in one-letter code.")
@click.option("--fasta", help="FASTA file with the protein, plain or .gz, by path or URL.")
@click.option("--accession", help="Which protein of the FASTA file; needed if it holds several.")
@click.option("--text", required=True, help="A description, such as 'FUNCTION: Hydrolyses ATP.'")
@click.option("--window", type=int, help="Residues that occlusion masks together, an odd number. Default: 11.")
@click.option("--stride", default=1, show_default=True, help="Residues between windows: 5 is five times as fast.")
@click.option("--plot", help="Draw the numbers along the sequence: a .png, .svg or .pdf file to write.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object with every residue instead of the table.")
@click.option("--device", default="cpu", show_default=True, help="Where the model computes, such as cuda.")
@click.option("--dtype", type=click.Choice(DTYPES), help="In which it computes. Default: float32.")
def main(
    *,
    checkpoint: str,
    sequence: str | None,
    fasta: str | None,
    accession: str | None,
    text: str,
    window: int | None,
    stride: int,
    plot: str | None,
    as_json: bool,
    device: str,
    dtype: Dtype | None,
) -> None:
    """Show which residues of a protein make it match a text, according to the model.

    Occlusion masks a window of residues and measures by how much the cosine of protein and text drops. Segments are the
    weights of the residues in PDA's dynamic segment; a model trained without PDA has none. The table has the stretches
    of the strongest tenth of the residues, counted from 1.

    \b
        protclip explain --checkpoint runs/tiny/best --fasta my.fasta --accession P69905 \\
            --text "FUNCTION: Involved in oxygen transport." --plot hemoglobin.png
    """
    if (sequence is None) == (fasta is None):
        raise ConfigError("explain needs one protein: give either --sequence or --fasta.")
    if accession is not None and fasta is None:
        raise ConfigError(f"--accession {accession} names a protein of a FASTA file; give --fasta too.")
    if plot is not None:
        check_plot(plot)
    if fasta is not None:
        accession, sequence = read_protein(fasta, accession)
    assert sequence is not None

    # Made before the model is loaded, so that what is wrong with them is said at once.
    Question(text=text), Question(sequence=sequence, name=accession)
    with quick_start():
        retriever = Retriever.load(checkpoint=checkpoint, device=device, dtype=dtype)
    answer = retriever.explain(sequence, text, accession=accession, window=window, stride=stride)
    scores_by_method = {
        method: np.array(scores) for method in MEANINGS if (scores := getattr(answer, method)) is not None
    }
    if plot is not None:
        panels = {f"{method}:\n{MEANINGS[method]}": scores_R for method, scores_R in scores_by_method.items()}
        save(residue_figure(answer.residues, panels, title=f"{accession}: {text}" if accession else text), plot)
    if as_json:
        echo(json_text(asdict(answer)))
        return
    if len(answer.residues) < answer.length:
        echo(f"The model sees the first {len(answer.residues)} of {answer.length} residues.")
    echo(format_table(answer.residues, scores_by_method))
    if answer.segments is None:
        echo("The model was trained without PDA and has no segments.")


def read_protein(path: str, accession: str | None) -> tuple[str, str]:
    """Accession and sequence of a FASTA file's protein of this accession, or of the only one.

    Raises:
        ConfigError: if the file holds several and none is chosen.
        DataError: if there is no such protein, or it holds letters that are no residues.
    """
    found: Record | BadEntry | None = None
    with open_stream(path, pipes=True) as stream:
        for record in read_records(stream, path):
            name = record.accession if isinstance(record, BadEntry) else record.header.accession
            if accession not in (None, name):
                continue
            if found is not None:
                raise ConfigError(f"{path}: holds several proteins; choose one, such as --accession {name}.")
            found = record
            if accession is not None:
                break
    if found is None:
        raise DataError(
            f"{path}: holds no protein {accession!r}; an accession is the first word of a header, or the P12345 of "
            "'sp|P12345|NAME'."
        )
    if isinstance(found, BadEntry):
        raise DataError(f"{found}.")
    return found.header.accession, found.sequence


def format_table(residues: str, scores_by_method: dict[str, np.ndarray]) -> str:
    """The strongest stretches of each method as aligned columns: method, positions from 1, highest number, residues."""
    from protclip.explanation import strongest_stretches

    rows = [("method", "residues", "highest", "sequence")]
    for method, scores_R in scores_by_method.items():
        for start, end in strongest_stretches(scores_R)[:MAX_STRETCHES]:
            stretch = residues[start:end]
            if len(stretch) > COLUMN_WIDTH:
                stretch = stretch[: COLUMN_WIDTH - 1] + "…"
            rows.append((method, f"{start + 1}-{end}", f"{scores_R[start:end].max():.4f}", stretch))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        f"{name:<{widths[0]}}  {place:>{widths[1]}}  {highest:>{widths[2]}}  {letters}"
        for name, place, highest, letters in rows
    )
