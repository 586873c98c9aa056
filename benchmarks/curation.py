"""How fast curation reads UniProt, and that its memory does not grow with the file. CPU; some minutes.

    python benchmarks/curation.py            100,000 and 1,000,000 rows
    python benchmarks/curation.py --quick    20,000 and 100,000; within a minute

Generated are a TSV export and a gzip flat file in the proportions of TrEMBL: lengths, coverage, protein existence. Each
measure is a process of its own with one thread, the paths in turns; rates are of processor time, so "per core". Each
process does its work on a few rows first, so that what libraries import on first use is in no measure.

    tsv      curation's reading, sampling and writing of one input, against ``csv.reader``, the same sampling and
             ``json.dump`` of the kept rows in one loop
    dat      the same on the flat file, against its decompression alone
    memory   the peak of the first, with ten times the rows
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import multiprocessing
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from report import Claim, write_results

from protclip.protanno.blocks import cut_blocks
from protclip.protanno.reading import CurationConfig, read_unit
from protclip.uniprot.crc64 import crc64

ROWS, QUICK_ROWS = (100_000, 1_000_000), (20_000, 100_000)
WARM_UP = "warm_up"
REPEATS = 3
MAX_MEMORY_MB = 1500
DAT_SHARE = 10
"""The flat file has one entry for so many rows of the TSV."""

GENOME_ENTRIES = 50
"""Neighbours in the flat file that share organism and reference."""

COVERAGE_SHARES = (0.6211, 0.1814, 0.1182, 0.0793)
EXISTENCE_SHARES = (0.0013, 0.0057, 0.3269, 0.6661)
"""Levels 1 to 4. Both are of ProtAnno-D before sampling (Zhou et al. 2025)."""
EXISTENCE = ("Evidence at protein level", "Evidence at transcript level", "Inferred from homology", "Predicted")
COLUMNS = (
    "Entry",
    "Reviewed",
    "Entry Name",
    "Protein names",
    "Organism",
    "Organism (ID)",
    "Length",
    "Protein existence",
    "Function [CC]",
    "Subcellular location [CC]",
    "Sequence similarities",
    "Sequence",
)
TAG = "{ECO:0000256|ARBA:ARBA00004496}"
NAMES = ("Uncharacterized protein (Fragment)", "ABC transporter ATP-binding protein (EC 7.6.2.-)", "Histidine kinase")
FUNCTIONS = (
    f"FUNCTION: Catalyzes the hydrolysis of ATP coupled to the transport of solutes across the membrane {TAG}.",
    f"FUNCTION: Component of the ribosome, a large ribonucleoprotein complex responsible for the synthesis of proteins "
    f"in the cell. The small subunit binds messenger RNAs and translates the encoded message {TAG}.",
)
LOCATIONS = (
    f"SUBCELLULAR LOCATION: Cytoplasm {TAG}.",
    f"SUBCELLULAR LOCATION: Cell membrane {TAG}; Multi-pass membrane protein {TAG}.",
)
SIMILARITIES = (f"SIMILARITY: Belongs to the ABC transporter superfamily {TAG}.",)


def main() -> None:
    """Generate, measure in turns, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rows, within a minute")
    quick = parser.parse_args().quick
    small, large = QUICK_ROWS if quick else ROWS
    with tempfile.TemporaryDirectory() as folder:
        few, many, dat = (Path(folder) / name for name in ("few.tsv", "many.tsv", "entries.dat.gz"))
        write_tsv(Path(folder) / f"{WARM_UP}.tsv", 2000)
        write_dat(Path(folder) / f"{WARM_UP}.dat.gz", 200)
        write_tsv(few, small)
        write_tsv(many, large)
        write_dat(dat, large // DAT_SHARE)
        measures: dict[str, list[dict[str, float]]] = {}
        jobs = {
            "plain": (plain, many),
            "ours": (ours, many),
            "gunzip": (gunzip, dat),
            "cut": (cut, dat),
            "dat": (ours, dat),
        }
        for _ in range(REPEATS):
            for name, (work, path) in jobs.items():
                measures.setdefault(name, []).append(measured(work, path, folder))
        measures["ours, few rows"] = [measured(ours, few, folder)]

    def best(name: str) -> float:
        return min(entry["cpu_s"] for entry in measures[name])

    def peak(name: str) -> float:
        return max(entry["peak_mb"] for entry in measures[name])

    claims = [
        Claim(claim="curation_tsv_vs_plain", value=best("plain") / best("ours"), target=2.0, unit="x"),
        Claim(claim="curation_dat_vs_gunzip", value=best("gunzip") / best("dat"), target=0.5, unit="x"),
        Claim(claim="curation_memory_growth", value=peak("ours") / peak("ours, few rows"), target=1.1, unit="x"),
    ]
    size_mb = measures["gunzip"][0]["result"] / 1e6
    rates = {
        "csv.reader, sampling, json.dump": (f"{large / best('plain') / 1e3:.0f} thousand rows/s", peak("plain")),
        "curation of the TSV": (f"{large / best('ours') / 1e3:.0f} thousand rows/s", peak("ours")),
        f"curation of the TSV, {small:,} rows": ("", peak("ours, few rows")),
        "decompression of the flat file by zlib": (f"{size_mb / best('gunzip'):.0f} MB/s", peak("gunzip")),
        "its decompression and cutting into blocks by ours": (f"{size_mb / best('cut'):.0f} MB/s", peak("cut")),
        "curation of the flat file": (f"{size_mb / best('dat'):.0f} MB/s", peak("dat")),
    }
    lines = [
        f"{large:,} rows of {len(COLUMNS)} columns, {large // DAT_SHARE:,} flat-file entries ({size_mb:.0f} MB); "
        f"fastest of {REPEATS}, processor time. The peak memory has a bound of {MAX_MEMORY_MB} MB.",
        "",
        "| what | rate per core | peak memory, MB |",
        "|---|---|---|",
        *(f"| {name} | {rate} | {memory:.0f} |" for name, (rate, memory) in rates.items()),
    ]
    write_results("curation", claims, {"rows": large, "measures": measures}, "\n".join(lines), quick=quick)


def measured(work: Callable[[Path, str], int], path: Path, folder: str) -> dict[str, float]:
    """Processor time and peak memory of the work in a new process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_measure, args=(work, path, folder, theirs))
    process.start()
    result: dict[str, float] = ours.recv()
    process.join()
    return result


def _measure(work: Callable[[Path, str], int], path: Path, folder: str, answer: Any) -> None:
    work(path.with_name(WARM_UP + "".join(path.suffixes)), folder)
    started, wall = time.process_time(), time.monotonic()
    result = work(path, folder)
    answer.send(
        {
            "result": result,
            "cpu_s": time.process_time() - started,
            "wall_s": time.monotonic() - wall,
            "peak_mb": _peak_mb(),
        }
    )


def _peak_mb() -> float:
    """Of this process alone; ``ru_maxrss`` would begin with what its parent had."""
    status = Path("/proc/self/status").read_text()
    return float(status.split("VmHWM:")[1].split()[0]) / 1024


def ours(path: Path, folder: str) -> int:
    """The first step of curation, block by block: one input into sampled rows on disk; returns the rows kept."""
    with tempfile.TemporaryDirectory(dir=folder) as output:
        blocks = cut_blocks(str(path))
        return sum(read_unit(block, f"{output}/{block.ordinal}", CurationConfig()).num_kept for block in blocks)


def plain(path: Path, folder: str) -> int:
    """What one would write first: rows by column number, an unseeded draw made seeded, the kept list dumped."""
    generator = random.Random(0)
    levels = {level: number for number, level in enumerate(EXISTENCE, start=1)}
    kept = []
    with path.open(newline="") as stream:
        rows = csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        next(rows)
        for row in rows:
            coverage = (1 + bool(row[8]) + bool(row[9]) + bool(row[10])) / 4
            level = levels[row[7]]
            if coverage < 0.75 or level > 3:
                continue
            if generator.random() < coverage**0.5 / level**3:
                text = " ".join(part for part in (f"PROTEIN NAME: {row[3]}.", *row[8:11]) if part)
                kept.append({"seq": row[11], "text": text})
    with tempfile.TemporaryFile("w", dir=folder) as target:
        json.dump(kept, target)
    return len(kept)


def gunzip(path: Path, folder: str) -> int:  # noqa: ARG001
    """Decompression alone, by zlib as ``gunzip`` does it; returns the bytes."""
    num_bytes = 0
    with gzip.open(path) as stream:
        while piece := stream.read1(256 << 10):
            num_bytes += len(piece)
    return num_bytes


def cut(path: Path, folder: str) -> int:  # noqa: ARG001
    """What one process has to do of a compressed file, while others read the blocks; returns their number."""
    return sum(1 for _ in cut_blocks(str(path)))


def write_tsv(path: Path, num_rows: int) -> None:
    """An export of TrEMBL's kind."""
    with path.open("w") as target:
        target.write("\t".join(COLUMNS) + "\n")
        for accession, level, name, texts, sequence in _entries(num_rows):
            cells = (accession, "unreviewed", f"{accession}_9BACT", name, "Bacteria bacterium", "1869227")
            target.write(
                "\t".join((*cells, str(len(sequence)), EXISTENCE[level - 1], *(t or "" for t in texts), sequence))
                + "\n"
            )


def write_dat(path: Path, num_entries: int) -> None:
    """A flat file of TrEMBL's kind, which compresses as that does: references and features make up most of an entry."""
    rng = random.Random(0)
    families = [_family(rng) for _ in range(500)]
    with gzip.open(path, "wt", compresslevel=6) as target:
        for number, (accession, level, name, texts, sequence) in enumerate(_entries(num_entries)):
            if number % GENOME_ENTRIES == 0:
                genome = _genome(rng)
            domains, length = rng.sample(families, rng.randint(1, 3)), len(sequence)
            protein = f"{_letters(rng, 3)}{rng.randrange(10**7):07d}.1"
            tag = f"{{ECO:0000313|EMBL:{protein}}}"
            starts = sorted(rng.randrange(length) for _ in range(rng.randint(1, 4)))
            lines = [
                f"ID   {accession}_9BACT        Unreviewed;       {length} AA.",
                f"AC   {accession};",
                f"DT   {_date(rng)}, integrated into UniProtKB/TrEMBL.",
                f"DT   {_date(rng)}, sequence version 1.",
                f"DT   {_date(rng)}, entry version {rng.randrange(1, 60)}.",
                f"DE   SubName: Full={name.split(' (')[0]} {tag};",
                f"GN   ORFNames={_letters(rng, 4)}_{rng.randrange(10**4):05d} {tag};",
                *(line.format(tag=tag) for line in genome),
                *(f"CC   -!- {text[:70]}" + (f"\nCC       {text[70:]}" if text[70:] else "") for text in texts if text),
                "CC   ---------------------------------------------------------------------------",
                "CC   Copyrighted by the UniProt Consortium, see https://www.uniprot.org/terms",
                "CC   Distributed under the Creative Commons Attribution (CC BY 4.0) License",
                "CC   ---------------------------------------------------------------------------",
                f"DR   EMBL; {_letters(rng, 6)}{rng.randrange(10**8):08d}; {protein}; -; Genomic_DNA.",
                f"DR   AlphaFoldDB; {accession}; -.",
                *(line for family in domains for line in family),
                f"PE   {level}: {EXISTENCE[level - 1]};",
                *(
                    f"FT   DOMAIN          {start + 1}..{min(start + rng.randint(30, 200), length)}\n"
                    f'FT                   /note="{rng.choice(families)[3][19:27]}"\n'
                    f'FT                   /evidence="ECO:0000259|PROSITE:PS{rng.randrange(50000, 52000)}"'
                    for start in starts
                ),
                f"SQ   SEQUENCE   {length} AA;  {length * 110} MW;  {crc64(sequence.encode()):016X} CRC64;",
                *(
                    "     " + " ".join(sequence[j : j + 10] for j in range(i, min(i + 60, length), 10))
                    for i in range(0, length, 60)
                ),
                "//\n",
            ]  # fmt: skip
            target.write("\n".join(lines))


def _genome(rng: random.Random) -> list[str]:
    """The lines from OS to RL, which the entries of a genome share."""
    organism, taxon = f"{_letters(rng, 1)}{_letters(rng, 9).lower()} bacterium {_letters(rng, 4)}", rng.randrange(10**6)
    authors = [f"{_letters(rng, 1)}{_letters(rng, rng.randint(3, 9)).lower()} {_letters(rng, 1)}." for _ in range(24)]
    words = [_letters(rng, rng.randint(3, 10)).lower() for _ in range(12)]
    return [
        f"OS   {organism}.",
        f"OC   Bacteria; {', '.join(words[:4])}.",
        f"OX   NCBI_TaxID={taxon} {{tag}};",
        "RN   [1] {tag}",
        "RP   NUCLEOTIDE SEQUENCE [LARGE SCALE GENOMIC DNA].",
        f"RC   STRAIN={_letters(rng, 3)}{rng.randrange(10**4)} {{tag}};",
        f"RX   PubMed={rng.randrange(10**7, 10**8)}; DOI=10.1038/s{rng.randrange(10**6)};",
        *(f"RA   {', '.join(authors[i : i + 6])}," for i in range(0, 24, 6)),
        f'RT   "The genome of {organism} and its {" ".join(words[4:])}.";',
        f"RL   Submitted ({_date(rng)[3:]}) to the EMBL/GenBank/DDBJ databases.",
    ]


def _family(rng: random.Random) -> list[str]:
    """The cross-references that the members of a protein family share."""
    name = _letters(rng, 8).title()
    return [
        f"DR   InterPro; IPR{rng.randrange(50_000):06d}; {name}_dom_sf.",
        f"DR   GO; GO:{rng.randrange(160_000):07d}; F:{name.lower()} activity; IEA:InterPro.",
        f"DR   Gene3D; {rng.randrange(1, 5)}.{rng.randrange(10, 99)}.{rng.randrange(999)}.10; -; 1.",
        f"DR   Pfam; PF{rng.randrange(30_000):05d}; {name}; 1.",
    ]


def _letters(rng: random.Random, number: int) -> str:
    return "".join(rng.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=number))


