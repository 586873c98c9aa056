r"""Look up what unknown proteins may do: for each sequence of a FASTA file, the known descriptions that fit it best.

The known descriptions are an index of texts, made once from curated pairs, here those of ``make quickstart``:

    protclip embed quickstart/pairs --content text --checkpoint quickstart/run/best --output texts
    protclip embed quickstart/pairs --checkpoint quickstart/run/best --output proteins
    protclip index texts --queries proteins --output text-index

    python examples/annotate_sequences.py unknown.fasta --index text-index \
        --checkpoint quickstart/run/best --output annotation.tsv

The percentile says how rare a score is: at 99, one random protein in a hundred finds a description that fits it as
well. Below ``--min-percentile`` a description is left out, and a protein without any gets a row that says so: the model
has nothing to say about it. A description is a hint to look into, not a result.
"""

import argparse
import csv
import sys
from pathlib import Path

from protclip import ProtclipError, Retriever, read_proteins
from protclip.questions import Options, Question


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fasta", help="unknown proteins, plain or .gz")
    parser.add_argument("--index", required=True, help="index of texts")
    parser.add_argument("--checkpoint", required=True, help="folder, name or URL of the model that made the index")
    parser.add_argument("--output", type=Path, required=True, help="table to write (.tsv)")
    parser.add_argument("--count", type=int, default=3, help="descriptions for each protein (default: 3)")
    parser.add_argument("--min-percentile", type=float, default=50.0, help="see above (default: 50)")
    args = parser.parse_args()

    retriever = Retriever.load(args.index, checkpoint=args.checkpoint)
    questions = [
        Question(sequence=protein.sequence, name=protein.header.accession) for protein in read_proteins(args.fasta)
    ]
    answers = retriever.search_all(questions, Options(content="text", k=args.count))

    num_annotated = 0
    with args.output.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, delimiter="\t", lineterminator="\n")
        table.writerow(["protein", "score", "percentile", "described_protein", "text"])
        for answer in answers:
            hits = [hit for hit in answer.hits if hit["percentile"] is None or hit["percentile"] >= args.min_percentile]
            num_annotated += bool(hits)
            for hit in hits:
                table.writerow([answer.query, f"{hit['score']:.4f}", hit["percentile"], hit["accession"], hit["text"]])
            if not hits:
                table.writerow([answer.query, "", "", "", "nothing above the percentile"])
    print(f"{num_annotated} of {len(answers)} proteins annotated → {args.output}")


if __name__ == "__main__":
    try:
        main()
    except ProtclipError as error:
        sys.exit(f"{type(error).__name__}: {error}")
