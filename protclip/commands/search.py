"""``protclip search``: ask an index with a text, a sequence, an accession, or with each of a file."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import IO

import click

from protclip.commands.answers import choose_writer, open_output
from protclip.commands.questions import one_question, questions_of_file, read_fasta, read_texts, read_vectors
from protclip.commands.sources import Source, check_vectors, index_here, index_of_server
from protclip.errors import ConfigError
from protclip.inputs import DTYPES, Dtype
from protclip.questions import COLUMNS, Answer, Coverage, Options, PartialAnswer, Question
from protclip.terminal import echo
from protclip.uniprot.residues import looks_like_a_sequence

BATCH_QUERIES = 512
"""Of a file, embedded and searched together."""
READERS = {"fasta": read_fasta, "texts": read_texts, "vectors": read_vectors}
"""The files that questions come from."""


@click.command()
@click.argument("index", required=False)
@click.option(
    "--checkpoint",
    help="Folder, name or URL of the model that made the index; --accession and --vectors need none.",
)
@click.option(
    "--server",
    "servers",
    multiple=True,
    help="URL of a server that is asked; INDEX is then the name of one of its indexes, or left out. Of several, the "
    "next where one does not answer.",
)
@click.option("--text", help="A description, such as 'FUNCTION: Hydrolyses ATP.'")
@click.option("--sequence", help="Amino acids in one-letter code.")
@click.option("--accession", help="A row of the index; its vector is the question.")
@click.option("--fasta", help="A file of sequences, plain or gzip, a path, URL or pipe: each is a question.")
@click.option("--texts", help="A file of texts, likewise, one a line.")
@click.option("--vectors", help="A folder that embed wrote, or vectors by the model of the index: HDF5, parquet, .npy.")
@click.option("-k", default=10, show_default=True, help="Answers wanted.")
@click.option("--offset", default=0, show_default=True, help="Answers to skip: the next page.")
@click.option(
    "--filter", "where", help="Search only rows that match, such as 'organism_id=9606 and (reviewed or ec=3.6)'."
)
@click.option("--min-score", type=float, help="Leave out answers with a lower cosine.")
@click.option("--exclude-self", is_flag=True, help="Leave out rows of the question's accession, sequence or text.")
@click.option("--exact", is_flag=True, help="Compare with every vector, whatever the index's size.")
@click.option(
    "--allow-partial",
    is_flag=True,
    help="Where a --server has its index in shards and some cannot be reached, take what the others find, and say so.",
)
@click.option("--columns", help=f"What is shown beside score and accession, with commas: {', '.join(COLUMNS)}.")
@click.option(
    "--output", help="File or URL for the answers: .parquet, .tsv, .csv, .json or .jsonl; - is TSV on standard output."
)
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
@click.option("--device", help="Where the model computes, such as cuda.  [default: cpu]")
@click.option("--dtype", type=click.Choice(DTYPES), help="In which it computes. Default: that of the index.")
def main(
    *,
    index: str | None,
    checkpoint: str | None,
    servers: tuple[str, ...],
    text: str | None,
    sequence: str | None,
    accession: str | None,
    fasta: str | None,
    texts: str | None,
    vectors: str | None,
    k: int,
    offset: int,
    where: str | None,
    min_score: float | None,
    exclude_self: bool,
    exact: bool,
    allow_partial: bool,
    columns: str | None,
    output: str | None,
    as_json: bool,
    device: str | None,
    dtype: Dtype | None,
) -> None:
    """Find what is nearest in the INDEX, by cosine, to a text, a sequence or an accession, or to each of a file.

    \b
        protclip search my-index --checkpoint runs/tiny/best --text "FUNCTION: Involved in oxygen transport."
        protclip search my-index --accession P69905 --exclude-self --filter "gene != HBA1"
        protclip search my-index --checkpoint runs/tiny/best --fasta new.fasta --output answers.tsv
        protclip search --server http://127.0.0.1:8000 --text "FUNCTION: Involved in oxygen transport."

    The percentile says how rare a score is: of 100 random questions, so many find nothing as near. Questions are
    embedded in the dtype of the index, on any processor. Small indexes, and what a narrow filter leaves, are searched
    exactly. docs/index.md has the language of filters. A server's key is taken from the variable PROTCLIP_KEY.
    """
    given = {"text": text, "sequence": sequence, "accession": accession}
    given |= {"fasta": fasta, "texts": texts, "vectors": vectors}
    chosen = {name: value for name, value in given.items() if value is not None}
    if len(chosen) != 1:
        raise ConfigError(f"search needs one question: give one of --{', --'.join(given)}.")
    ((asked, value),) = chosen.items()
    # What can be refused is refused before the model is loaded, which takes seconds.
    options = Options(
        k=k,
        offset=offset,
        where=where,
        min_score=min_score,
        exact=exact,
        exclude_self=exclude_self,
        columns=None if columns is None else list(dict.fromkeys(map(str.strip, columns.split(",")))),
    )
    alone = asked not in READERS
    questions = (
        one_question(Question(text=text, sequence=sequence, accession=accession))
        if alone
        else questions_of_file(value, READERS[asked])
    )
    source = _source(index, checkpoint, servers, asked, allow_partial=allow_partial, device=device, dtype=dtype)
    if vectors is not None:
        check_vectors(vectors, source, exclude_self)
    if text is not None and looks_like_a_sequence(text.strip()):
        echo(
            "search: warning: --text looks like a sequence, and is asked as a description; --sequence asks it.",
            err=True,
        )
    write = choose_writer(output, as_json=as_json, columns=options.columns, content=source.content, alone=alone)
    search_all = source.load()

    cut: list[str] = []
    partial: list[Coverage] = []
    num_hits = 0

    def answers() -> Iterator[Answer]:
        nonlocal num_hits
        remaining = iter(questions)
        while batch := list(islice(remaining, BATCH_QUERIES)):
            for answer in search_all(batch, options):
                if answer.truncated:
                    cut.append(answer.query or asked)
                if isinstance(answer, PartialAnswer):
                    partial.append(answer.partial)
                num_hits += len(answer.hits)
                yield answer

    with _opened(output) as stream:
        write(answers(), stream)
    if refused := questions.refused:
        reasons = ", ".join(f"{reason}: {count:,}" for reason, count in sorted(refused.items()))
        echo(f"search: warning: {value}: records left out: {refused.total():,} ({reasons}).", err=True)
    if questions.nucleotides.number:
        echo(f"search: {questions.nucleotides.warning(f'--{asked}' if alone else value)}", err=True)
    if not num_hits:
        echo(f"search: nothing answers: no row passes {_narrowing(options)}.", err=True)
    if partial:
        echo(
            f"search: warning: {'the answer is' if alone else f'{len(partial):,} answers are'} partial: "
            f"{_missing(partial)}",
            err=True,
        )
    if cut:
        which = "" if alone else f" ({len(cut):,} of them, the first is {cut[0]!r:.80})"
        echo(f"search: warning: a question is longer than the model sees, and was cut at the end{which}.", err=True)
    if source.note:
        echo(f"search: note: {source.note}.", err=True)


def _source(
    index: str | None,
    checkpoint: str | None,
    servers: Sequence[str],
    asked: str,
    *,
    allow_partial: bool,
    device: str | None,
    dtype: Dtype | None,
) -> Source:
    """What is asked, by the options."""
    if servers:
        local = {"--checkpoint": checkpoint, "--device": device, "--dtype": dtype}
        not_taken = [name for name, value in local.items() if value is not None]
        return index_of_server(servers, index, allow_partial=allow_partial, not_taken=not_taken)
    if allow_partial:
        raise ConfigError("--allow-partial: is for a --server; an index on this machine is whole. Leave it out.")
    if index is None:
        raise ConfigError("search needs an INDEX, or a --server that has one.")
    return index_here(index, checkpoint, asked, device=device or "cpu", dtype=dtype)


def _missing(partial: Sequence[Coverage]) -> str:
    """What was not searched for at least one of the answers."""
    shards = ", ".join(map(str, sorted({shard for one in partial for shard in one.missing_shards})))
    least = min(partial, key=lambda one: one.searched_rows)
    return (
        f"the index's shards {shards} cannot be reached, and {least.searched_rows:,} of its {least.total_rows:,} rows "
        "were searched."
    )


def _narrowing(options: Options) -> str:
    """The options that leave rows out."""
    given = {
        "filter": options.where is not None,
        "min-score": options.min_score is not None,
        "offset": options.offset > 0,
        "exclude-self": options.exclude_self,
    }
    return " and ".join(f"--{name}" for name, is_given in given.items() if is_given)


@contextlib.contextmanager
def _opened(output: str | None) -> Iterator[IO[bytes]]:
    """Standard output, or a file or URL that appears whole or not at all."""
    here = output in (None, "-")
    try:
        with contextlib.nullcontext(sys.stdout.buffer) if here else open_output(str(output)) as stream:
            yield stream
            stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        what = "standard output" if here else output
        raise ConfigError(f"{what}: the answers cannot be written there ({error}).") from error
