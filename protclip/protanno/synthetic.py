"""A seeded synthetic proteome in UniProtKB's flat-file format, for trials without data.

Proteins come in families. A family has an ancestor with a residue composition and conserved motifs of its own, an
invented name, an activity and a cellular location; its members are mutated copies, in three subfamilies that differ in
one motif and in the process that the text names. A location has one targeting signal, shared by all its families. So
the sequence tells the text: motifs and composition the family, the signal the location, one motif the subfamily. The
number in a member's name, which makes each text distinct, is told by nothing.

Each entry carries a CAUTION comment that it is synthetic.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from protclip.errors import ConfigError
from protclip.hashing import hash64
from protclip.uniprot.crc64 import crc64

_RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
# Shares of the residues in Swiss-Prot, in per mille, rounded (https://web.expasy.org/docs/relnotes/relstat.html).
_BACKGROUND = (83, 14, 55, 67, 39, 71, 23, 59, 58, 97, 24, 41, 47, 39, 55, 66, 54, 69, 11, 29)
# Average residue masses in dalton; a protein has one water more.
_MASSES = {
    "A": 71.08, "C": 103.14, "D": 115.09, "E": 129.12, "F": 147.18, "G": 57.05, "H": 137.14, "I": 113.16, "K": 128.17,
    "L": 113.16, "M": 131.19, "N": 114.10, "P": 97.12, "Q": 128.13, "R": 156.19, "S": 87.08, "T": 101.10, "V": 99.13,
    "W": 186.21, "Y": 163.18,
}  # fmt: skip
_ORGANISMS = (
    ("HUMAN", "Homo sapiens (Human)", 9606),
    ("MOUSE", "Mus musculus (Mouse)", 10090),
    ("RAT", "Rattus norvegicus (Rat)", 10116),
    ("BOVIN", "Bos taurus (Bovine)", 9913),
    ("CHICK", "Gallus gallus (Chicken)", 9031),
    ("XENLA", "Xenopus laevis (African clawed frog)", 8355),
    ("DANRE", "Danio rerio (Zebrafish) (Brachydanio rerio)", 7955),
    ("DROME", "Drosophila melanogaster (Fruit fly)", 7227),
    ("CAEEL", "Caenorhabditis elegans", 6239),
    ("YEAST", "Saccharomyces cerevisiae (strain ATCC 204508 / S288c) (Baker's yeast)", 559292),
    ("SCHPO", "Schizosaccharomyces pombe (strain 972 / ATCC 24843) (Fission yeast)", 284812),
    ("NEUCR", "Neurospora crassa", 5141),
    ("ARATH", "Arabidopsis thaliana (Mouse-ear cress)", 3702),
    ("ORYSJ", "Oryza sativa subsp. japonica (Rice)", 39947),
    ("MAIZE", "Zea mays (Maize)", 4577),
    ("DICDI", "Dictyostelium discoideum (Social amoeba)", 44689),
    ("ECOLI", "Escherichia coli (strain K12)", 83333),
    ("BACSU", "Bacillus subtilis (strain 168)", 224308),
    ("MYCTU", "Mycobacterium tuberculosis (strain ATCC 25618 / H37Rv)", 83332),
    ("THET8", "Thermus thermophilus (strain ATCC 27634 / DSM 579 / HB8)", 300852),
)
# Location, its signal, and whether the signal stands at the N-terminus; in the manner of the real signals.
_LOCATIONS = (
    ("Secreted.", "MKALLLVLALLAGAASA", True),
    ("Mitochondrion matrix.", "MLSRAVRRTSRQLLRR", True),
    ("Nucleus.", "PKKKRKVGDPKRPRK", False),
    ("Cytoplasm.", "MSDEGEQTPEEAKD", True),
    ("Cell membrane; Multi-pass membrane protein.", "LLIVFFWLLAVIGGLFVLLL", False),
    ("Endoplasmic reticulum lumen.", "EEDDSTKDEL", False),
    ("Peroxisome.", "GGVNRQPASKL", False),
    ("Plastid, chloroplast stroma.", "MASSMLSSATVVTSPAQ", True),
)
_ONSETS = (
    "b",
    "br",
    "c",
    "cl",
    "d",
    "dr",
    "f",
    "g",
    "gl",
    "k",
    "l",
    "m",
    "n",
    "p",
    "pl",
    "r",
    "s",
    "st",
    "t",
    "tr",
    "v",
    "z",
)
_VOWELS = ("a", "e", "i", "o", "u", "ae", "eo")
_CODAS = ("l", "m", "n", "r", "s", "x", "th", "lt")
_ACTIVITIES = (
    ("kinase", "the phosphorylation of", "ATP", "2.7"),
    ("dehydrogenase", "the oxidation of", "NAD(+)", "1.1"),
    ("reductase", "the reduction of", "NADPH", "1.3"),
    ("hydrolase", "the hydrolysis of", "a water molecule", "3.1"),
    ("synthase", "the formation of", "magnesium", "4.2"),
    ("protease", "the cleavage of", "zinc", "3.4"),
    ("methyltransferase", "the methylation of", "S-adenosyl-L-methionine", "2.1"),
    ("isomerase", "the isomerization of", "manganese", "5.3"),
    ("acetyltransferase", "the acetylation of", "acetyl coenzyme A", "2.3"),
    ("oxidase", "the oxygenation of", "heme", "1.14"),
    ("ligase", "the ligation of", "GTP", "6.2"),
)
_SUBSTRATES = (
    "branched sugars", "long-chain fatty acids", "sterol esters", "aromatic amines", "nucleoside diphosphates",
    "peptidoglycan precursors", "aldehydes", "lysine side chains", "unfolded polypeptides", "phospholipids",
    "carotenoids", "polyamines", "cell wall glucans", "organic sulfates", "terpenes", "tRNA nucleosides",
)  # fmt: skip
_PROCESSES = (
    "stress response", "cell division", "membrane remodeling", "amino acid biosynthesis", "vesicle transport",
    "DNA repair", "carbohydrate storage", "pigment formation", "iron homeostasis", "ribosome assembly",
    "osmotic adaptation", "lipid catabolism", "spore germination", "signal relay", "cofactor recycling",
)  # fmt: skip
_EXISTENCE = ("1: Evidence at protein level", "2: Evidence at transcript level", "3: Inferred from homology")
_ALPHANUMERIC = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_ABSENT_SHARE = 0.04  # of each comment
_NUM_SUBFAMILIES = 3
_LINE_WIDTH = 75


@dataclass(frozen=True, kw_only=True, slots=True)
class _Family:
    name: str
    code: str
    activity: tuple[str, str, str, str]
    ec: str
    substrate: str
    location: tuple[str, str, bool]
    processes: Sequence[str]
    """One for each subfamily."""
    weights: Sequence[float]
    """Of the residues: the family's composition."""
    ancestor: str
    fixed: frozenset[int]
    """Positions of the ancestor's motifs, which do not mutate."""
    variable: int
    """Start of the motif that is replaced by the subfamily's own."""
    motifs: Sequence[str]
    """One for each subfamily."""


