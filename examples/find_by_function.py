r"""Find the proteins of a FASTA file that a description fits best, and write them as a table, best first.

    python examples/find_by_function.py my.fasta "FUNCTION: Involved in oxygen transport." \
        --checkpoint quickstart/run/best --output found.tsv

The score is the cosine between the embedding of the protein and that of the description: compare scores within one
table only. Every protein is embedded each time. To ask many questions, or of many proteins, embed and index them once,
and ask the index, by ``protclip search`` or ``protclip.Retriever`` (see README).
"""

import argparse
import csv
import sys
from pathlib import Path

from protclip import ProtCLIP, ProtclipError, read_proteins


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fasta", help="proteins, plain or .gz")
    parser.add_argument("text", help="what to look for, worded like UniProt's annotation")
    parser.add_argument("--checkpoint", required=True, help="folder, name (such as published) or URL of the model")
    parser.add_argument("--output", type=Path, required=True, help="table to write (.tsv)")
    parser.add_argument("--count", type=int, default=20, help="proteins in the table (default: 20)")
    args = parser.parse_args()

    proteins = list(read_proteins(args.fasta))
    model = ProtCLIP.from_pretrained(args.checkpoint)
    protein_embeddings = model.embed_proteins([protein.sequence for protein in proteins], show_progress=True)  # (n, D)
    text_embedding = model.embed_texts(args.text)  # (D,)
    scores = protein_embeddings @ text_embedding  # both are of unit length, so these are cosines
    best = scores.argsort()[::-1][: args.count]

    with args.output.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, delimiter="\t", lineterminator="\n")
        table.writerow(["rank", "score", "accession", "name", "organism"])
        for rank, i in enumerate(best, start=1):
            header = proteins[i].header
            table.writerow([rank, f"{scores[i]:.4f}", header.accession, header.name, header.organism])
    print(f"{len(best)} of {len(proteins)} proteins → {args.output}")


if __name__ == "__main__":
    try:
        main()
    except ProtclipError as error:
        sys.exit(f"{type(error).__name__}: {error}")
