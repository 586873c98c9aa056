"""What becomes of letters that are no residues."""

from __future__ import annotations

import io

import pytest

from protclip.uniprot.fasta import Record, read_records
from protclip.uniprot.residues import bare_residues, count_mapped, find_invalid_residue

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