def synthetic_proteome(num_entries: int, num_families: int, seed: int) -> Iterator[str]:
    """The text of each entry, with its ``//`` line; the families take turns.

    Raises:
        ConfigError: if a number is not positive, or there are more entries than accessions.
    """
    largest = 26 * 36 * 36 * 10 * 10
    if not 0 < num_families <= num_entries <= largest:
        raise ConfigError(
            f"families={num_families}, entries={num_entries}: families must be at least 1 and at most entries, "
            f"and entries at most {largest:,}."
        )
    names = _family_names(num_families, random.Random(hash64(seed, "names")))
    families = [_family(name, random.Random(hash64(seed, "family", i))) for i, name in enumerate(names)]
    for i in range(num_entries):
        yield _entry(i, i // num_families, families[i % num_families], random.Random(hash64(seed, "entry", i)))


def _family_names(number: int, rng: random.Random) -> list[str]:
    names: dict[str, None] = {}
    while len(names) < number:
        syllables = [rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(rng.choice((2, 2, 3)))]
        names["".join(syllables) + rng.choice(_CODAS) + "in"] = None
    return [name.capitalize() for name in names]


def _family(name: str, rng: random.Random) -> _Family:
    weights = [share * rng.gammavariate(1.2, 1.0) for share in _BACKGROUND]
    length = rng.randint(60, 160)
    ancestor = rng.choices(_RESIDUES, weights, k=length)
    num_motifs = rng.choice((2, 3))
    fixed: set[int] = set()
    starts = []
    for i in range(num_motifs):
        # Each motif in its own part of the protein, so that none overlap.
        size = rng.randint(8, 12)
        start = i * length // num_motifs + rng.randint(1, max(1, length // num_motifs - size - 1))
        ancestor[start : start + size] = rng.choices(_RESIDUES, k=size)
        fixed.update(range(start, start + size))
        starts.append(start)
    activity = rng.choice(_ACTIVITIES)
    return _Family(
        name=f"{name} {activity[0]}",
        code=name[:3].upper() + rng.choice("ABCDEFGHKLMNPRSTVWXYZ"),
        activity=activity,
        ec=f"{activity[3]}.{rng.randint(1, 20)}.n{rng.randint(1, 99)}",
        substrate=rng.choice(_SUBSTRATES),
        location=rng.choice(_LOCATIONS),
        processes=rng.sample(_PROCESSES, _NUM_SUBFAMILIES),
        weights=weights,
        ancestor="".join(ancestor[:length]),
        fixed=frozenset(fixed),
        variable=rng.choice(starts),
        motifs=["".join(rng.choices(_RESIDUES, k=6)) for _ in range(_NUM_SUBFAMILIES)],
    )


def _sequence(family: _Family, subfamily: int, rng: random.Random) -> str:
    """A member: 30 to 45 % of the residues outside the motifs replaced, a few small insertions and deletions."""
    rate = rng.uniform(0.30, 0.45)
    motif = family.motifs[subfamily]
    residues: list[str] = []
    skip = 0
    for i, ancestral in enumerate(family.ancestor):
        if family.variable <= i < family.variable + len(motif):
            residues.append(motif[i - family.variable])
        elif i in family.fixed:
            residues.append(ancestral)
        elif skip:
            skip -= 1
        else:
            chance = rng.random()
            if chance < 0.01:
                skip = rng.randint(0, 3)
            elif chance < 0.02:
                residues += [ancestral, *rng.choices(_RESIDUES, family.weights, k=rng.randint(1, 4))]
            elif chance < 0.02 + rate:
                residues += rng.choices(_RESIDUES, family.weights)
            else:
                residues.append(ancestral)
    _, signal, at_start = family.location
    body = "".join(residues)
    return signal + body if at_start else "M" + body + signal


def _entry(index: int, member: int, family: _Family, rng: random.Random) -> str:
    subfamily = member % _NUM_SUBFAMILIES
    sequence = _sequence(family, subfamily, rng)
    mnemonic, organism, taxon = _ORGANISMS[rng.randrange(len(_ORGANISMS))]
    name, letter = f"{family.name} {member + 1}", "ABC"[subfamily]
    _, reaction, cofactor, _ = family.activity
    comments = {
        "FUNCTION": f"Catalyzes {reaction} {family.substrate}, with {cofactor} bound at its active site. "
        f"Takes part in {family.processes[subfamily]}.",
        "SUBCELLULAR LOCATION": family.location[0],
        "SIMILARITY": f"Belongs to the {family.name[0].lower()}{family.name[1:]} family. {letter} subfamily.",
    }
    comments = {topic: text for topic, text in comments.items() if rng.random() >= _ABSENT_SHARE}
    comments["CAUTION"] = "Synthetic entry, made by a program for trials: neither the protein nor its text is real."
    existence = rng.choices(_EXISTENCE, (50, 20, 30))[0]
    lines = [
        f"ID   {family.code + str(member + 1) + '_' + mnemonic:<24}Reviewed;{len(sequence):>12} AA.",
        f"AC   {_accession(index)};",
        f"DE   RecName: Full={name};",
        f"DE            Short={family.code.capitalize()}-{member + 1};",
        f"DE            EC={family.ec};",
        f"GN   Name={family.code.capitalize()}{member + 1};",
        *_wrap("OS   ", "OS   ", f"{organism}."),
        f"OX   NCBI_TaxID={taxon};",
    ]
    for topic, text in comments.items():
        lines += _wrap("CC   -!- ", "CC       ", f"{topic}: {text}")
    mass = round(18.02 + sum(map(_MASSES.__getitem__, sequence)))
    checksum = f"{crc64(sequence.encode()):016X}"
    lines += [
        f"PE   {existence};",
        "KW   Reference proteome.",
        f"SQ   SEQUENCE {len(sequence):>4} AA; {mass:>6} MW;  {checksum} CRC64;",
        *(
            "     " + " ".join(sequence[j : j + 10] for j in range(i, min(i + 60, len(sequence)), 10))
            for i in range(0, len(sequence), 60)
        ),
        "//\n",
    ]
    return "\n".join(lines)


def _accession(index: int) -> str:
    """A unique accession of UniProt's ten-character form, in a range that UniProt has not reached."""
    index, last = divmod(index, 10)
    index, c = divmod(index, 36)
    index, b = divmod(index, 36)
    a, first = divmod(index, 10)
    return f"Z9Z99{first}{chr(ord('A') + a)}{_ALPHANUMERIC[b]}{_ALPHANUMERIC[c]}{last}"


def _wrap(first: str, further: str, text: str) -> list[str]:
    """Lines of at most _LINE_WIDTH characters, broken at spaces."""
    lines = []
    prefix = first
    while len(prefix) + len(text) > _LINE_WIDTH:
        cut = text.rindex(" ", 0, _LINE_WIDTH - len(prefix) + 1)
        lines.append(prefix + text[:cut])
        prefix, text = further, text[cut + 1 :]
    return [*lines, prefix + text]