def _date(rng: random.Random) -> str:
    return (
        f"{rng.randint(1, 28):02d}-{rng.choice(('JAN', 'MAR', 'MAY', 'JUN', 'SEP', 'NOV'))}-{rng.randint(2005, 2025)}"
    )


def _entries(count: int) -> Iterator[tuple[str, int, str, list[str | None], str]]:
    """(accession, existence, name, function and location and similarity, sequence), the same for each count."""
    generator = np.random.default_rng(0)
    pool = "".join(generator.choice(list("ACDEFGHIKLMNPQRSTVWY"), size=2_000_000))
    block = 10_000
    for start in range(0, count, block):
        lengths = np.clip(generator.lognormal(np.log(270), 0.7, block), 30, 5000).astype(int)
        places = generator.integers(0, len(pool) - 5000, block)
        levels = generator.choice(4, size=block, p=EXISTENCE_SHARES) + 1
        present = generator.choice(4, size=block, p=COVERAGE_SHARES)
        for i in range(min(block, count - start)):
            number = start + i
            texts = [FUNCTIONS[number % 2], LOCATIONS[number % 2], SIMILARITIES[0]]
            # Similarity is the property that TrEMBL has most often, function the rarest.
            chosen = [None] * (3 - present[i]) + texts[3 - present[i] :]
            place = places[i]
            yield f"A0A{number:07d}", int(levels[i]), NAMES[number % 3], chosen, pool[place : place + lengths[i]]


if __name__ == "__main__":
    main()
