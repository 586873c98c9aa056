"""What becomes of letters that are no residues."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import pytest

from protclip.uniprot.fasta import Record, read_records
from protclip.uniprot.residues import (
    Nucleotides,
    bare_residues,
    count_mapped,
    find_invalid_residue,
    looks_like_nucleotides,
)

pytestmark = pytest.mark.unit


def test_mapped_letters_are_counted_by_kind() -> None:
    counts = count_mapped(["mkTJ", " MK\nT* ", "MKT", "Jj*"])
    assert counts == {"lower_case": 3, "white_space": 3, "end_stop": 2, "unknown_token": 3}


@pytest.mark.parametrize("written", ["mktayiak", "MKTA YIAK*", "MK*TA", "MK-TA", "MKT.", "MKT**", "*", "mkTJ*"])
def test_users_sequences_are_read_as_fasta_is(written: str) -> None:
    (record,) = read_records(io.BytesIO(f">one\n{written}\n".encode()), "file")
    residues = bare_residues(written)
    if isinstance(record, Record):
        assert residues.upper() == record.sequence
        assert find_invalid_residue(residues) is None
    else:
        assert not residues or find_invalid_residue(residues) is not None


@pytest.mark.slow
def test_nucleotides_are_told_by_their_letters_or_by_pdbs_header(real_data: Path) -> None:
    assert looks_like_nucleotides("ACGT" * 26)
    assert looks_like_nucleotides("ACGU" * 23 + "N" * 10)
    assert not looks_like_nucleotides("ACGU" * 23 + "N" * 11)
    assert not looks_like_nucleotides("ACGT" * 25)  # a peptide may be that
    assert looks_like_nucleotides("ACG", "mol:na length:3  TRNA")
    assert not looks_like_nucleotides("ACG", "mol:protein length:3  mol:nab")
    with gzip.open(real_data / "uniprot/sequences_20000.fasta.gz") as stream:
        records = [record for record in read_records(stream, "real") if isinstance(record, Record)]  # type: ignore[arg-type]
    assert not any(looks_like_nucleotides(record.sequence, record.header.name) for record in records)


def test_one_warning_tells_of_all_nucleotides_of_an_input() -> None:
    found = Nucleotides()
    found.add("NM_1")
    assert found.warning("x.fasta").startswith("warning: x.fasta: a sequence looks like DNA or RNA (NM_1);")
    found.add("NM_2", 1233)
    assert "1,234 sequences look like DNA or RNA (the first is NM_1);" in found.warning("x.fasta")
