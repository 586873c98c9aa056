"""What every reader of batches is held to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set

from protclip.uniprot.batch import EntryBatch
from protclip.uniprot.entry import BadEntry, Entry


def assert_batches_hold(batches: Iterable[EntryBatch], rows: Sequence[Entry | BadEntry], structure: Set[str]) -> None:
    """The batches give the good and the bad entries that reading in full gave, and their columns are those of the good.

    Args:
        batches: of a file.
        rows: its entries, read in full.
        structure: reasons that must come out at once; entries with others may come out when they are asked for.
    """
    good: list[Entry] = []
    bad: list[BadEntry] = []
    for batch in batches:
        bad += batch.bad
        for i in range(len(batch.reviewed)):
            entry = batch.entry(i)
            if isinstance(entry, Entry):
                good.append(entry)
                columns = batch.accession(i), batch.reviewed[i], batch.existence[i], batch.num_properties[i]
                reviewed = -1 if entry.reviewed is None else int(entry.reviewed)
                assert columns == (entry.accession, reviewed, entry.existence or 0, entry.num_properties)
            else:
                assert entry.reason not in structure
                bad.append(entry)
    assert good == [row for row in rows if isinstance(row, Entry)]
    assert sorted(bad, key=lambda entry: entry.line) == [row for row in rows if isinstance(row, BadEntry)]
