r"""Draw a map of a proteome: each protein a point, near others that the model takes for similar, coloured by the
description that fits it best.

    protclip fetch-uniprot --query "proteome:UP000000625" --output ecoli.fasta.gz    # any FASTA file will do
    python examples/map_proteome.py ecoli.fasta.gz --checkpoint quickstart/run/best --output ecoli.png \
        --text "SUBCELLULAR LOCATION: Cytoplasm." \
        --text "SUBCELLULAR LOCATION: Cell inner membrane." \
        --text "SUBCELLULAR LOCATION: Secreted."

The picture is a .png, .svg or .pdf; a table of the same name (ecoli.tsv) has the coordinates. It needs matplotlib:
pip install '.[plot]', in the checkout.

The axes are the first two principal components of the embeddings. They show the large groups and hide the rest: ask an
index, not the picture, how near two proteins are.
"""

import argparse
import csv
import sys
from pathlib import Path

from protclip import ProtCLIP, ProtclipError, read_proteins
from protclip.pca import plane_of
from protclip.reporting.plots import check_plot


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fasta", help="proteins, plain or .gz")
    parser.add_argument("--text", action="append", required=True, help="a description; give two or more")
    parser.add_argument("--checkpoint", required=True, help="folder, name (such as published) or URL of the model")
    parser.add_argument("--output", type=Path, required=True, help="picture to write")
    args = parser.parse_args()

    check_plot(str(args.output))  # before the work: matplotlib is an extra
    from matplotlib.figure import Figure

    proteins = list(read_proteins(args.fasta))
    model = ProtCLIP.from_pretrained(args.checkpoint)
    embeddings = model.embed_proteins([protein.sequence for protein in proteins], show_progress=True)  # (n, D)
    best_text = (embeddings @ model.embed_texts(args.text).T).argmax(axis=1)  # (n,): place in args.text
    xy = plane_of(embeddings)  # (n, 2)

    figure = Figure(figsize=(9, 7), layout="constrained")
    axes = figure.subplots()
    for i, text in enumerate(args.text):
        mine = best_text == i
        axes.scatter(*xy[mine].T, s=9, linewidths=0, alpha=0.7, label=f"{text} ({mine.sum():,})")
    axes.set(xlabel="first principal component", ylabel="second principal component", aspect="equal")
    axes.set_title(f"{len(proteins):,} proteins of {Path(args.fasta).name}")
    figure.legend(loc="outside lower center", frameon=False, markerscale=2)
    figure.savefig(args.output, dpi=150)

    with args.output.with_suffix(".tsv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, delimiter="\t", lineterminator="\n")
        table.writerow(["accession", "name", "x", "y", "best_text"])
        for protein, (x, y), i in zip(proteins, xy, best_text, strict=True):
            table.writerow([protein.header.accession, protein.header.name, f"{x:.4f}", f"{y:.4f}", args.text[i]])
    print(f"{len(proteins)} proteins → {args.output}, {args.output.with_suffix('.tsv')}")


if __name__ == "__main__":
    try:
        main()
    except ProtclipError as error:
        sys.exit(f"{type(error).__name__}: {error}")
